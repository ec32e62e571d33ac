"""Measurements as jobs: of a model over threads, slots and context, and of the host itself. One at a time: two would
measure each other. Each engine is admitted as a replica would be; what does not fit is left out and said."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from core.access import Effect, Gate
from core.catalog import hostbench, sizing
from core.catalog.seen import Observation
from core.catalog.service import Catalog, Serving
from core.catalog.speed import Seat
from core.catalog.speeds import Speeds
from core.catalog.tiers.moving import whole
from core.catalog.timing import Meter, Rates
from core.catalog.trial import end_all, engine_for, new_secret
from core.engines.base import Engine, EngineRegistry, LaunchPlan
from core.errors import Conflict, CorralError, Failed, Invalid, NoRoom, NotFound
from core.events import Bus
from core.nodes.base import Node
from core.nouns import Actor, Bench, BenchJob, BenchPoint, DeploymentSpec, Model, NodeFacts
from core.store import Store

log = logging.getLogger(__name__)

JOBS_KEPT = 20
POINTS = 64
"""Of one curve, at most."""
ANSWER, SPARE = 32, 64
"""Tokens of an answer, and cells that stay free beside it."""
ROUNDS = 3
CACHE_RAM_MIB = 0
"""No prompt is asked twice."""
ENDED = ("done", "failed", "cancelled")

Lend = Callable[[int, str], AbstractAsyncContextManager[None]]


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is measured: each with each."""

    threads: tuple[int, ...] = ()
    """Empty: 1 and what a replica gets, up to all cores."""
    parallel: tuple[int, ...] = (1, 2, 4)
    ctx: tuple[int, ...] = (512,)
    """Cells of one conversation, nearly filled when its answer begins."""
    engine: str = "xllamacpp"
    cache_type: sizing.CacheType = "f16"


