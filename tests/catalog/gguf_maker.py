"""Small synthetic GGUF files for tests."""

from __future__ import annotations

import struct
from typing import Any


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(given: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    if isinstance(given, str):
        return struct.pack("<I", 8) + text(given)
    if isinstance(given, list) and given and isinstance(given[0], str):
        return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(map(text, given))
    if isinstance(given, list):
        return struct.pack("<IIQ", 9, 4, len(given)) + struct.pack(f"<{len(given)}I", *given)
    return struct.pack("<II", 4, given)


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
) -> bytes:
    """A whole file. A tensor is (name, shape, ggml type 0 or 2, offset or None for the next free one); `counts`
    overrides what the header claims (tensors, metadata); `cut` bytes are missing at the end."""
    meta = METADATA if metadata is None else metadata
    given = [("token_embd.weight", [64, 4], 0, None), ("blk.0.w", [64, 64], 2, None)] if tensors is None else tensors
    infos, data = b"", 0
    for name, shape, kind, offset in given:
        weights = 1
        for dim in shape:
            weights *= dim
        infos += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        infos += struct.pack("<IQ", kind, data if offset is None else offset)
        data += (weights * 4 if kind == 0 else weights // 32 * 18) + 31 & ~31
    head = b"GGUF" + struct.pack("<IQQ", 3, *(counts or (len(given), len(meta))))
    head += b"".join(text(key) + value(each) for key, each in meta.items()) + infos
    whole = head + b"\0" * (-len(head) % 32) + (fill * data)[:data]
    return whole[: len(whole) - cut]
