"""From a file's header to what sizing needs to know of the model."""

from __future__ import annotations

import platform
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from core.catalog.architectures import (
    ANOTHER,
    DELTA,
    ENCODERS,
    KNOWN,
    RECURRENT,
    SHORTCONV,
    Header,
    nodes,
    row_bytes,
    shares,
    state_bytes,
    states,
    window,
)
from core.errors import BadModel
from core.keeper import gguf
from core.nouns import ModelShape

REPACKED = {
    "x86_64": frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4", "Q2_K"}),
    "aarch64": frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0", "Q1_0"}),
}
"""Types of which the CPU backend makes a copy in its own order, by machine: ggml_repack_get_optimal_repack_type of
ggml/src/ggml-cpu/repack.cpp, with AVX2 (Q2_K: AVX512) or NEON."""
ARCH = re.compile(r"[A-Za-z0-9_.-]{1,64}")
BLOCK = re.compile(r"blk\.(\d+)\.(.*)")
EXPERTS = re.compile(r"ffn_(up|down|gate|gate_up)_(ch|)exps")
"""What --n-cpu-moe keeps in the host: LLM_FFN_EXPS_REGEX of common/common.h."""
OUTPUT = ("output.weight", "per_layer_model_proj.weight")
"""Matrices outside the layers."""
TOKEN_BYTES, MERGE_BYTES, NODE_BYTES = 233, 279, 1090
"""Of a vocabulary in memory, and of a node that a graph may have (llama_context::graph_max_nodes): measured with 8,192
to 262,144 tokens, with the 48,900 merges of the sample, and with 1,024 to 20,480 nodes."""
UNKNOWN = 0.5
"""By how much all but the weights of an unknown architecture are raised."""
KINDS = {
    "projector": "a projector of pictures or sound", "adapter": "an adapter (LoRA)",
    "control vector": "a control vector", "importance matrix": "an importance matrix",
}  # fmt: skip
"""In words, what core.keeper.gguf.kind calls so."""
NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""llama.cpp's general.file_type: `enum llama_ftype` of include/llama.h."""


