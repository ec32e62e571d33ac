"""A model of nothing, made here: real shapes and types with weights by chance, so that an engine's speed can be
measured on a host that holds no model yet.

Its values are small and finite, its vocabulary is bytes and fillers. Standard library alone; made anew for each run and
removed with it. Block layouts: llama.cpp's ggml-common.h, as in `core.keeper.gguf`.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

from core.nouns import ModelShape, Noun

ALIGN = 32
_CODES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12,
          "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "MXFP4": 39}  # fmt: skip
BLOCKS = {
    "F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24),
    "Q8_0": (32, 34), "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176),
    "Q6_K": (256, 210), "IQ4_NL": (32, 18), "MXFP4": (32, 17),
}  # fmt: skip
"""Weights and bytes of a block."""
_SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,),
}  # fmt: skip
"""Where in a block its half-precision factors stand: what is random there would be infinite at times."""
_SMALL = struct.pack("<e", 0.0004)
VOCABULARY = 512


class Probe(Noun, frozen=True, kw_only=True):
    """The dimensions of one probe: as of a llama of this size."""

    kind: str
    """Of its matrices: Q8_0, Q4_K, …"""
    n_layer: int = 6
    n_embd: int = 512
    n_ff: int = 1536
    n_head: int = 8
    ctx: int = 4096
    n_vocab: int = VOCABULARY

    @property
    def matrices(self) -> list[tuple[str, int, int]]:
        """Name, columns and rows, of one layer."""
        e, f = self.n_embd, self.n_ff
        return [("attn_q", e, e), ("attn_k", e, e), ("attn_v", e, e), ("attn_output", e, e), ("ffn_gate", e, f),
                ("ffn_up", e, f), ("ffn_down", f, e)]  # fmt: skip

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of all layers, which every token passes."""
        return self.n_layer * sum(columns * rows for _, columns, rows in self.matrices)

    @property
    def bytes(self) -> int:
        per, size = BLOCKS[self.kind]
        return self.layer_weights // per * size + 2 * self.n_embd * self.n_vocab

    def shape(self) -> ModelShape:
        """As an adapter needs it for a launch."""
        each = self.n_embd // self.n_head
        return ModelShape(
            arch="llama", n_layer=self.n_layer, n_embd=self.n_embd, n_ff=self.n_ff, n_head=self.n_head,
            n_head_kv=(self.n_head,) * self.n_layer, key_length=each, value_length=each, n_vocab=self.n_vocab,
            ctx_train=self.ctx, n_params=self.layer_weights + self.n_embd * self.n_vocab, tensor_bytes=self.bytes,
            repack_bytes=self.bytes, quantization=self.kind,
        )  # fmt: skip


def write(probe: Probe, path: Path) -> None:
    """Write the probe as a GGUF file, version 3. Raises OSError."""
    tensors: list[tuple[str, str, tuple[int, ...]]] = [("token_embd.weight", "F16", (probe.n_embd, probe.n_vocab))]
    for layer in range(probe.n_layer):
        tensors += [(f"blk.{layer}.{norm}.weight", "F32", (probe.n_embd,)) for norm in ("attn_norm", "ffn_norm")]
        tensors += [(f"blk.{layer}.{name}.weight", probe.kind, (c, r)) for name, c, r in probe.matrices]
    tensors.append(("output_norm.weight", "F32", (probe.n_embd,)))
    metadata = list(_metadata(probe))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + b"".join(metadata)
    offset = 0
    for name, kind, dims in tensors:
        head += _text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        head += struct.pack("<IQ", _CODES[kind], offset)
        offset += _padded(_size(kind, dims))
    chance = random.Random(5).randbytes(1 << 16)  # noqa: S311 - the same on every host
    with path.open("xb") as out:
        out.write(head.ljust(_padded(len(head)), b"\0"))
        for _, kind, dims in tensors:
            size = _size(kind, dims)
            out.write(_values(kind, size, chance).ljust(_padded(size), b"\0"))


def _size(kind: str, dims: tuple[int, ...]) -> int:
    per, size = BLOCKS[kind]
    count = dims[0] * (dims[1] if len(dims) > 1 else 1)
    return count // per * size


def _padded(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _values(kind: str, size: int, chance: bytes) -> bytes:
    if kind == "F32":
        return struct.pack("<f", 1.0) * (size // 4)
    if kind == "F16":
        few = [struct.pack("<e", (byte - 128) / 4096) for byte in chance[:509]]
        return _repeated(b"".join(few), size)
    _, each = BLOCKS[kind]
    block = bytearray()
    for at in range(0, each * 97, each):
        one = bytearray(chance[at : at + each])
        for place in _SCALES.get(kind, ()):
            one[place : place + 2] = _SMALL
        if kind == "MXFP4":
            one[0] = 118  # 2^-9
        block += one
    return _repeated(bytes(block), size)


def _repeated(piece: bytes, size: int) -> bytes:
    return (piece * (size // len(piece) + 1))[:size]


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _metadata(probe: Probe) -> Iterator[bytes]:
    def text(key: str, value: str) -> bytes:
        return _text(key) + struct.pack("<I", 8) + _text(value)

    def whole(key: str, value: int) -> bytes:
        return _text(key) + struct.pack("<II", 4, value)

    def real(key: str, value: float) -> bytes:
        return _text(key) + struct.pack("<If", 6, value)

    yield text("general.architecture", "llama")
    yield text("general.name", "corral-probe")
    for key, value in (
        ("context_length", probe.ctx), ("embedding_length", probe.n_embd), ("block_count", probe.n_layer),
        ("feed_forward_length", probe.n_ff), ("attention.head_count", probe.n_head),
        ("attention.head_count_kv", probe.n_head), ("rope.dimension_count", probe.n_embd // probe.n_head),
        ("vocab_size", probe.n_vocab),
    ):  # fmt: skip
        yield whole(f"llama.{key}", value)
    yield real("llama.attention.layer_norm_rms_epsilon", 1e-5)
    yield text("tokenizer.ggml.model", "llama")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"▁w{n}" for n in range(probe.n_vocab - len(tokens))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (probe.n_vocab - 259)
    yield _text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(_text, tokens))
    yield (
        _text("tokenizer.ggml.scores")
        + struct.pack("<IIQ", 9, 6, len(tokens))
        + struct.pack(f"<{len(tokens)}f", *(-float(n) for n in range(len(tokens))))
    )
    yield (
        _text("tokenizer.ggml.token_type")
        + struct.pack("<IIQ", 9, 5, len(tokens))
        + struct.pack(f"<{len(kinds)}i", *kinds)
    )
    yield whole("tokenizer.ggml.bos_token_id", 1)
    yield whole("tokenizer.ggml.eos_token_id", 2)
    yield whole("tokenizer.ggml.unknown_token_id", 0)
