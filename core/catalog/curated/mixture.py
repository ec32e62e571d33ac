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
_LAYER = re.compile(r"blk\.(\d+)\.")
_WHOLE = ("_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "token_types.weight")
"""Matrices that are never quantised; one-dimensional tensors and biases aren't either."""


def typed(header: Header, found: Sequence[Tensor], quantization: str) -> list[tuple[str, str, tuple[int, ...], int]]:
    """(name, type, dimensions, bytes) of each tensor. Raises `KeyError` for a quantisation without a rule."""
    base = BASE[quantization]
    tied = not any(name == "output.weight" for name, _ in found)
    layers = int(header["block_count"])
    experts = int(header.get("expert_count", 0))
    values = [name for name, _ in found if _is_value(name)]
    out = []
    seen = 0
    for name, dims in found:
        if len(dims) < 2 or not name.endswith(".weight") or name.endswith(_WHOLE):
            kind = "F32"
        elif base in ("F32", "F16", "BF16"):
            kind = base
        else:
            kind = _kind(header, name, dims, quantization, tied, layers, experts, seen, len(values))
            kind = _fitting(kind, dims[0])
        seen += _is_value(name)
        out.append((name, kind, dims, bytes_of(kind, dims)))
    return out


def bytes_of(kind: str, dims: tuple[int, ...]) -> int:
    weights, length = BLOCKS[kind]
    return size(dims) // weights * length


def _is_value(name: str) -> bool:
    """Of the values of attention, which suffer most from few bits."""
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _fitting(kind: str, row: int) -> str:
    if row % BLOCKS[kind][0]:
        kind = FALLBACK.get(kind, "F16")
    return kind if row % BLOCKS[kind][0] == 0 else "F16"


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _kind(
    header: Header, name: str, dims: tuple[int, ...], quantization: str, tied: bool, layers: int, experts: int,
    value: int, values: int,
) -> str:  # fmt: skip
    """`value` is how many tensors of the values came before, of `values`."""
    base = BASE[quantization]
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        if quantization == "MXFP4" or dims[0] % BLOCKS[base][0] or base == "Q8_0":
            return "Q8_0"
        return "Q6_K"
    if quantization == "MXFP4":
        return "MXFP4" if len(dims) > 2 else "Q8_0"
    found = _LAYER.match(name)
    layer = int(found[1]) if found else 0
    if _is_value(name):
        shared = int(header.get("attention.head_count_kv", header["attention.head_count"]))
        return _value(header, quantization, base, int(header["attention.head_count"]) // shared, layers, experts,
                      value, values)  # fmt: skip
    if "attn_k.weight" in name:
        return "Q8_0" if experts == 8 else base
    if "ffn_down" in name:
        return _down(quantization, base, layer, layers)
    if "attn_output.weight" in name:
        if experts == 8:
            return "Q5_K" if quantization in ("Q2_K", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_XS") else base
        return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K"}.get(quantization, base)
    return base


def _value(
    header: Header, quantization: str, base: str, per_key: int, layers: int, experts: int, at: int, of: int
) -> str:  # fmt: skip
    kind = base
    if quantization == "Q2_K":
        kind = "Q4_K" if per_key >= 4 else "Q3_K"
    elif quantization == "Q3_K_M":
        kind = "Q5_K" if at < 2 else "Q4_K"
    elif quantization == "IQ4_XS" and per_key >= 4:
        kind = "Q5_K"
    elif quantization in ("Q4_K_M", "Q5_K_M") and _more_bits(at, of):
        kind = "Q6_K"
    elif quantization == "Q4_K_S" and at < 4:
        kind = "Q5_K"
    if layers == 80 and header["architecture"] in ("llama", "qwen2") and per_key > 1 and kind in ("Q3_K", "Q4_K"):
        kind = "Q5_K"
    return "Q8_0" if experts == 8 else kind


def _down(quantization: str, base: str, layer: int, layers: int) -> str:
    if quantization == "Q2_K":
        return "Q3_K"
    if quantization == "Q3_K_M":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if quantization in ("Q4_K_M", "Q5_K_M") and _more_bits(layer, layers):
        return "Q6_K"
    if quantization in ("Q4_K_S", "IQ4_XS") and layer < layers // 8:
        return "Q5_K"
    return base