def shape_of(headers: Sequence[dict[str, Any]]) -> ModelShape:
    """The shape of a model from the headers of all its parts. Raises `BadModel`."""
    meta = headers[0]["metadata"]
    tensors = [tensor for header in headers for tensor in header["tensors"]]
    names = [tensor[0] for tensor in tensors]
    if len(set(names)) != len(names):
        raise BadModel("the parts hold the same tensor twice", "they are not parts of one model")
    head = Header(meta, _runnable(headers))
    number = head.number
    n_layer, n_embd = number("block_count"), number("embedding_length")
    if not 0 < n_layer <= 4096 or not n_embd:
        raise BadModel("the header has absurd counts", f"{n_layer} layers of width {n_embd}", ANOTHER)
    each_head = head.layers("attention.head_count", n_layer, 1)
    n_head = max(each_head)
    heads = head.layers("attention.head_count_kv", n_layer, n_head)
    if max(heads) > 1 << 16 or not (n_head or head.arch in RECURRENT or head.arch not in KNOWN):
        raise BadModel("the header has absurd counts", f"{n_head} heads, {max(heads)} of keys and values", ANOTHER)
    feeds = head.layers("feed_forward_length", n_layer, 4 * n_embd)
    with_state = states(head, n_layer, heads, feeds)
    n_swa, slides = window(head, n_layer)
    shared = shares(head, n_layer)
    only_state = with_state if head.arch in DELTA or head.arch in RECURRENT else (False,) * n_layer
    kept = tuple(0 if only or n >= shared else kv for n, (kv, only) in enumerate(zip(heads, only_state, strict=True)))
    tokens, merges = (meta.get(f"tokenizer.ggml.{key}") for key in ("tokens", "merges"))
    n_vocab = number("vocab_size", tokens["count"] if isinstance(tokens, dict) else _vocab(tensors))
    n_merges = merges["count"] if isinstance(merges, dict) else 0
    key_length = number("attention.key_length", n_embd // max(1, n_head))
    value_length = number("attention.value_length", n_embd // max(1, n_head))
    latent = head.arch in KNOWN and bool(head.get("attention.key_length_mla"))
    weights = _weights(headers, n_layer, head.arch in ENCODERS)
    known = head.arch in KNOWN
    return ModelShape(
        arch=head.arch,
        n_layer=n_layer,
        n_embd=n_embd,
        n_ff=max(feeds),
        n_head=n_head,
        n_head_kv=kept,
        key_length=key_length,
        value_length=0 if latent else value_length,
        key_length_swa=number("attention.key_length_swa", 0),
        value_length_swa=number("attention.value_length_swa", 0),
        n_vocab=n_vocab,
        ctx_train=number("context_length", 0),
        n_swa=n_swa,
        swa_layers=slides,
        n_params=sum(_count(tensor[2]) for tensor in tensors),
        tensor_bytes=sum(tensor[3] for tensor in tensors),
        n_expert=number("expert_count", 0),
        quantization=_quantization(meta, tensors),
        chat_template=isinstance(meta.get("tokenizer.chat_template"), str),
        state_bytes=state_bytes(head, n_embd, n_head) if any(with_state) else 0,
        state_layers=with_state,
        cache=head.arch not in ENCODERS,
        compute_row=row_bytes(
            head, n_embd=n_embd, n_ff=max(feeds), n_head=n_head, key_length=key_length,
            gated=_gated(tensors, max(feeds)),
            dense=any("ffn_up.weight" in name or "ffn_gate_up.weight" in name for name in names),
        ),
        base_bytes=TOKEN_BYTES * n_vocab + MERGE_BYTES * n_merges + NODE_BYTES * nodes(head.arch, len(tensors)),
        margin=0.0 if known else UNKNOWN,
        open_questions=() if known else (_unknown(head.arch),),
        vendor_math=_floats(tensors) or (any(with_state) and head.arch not in SHORTCONV),
        **weights,
    )  # fmt: skip


def _unknown(arch: str) -> str:
    return (
        f"architecture {arch:.40} is unknown to sizing: what it takes beside its weights is a bound, {UNKNOWN:.0%}"
        " above what its header lets one expect"
    )


def _weights(headers: Sequence[dict[str, Any]], n_layer: int, encoder: bool) -> dict[str, Any]:
    """Where the bytes of the weights lie: by layer, in experts, in the output, mapped and copied (repacked)."""
    layer, experts, repack, widest = [0] * n_layer, [0] * n_layer, [0] * n_layer, 0
    names = {tensor[0] for header in headers for tensor in header["tensors"]}
    tied = "output.weight" not in names and not encoder
    kinds = REPACKED.get(platform.machine(), REPACKED["x86_64"])
    output = output_repack = mapped = ahead = 0
    for header in headers:
        before = last = 0
        first = None
        for name, kind, dims, size in header["tensors"]:
            place = BLOCK.fullmatch(name)
            block = int(place[1]) if place else n_layer
            expert = bool(EXPERTS.search(name))
            # Of a tied embedding the output has a copy, and the embedding stays as it is; an encoder has no output.
            scores = name in OUTPUT or (tied and name == "token_embd.weight")
            fits = kind in kinds and len(dims) == (3 if expert else 2) and not dims[1] % 8
            copied = size if fits and (block < n_layer or scores) else 0
            if block < n_layer:
                layer[block] += size
                experts[block] += size if expert else 0
                repack[block] += copied
                widest = max(widest, size)
            elif scores or name.startswith("output"):
                output += size
                output_repack += copied
                ahead += size if not any(layer) and first is not None and name != "token_embd.weight" else 0
            if not copied or name == "token_embd.weight":
                first = before if first is None else first
                last = before + size
            before += size
        mapped += last - (first or 0)
    return {
        "layer_bytes": tuple(layer), "expert_bytes": tuple(experts) if any(experts) else (), "output_bytes": output,
        "layer_repack": tuple(repack) if any(repack) else (), "repack_bytes": sum(repack) + output_repack,
        "mapped_bytes": mapped, "tied": tied, "matrix_bytes": widest, "output_ahead": ahead,
    }  # fmt: skip


def _floats(tensors: Sequence[list[Any]]) -> bool:
    """Whether some matrix that is multiplied by is in floats: a router's, or all of a model that is not quantised."""
    return any(
        kind in ("F32", "F16", "BF16") and name.endswith(".weight") and len(dims) > 1 and "conv" not in name
        for name, kind, dims, _ in tensors
        if BLOCK.fullmatch(name)
    )


def _gated(tensors: Sequence[list[Any]], n_ff: int) -> bool:
    """Whether its layers have a gate beside the matrix up, alone or in one with it."""
    wide = {"ffn_up.weight": 2 * n_ff, "ffn_gate.weight": 0, "ffn_gate_up.weight": 0}
    return any((place := BLOCK.fullmatch(t[0])) and place[2] in wide and t[2][-1] >= wide[place[2]] for t in tensors)


def _runnable(headers: Sequence[dict[str, Any]]) -> str:
    """The architecture of what an engine on this machine can serve. Raises `BadModel`."""
    kind, meta = gguf.kind(headers[0]), headers[0]["metadata"]
    if kind == "":
        raise BadModel("the file names no architecture", "general.architecture is missing", ANOTHER)
    if not ARCH.fullmatch(str(meta.get("general.architecture", ""))):
        raise BadModel(
            "the file names no architecture that there can be",
            f"general.architecture is {ascii(meta.get('general.architecture'))[:80]}", ANOTHER,
        )  # fmt: skip
    if kind not in ("model", "vocabulary"):
        raise BadModel(f"this is no language model but {KINDS[kind]}", "import the model beside it")
    for header in headers:
        if header["byteorder"] != sys.byteorder:
            raise BadModel(
                f"the file is {header['byteorder']}-endian",
                f"it is whole, but engines read only the byte order of their machine, and this one is {sys.byteorder}-"
                "endian",
                "get the file that was made for this kind of machine",
            )
        if header["version"] < 2:
            raise BadModel(
                "the file is GGUF version 1", "it is whole, but engines of today read versions 2 and 3 alone",
                "get the model anew, or convert it again from its original",
            )  # fmt: skip
    return str(meta["general.architecture"])


def _vocab(tensors: Sequence[list[Any]]) -> int:
    return next((int(t[2][-1]) for t in tensors if t[0] == "token_embd.weight"), 0)


def _count(shape: Sequence[int]) -> int:
    total = 1
    for dim in shape:
        total *= dim
    return total


def _quantization(meta: dict[str, Any], tensors: Sequence[list[Any]]) -> str:
    told = NAMES.get(meta.get("general.file_type", -1)) if isinstance(meta.get("general.file_type"), int) else None
    if told:
        return told
    by_bytes: Counter[str] = Counter()
    for tensor in tensors:
        by_bytes[tensor[1]] += tensor[3]
    return by_bytes.most_common(1)[0][0] if by_bytes else ""
