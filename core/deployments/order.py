"""What a launch will be, before anything is done: its row in the database and its order to the host."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from core.budgets import threads_for
from core.catalog.corrections import Kind
from core.deployments import tables
from core.deployments.yard import Yard
from core.engines.base import LaunchPlan
from core.nodes.base import LaunchOrder, Limits, new_launch_id
from core.nouns import NodeFacts

STACK_BYTES = 8 << 20
"""The stack of a thread counts towards the data limit from its start, though little of it is ever touched: without room
for it a small model did not start with 63 threads."""
MORE_THREADS = 16
"""Beside those that compute, and those that a server starts for each CPU of the host to take requests."""


class Order(NamedTuple):
    row: tables.LaunchRow
    order: LaunchOrder
    kind: Kind
    """What its memory is learned together with."""
    formula: int
    """What it takes when it is ready by the formula alone, bytes; 0: its plan has no such figure."""
    told: dict[str, object]
    """What the audit record of its intent says."""


async def draw_up(yard: Yard, wanted: tables.Wanted, replica: str) -> Order:
    """Plan a launch of a replica as it is wanted. Raises `NotFound` if its model is gone."""
    engine, spec, replicas = yard.engines.get(wanted.spec.engine), wanted.spec, yard.settings().replicas
    id, secret = new_launch_id(), secrets.token_urlsafe(32)
    facts = await yard.node.facts()
    plan = await _plan(yard, wanted, facts, secret)
    command = engine.command(plan)
    row = tables.LaunchRow(
        id=id,
        replica=replica,
        generation=wanted.generation,
        secret=secret,
        effect="",
        request=f"auto-{id}",
        started_at=yard.clock(),
        plan_bytes=wanted.plan.plan_bytes,
        # Beside what is measured when it is ready; a plan of an older program has no figure for that.
        rss_planned=wanted.plan.ready_bytes or wanted.plan.rss_bytes,
    )
    order = LaunchOrder(
        id=id,
        kind="replica",
        owner=replica,
        argv=command.argv,
        env=command.env,
        limits=Limits(
            data_bytes=(spec.memory or wanted.plan.plan_bytes)
            + engine.untouched_bytes(plan.shape)
            + STACK_BYTES * (plan.threads + facts.cpus + MORE_THREADS),
            stack_bytes=STACK_BYTES,
            log_bytes=replicas.log_bytes,
            log_files=replicas.log_files,
            offline=command.listens == "unix",
        ),
        spec={
            "deployment": spec.name, "generation": wanted.generation, "threads": plan.threads, "engine": spec.engine,
        },
    )  # fmt: skip
    told: dict[str, object] = {
        "launch": id, "model": spec.model, "version": wanted.version, "engine": spec.engine, "ctx": plan.ctx,
        "parallel": plan.parallel, "threads": plan.threads, "plan_bytes": wanted.plan.plan_bytes,
    }  # fmt: skip
    kind = Kind(plan.shape.arch, engine.name, engine.build())
    formula = wanted.plan.ready_bytes - wanted.plan.parts.learned if wanted.plan.ready_bytes else 0
    return Order(row, order, kind, formula, told)


async def _plan(yard: Yard, wanted: tables.Wanted, facts: NodeFacts, secret: str) -> LaunchPlan:
    spec = wanted.spec
    serving = await yard.catalog.serving(wanted.exactly)
    return LaunchPlan(
        spec=spec,
        alias=spec.name,
        model_path=serving.path,
        shape=serving.model.shape,
        ctx=spec.ctx,
        parallel=spec.parallel,
        threads=spec.threads or threads_for(facts, yard.settings().capacity, yard.running()),
        secret=secret,
        projector_path=serving.projector,
        adapter_paths=serving.adapters,
        template=serving.template,
        defaults=serving.model.defaults,
    )
