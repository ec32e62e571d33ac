"""Whether what a replica takes fits into what is free, and the nearest thing that would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from core.catalog.sizing.devices import largest, split
from core.catalog.sizing.parts import (
    DEFAULT,
    N_UBATCH,
    CacheType,
    full,
    human,
    parts,
    ready,
    reserved,
    resident,
)
from core.engines.base import Abilities
from core.nouns import DeploymentSpec, ModelShape, Plan, PlanParts, Split


class Beside(NamedTuple):
    """What is loaded with the weights, and what was learned of launches like this one."""

    projector: int = 0
    """Bytes of its file."""
    graph: int = 0
    """Bytes that it takes beside its file (`projector.graph_bytes`); 0: not known, and an allowance is planned."""
    adapters: int = 0
    """Bytes of their files."""
    correction: float = 0.0
    """By how much a replica that is just ready differs from the formula: -0.03 is 3 % less."""


NOTHING = Beside()
PROJECTOR_LEAST = 256 << 20
"""What is allowed for the graph of a projector of a type that was not measured, or half of its file where that is more:
it goes by the picture (docs/sizing.md)."""


class Gpus(NamedTuple):
    """GPUs over which a plan is asked for."""

    free_bytes: tuple[int, ...]
    layers: int | None = None
    """As --n-gpu-layers; None: the most that fit."""
    cpu_moe: int | None = None
    """As --n-cpu-moe; None: the fewest with which all layers fit."""


def whole(
    shape: ModelShape,
    ctx: int,
    parallel: int,
    cache_type: CacheType,
    n_ubatch: int = N_UBATCH,
    engine: Abilities = DEFAULT,
    embedding: bool = False,
    beside: Beside = NOTHING,
) -> PlanParts:
    """`parts` with what is loaded beside the model, and as launches before have taught."""
    found = parts(shape, ctx, parallel, cache_type, n_ubatch, engine, embedding)
    learned = round(beside.correction * ready(found))
    return msgspec.structs.replace(
        found,
        projector=beside.projector,
        pictures=_graph(beside),
        adapters=beside.adapters,
        learned=learned,
    )


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
    beside: Beside = NOTHING,
    gpus: Gpus | None = None,
) -> Plan:
    """The plan of one replica against what is free (bytes), with the nearest thing that would fit if it does not."""
    found = whole(shape, ctx, parallel, cache_type, n_ubatch, engine, embedding, beside)
    most = full(found, shape, ctx, parallel, n_ubatch, engine)
    need = reserved(most, cache_ram_mib)
    left = free_bytes - reserve_bytes - reserved_bytes
    fits = need <= left
    told = f"{human(free_bytes)} free, {human(reserve_bytes)} kept for the host, {human(reserved_bytes)} reserved"
    notes = list(shape.open_questions)
    if shape.ctx_train and ctx // max(1, parallel) > shape.ctx_train:
        notes.append(f"the model was trained with {shape.ctx_train} tokens of context; more is clamped")
    if beside.correction:
        notes.append(
            f"{beside.correction:+.1%} as launches of {shape.arch} were seen to take (corral models corrections)"
        )
    if beside.projector:
        graph = human(_graph(beside))
        notes.append(
            f"{graph} are for the projector's own graph, by its header"
            if beside.graph
            else f"{graph} are allowed for the projector's own graph: one of its type was not measured"
        )
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
        reason=f"needs {human(need)} of {human(max(0, left))}: {told}"
        if fits
        else f"needs {human(need)} and {human(max(0, left))} is left: {told}",
        nearest=None
        if fits
        else nearest(shape, model, ctx, parallel, cache_type, cache_ram_mib, left, engine, embedding, beside),
        notes=tuple(notes),
        margin=shape.margin,
        correction=beside.correction,
        split=_split(shape, found, ctx, parallel, cache_type, n_ubatch, engine, left, gpus) if gpus else None,
    )


def _graph(beside: Beside) -> int:
    return (beside.graph or max(PROJECTOR_LEAST, beside.projector // 2)) if beside.projector else 0


def _split(
    shape: ModelShape, found: PlanParts, ctx: int, parallel: int, cache_type: CacheType, n_ubatch: int,
    engine: Abilities, left: int, gpus: Gpus,
) -> Split:  # fmt: skip
    """As asked, or the largest that fits."""
    free: Sequence[int] = gpus.free_bytes
    if gpus.layers is None:
        return largest(
            shape, found, ctx, parallel, cache_type, left, free, cpu_moe=gpus.cpu_moe, n_ubatch=n_ubatch, engine=engine
        )
    return split(
        shape, found, ctx, parallel, cache_type, left, free, gpu_layers=gpus.layers, cpu_moe=gpus.cpu_moe or 0,
        n_ubatch=n_ubatch, engine=engine,
    )  # fmt: skip


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
    beside: Beside = NOTHING,
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
                found = whole(shape, per * slots, slots, kind, engine=engine, embedding=embedding, beside=beside)
                most = full(found, shape, per * slots, slots, engine=engine)
                if reserved(most, cache_ram_mib) <= left:
                    return DeploymentSpec(name="nearest", model=model, ctx=per * slots, parallel=slots, cache_type=kind)
            slots //= 2
        per //= 2
    return None
