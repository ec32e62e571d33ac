"""Small projectors of pictures with random weights, in the layout that llama.cpp's tools/mtmd/clip.cpp loads."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np


class Tower(NamedTuple):
    """A vision tower, and the width of the language model that it speaks to."""

    kind: str
    model: str
    """Of architectures.toml, of the same width as `out`."""
    out: int
    image: int
    patch: int
    embd: int
    ff: int
    heads: int
    layers: int
    merge: int = 1
    largest: int = 0
    """A side of the largest picture that is taken, where that is not `image`: in one piece, or (idefics3) in tiles."""
    deep: int = 0
    """Layers whose results go to the model, too, beside the last one's (qwen3vl): the last of them."""


TOWERS = {
    "gemma3-224": Tower("gemma3", "gemma3", 1152, 224, 14, 1152, 4304, 16, 2, 4),
    "gemma3-448": Tower("gemma3", "gemma3", 1152, 448, 14, 1152, 4304, 16, 2, 4),
    "gemma3-896": Tower("gemma3", "gemma3", 1152, 896, 14, 1152, 4304, 16, 2, 4),
    "gemma3-narrow": Tower("gemma3", "gemma3", 1152, 512, 16, 768, 3072, 12, 2, 4),
    "gemma3-flat": Tower("gemma3", "gemma3", 1152, 768, 16, 1024, 2048, 16, 2, 4),
    "llava-224": Tower("mlp", "llama", 2048, 224, 14, 1024, 4096, 16, 3),
    "llava-336": Tower("mlp", "llama", 2048, 336, 14, 1024, 4096, 16, 3),
    "llava-672": Tower("mlp", "llama", 2048, 672, 14, 1024, 4096, 16, 3),
    "llava-narrow": Tower("mlp", "llama", 2048, 512, 16, 768, 3072, 12, 3),
    "qwen3vl-512": Tower("qwen3vl_merger", "qwen3vl-deepstack", 1536, 768, 16, 1152, 4304, 16, 4, 2, 512, 3),
    "qwen3vl-1024": Tower("qwen3vl_merger", "qwen3vl-deepstack", 1536, 768, 16, 1152, 4304, 16, 4, 2, 1024, 3),
    "qwen25vl-560": Tower("qwen2.5vl_merger", "qwen2vl", 1536, 560, 14, 1280, 3420, 16, 2, 2, 560),
    "qwen25vl-1120": Tower("qwen2.5vl_merger", "qwen2vl", 1536, 560, 14, 1280, 3420, 16, 2, 2, 1120),
    "qwen2vl-560": Tower("qwen2vl_merger", "qwen2vl", 1536, 560, 14, 1280, 5120, 16, 1, 2, 560),
    "smolvlm-256m": Tower("idefics3", "llama", 2048, 512, 16, 768, 3072, 12, 3, 4, 2048),
    "smolvlm-2.2b": Tower("idefics3", "llama", 2048, 384, 14, 1152, 4304, 16, 2, 3, 1536),
    "smolvlm-whole": Tower("idefics3", "llama", 2048, 512, 16, 768, 3072, 12, 3, 4, 512),
    "qwen2vl-1120": Tower("qwen2vl_merger", "qwen2vl", 1536, 560, 14, 1280, 5120, 16, 1, 2, 1120),
}
SMALL = Tower("gemma3", "", 256, 56, 14, 128, 256, 2, 2, 2)
"""For a model of 256: four tokens a picture."""


