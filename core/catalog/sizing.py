"""Memory before launch, by a formula measured on real engines, and whether that fits.

Engines allocate their buffers when they load and touch them when they first need them, so there are three figures:
`ready` (nothing was asked yet), `resident` (in use: a prompt of a whole batch was read) and `full` (every slot busy
with all of its context). Admission reserves for the last. `bench_sizing.py` holds the first two against real engines
over 256 to 32768 cells a slot, 1 to 256 slots and three cache types, and all three at points drawn by chance.
Mixtures of experts, hybrid models and GPU offload are open, and said to be.
"""

from __future__ import annotations

import math
from typing import Literal

from core.engines.base import Abilities
from core.nouns import DeploymentSpec, ModelShape, Plan, PlanParts

MIB = 1 << 20
CELL_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
PIECE = 256
"""Engines give out the context of a conversation in pieces of so many cells."""
DEFAULT_CTX_PER_SLOT = 4096
N_UBATCH = 512
"""Tokens that an engine computes at once, its default."""
SLOT_BYTES = 96 << 10
"""What a slot takes of itself, measured with up to 256."""
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
    cells = per * slots
    window = per if engine.whole_window else min(per, pad256(shape.n_swa + n_ubatch))
    row = CELL_BYTES[cache_type] * (shape.key_length + shape.value_length)
    sliding = shape.swa_layers or (False,) * shape.n_layer
    kv = sum(
        (window * slots if slides else cells) * heads * row
        for heads, slides in zip(shape.n_head_kv, sliding, strict=True)
    )
    # What the widest step of a whole batch holds; a slot of less than a batch never has one in it.
    wide = max(shape.n_embd, shape.n_head * shape.key_length)  # gemma3's queries are wider than its embedding
    batch = min(n_ubatch, per)
    compute = batch * 4 * (2 * shape.n_ff + 4 * shape.n_embd + 4 * wide) + _mask(batch, batch)
    # With embeddings every token of a batch has scores, once where they are computed and once where they are kept.
    scores = 4 * shape.n_vocab * batch if embedding else 0
    early = scores // 2 if engine.early_scores else 0
    return PlanParts(
        weights=shape.tensor_bytes,
        kv_cache=round(kv),
        compute=compute + 2 * scores - early,
        repack=shape.repack_bytes,
        output=(4 * shape.n_vocab + SLOT_BYTES) * slots + early,  # scores of the next token
        base=engine.program_bytes + 150 * shape.n_vocab,
        checkpoints=_checkpoint(shape, per, row) if engine.checkpoints else 0,
    )


def ready(found: PlanParts) -> int:
    """Resident set of a replica that was not asked anything yet: its compute buffers are there and untouched."""
    return found.weights + found.kv_cache + found.repack + found.output + found.base


def resident(found: PlanParts) -> int:
    """Resident set in use: after a prompt of a whole batch."""
    return ready(found) + found.compute + found.checkpoints


def full(
    found: PlanParts, shape: ModelShape, ctx: int, parallel: int, n_ubatch: int = N_UBATCH, engine: Abilities = DEFAULT
) -> int:
    """Resident set with every slot busy and each context full, beside the prompt cache (which has its own limit)."""
    slots = max(1, parallel)
    per = pad256(ctx / slots)
    window = min(per, pad256(shape.n_swa + n_ubatch)) if any(shape.swa_layers) and not engine.whole_window else 0
    batch = min(n_ubatch, per)
    masks = _mask(per, batch) + _mask(window, batch) - _mask(batch, batch)  # touched as far as the context is filled
    samplers = CANDIDATE_BYTES * shape.n_vocab * slots
    return resident(found) + masks + samplers + found.checkpoints * max(0, slots * engine.checkpoints - 1)


def _mask(cells: int, batch: int) -> int:
    """Which cells each token of a batch may see, two bytes each."""
    return 2 * cells * batch


def _checkpoint(shape: ModelShape, per: int, row: float) -> int:
    """One kept state of a conversation in the layers that see a window: without it these could not go back."""
    heads = sum(n for n, slides in zip(shape.n_head_kv, shape.swa_layers, strict=False) if slides)
    return round(min(per, shape.n_swa) * heads * row)


def reserved(most: int, cache_ram_mib: int) -> int:
    """What admission reserves for a replica whose resident set is at most `most`."""
    return round(1.05 * most) + 32 * MIB + cache_ram_mib * MIB


def plan(
    shape: ModelShape,
    *,
    model: str,
    ctx: int,
    parallel: int,
    cache_type: CacheType,
    cache_ram_mib: int,
    free_bytes: int,
    reserve_bytes: int,
    reserved_bytes: int,
    n_ubatch: int = N_UBATCH,
    engine: Abilities = DEFAULT,
    embedding: bool = False,
) -> Plan:
    """The plan of one replica against what is free (bytes), with the nearest thing that would fit if it does not."""
    found = parts(shape, ctx, parallel, cache_type, n_ubatch, engine, embedding)
    most = full(found, shape, ctx, parallel, n_ubatch, engine)
    need = reserved(most, cache_ram_mib)
    left = free_bytes - reserve_bytes - reserved_bytes
    fits = need <= left
    beside = f"{human(free_bytes)} free, {human(reserve_bytes)} kept for the host, {human(reserved_bytes)} reserved"
    notes = list(shape.open_questions)
    if shape.ctx_train and ctx // max(1, parallel) > shape.ctx_train:
        notes.append(f"the model was trained with {shape.ctx_train} tokens of context; more is clamped")
    return Plan(
        model=model,
        ctx=ctx,
        ctx_per_slot=ctx // max(1, parallel),
        parallel=parallel,
        cache_type=cache_type,
        ready_bytes=ready(found),
        rss_bytes=resident(found),
        full_bytes=most,
        plan_bytes=need,
        parts=found,
        free_bytes=free_bytes,
        reserve_bytes=reserve_bytes,
        reserved_bytes=reserved_bytes,
        fits=fits,
        reason=f"needs {human(need)} of {human(max(0, left))}: {beside}"
        if fits
        else f"needs {human(need)} and {human(max(0, left))} is left: {beside}",
        nearest=None
        if fits
        else nearest(shape, model, ctx, parallel, cache_type, cache_ram_mib, left, engine, embedding),
        notes=tuple(notes),
    )


def nearest(
    shape: ModelShape,
    model: str,
    ctx: int,
    parallel: int,
    cache_type: CacheType,
    cache_ram_mib: int,
    left: int,
    engine: Abilities = DEFAULT,
    embedding: bool = False,
) -> DeploymentSpec | None:
    """The nearest thing that fits, the least harmful change first: a smaller cache type (a little quality), then fewer
    slots (others wait), then a shorter conversation (what one came for)."""
    order: tuple[CacheType, ...] = ("f16", "q8_0", "q4_0")
    kinds = order[order.index(cache_type) :]
    per = max(512, ctx // max(1, parallel))
    while per >= 512:
        slots = max(1, parallel)
        while slots:
            for kind in kinds:
                found = parts(shape, per * slots, slots, kind, engine=engine, embedding=embedding)
                most = full(found, shape, per * slots, slots, engine=engine)
                if reserved(most, cache_ram_mib) <= left:
                    return DeploymentSpec(name="nearest", model=model, ctx=per * slots, parallel=slots, cache_type=kind)
            slots //= 2
        per //= 2
    return None


def human(size: int) -> str:
    """Bytes for people: 812 MiB, 3.4 GiB."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / MIB:.0f} MiB"
