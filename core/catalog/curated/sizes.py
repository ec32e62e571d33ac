"""From an entry's header to what sizing needs, and to the bytes of a file that nobody has read."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from core.catalog.curated.layout import Header, active, size, tensors
from core.catalog.curated.mixture import typed
from core.catalog.shape import shape_of
from core.nouns import CatalogueEntry, ModelShape

HINTS = ("architecture", "tied_embeddings", "classifier", "expert_probs_bias")
"""Keys that a GGUF header has elsewhere or not at all."""


def computed_bytes(header: Header, quantization: str) -> int:
    """Bytes of the tensors. What lies before them, most of it the vocabulary, is not in it: 24 to 61 bytes a word in
    the files that were compared. Raises `NoLayout`, `KeyError` for a quantisation without a rule."""
    return sum(each[3] for each in typed(header, tensors(header), quantization))


def counted(header: Header) -> tuple[int, int]:
    """Parameters, and those that a token passes. Raises `NoLayout`."""
    found = tensors(header)
    return sum(size(dims) for _, dims in found), active(header, found)


def shape_from(header: Header, quantization: str) -> ModelShape:
    """As if the header of such a file had been read. Raises `NoLayout`, `KeyError`, `BadModel`."""
    arch = str(header["architecture"])
    meta: dict[str, Any] = {f"{arch}.{key}": value for key, value in header.items() if key not in HINTS}
    meta["general.architecture"] = arch
    found = [
        [name, kind, list(dims), count] for name, kind, dims, count in typed(header, tensors(header), quantization)
    ]
    return msgspec.structs.replace(shape_of([{"metadata": meta, "tensors": found}]), quantization=quantization)


def shape_for(entry: CatalogueEntry, quantization: str) -> ModelShape | None:
    """The shape of one of an entry's files, its tensors included; None if the shape is not known. Bytes that were read
    replace those that follow from the shape."""
    if not entry.header:
        return None
    read = next((each.bytes for each in entry.files if each.quantization == quantization and not each.computed), 0)
    try:
        found = _remembered(msgspec.json.encode(entry.header), quantization)
    except KeyError:
        found = _remembered(msgspec.json.encode(entry.header), "F16")
        found = msgspec.structs.replace(found, quantization=quantization, repack_bytes=0)
    return msgspec.structs.replace(found, tensor_bytes=read) if read else found


@lru_cache(512)
def _remembered(header: bytes, quantization: str) -> ModelShape:
    return shape_from(msgspec.json.decode(header), quantization)