def tensors(tower: Tower) -> list[tuple[str, list[int]]]:
    """Names and shapes, the longest dimension of a row first."""
    embd, side = tower.embd, tower.image // tower.patch
    patch = ("v.patch_embd.weight", [tower.patch, tower.patch, 3, embd])
    qwen, gated = tower.kind.startswith("qwen"), tower.kind == "qwen2.5vl_merger"
    found = [patch, ("v.post_ln.weight", [embd])] + ([] if gated else [("v.post_ln.bias", [embd])])
    if qwen:
        found.append(("v.patch_embd.weight.1", patch[1]))
    if not qwen or tower.deep:
        found += [("v.position_embd.weight", [embd, side * side + (tower.kind == "mlp")])]
    if tower.kind == "mlp":
        found += [("v.class_embd", [embd]), ("v.pre_ln.weight", [embd]), ("v.pre_ln.bias", [embd])]
    elif not qwen or tower.deep:
        found.append(("v.patch_embd.bias", [embd]))
    for n in range(tower.layers):
        if tower.deep:
            found += [(f"v.blk.{n}.attn_qkv.weight", [embd, 3 * embd]), (f"v.blk.{n}.attn_qkv.bias", [3 * embd])]
        for part in ("attn_out",) if tower.deep else ("attn_q", "attn_k", "attn_v", "attn_out"):
            found += [(f"v.blk.{n}.{part}.weight", [embd, embd]), (f"v.blk.{n}.{part}.bias", [embd])]
        for part in ("ln1", "ln2"):
            found += [(f"v.blk.{n}.{part}.weight", [embd])]
            found += [] if gated else [(f"v.blk.{n}.{part}.bias", [embd])]
        for part in ("ffn_gate",) if gated else ():
            found += [(f"v.blk.{n}.{part}.weight", [embd, tower.ff]), (f"v.blk.{n}.{part}.bias", [tower.ff])]
        found += [(f"v.blk.{n}.ffn_up.weight", [embd, tower.ff]), (f"v.blk.{n}.ffn_up.bias", [tower.ff])]
        found += [(f"v.blk.{n}.ffn_down.weight", [tower.ff, embd]), (f"v.blk.{n}.ffn_down.bias", [embd])]
    merged = embd * tower.merge**2
    for n in range(tower.layers - tower.deep, tower.layers):
        for part, wide in (("fc1", merged), ("fc2", tower.out)):
            found += [(f"v.deepstack.{n}.{part}.weight", [merged, wide]), (f"v.deepstack.{n}.{part}.bias", [wide])]
        found += [(f"v.deepstack.{n}.norm.{part}", [merged]) for part in ("weight", "bias")]
    if tower.kind == "idefics3":
        return [*found, ("mm.model.fc.weight", [merged, tower.out])]
    if tower.kind == "gemma3":
        return [*found, ("mm.input_projection.weight", [tower.out, embd]), ("mm.soft_emb_norm.weight", [embd])]
    inner = tower.out if tower.kind == "mlp" else merged
    found += [("mm.0.weight", [merged, inner]), ("mm.0.bias", [inner])]
    return [*found, ("mm.2.weight", [inner, tower.out]), ("mm.2.bias", [tower.out])]


def metadata(name: str) -> dict[str, object]:
    return told(TOWERS[name])


def told(tower: Tower) -> dict[str, object]:
    """The header of its file."""
    vision = {
        "image_size": tower.image, "patch_size": tower.patch, "embedding_length": tower.embd,
        "feed_forward_length": tower.ff, "block_count": tower.layers, "projection_dim": tower.out,
        "attention.head_count": tower.heads, "attention.layer_norm_epsilon": 1e-6,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }  # fmt: skip
    if tower.kind.startswith("qwen"):
        vision |= {"spatial_merge_size": tower.merge, "image_max_pixels": tower.largest**2}
        vision |= {"n_wa_pattern": 2} if tower.kind == "qwen2.5vl_merger" else {}
        deep = [n >= tower.layers - tower.deep for n in range(tower.layers)]
        vision |= {"is_deepstack_layers": deep} if tower.deep else {}
    elif tower.kind == "idefics3":
        vision |= {"projector.scale_factor": tower.merge, "preproc_image_size": tower.largest}
    elif tower.merge > 1:
        vision["projector.scale_factor"] = tower.merge
    return {
        "clip.has_vision_encoder": True,
        "clip.use_silu" if tower.kind == "qwen2.5vl_merger" else "clip.use_gelu": True,
        "clip.projector_type": tower.kind,
    } | {f"clip.vision.{key}": value for key, value in vision.items()}


def write(path: Path, name: str) -> None:
    """One of `TOWERS`."""
    put(path, TOWERS[name])


def put(path: Path, tower: Tower, seed: int = 1) -> None:
    """Matrices in 16-bit floats, as converters leave them."""
    out = gguf.GGUFWriter(path, "clip")
    out.add_type("mmproj")
    for key, value in told(tower).items():
        if isinstance(value, bool):
            out.add_bool(key, value)
        elif isinstance(value, int):
            out.add_uint32(key, value)
        elif isinstance(value, float):
            out.add_float32(key, value)
        elif isinstance(value, list):
            out.add_array(key, value)
        else:
            out.add_string(key, str(value))
    dice = np.random.default_rng(seed)
    for tensor, shape in tensors(tower):
        made = dice.standard_normal(tuple(reversed(shape)), dtype=np.float32) * np.float32(0.02)
        wide = len(shape) > 1 and "position" not in tensor
        out.add_tensor(tensor, made.astype(np.float16) if wide else made)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def picture(width: int, height: int) -> str:
    """A PNG of one colour, as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x40\x80\xc0" * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()