class Benches:
    """The jobs. `lend` admits (core/deployments/lending.py), `running` counts replicas, probes lie in `folder`."""

    def __init__(
        self, store: Store, gate: Gate, bus: Bus, node: Node, engines: EngineRegistry, catalog: Catalog, speeds: Speeds,
        *, folder: Path, lend: Lend, running: Callable[[], int], ready_s: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store, self._gate, self._bus, self._node = store, gate, bus, node
        self._engines, self._catalog, self._speeds = engines, catalog, speeds
        self._folder, self._lend, self._running, self._ready_s = folder, lend, running, ready_s
        self._clock = clock
        self._jobs: dict[str, BenchJob] = {}
        self._task: asyncio.Task[None] | None = None
        self._why = ""
        """It is being ended."""

    async def start(self) -> None:
        """End what an earlier daemon left."""
        await asyncio.to_thread(shutil.rmtree, self._folder, True)
        if left := await end_all(self._node):
            log.warning("%d engines of measurements that an earlier daemon left were ended", left)

    async def close(self) -> None:
        """End the one that runs."""
        if self._task is not None:
            self._why = self._why or "the daemon ends"
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # ---------------------------------------------------------------------------------------- for callers

    def ls(self) -> list[BenchJob]:
        """Those that this daemon knows of, oldest first."""
        return list(self._jobs.values())

    def job(self, id: str) -> BenchJob:
        """Raises `NotFound`."""
        if id not in self._jobs:
            raise NotFound(f"no measurement {id!r}")
        return self._jobs[id]

    async def cancel(self, actor: Actor, id: str) -> BenchJob:
        """End a measurement; nothing of it is kept. An ended one stays as it is."""
        if self.job(id).state not in ENDED and self._task is not None:
            self._why = self._why or f"{actor.name} cancelled it"
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=30)
        return self.job(id)

    async def measure_host(self, actor: Actor, request: str, *, force: bool = False) -> BenchJob:
        """Begin to measure this host; `force` keeps what nobody would believe, too. Raises `Conflict` while something
        else is measured."""
        engine = self._usable("xllamacpp")
        facts = await self._node.facts()
        total = hostbench.steps(facts.cores)
        return self._begin(
            actor, "node", f"node:{self._node.name}", total,
            lambda job: self._host(job, actor, request, engine, facts, force),
        )  # fmt: skip

    async def measure_model(self, actor: Actor, request: str, name: str, grid: Grid) -> BenchJob:
        """Begin to measure a stored version: `chat`, `chat@3`. Raises `NotFound`, `Invalid`, and `Conflict`."""
        serving = await self._catalog.serving(name)
        model, engine, facts = serving.model, self._usable(grid.engine), await self._node.facts()
        points = self._points(model, engine, grid, facts)
        return self._begin(
            actor, "model", f"model:{model.name}", len(points),
            lambda job: self._model(job, actor, request, serving, engine, grid, points, facts),
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------- inside

    def _usable(self, name: str) -> Engine:
        engine = self._engines.get(name)
        there = engine.availability()
        if not engine.abilities.starts or not there.found:
            why = there.reason or "it is a server of somebody else"
            raise Invalid(f"engine {name} cannot be started here", why, "see `corral engines`")
        return engine

    def _points(self, model: Model, engine: Engine, grid: Grid, facts: NodeFacts) -> list[tuple[int, int, int]]:
        """(threads, slots, context of one conversation). Raises `Invalid`."""
        threads = grid.threads or tuple(sorted({1, max(1, facts.cores - 1), facts.cores}))
        least, most = sizing.PIECE, model.shape.ctx_train or 1 << 24
        for field, values, low, high in (
            ("threads", threads, 1, facts.cores), ("parallel", grid.parallel, 1, 64), ("ctx", grid.ctx, least, most),
        ):  # fmt: skip
            for value in values:
                if not low <= value <= high:
                    raise Invalid(f"{field} is {value}", f"it may be {low} to {high} here", f"change --{field}")
        if max(grid.parallel, default=1) > 1 and not engine.abilities.parallel:
            raise Invalid(f"{engine.name} serves one request at a time", todo="use --parallel 1")
        if grid.cache_type not in engine.abilities.cache_types:
            raise Invalid(f"{engine.name} does not take cache type {grid.cache_type}")
        found = sorted(set(product(threads, grid.parallel, grid.ctx)))
        if not found or len(found) > POINTS:
            raise Invalid(f"{len(found)} points are no curve", f"1 to {POINTS} are measured at a time", "name fewer")
        return found

    def _begin(
        self, actor: Actor, kind: str, object: str, total: int, work: Callable[[BenchJob], Awaitable[None]]
    ) -> BenchJob:
        running = next((each for each in self._jobs.values() if each.state not in ENDED), None)
        if running is not None:
            raise self._busy(actor, running)
        while len(self._jobs) >= JOBS_KEPT:
            del self._jobs[next(iter(self._jobs))]
        job = BenchJob(
            id=secrets.token_hex(6), kind=kind, object=object, state="measuring", by=actor.name, total=total
        )  # fmt: skip
        self._put(job)
        self._why = ""
        self._task = asyncio.create_task(self._run(job, work))
        return job

    def _busy(self, actor: Actor, running: BenchJob) -> Conflict:
        """Named to whom may see it."""
        if not self._gate.may(actor, f"{running.kind}s.read", running.object):
            return Conflict("something is measured already", "two would measure each other", "wait until it ends")
        name = running.object.partition(":")[2]
        return Conflict(
            "something is measured already", f"{running.object}, by {running.by}: two would measure each other",
            f"wait until it ends, or cancel it: corral {running.kind}s bench {name} --cancel",
        )  # fmt: skip

    async def _run(self, job: BenchJob, work: Callable[[BenchJob], Awaitable[None]]) -> None:
        """Any error is the job's: it must end."""
        try:
            await work(job)
        except asyncio.CancelledError:
            self._set(job.id, state="cancelled")
        except Exception as error:
            if not isinstance(error, CorralError):
                log.exception("an error of ours while %s was measured", job.object)
            told = (
                error if isinstance(error, CorralError) else Failed("the daemon failed", "this is a bug", "see its log")
            )
            self._set(job.id, state="failed", error=told.body())

    async def _effect(self, job: BenchJob, effect: Effect, work: Awaitable[tuple[object, dict[str, object]]]) -> None:
        """Carry out what an intent was recorded for, record how it ended, and only then show it: `work` gives what the
        record says, and what the job shows."""
        try:
            after, shown = await work
        except asyncio.CancelledError:
            await asyncio.shield(self._gate.outcome(effect, "interrupted", reason=self._why or "cancelled"))
            raise
        except BaseException as error:
            await self._gate.outcome(effect, "failed", reason=str(error))
            raise
        await self._gate.outcome(effect, "done", after=after)
        self._set(job.id, state="done", step="", done=job.total, **shown)

    async def _host(
        self, job: BenchJob, actor: Actor, request: str, engine: Engine, facts: NodeFacts, force: bool
    ) -> None:  # fmt: skip
        told = {"engine": engine.name} | ({"force": True} if force else {})
        effect = await self._gate.intent(actor, "nodes.bench", job.object, request, after=told)

        async def work() -> tuple[object, dict[str, object]]:
            async with self._lend(hostbench.need_bytes(), "measuring the host"):
                self._folder.mkdir(mode=0o711, exist_ok=True)
                self._folder.chmod(0o711)
                load = (await self._node.sample()).load1 / max(1, facts.cpus)
                found = await hostbench.measure(
                    self._node, engine, self._folder, facts, by=actor.name, at=self._clock(),
                    replicas=self._running(), load=load,
                    progress=lambda step, done, total: self._set(job.id, step=step, done=done, total=total),
                )  # fmt: skip
            if not force and (why := hostbench.nonsense(found)):
                raise Failed("what was measured of the host is not kept", why, hostbench.TODO)
            await self._store.transact(lambda db: self._speeds.put_host(db, found))
            return {"seconds": found.seconds, "bandwidth": round(found.bandwidths[-1].bytes_s)}, {"host": found}

        await self._effect(job, effect, work())

    async def _model(
        self, job: BenchJob, actor: Actor, request: str, serving: Serving, engine: Engine, grid: Grid,
        points: Sequence[tuple[int, int, int]], facts: NodeFacts,
    ) -> None:  # fmt: skip
        model = serving.model
        told = {"engine": engine.name, "points": len(points), "version": model.version, "sha256": model.sha256}
        effect = await self._gate.intent(actor, "models.bench", job.object, request, after=told)

        async def work() -> tuple[object, dict[str, object]]:
            measured: list[BenchPoint] = []
            learned: list[tuple[Seat, list[Observation]]] = []
            left_out: list[str] = []
            for n, (threads, parallel, ctx) in enumerate(points):
                step = f"{threads} threads, {parallel} at once, {ctx} cells"
                self._set(job.id, step=step, done=n)
                try:
                    point, seat = await self._point(serving, engine, grid, threads, parallel, ctx, facts)
                except NoRoom as error:
                    left_out.append(f"{step}: {error.why}")
                    continue
                measured.append(point)
                learned.append((seat, _observed(point, self._clock())))
            if not measured:
                raise NoRoom(
                    f"{model.name} was not measured", left_out[0], "measure with a smaller --ctx or --parallel"
                )
            bench = Bench(
                id=job.id, model=model.reference, sha256=model.sha256, node=self._node.name, engine=engine.name,
                version=engine.availability().version, cache_type=grid.cache_type, at=self._clock(), by=actor.name,
                points=tuple(measured), replicas=self._running(), left_out=tuple(left_out),
            )  # fmt: skip

            await _kept(self._speeds.keep_bench(model, bench, learned))
            return {"points": len(measured), "left_out": len(left_out)}, {"bench": bench}

        await self._effect(job, effect, work())

    async def _point(
        self, serving: Serving, engine: Engine, grid: Grid, threads: int, parallel: int, ctx: int, facts: NodeFacts
    ) -> tuple[BenchPoint, Seat]:
        """Start the model with these, time it, end it. Raises `NoRoom`, `Failed`."""
        model = serving.model
        cells, shape = ctx * parallel, model.shape
        found = sizing.parts(shape, cells, parallel, grid.cache_type, engine=engine.abilities)
        need = sizing.reserved(sizing.full(found, shape, cells, parallel, engine=engine.abilities), CACHE_RAM_MIB)
        spec = DeploymentSpec(
            name="bench", model=model.name, ctx=cells, parallel=parallel, threads=threads, engine=engine.name,
            cache_type=grid.cache_type,
        )  # fmt: skip
        plan = LaunchPlan(
            spec=spec, alias="bench", model_path=serving.path, shape=shape, ctx=cells, parallel=parallel,
            threads=threads, secret=new_secret(), cache_ram_mib=CACHE_RAM_MIB, adapter_paths=serving.adapters,
        )  # fmt: skip
        filled = max(16, ctx - ANSWER - SPARE)
        seat = Seat(threads=threads, parallel=parallel, cache_type=grid.cache_type)
        expected = await self._speeds.expect(model, engine.name, seat, users=parallel, ctx=filled, prompt=filled)
        async with (
            self._lend(need, f"{model.name} with {parallel} x {ctx} cells"),
            engine_for(
                self._node, engine, plan, owner=f"bench/{model.name}", plan_bytes=need, cpus=facts.cpus,
                ready_s=self._ready_s(),
            ) as endpoint,
        ):  # fmt: skip
            meter = Meter(endpoint)
            await meter.warm()
            rounds = [await meter.round(parallel, filled, ANSWER) for _ in range(ROUNDS)]
        return _median(rounds, threads, parallel, ctx, expected.each), seat

    def _set(self, id: str, **fields: object) -> None:
        self._put(msgspec.structs.replace(self._jobs[id], **fields))

    def _put(self, job: BenchJob) -> None:
        self._jobs[job.id] = job
        self._bus.publish("bench", job.object, job)


async def _kept(keeping: Coroutine[Any, Any, None]) -> None:
    """Until it is kept: who cancels it then comes too late, and is told that it is done."""
    task = asyncio.create_task(keeping)
    try:
        await whole(task)
    except asyncio.CancelledError:
        mine = asyncio.current_task()
        if task.cancelled() or task.exception() is not None or mine is None:
            raise
        mine.uncancel()


def _observed(point: BenchPoint, at: float) -> list[Observation]:
    """What a point teaches."""
    found = (("decode", point.each, point.parallel), ("prefill", point.prefill, 1))
    return [
        Observation(
            what=what, rate=rate, users=users, ctx=point.filled, prompt=point.filled, at=at, measured=True
        )
        for what, rate, users in found if rate > 0
    ]  # fmt: skip


def _median(rounds: Sequence[Rates], threads: int, parallel: int, ctx: int, expected: float) -> BenchPoint:
    each = statistics.median(found.each for found in rounds)
    return BenchPoint(
        threads=threads, parallel=parallel, ctx=ctx, filled=rounds[0].filled,
        prefill=round(statistics.median(found.prefill for found in rounds), 2), each=round(each, 2),
        total=round(each * parallel, 2), ttft_s=round(statistics.median(found.ttft_s for found in rounds), 4),
        expected=expected,
    )  # fmt: skip


def probes_folder(models: Path) -> Path:
    """Where probes lie while they are measured: engines of another account pass through."""
    return models / "probes"
