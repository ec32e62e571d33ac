"""Small synthetic GGUF files for tests."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from core.keeper.gguf import TYPES


class Format(NamedTuple):
    """Which GGUF: `order` as struct's, `long` its letter for lengths and counts."""

    version: int = 3
    order: str = "<"

    def pack(self, letters: str, *values: Any) -> bytes:
        """As struct.pack; `L` is a length or count."""
        return struct.pack(self.order + letters.replace("L", "Q" if self.version > 1 else "I"), *values)


NOW = Format()


def text(value: str, form: Format = NOW) -> bytes:
    raw = value.encode()
    return form.pack("L", len(raw)) + raw


def value(given: Any, form: Format = NOW) -> bytes:
    if isinstance(given, bytes):
        return given
    if isinstance(given, str):
        return form.pack("I", 8) + text(given, form)
    if isinstance(given, list) and given and isinstance(given[0], str):
        return form.pack("IIL", 9, 8, len(given)) + b"".join(text(each, form) for each in given)
    if isinstance(given, list):
        return form.pack("IIL", 9, 4, len(given)) + form.pack(f"{len(given)}I", *given)
    return form.pack("II", 4, given)


METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.license": "apache-2.0",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 2048,
    "tokenizer.ggml.tokens": ["<s>", "a", "b", "c"],
}


def make(
    metadata: dict[str, Any] | None = None,
    tensors: list[tuple[str, list[int], int, int | None]] | None = None,
    *,
    counts: tuple[int, int] | None = None,
    fill: bytes = b"\0",
    cut: int = 0,
    form: Format = NOW,
) -> bytes:
    """A whole file. A tensor is (name, shape, ggml type, offset or None for the next free one); `counts`
    overrides what the header claims (tensors, metadata); `cut` bytes are missing at the end."""
    meta = METADATA if metadata is None else metadata
    given = tensors
    if given is None:
        given = [("token_embd.weight", [64, 4], 0, None), ("blk.0.w.weight", [64, 64], 2, None)]
    infos, data = b"", 0
    for name, shape, kind, offset in given:
        weights = 1
        for dim in shape:
            weights *= dim
        infos += text(name, form) + form.pack(f"I{len(shape)}L", len(shape), *shape)
        infos += form.pack("IQ", kind, data if offset is None else offset)
        _, block, size = TYPES.get(kind, ("", 1, 4))
        data += -(-weights // block) * size + 31 & ~31
    head = b"GGUF" + form.pack("ILL", form.version, *(counts or (len(given), len(meta))))
    head += b"".join(text(key, form) + value(each, form) for key, each in meta.items()) + infos
    whole = head + b"\0" * (-len(head) % 32) + (fill * data)[:data]
    return whole[: len(whole) - cut]
