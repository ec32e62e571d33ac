"""What a projector of pictures takes beside its file, by its header: what llama.cpp's tools/mtmd/clip.cpp computes.

docs/sizing.md derives it, and shows it beside towers that were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MOST = 1 << 16
"""Of a count that a header names."""
MOST_PIXELS = MOST**2
MOST_BYTES = 1 << 48
TOKENS = 4096
"""Of a picture, at most, for a type that takes one in its own size (set_limit_image_tokens of clip.cpp)."""
WARM_UP = 46**2
"""Tokens for which the graph of such a type is laid out at the start: a smaller picture is spread over that."""
LEAST = 8 << 20
"""Descriptions of 8192 nodes (clip_ctx::max_nodes), and what does not go by the picture."""


class Type(NamedTuple):
    """How a type of projector takes a picture."""

    merge: int
    """Patches a side that become one token, where the header does not say it."""
    own_size: bool = False
    """It is computed in its own size, up to a limit."""
    tiles: bool = False
    """It is cut into tiles of the tower's size, with one of the whole."""
    mask: int = 0
    """Bytes that each pair of patches has, where layers see windows: 32 bits, and the copy in 16 that attention reads.
    """


RULES = 3
"""Raised with each change of what is read here, so that what was read of stored projectors is read again."""
TYPES = {
    "gemma3": Type(4),
    "idefics3": Type(1, tiles=True),
    "mlp": Type(1),
    "qwen2.5vl_merger": Type(2, own_size=True, mask=6),
    "qwen2vl_merger": Type(2, own_size=True),
    "qwen3vl_merger": Type(2, own_size=True),
}
"""Those that were measured."""
WIDTHS = {
    "gemma3": ("mm.input_projection.weight", 0), "gemma3nv": ("mm.input_projection.weight", 0),
    "gemma4v": ("mm.input_projection.weight", 1), "idefics3": ("mm.model.fc.weight", 1),
    "internvl": ("mm.model.mlp.3.weight", 1), "lfm2": ("mm.2.weight", 1), "lightonocr": ("mm.2.weight", 1),
    "llama4": ("mm.model.fc.weight", 1), "mlp": ("mm.2.weight", 1), "pixtral": ("mm.2.weight", 1),
    "qwen2.5vl_merger": ("mm.2.bias", 0), "qwen2vl_merger": ("mm.2.bias", 0), "qwen3vl_merger": ("mm.2.bias", 0),
}  # fmt: skip
"""By type, the tensor and which of its dimensions is as wide as the model's tokens (clip_n_mmproj_embd of clip.cpp)."""


def graph_bytes(meta: Mapping[str, Any], n_embd: int) -> int:
    """Most bytes beside the file, once the largest picture was asked of a model of this width; 0: of a type that was
    not measured, or the header lacks what it takes or names absurd counts."""
    kind = TYPES.get(_kind(meta))
    image, patch, embd, ff = (
        _count(meta, name) for name in ("image_size", "patch_size", "embedding_length", "feed_forward_length")
    )
    if kind is None or not (image and patch and embd and ff) or meta.get("clip.has_audio_encoder"):
        return 0
    if meta.get("clip.vision.image_grid_pinpoints"):  # llava 1.6: tiles that were not measured
        return 0
    merge = _count(meta, "spatial_merge_size") or _count(meta, "projector.scale_factor") or kind.merge
    pixels = image * image
    patches = (image // patch) ** 2
    if kind.own_size:
        token = (merge * patch) ** 2
        pixels = max(_count(meta, "image_max_pixels", MOST_PIXELS) or TOKENS * token, WARM_UP * token)
        patches = pixels // patch**2
    tokens = patches // merge**2
    whole = 0
    if kind.tiles:
        whole = _count(meta, "preproc_image_size")
        if not whole:  # nobody knows how many tiles
            return 0
        tiles = 1 + (-(-whole // image)) ** 2
        pixels, tokens = pixels * tiles, tokens * tiles
    deep = meta.get("clip.vision.is_deepstack_layers")
    if isinstance(deep, list):  # results of these layers go to the model beside the last one's
        tokens *= 1 + deep.count(True)
    # A layer holds its input, that normed, queries, keys and values, then the step between, and a copy of this in 16
    # bits for the product. The picture is there three times in floats. Its tokens are in the last steps, the result, a
    # copy of that, and the batch that the model reads.
    floats = patches * (3 * ff // 2 + 5 * embd) + 9 * pixels + 5 * tokens * n_embd
    # What is cut into tiles is there three times before: as it came, made smaller or larger, and cut.
    found = 4 * floats + LEAST + kind.mask * patches**2 + 9 * whole**2
    return found if found < MOST_BYTES else 0


def width(header: Mapping[str, Any]) -> int:
    """Floats of a token that it makes, which are the model's embedding's; 0: of a type of which that is not known."""
    tensor, dimension = WIDTHS.get(_kind(header["metadata"]), ("", 0))
    dims = next((each[2] for each in header["tensors"] if each[0] == tensor), ())
    return int(dims[dimension]) if dimension < len(dims) else 0


def _kind(meta: Mapping[str, Any]) -> str:
    return str(meta.get("clip.vision.projector_type") or meta.get("clip.projector_type"))


def _count(meta: Mapping[str, Any], name: str, most: int = MOST) -> int:
    """0: it is not there, or nothing that such a tower has."""
    value = meta.get(f"clip.vision.{name}")
    return value if type(value) is int and 0 < value <= most else 0
