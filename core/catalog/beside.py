"""What stands beside a model fits it: a projector of pictures, and LoRA adapters, by their headers.

An engine looks at the same things when it starts (llama.cpp's src/llama-adapter.cpp and tools/mtmd/mtmd.cpp), and ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.catalog.sizing import projector
from core.errors import BadModel
from core.nouns import ModelShape

Dims = Sequence[int]
ENDS = (".lora_a", ".lora_b")
"""Of the names of the two tensors that change one of the model's."""
PASSED = "_norm.weight"
"""Tensors of an adapter that no engine applies."""
EMBEDDING = "token_embd.weight"
"""Its two tensors stand the other way round."""
PUBLISHED = "take the one that was published with the model"
MADE_FOR = "take one that was made for this model"


def check_projector(header: Mapping[str, Any], name: str, shape: ModelShape) -> None:
    """It is one, and its tokens are as wide as the model's. Raises `BadModel`."""
    _check_kind(header, name, "projector")
    width = projector.width(header)
    if width and width != shape.n_embd:
        raise BadModel(
            f"{name} is the projector of another model",
            f"it makes tokens of {width} numbers, and this model's have {shape.n_embd}", PUBLISHED,
        )  # fmt: skip


def check_adapter(header: Mapping[str, Any], name: str, shape: ModelShape, model: Sequence[Mapping[str, Any]]) -> None:
    """It is one of LoRA, of this architecture, and changes tensors that the `model` (the headers of its parts) has, in
    their shapes. Raises `BadModel`."""
    _check_kind(header, name, "adapter")
    meta = header["metadata"]
    if (kind := meta.get("adapter.type", "lora")) != "lora":
        raise BadModel(f"{name} is no LoRA adapter", f"it says that it is one of the kind {kind!r:.60}", MADE_FOR)
    arch = meta.get("general.architecture")
    if arch != shape.arch:
        raise _another(name, f"it changes the architecture {arch!r:.60}, and this model's is {shape.arch!r:.60}")
    theirs = {each[0]: each[2] for part in model for each in part["tensors"]}
    mine = {each[0]: each[2] for each in header["tensors"] if not each[0].endswith(PASSED)}
    for tensor in dict.fromkeys(map(_changed, mine)):
        down, up = (mine.get(tensor + end) for end in ENDS)
        if down is None or up is None:
            raise BadModel(f"{name} is no whole LoRA adapter", f"{tensor!r:.80} has not both of {' and '.join(ENDS)}",
                           MADE_FOR)  # fmt: skip
        if tensor not in theirs:
            raise _another(name, f"it changes {tensor!r:.80}, which this model has not")
        wide, fits = _sides(tensor, down, up), _two(theirs[tensor])
        if wide != fits:
            raise _another(name, f"it changes {tensor!r:.80} of {_x(wide)}, and this model's has {_x(fits)}")
        ranks = (_two(up)[0], _two(down)[1])
        if tensor != EMBEDDING and ranks[0] != ranks[1]:
            raise BadModel(
                f"{name} is no whole LoRA adapter",
                f"the two of {tensor!r:.80} have the ranks {ranks[1]} and {ranks[0]}",
            )


def _sides(tensor: str, down: Dims, up: Dims) -> tuple[int, int]:
    """The shape of the tensor that these two change."""
    first, last = _two(down), _two(up)
    return (last[1], first[1]) if tensor == EMBEDDING else (first[0], last[1])


def _two(dims: Dims) -> tuple[int, int]:
    return (dims[0], dims[1] if len(dims) > 1 else 1)


def _x(dims: Dims) -> str:
    return " x ".join(map(str, dims))


def _changed(tensor: str) -> str:
    """The name of the model's tensor that one of an adapter's is about."""
    for end in ENDS:
        if tensor.endswith(end):
            return tensor[: -len(end)]
    return tensor


def _another(name: str, why: str) -> BadModel:
    return BadModel(f"{name} is the adapter of another model", why, MADE_FOR)


def _check_kind(header: Mapping[str, Any], name: str, kind: str) -> None:
    meta = header["metadata"]
    told = meta.get("general.type", "")
    told = "mmproj" if told in ("mmproj", "clip-vision") or meta.get("general.architecture") == "clip" else told
    if told != {"projector": "mmproj", "adapter": "adapter"}[kind]:
        raise BadModel(f"{name} is no {kind}", f"it says that it is {told or 'a model'!r:.60}")
    if not header["tensors"]:
        raise BadModel(f"{name} holds no tensors", "it is a header alone", "get the whole file")
