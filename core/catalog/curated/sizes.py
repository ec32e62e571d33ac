"""From an entry's header to what sizing needs, and to the bytes of a file that nobody has read."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import msgspec

from core.catalog.curated.layout import Header, active, size, tensors
from core.catalog.curated.mixture import BASE, typed
from core.catalog.shape import shape_of
from core.nouns import CatalogueEntry, ModelShape

HINTS = ("architecture", "tied_embeddings", "classifier", "expert_probs_bias")
"""Keys that a GGUF header has elsewhere or not at all."""


class Sized:
    """One header, its tensors listed once. Raises `NoLayout`."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.tensors = tensors(header)
        self._typed: dict[str, list[tuple[str, str, tuple[int, ...], int]]] = {}

    def typed(self, quantization: str) -> list[tuple[str, str, tuple[int, ...], int]]:
        if quantization not in self._typed:
            self._typed[quantization] = typed(self.header, self.tensors, quantization)
        return self._typed[quantization]

    def bytes(self, quantization: str) -> int:
        """Bytes of the tensors. What lies before them, most of it the vocabulary, is not in it: 23 to 65 bytes a word
        in the files that were compared. Raises `KeyError` for a quantisation without a rule."""
        return sum(each[3] for each in self.typed(quantization))

    def counted(self) -> tuple[int, int]:
        """Parameters, and those that a token passes."""
        return sum(size(dims) for _, dims in self.tensors), active(self.header, self.tensors)

    def shape(self, quantization: str) -> ModelShape:
        """As if the header of such a file had been read. Raises `KeyError`, `BadModel`."""
        arch = str(self.header["architecture"])
        meta: dict[str, Any] = {f"{arch}.{key}": value for key, value in self.header.items() if key not in HINTS}
        meta["general.architecture"] = arch
        found = [[name, kind, list(dims), count] for name, kind, dims, count in self.typed(quantization)]
        read = {
            "version": 3, "byteorder": sys.byteorder, "metadata": meta, "tensors": found, "data_start": 0,
            "bytes": self.bytes(quantization),
        }  # fmt: skip
        return msgspec.structs.replace(shape_of([read]), quantization=quantization)


def shape_for(entry: CatalogueEntry, quantization: str) -> ModelShape | None:
    """The shape of one of an entry's files, its tensors included; None if the shape is not known. The tensors of a
    quantisation without a rule are not known one by one: its bytes are those that were read."""
    if not entry.header:
        return None
    header = msgspec.json.encode(entry.header)
    if quantization in BASE:
        return _remembered(header, quantization)
    read = next((each.bytes for each in entry.files if each.quantization == quantization), 0)
    found = _remembered(header, "F16")
    return msgspec.structs.replace(found, quantization=quantization, repack_bytes=0, tensor_bytes=read)


@lru_cache(512)
def _remembered(header: bytes, quantization: str) -> ModelShape:
    return Sized(msgspec.json.decode(header)).shape(quantization)
