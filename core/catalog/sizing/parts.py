"""What a replica takes of a host, by use.

Engines allocate their buffers when they load and touch them when they first need them, so there are three figures:
`ready` (nothing was asked yet), `resident` (in use: a prompt of a whole batch was read) and `full` (every slot busy
with all of its context). Admission reserves for the last. `bench_sizing.py` holds the first two against real engines
over 256 to 32768 cells a slot, 1 to 256 slots and three cache types, all three at points drawn by chance, and one
small file of each architecture that the formula knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from core.engines.base import Abilities
from core.nouns import ModelShape, PlanParts

MIB = 1 << 20
CELL_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
PIECE = 256
"""Engines give out the context of a conversation in pieces of so many cells."""
DEFAULT_CTX_PER_SLOT = 4096
N_UBATCH = 512
"""Tokens that an engine computes at once, its default."""
SLOT_BYTES = 96 << 10
"""What a slot takes of itself, measured with up to 256."""
PHOTO_BYTES = 72 * 10**6
"""What a photograph of 12 megapixels takes while it is read, six bytes a pixel (measured)."""
CANDIDATE_BYTES = 12
"""A token among which a slot chooses: number, score, probability."""
DEFAULT = Abilities(checkpoints=2)
"""Of the default engine."""
CacheType = Literal["f16", "q8_0", "q4_0"]


def pad256(cells: float) -> int:
    return math.ceil(cells / PIECE) * PIECE


def default_ctx(shape: ModelShape, parallel: int) -> int:
    """Total cells if nobody says: 4096 a slot, or what the model was trained with."""
    return min(shape.ctx_train or DEFAULT_CTX_PER_SLOT, DEFAULT_CTX_PER_SLOT) * max(1, parallel)


def parts(
    shape: ModelShape,
    ctx: int,
    parallel: int,
    cache_type: CacheType,
    n_ubatch: int = N_UBATCH,
    engine: Abilities = DEFAULT,
    embedding: bool = False,
) -> PlanParts:
    """Bytes by use, in use; `engine` says what its program takes, and whether it keeps a window or all."""
    slots = max(1, parallel)
    per = pad256(ctx / slots)
    more = 1 + shape.margin
    batch = min(n_ubatch, per)
    # With embeddings every token of a batch has scores, once where they are computed and once where they are kept; an
    # encoder has no scores, and its results are as wide as a token.
    scores = 4 * (shape.n_vocab if shape.cache else shape.n_embd) * batch if embedding or not shape.cache else 0
    early = scores // 2 if engine.early_scores and shape.cache else 0
    return PlanParts(
        weights=shape.mapped_bytes or shape.tensor_bytes,
        kv_cache=round(more * sum(kv_by_layer(shape, ctx, slots, cache_type, n_ubatch, engine))),
        state=round(more * sum(state_by_layer(shape, slots))),
        compute=round(more * compute(shape, batch)) + 2 * scores - early,
        repack=shape.repack_bytes,
        output=(4 * shape.n_vocab + SLOT_BYTES) * slots + early,  # scores of the next token
        # A vocabulary of which only the length is known is taken for one with merges, as most have them.
        base=engine.program_bytes + (shape.base_bytes or 150 * shape.n_vocab + 18 * MIB),
        checkpoints=round(more * _checkpoint(shape, per, cache_type)) if engine.checkpoints else 0,
    )


def kv_by_layer(
    shape: ModelShape, ctx: int, slots: int, cache_type: CacheType, n_ubatch: int, engine: Abilities
) -> list[float]:
    """Bytes of keys and values of each layer, of all slots (llama_kv_cache, llama_kv_cache_iswa)."""
    if not shape.cache:
        return [0.0] * shape.n_layer
    per = pad256(ctx / slots)
    window = per if engine.whole_window else min(per, pad256(shape.n_swa + n_ubatch))
    return [
        (window if slides else per) * slots * heads * _row(shape, cache_type, slides)
        for heads, slides in zip(shape.n_head_kv, _slides(shape), strict=True)
    ]


def state_by_layer(shape: ModelShape, slots: int) -> list[int]:
    """Bytes of the states of each layer, of all slots; they are never quantised (llama_memory_recurrent)."""
    each = shape.state_layers or (False,) * shape.n_layer
    return [shape.state_bytes * slots if has else 0 for has in each]


def compute(shape: ModelShape, batch: int) -> int:
    """What the widest step of a whole batch holds; a slot of less than a batch never has one in it."""
    wide = max(shape.n_embd, shape.n_head * shape.key_length)  # gemma3's queries are wider than its embedding
    row = shape.compute_row or 4 * (2 * shape.n_ff + 4 * shape.n_embd + 4 * wide)
    return batch * row + _mask(batch, batch)


def ready(found: PlanParts) -> int:
    """Resident set of a replica that was not asked anything yet: its compute buffers are there and untouched."""
    beside = found.projector + found.adapters + found.learned
    return found.weights + found.kv_cache + found.state + found.repack + found.output + found.base + beside


def resident(found: PlanParts) -> int:
    """Resident set in use: after a prompt of a whole batch, and the largest picture where it takes any."""
    return ready(found) + found.compute + found.checkpoints + found.pictures


def full(
    found: PlanParts, shape: ModelShape, ctx: int, parallel: int, n_ubatch: int = N_UBATCH, engine: Abilities = DEFAULT
) -> int:
    """Resident set with every slot busy and each context full, beside the prompt cache (which has its own limit)."""
    slots = max(1, parallel)
    per = pad256(ctx / slots)
    window = min(per, pad256(shape.n_swa + n_ubatch)) if any(shape.swa_layers) and not engine.whole_window else 0
    batch = min(n_ubatch, per)
    masks = 0
    if shape.cache and any(shape.n_head_kv):  # touched as far as the context is filled
        masks = _mask(per, batch) + _mask(window, batch) - _mask(batch, batch)
    samplers = CANDIDATE_BYTES * shape.n_vocab * slots
    photos = PHOTO_BYTES * slots if found.projector else 0
    return resident(found) + masks + samplers + photos + found.checkpoints * max(0, slots * engine.checkpoints - 1)


def reserved(most: int, cache_ram_mib: int) -> int:
    """What admission reserves for a replica whose resident set is at most `most`."""
    return round(1.05 * most) + 32 * MIB + cache_ram_mib * MIB


def human(size: int) -> str:
    """Bytes for people: 812 MiB, 3.4 GiB; what is no MiB in KiB or bytes."""
    if 0 < size < MIB:
        return f"{size / 1024:.0f} KiB" if size >= 1024 else f"{size} B"
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / MIB:.0f} MiB"


def _slides(shape: ModelShape) -> Sequence[bool]:
    return shape.swa_layers or (False,) * shape.n_layer


def _row(shape: ModelShape, cache_type: CacheType, slides: bool) -> float:
    """A cell of one head: key and value."""
    key, value = shape.key_length, shape.value_length
    if slides:
        key, value = shape.key_length_swa or key, shape.value_length_swa or value
    return CELL_BYTES[cache_type] * (key + value)


def _mask(cells: int, batch: int) -> int:
    """Which cells each token of a batch may see, two bytes each."""
    return 2 * cells * batch


def _checkpoint(shape: ModelShape, per: int, cache_type: CacheType) -> float:
    """One kept state of a conversation, in the layers that see a window or have a state: without it these could not
    go back."""
    heads = sum(n for n, slides in zip(shape.n_head_kv, shape.swa_layers, strict=False) if slides)
    window = min(per, shape.n_swa) * heads * _row(shape, cache_type, True)
    return window + shape.state_bytes * sum(shape.state_layers)
