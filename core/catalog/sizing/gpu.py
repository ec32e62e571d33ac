"""What an engine takes of a GPU beside weights and cache, as it was measured on one (docs/sizing.md, GPUs)."""

from __future__ import annotations

from core.catalog.sizing.parts import N_UBATCH, CacheType, compute, kv_by_layer, pad256
from core.engines.base import Abilities
from core.nouns import ModelShape

MIB = 1 << 20
DRIVER_BYTES = 602 * MIB
"""The driver's context with the kernels that every model loads, measured on an H200: 518 of them are the bare context,
which is the less the smaller a card is."""
LIBRARY_BYTES = 106 * MIB
"""What the vendor's library for matrices takes where a model needs it, on the GPU and in the host alike."""
HOST_BYTES = 326 * MIB
"""Of the host, for the driver and its libraries: so much more is a program's resident set that uses a GPU."""
SPARE = 0.05
"""Of what is free of a GPU, left free."""
UNMEASURED = frozenset({"afmoe", "deci", "hunyuan_vl", "mimo2", "paddleocr", "step35"})
"""Architectures that were measured in the host alone."""
FLASH = frozenset({40, 64, 72, 80, 96, 112, 128, 256})
"""Lengths of keys and values, where they are the same, for which there is a fused kernel (ggml-cuda/fattn.cu)."""


def flash(shape: ModelShape) -> bool:
    """Whether attention is one kernel on a GPU; without, all its scores lie in memory."""
    if shape.arch == "grok":  # llama_init_from_model switches it off
        return False
    heads = max((shape.n_head // each for each in shape.n_head_kv if each), default=1)
    key, value = shape.key_length, shape.value_length
    if not value:  # latent attention: values are a part of the keys
        return key == 576 and heads > 1
    if key == value:
        return key in FLASH or (key == 512 and heads > 1)
    return (key, value, heads % 8) == (192, 128, 0) or (key, value, heads % 32) == (320, 256, 0)


def driver(shape: ModelShape) -> int:
    """Its driver and libraries."""
    return DRIVER_BYTES + library(shape)


def library(shape: ModelShape) -> int:
    return LIBRARY_BYTES if shape.vendor_math or not flash(shape) else 0


def buffers(
    shape: ModelShape, ctx: int, slots: int, cache_type: CacheType, *, lent: bool, n_ubatch: int, engine: Abilities
) -> int:
    """Its compute buffer: the feed-forward step of a whole batch, or the attention if that is wider. `lent`: some
    layers are in the host, whose matrices and cache are copied to it to compute a whole batch there."""
    per = pad256(ctx / slots)
    batch = min(n_ubatch, per)
    masks = _masks(shape, per, batch, engine)
    layer = max(kv_by_layer(shape, ctx, slots, cache_type, n_ubatch, engine), default=0)
    feed = compute(shape, batch) - 2 * batch * batch + (shape.matrix_bytes if lent else 0)
    if not shape.n_expert and not shape.state_bytes:
        feed -= 8 * batch * shape.n_embd  # what kernels that do two steps in one leave out
    attention = 4 * batch * (3 * shape.n_head * shape.key_length + shape.n_embd)
    if lent:
        attention += round(layer)
    if not flash(shape):  # the scores of all cells, and the values turned round
        values = max(kv_by_layer(shape, ctx, slots, "f16", n_ubatch, engine), default=0) * shape.value_length
        attention += 4 * shape.n_head * per * batch + round(values / (shape.key_length + shape.value_length or 1))
    elif cache_type != "f16":  # the kernels read no other: a layer's cache is unpacked for them
        attention += round(max(kv_by_layer(shape, ctx, slots, "f16", n_ubatch, engine), default=0))
    return round((1 + shape.margin) * max(feed, attention)) + masks


def host_buffers(shape: ModelShape, ctx: int, slots: int, n_ubatch: int, engine: Abilities) -> int:
    """Of the host where layers are on a GPU: what goes there and comes back."""
    per = pad256(ctx / slots)
    batch = min(n_ubatch, per)
    return 8 * batch * shape.n_embd + _masks(shape, per, batch, engine)


def _masks(shape: ModelShape, per: int, batch: int, engine: Abilities) -> int:
    """Which cells each token of a batch may see, two bytes each."""
    if not shape.cache:
        return 2 * batch * batch
    window = min(per, pad256(shape.n_swa + N_UBATCH)) if any(shape.swa_layers) and not engine.whole_window else 0
    return 2 * batch * (per + window)
