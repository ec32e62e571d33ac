"""What a quantisation makes of each tensor, and the bytes that come of it.

A name like Q4_K_M is a mixture: llama.cpp gives some tensors more bits, by rules that depend on layer, experts and
architecture. These are its rules (`src/llama-quant.cpp`: `tensor_allows_quantization`, `llama_tensor_get_type_impl`,
`tensor_type_fallback`; in the release that the engine is built from, pypi:xllamacpp 2026.10.11549) for the kinds named
here, without an importance matrix. Who quantises otherwise gets another size: the bytes are marked computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.catalog.curated.layout import Header, Tensor, size
from core.keeper.gguf import TYPES

BASE = {
    "F32": "F32", "F16": "F16", "BF16": "BF16", "Q8_0": "Q8_0", "Q6_K": "Q6_K", "Q5_K_M": "Q5_K", "Q5_K_S": "Q5_K",
    "Q4_K_M": "Q4_K", "Q4_K_S": "Q4_K", "Q4_0": "Q4_0", "Q3_K_M": "Q3_K", "Q2_K": "Q2_K", "IQ4_XS": "IQ4_XS",
    "MXFP4": "MXFP4",
}  # fmt: skip
"""The type of most tensors, by quantisation."""
FALLBACK = {"IQ4_XS": "IQ4_NL", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""For rows that aren't whole blocks."""
BLOCKS = {name: (weights, length) for name, weights, length in TYPES.values()}
VALUES = ("attn_v", "attn_qkv", "attn_kv_b")
"""The values of attention, which suffer most from few bits."""
_LAYER = re.compile(r"blk\.(\d+)\.")
_WHOLE = ("_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "token_types.weight")
"""Matrices that are never quantised; one-dimensional tensors and biases aren't either."""


def typed(header: Header, found: Sequence[Tensor], quantization: str) -> list[tuple[str, str, tuple[int, ...], int]]:
    """(name, type, dimensions, bytes) of each tensor. Raises `KeyError` for a quantisation without a rule."""
    base = BASE[quantization]
    tied = not any(name == "output.weight" for name, _ in found)
    rules = _Rules(header, quantization, tied, sum(_part(name) in VALUES for name, _ in found))
    out = []
    for name, dims in found:
        if len(dims) < 2 or name.endswith(_WHOLE) or not name.endswith(".weight"):
            kind = "F32"
        elif base in ("F32", "F16", "BF16"):
            kind = base
        else:
            kind = _fitting(rules.kind(name, dims), dims[0])
        out.append((name, kind, dims, bytes_of(kind, dims)))
    return out


def bytes_of(kind: str, dims: tuple[int, ...]) -> int:
    weights, length = BLOCKS[kind]
    return size(dims) // weights * length


def _part(name: str) -> str:
    """`attn_v` of `blk.3.attn_v.weight`."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _fitting(kind: str, row: int) -> str:
    if row % BLOCKS[kind][0]:
        kind = FALLBACK.get(kind, "F16")
    return kind if row % BLOCKS[kind][0] == 0 else "F16"


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


class _Rules:
    """The rules for one file; they count, so tensors come in the file's order."""

    def __init__(self, header: Header, quantization: str, tied: bool, values: int) -> None:
        self.quantization, self.base, self.tied = quantization, BASE[quantization], tied
        self.layers, self.experts = int(header["block_count"]), int(header.get("expert_count", 0))
        heads = int(header["attention.head_count"])
        self.per_key = heads // int(header.get("attention.head_count_kv", heads))
        self.large = self.layers == 80 and header["architecture"] in ("llama", "qwen2") and self.per_key > 1
        self.values, self.value = values, 0

    def kind(self, name: str, dims: tuple[int, ...]) -> str:
        part = _part(name)
        if part == "output" or (self.tied and part == "token_embd"):
            if self.quantization == "MXFP4" or dims[0] % BLOCKS[self.base][0] or self.base == "Q8_0":
                return "Q8_0"
            return "Q6_K"
        if self.quantization == "MXFP4":
            return "MXFP4" if len(dims) > 2 else "Q8_0"
        if part in VALUES:
            self.value += 1
            return self._of_values(self.value - 1)
        if part == "attn_k":
            return "Q8_0" if self.experts == 8 else self.base
        if part.startswith("ffn_down"):
            found = _LAYER.match(name)
            return self._down(int(found[1]) if found else 0)
        if part == "attn_output":
            if self.experts == 8:
                few = self.quantization in ("Q2_K", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_XS")
                return "Q5_K" if few else self.base
            return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K"}.get(self.quantization, self.base)
        return self.base

    def _of_values(self, at: int) -> str:
        kind, few = self.base, self.quantization
        if few == "Q2_K":
            kind = "Q4_K" if self.per_key >= 4 else "Q3_K"
        elif few == "Q3_K_M":
            kind = "Q5_K" if at < 2 else "Q4_K"
        elif few == "IQ4_XS" and self.per_key >= 4:
            kind = "Q5_K"
        elif few in ("Q4_K_M", "Q5_K_M") and _more_bits(at, self.values):
            kind = "Q6_K"
        elif few == "Q4_K_S" and at < 4:
            kind = "Q5_K"
        if self.large and kind in ("Q3_K", "Q4_K"):
            kind = "Q5_K"
        return "Q8_0" if self.experts == 8 else kind

    def _down(self, layer: int) -> str:
        few = self.quantization
        if few == "Q2_K":
            return "Q3_K"
        if few == "Q3_K_M":
            return "Q5_K" if layer < self.layers // 16 else "Q4_K"
        if few in ("Q4_K_M", "Q5_K_M") and _more_bits(layer, self.layers):
            return "Q6_K"
        if few in ("Q4_K_S", "IQ4_XS") and layer < self.layers // 8:
            return "Q5_K"
        return self.base
