"""From a file's header to what sizing needs to know of the model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from core.errors import BadModel
from core.keeper import gguf
from core.nouns import ModelShape

DENSE = ("llama", "gemma", "gemma2", "gemma3", "qwen2", "qwen3", "phi2", "phi3", "mistral", "smollm3", "starcoder2")
REPACKED = {"Q4_0", "Q2_K", "Q4_K", "IQ4_NL"}
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
    arch = _runnable(headers)

    def number(key: str, default: int | None = None) -> int:
        value = meta.get(f"{arch}.{key}", default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
            raise BadModel(f"the header is incomplete: {arch}.{key}", f"it is {value!r:.60}")
        return value

    n_layer, n_embd, n_head = number("block_count"), number("embedding_length"), number("attention.head_count", 1)
    if not 0 < n_layer <= 4096 or not n_embd or not n_head:
        raise BadModel("the header has absurd counts", f"{n_layer} layers of {n_embd} with {n_head} heads")
    heads = meta.get(f"{arch}.attention.head_count_kv", n_head)
    per_layer = tuple(heads) if isinstance(heads, list) else (heads,) * n_layer
    if len(per_layer) != n_layer or not all(isinstance(n, int) and 0 <= n <= 1 << 16 for n in per_layer):
        raise BadModel("the header has absurd counts", f"{arch}.attention.head_count_kv does not fit {n_layer} layers")
    feed = meta.get(f"{arch}.feed_forward_length", 4 * n_embd)
    n_ff = max(feed) if isinstance(feed, list) and feed else feed
    n_ff = n_ff if isinstance(n_ff, int) and 0 <= n_ff < 1 << 32 else 4 * n_embd
    tokens = meta.get("tokenizer.ggml.tokens")
    n_vocab = number("vocab_size", tokens["count"] if isinstance(tokens, dict) else _vocab(tensors))
    n_expert = number("expert_count", 0)
    open_questions = []
    if n_expert:
        open_questions.append("a mixture of experts: the plan is not measured for these")
    if arch not in DENSE:
        open_questions.append(f"architecture {arch}: the plan is not measured for it")
    n_swa = number("attention.sliding_window", 0)
    return ModelShape(
        arch=arch,
        n_layer=n_layer,
        n_embd=n_embd,
        n_ff=n_ff,
        n_head=n_head,
        n_head_kv=per_layer,
        key_length=number("attention.key_length", n_embd // n_head),
        value_length=number("attention.value_length", n_embd // n_head),
        n_vocab=n_vocab,
        ctx_train=number("context_length", 0),
        n_swa=n_swa,
        swa_layers=_sliding(arch, n_layer) if n_swa else (),
        n_params=sum(_count(tensor[2]) for tensor in tensors),
        tensor_bytes=sum(tensor[3] for tensor in tensors),
        repack_bytes=sum(t[3] for t in tensors if len(t[2]) == 2 and t[1] in REPACKED and t[0] != "token_embd.weight"),
        n_expert=n_expert,
        quantization=_quantization(meta, tensors),
        chat_template=isinstance(meta.get("tokenizer.chat_template"), str),
        open_questions=tuple(open_questions),
    )


def _runnable(headers: Sequence[dict[str, Any]]) -> str:
    """The architecture of what an engine on this machine can serve. Raises `BadModel`."""
    kind, meta = gguf.kind(headers[0]), headers[0]["metadata"]
    if kind == "":
        raise BadModel("the file names no architecture", "general.architecture is missing")
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


def _sliding(arch: str, n_layer: int) -> tuple[bool, ...]:
    """Which layers see only a window: gemma3 5 of 6, gemma2 1 of 2, others none."""
    period = {"gemma3": 6, "gemma2": 2}.get(arch, 0)
    return tuple(bool(period) and (i + 1) % period != 0 for i in range(n_layer))


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
