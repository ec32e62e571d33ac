"""Small GGUF files with random weights in the layout of each architecture that sizing knows (architectures.toml)."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

UNKNOWN = "minimax-01"
"""The one of them that sizing does not know."""
VOCABULARY = 8192
FLOATS = (
    "norm", "gate_inp", "ssm_conv1d", "ssm_a", "ssm_d", "ssm_dt", "time_mix", "lerp", "shortconv.conv", "sinks",
    "token_types", "altup", "per_layer_scale", "laurel", "exp_probs",
)  # fmt: skip
"""Matrices that converters leave in 32-bit floats."""
MIXES = tuple(f"time_mix_{each}.weight" for each in ("key", "value", "receptance", "gate", "output"))
"""… and those of their names that they don't."""
WORDS = ("word", "tree", "house", "river", "stone")
"""What resident.py asks with: each is one token."""
AROUND = ("\n\n", "<fake_token_around_image>", "<global-img>")
"""Without these a model takes no picture of idefics3's tiles: 400, `Invalid token`."""


@cache
def described() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("architectures.toml").read_text())


@cache
def wide() -> dict[str, Any]:
    """Those in the widths of real models, gigabytes each."""
    return tomllib.loads(Path(__file__).with_name("wide.toml").read_text())


def _told(name: str, kind: str) -> tuple[dict[str, Any], str, int]:
    """What the file says of it, to what its matrices are quantised, how many tokens it knows."""
    told = wide().get(name) or described()[name]
    return told, kind or told.get("kind", "Q8_0"), told.get("vocabulary", VOCABULARY)


def encoder(name: str) -> bool:
    """Whether it is made for embeddings."""
    return "pooling_type" in described()[name]["metadata"]


def header(name: str, kind: str = "", **more: Any) -> dict[str, Any]:
    """What the reader says of such a file, without the file; `more` overrides metadata (__ for a dot)."""
    told, kind, vocabulary = _told(name, kind)
    arch = told.get("arch", name)
    meta = told["metadata"] | {key.replace("__", "."): value for key, value in more.items()}
    tensors = []
    for tensor, shape in _tensors(told):
        chosen = _kind(tensor, shape, gguf.GGMLQuantizationType[kind])
        block, size = gguf.GGML_QUANT_SIZES[chosen]
        tensors.append([tensor, chosen.name, shape, int(np.prod(shape)) // block * size])
    return {
        "version": 3, "byteorder": sys.byteorder, "tensors": tensors, "data_start": 0, "bytes": 0,
        "metadata": {"general.architecture": arch, "tokenizer.ggml.tokens": {"count": vocabulary}}
        | {key[1:] if key.startswith("!") else f"{arch}.{key}": value for key, value in meta.items()},
    }  # fmt: skip


def write(path: Path, name: str, kind: str = "") -> None:
    """Write the file; `kind` is what its matrices are quantised to (Q8_0 where nothing else is told)."""
    told, kind, vocabulary = _told(name, kind)
    arch = told.get("arch", name)
    out = gguf.GGUFWriter(path, arch)
    for key, value in told["metadata"].items():
        _add(out, key[1:] if key.startswith("!") else f"{arch}.{key}", value)
    _vocabulary(out, vocabulary)
    dice = np.random.default_rng(1)
    for tensor, shape in _tensors(told):
        chosen = _kind(tensor, shape, gguf.GGMLQuantizationType[kind])
        plain = chosen == gguf.GGMLQuantizationType.F32
        out.add_tensor(tensor, _random(shape, chosen, dice), raw_dtype=None if plain else chosen)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _tensors(told: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """Name and shape, layer by layer."""
    count = told["metadata"]["block_count"]
    found: dict[int, list[tuple[str, list[int]]]] = {}
    for name, *shape in told["tensors"]:
        if not name.startswith("blk."):
            yield name, shape
            continue
        _, spans, rest = name.split(".", 2)
        for layer in _layers(spans, count):
            found.setdefault(layer, []).append((f"blk.{layer}.{rest}", shape))
    for layer in sorted(found):
        yield from found[layer]


def _layers(spans: str, count: int) -> Iterator[int]:
    if spans == "*":
        yield from range(count)
        return
    for span in spans.split(","):
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _kind(name: str, shape: list[int], wanted: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    part = name.split(".", 2)[2] if name.startswith("blk.") else name
    floats = part not in MIXES and any(each in part for each in FLOATS)
    if len(shape) < 2 or shape[0] % 32 or not name.endswith("weight") or floats:
        return gguf.GGMLQuantizationType.F32
    return wanted if not shape[0] % gguf.GGML_QUANT_SIZES[wanted][0] else gguf.GGMLQuantizationType.Q8_0


def _random(shape: list[int], kind: gguf.GGMLQuantizationType, dice: np.random.Generator) -> np.ndarray:
    """64 random rows, over and over: random enough for a router, and written at the disk's pace."""
    rows = int(np.prod(shape[1:]))
    some = dice.standard_normal((64, shape[0]), dtype=np.float32) * np.float32(0.02)
    made = (
        _k_blocks(shape[0], dice)
        if kind == gguf.GGMLQuantizationType.Q4_K
        else (some if kind == gguf.GGMLQuantizationType.F32 else gguf.quantize(some, kind))
    )
    whole = np.concatenate([made] * -(-rows // 64))[:rows]
    return np.ascontiguousarray(whole.reshape(*reversed(shape[1:]), whole.shape[-1]))


def _k_blocks(width: int, dice: np.random.Generator) -> np.ndarray:
    """64 rows of Q4_K, which gguf does not make: a block's two scales in 16 bits, the rest any bytes."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q4_K]
    made = dice.integers(0, 256, (64, width // block, size), dtype=np.uint8)
    made[:, :, :4] = np.full(2, 0.0004, np.float16).view(np.uint8)
    return made.reshape(64, -1)


def _add(out: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        out.add_bool(key, value)
    elif isinstance(value, int):
        out.add_uint32(key, value)
    elif isinstance(value, float):
        out.add_float32(key, value)
    elif isinstance(value, list):
        out.add_array(key, value)
    else:
        out.add_string(key, value)


def _vocabulary(out: gguf.GGUFWriter, count: int) -> None:
    """All bytes, and the words with all that they are merged of."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [f"▁{word}" for word in (*WORDS, *"0123456789")] + list("0123456789")
    pieces = [piece for word in words for piece in (*(word[:end] for end in range(1, len(word) + 1)), *word)]
    tokens += [piece for piece in dict.fromkeys((*pieces, *AROUND)) if piece not in tokens]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (count - 259)
    tokens += [f"▁unused{number}" for number in range(count - len(tokens))]
    out.add_tokenizer_model("llama")
    out.add_token_list(tokens)
    out.add_token_scores([-float(number) for number in range(count)])
    out.add_token_types(kinds)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
