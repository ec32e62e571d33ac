"""The state machine of one replica: start, watch, drain, stop, back off, fail; one task for the replica's life.

A replica is `ready` only after the gateway has acknowledged its route, and it is stopped only after the route was
withdrawn, so that nobody is ever sent to a replica that is not there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from signal import SIGKILL, SIGTERM
from urllib.parse import urlsplit

import msgspec

from core.access import Effect, Gate
from core.budgets import threads_for
from core.catalog import Catalog
from core.deployments import tables
from core.deployments.ending import never_ran, reason_of, signal_name, verdict
from core.deployments.gatewaylink import GatewayLink, new_launch_id
from core.deployments.picture import Picture
from core.engines.base import Endpoint, Engine, EngineRegistry, LaunchPlan
from core.errors import CorralError, StoreError
from core.gateway import wire
from core.nodes.base import ExitRecord, LaunchOrder, LaunchState, Limits, Node
from core.nouns import CORRAL, LaunchStory, Replica
from core.settings import Settings
from core.store import Store

log = logging.getLogger(__name__)

SILENT_S = 30.0
"""After so long without an answer a replica that is ready says so."""
UNREACHABLE_S = 5.0
"""After so long without its socket a replica is started anew."""
NEVER = 3600.0
"""Seconds to the next look when only an event can change anything."""


class Yard:
    """What every runner shares; built once by the service."""

    def __init__(
        self,
        *,
        store: Store,
        gate: Gate,
        node: Node,
        engines: EngineRegistry,
        catalog: Catalog,
        link: GatewayLink,
        settings: Callable[[], Settings],
        clock: Callable[[], float],
        changed: Callable[[Runner], None],
        running: Callable[[], int],
        waits: Callable[[Runner], Awaitable[str]],
    ) -> None:
        self.store = store
        self.gate = gate
        self.node = node
        self.engines = engines
        self.catalog = catalog
        self.link = link
        self.settings = settings
        self.clock = clock
        self.changed = changed
        """Called after each change of a runner's view: publishes it and sends the routes."""
        self.running = running
        self.waits = waits
        """Empty if the replica's plan fits now, else the sentence that says what is missing."""


class Runner:
    """One replica. `want` and `ended` may be called at any time; the task acts on them."""

    def __init__(self, yard: Yard, deployment: str, index: int, row: tables.ReplicaRow | None) -> None:
        self.id = f"{deployment}/{index}"
        self.deployment = deployment
        self.index = index
        self._yard = yard
        self._wanted: tables.Wanted | None = None
        self._wake = asyncio.Event()
        self._launch: LaunchState | None = None
        self._row: tables.LaunchRow | None = None
        self._effect: Effect | None = None
        self._exit: ExitRecord | None = None
        self._endpoint: Endpoint | None = None
        self._began = 0.0
        self._waits_since = 0.0
        self._due = asyncio.get_running_loop().time() + self._left(row)
        self._anew = False
        self._saved_launch = row.launch if row else ""
        self._ready_at: float | None = None
        self._ready_since = 0.0
        self._since_before: float | None = None
        """Since when an adopted process has been ready."""
        self._silent_since: float | None = None
        """Since when it has not answered though it is ready."""
        self._unsaved = False
        """It is ready, and that is not in the database yet."""
        self._owed = False
        """The database does not have its state yet, because a write failed."""
        self._asked = ""
        """Why we told the process to end (removed, stopped, replaced)."""
        self._stop: Effect | None = None
        self._told = ""
        """The launch whose death is recorded."""
        self.routable = False
        self.gone = False
        now = yard.clock()
        view = Replica(
            id=self.id,
            deployment=deployment,
            model="",
            version=1,
            engine="",
            node=yard.node.name,
            state=row.state if row else "stopped",
            since=row.since if row else now,
            reason=row.reason if row else "",
            restarts=row.restarts if row else 0,
            next_try=row.next_try if row else None,
        )
        self.picture = Picture(view, yard.clock, lambda: yard.changed(self))

    @property
    def view(self) -> Replica:
        """What others see of it."""
        return self.picture.view

    # ---------------------------------------------------------------------------------------- from outside

    def want(self, wanted: tables.Wanted | None, *, anew: bool = False) -> None:
        """Say what should be; None: this replica shall go. `anew` forgets failures (a person asked)."""
        self._wanted = wanted
        if wanted is not None:
            self.picture.wanted(wanted)
        self._anew = self._anew or anew
        if self._launch is None:
            self._forget()
        self._wake.set()

    def _forget(self) -> None:
        """A person asked: what failed before does not count. Waits until the launch that ends has its record."""
        anew, self._anew = self._anew, False
        if anew:
            self._owed = True
            self._set(restarts=0, next_try=None)
            if self.view.state in ("failed", "backoff"):
                self._state("stopped", "will be started")

    def _left(self, row: tables.ReplicaRow | None) -> float:
        """Seconds of the pause that an earlier daemon left; the host's clock may have jumped meanwhile."""
        if row is None or row.next_try is None:
            return 0.0
        return min(
            max(0.0, row.next_try - self._yard.clock()), max(self._yard.settings().replicas.backoff_s, default=0)
        )

    def adopt(self, row: tables.LaunchRow, launch: LaunchState | None) -> None:
        """Take over what an earlier daemon started; `launch` None: its process never came to be."""
        self._row = row
        self._began = row.started_at
        self._waits_since = _now()
        if launch is None:
            self._exit = ExitRecord(reason="the daemon ended before the process was started")
            self._launch = never_ran(row.id, self.id, row.started_at, self._exit)
            return
        self._launch = launch
        self._set(launch=launch.id, pid=launch.pid)
        if not launch.alive:
            self._exit = launch.exit or ExitRecord(reason="keeper lost")
            self._set(pid=None)
            self._state("unknown", "it ended while no daemon ran")  # until the reason is looked at
        elif self.view.state not in ("draining", "stopping"):
            self._ready_at = None
            if self.view.state == "ready" and self._saved_launch == launch.id:
                self._since_before = self.view.since
            self._state("loading", "adopted from the daemon before")

    def ended(self, launch: LaunchState) -> None:
        """The node saw the launch end."""
        if self._launch is not None and launch.id == self._launch.id and not launch.alive:
            self._exit = launch.exit or ExitRecord(reason="keeper lost")
            self._wake.set()

    @property
    def launch(self) -> LaunchState | None:
        return self._launch

    @property
    def holds(self) -> bool:
        """Its reservation is taken: from the commit of its launch to its end."""
        return self._row is not None

    @property
    def limit(self) -> int:
        """Bytes of private memory at which the watchdog ends it; 0 for a server of somebody else."""
        return (self._wanted.spec.memory if self._wanted else 0) or self.view.plan_bytes

    def view_for(self, wanted: tables.Wanted) -> Replica:
        """Its picture as `wanted` sees it: one that runs an older generation is about to be replaced."""
        if self._row is None or self._row.generation == wanted.generation:
            return self.view
        return msgspec.structs.replace(self.view, state="stopping", reason="will be replaced")

    def route(self) -> wire.ReplicaRoute | None:
        """How the gateway reaches it; None while it takes no requests."""
        endpoint = self._endpoint
        if not self.routable or endpoint is None:
            return None
        kind = "tls" if endpoint.tls else "tcp"
        return wire.ReplicaRoute(
            id=self.id,
            launch=self.view.launch,
            endpoint=f"unix:{endpoint.socket}" if endpoint.socket else f"{kind}:{endpoint.host}:{endpoint.port}",
            secret=endpoint.secret,
            slots=max(1, self.view.parallel),
            prefix=endpoint.prefix,
        )

    async def count(self) -> None:
        """Ask the engine for its counters and show the rates since the last time."""
        if self._endpoint is not None and self.view.state == "ready":
            self.picture.count(await self._engine().counters(self._endpoint))

    # ---------------------------------------------------------------------------------------- the task

    async def run(self) -> None:
        """Live until the replica is unwanted and gone."""
        while not self.gone:
            self._wake.clear()
            try:
                pause = await self._step()
            except StoreError as error:
                log.error("%s: %s", self.id, error)
                pause = 2.0
            except CorralError as error:
                log.error("%s: %s", self.id, error)
                self._state(self.view.state, str(error))
                pause = 2.0
            except Exception as error:
                # One replica must not take the daemon along; it is looked at again.
                log.exception("%s: an error of ours", self.id)
                self._set(reason=f"an error of the daemon, told in its log: {type(error).__name__}")
                pause = 5.0
            if not self.gone:
                await self._sleep(pause)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _step(self) -> float:
        """Do the next thing; seconds until the next look."""
        if self._owed:
            await self._save()
        wanted = self._wanted
        if wanted is not None and not self._engine().abilities.starts:
            return await self._attached(wanted)
        if self._launch is None:
            return await self._idle(wanted)
        if self._exit is not None:
            return await (self._stopped() if self._asked else self._died())
        if wanted is None or wanted.wanted == "stopped" or (self._row and self._row.generation != wanted.generation):
            return await self._end(wanted)
        return await self._look()

    async def _idle(self, wanted: tables.Wanted | None) -> float:
        if wanted is None:
            await self._yard.store.transact(lambda db: tables.delete_replica(db, self.id))
            if self._wanted is None:  # else it was deployed again while its row was deleted
                self.gone = True
                self._yard.changed(self)
            return 0
        self._forget()
        if wanted.wanted == "stopped":
            if self.view.state != "stopped":
                self._set(restarts=0, next_try=None)
                self._state("stopped", "stopped")
                await self._save()
            return NEVER
        if self.view.state == "failed":
            return NEVER
        if self.view.state == "backoff" and self.view.next_try is not None and _now() < self._due:
            return self._due - _now()
        return await self._start(wanted)

    # ---------------------------------------------------------------------------------------- start

    async def _start(self, wanted: tables.Wanted) -> float:
        short = await self._yard.waits(self)
        if short or self._yard.store.low:
            reason = short or "the disk with the database is full: nothing is started until there is room"
            if self.view.state != "backoff" or self.view.reason != reason:
                self._set(next_try=None)
                self._state("backoff", reason)
            return 5.0
        engine = self._engine()
        launch = new_launch_id()
        secret = secrets.token_urlsafe(32)
        plan = await self._plan(wanted, secret)
        command = engine.command(plan)
        yard = self._yard
        request = f"auto-{launch}"
        row = tables.LaunchRow(
            id=launch,
            replica=self.id,
            generation=wanted.generation,
            secret=secret,
            effect="",
            request=request,
            started_at=yard.clock(),
            plan_bytes=wanted.plan.plan_bytes,
            rss_planned=wanted.plan.rss_bytes,
        )
        effect = await yard.gate.intent(
            CORRAL, "replica.start", f"replica:{self.id}", request,
            after={"launch": launch, "model": wanted.spec.model, "engine": wanted.spec.engine, "ctx": plan.ctx,
                   "parallel": plan.parallel, "threads": plan.threads, "plan_bytes": wanted.plan.plan_bytes},
            also=lambda db, effect: self._put_launch(db, msgspec.structs.replace(row, effect=effect)),
        )  # fmt: skip
        self._row, self._effect, self._exit = row, effect, None
        self._began, self._waits_since = row.started_at, _now()
        self._ready_at = None
        self._set(launch=launch, threads=plan.threads, pid=None, port=None, socket=None, next_try=None)
        self._state("starting", "the process is being started")
        replicas = yard.settings().replicas
        order = LaunchOrder(
            id=launch,
            kind="replica",
            owner=self.id,
            argv=command.argv,
            env=command.env,
            limits=Limits(
                data_bytes=(wanted.spec.memory or wanted.plan.plan_bytes) + engine.untouched_bytes(plan.shape),
                log_bytes=replicas.log_bytes,
                log_files=replicas.log_files,
            ),
            spec={"deployment": self.deployment, "generation": wanted.generation, "threads": plan.threads},
        )
        try:
            self._launch = await yard.node.launch(order)
        except CorralError as error:
            self._exit = ExitRecord(reason=str(error), time=yard.clock())
            self._launch = never_ran(launch, self.id, row.started_at, self._exit)
            return 0
        self._set(pid=self._launch.pid)
        self._state("loading", "the engine loads the model")
        return 0.1

    def _put_launch(self, db: sqlite3.Connection, row: tables.LaunchRow) -> None:
        """In the transaction of its intent: a launch is either known wholly or was never begun."""
        tables.put_launch(db, row)
        tables.put_replica(
            db, msgspec.structs.replace(self.picture.row(), state="starting", reason="", next_try=None, launch=row.id)
        )

    async def _plan(self, wanted: tables.Wanted, secret: str) -> LaunchPlan:
        yard = self._yard
        model = await yard.catalog.get(wanted.spec.model)
        facts = await yard.node.facts()
        threads = wanted.spec.threads or threads_for(facts, yard.settings().capacity, yard.running())
        return LaunchPlan(
            spec=wanted.spec,
            alias=self.deployment,
            model_path=yard.catalog.path(model),
            shape=model.shape,
            ctx=wanted.spec.ctx,
            parallel=wanted.spec.parallel,
            threads=threads,
            secret=secret,
        )

    # ---------------------------------------------------------------------------------------- watch

    async def _look(self) -> float:
        """Ask for health until it is ready, then each five seconds."""
        yard, launch = self._yard, self._launch
        assert launch is not None and self._row is not None
        endpoint = self._find_endpoint(launch)
        health = await self._engine().health(endpoint) if endpoint else None
        if self._exit is not None:
            return 0
        if health is None or health.state != "ready":
            if self.view.state == "ready":
                return self._silent() if health is not None else await self._unreachable(launch)
            if _now() - self._waits_since > yard.settings().replicas.start_timeout_s:
                self._set(reason=f"not ready after {yard.settings().replicas.start_timeout_s:.0f} s")
                await yard.node.signal(launch.id, SIGKILL)
                await self._sleep(10)
                return 0
            return 0.1
        if self.view.state == "ready":
            if self._unsaved:
                await self._record_ready(launch)
            self._silent_since = None
            self._set(reason="")
            return 5.0
        self._endpoint = endpoint
        self.routable = True
        yard.changed(self)
        if not await yard.link.acknowledged(yard.link.status().snapshot, 5):
            self._state("loading", "loaded; waits for the gateway")
            return 0.2
        self._ready_at, self._ready_since = yard.clock(), _now()
        self._state("ready", "")
        if self._since_before is not None:
            self._set(since=self._since_before)
            self._since_before = None
        await self._settle("done", {"launch": launch.id, "pid": launch.pid})
        self._unsaved = True
        await self._record_ready(launch)
        return 5.0

    def _silent(self) -> float:
        """Ready, and it does not answer: a busy engine answers late, so nothing is ended, but after a while it is said.
        Whether its process lives is watched by the node."""
        self._silent_since = self._silent_since or _now()
        seconds = _now() - self._silent_since
        if seconds >= SILENT_S:
            self._set(reason=f"it has not answered its health check for {seconds:.0f} s")
        return 1.0

    async def _unreachable(self, launch: LaunchState) -> float:
        """Ready, and its socket is gone (somebody removed its folder): nobody can ask it, so it begins anew."""
        self._silent_since = self._silent_since or _now()
        if _now() - self._silent_since < UNREACHABLE_S:
            return 0.5
        self._set(reason="its socket is gone, so that nobody can ask it: started anew")
        await self._yard.node.signal(launch.id, SIGKILL)
        await self._sleep(10)
        return 0

    async def _record_ready(self, launch: LaunchState) -> None:
        await self._save()
        rss = await self._measure(launch.id)
        ready_at = self._ready_at
        await self._yard.store.transact(lambda db: tables.measured(db, launch.id, rss, ready_at or 0.0))
        self._unsaved = False

    async def _measure(self, launch: str) -> int:
        for sample in await self._yard.node.samples([launch], pss=True):
            self.picture.figures(sample)
            return sample.rss_bytes
        return 0

    def _find_endpoint(self, launch: LaunchState) -> Endpoint | None:
        assert self._row is not None
        node = self._yard.node
        if self._engine().abilities.unix_socket:
            socket = node.socket(launch)
            self._set(socket=socket or None, port=None)
            return Endpoint(socket=socket, secret=self._row.secret) if socket else None
        port = node.port(launch)
        if port is None:
            return None
        self._set(socket=None, port=port)
        return Endpoint(host="127.0.0.1", port=port, secret=self._row.secret)

    async def _attached(self, wanted: tables.Wanted) -> float:
        """A server of somebody else: watched and routed to, never started or stopped."""
        if wanted.wanted == "stopped":
            self.routable = False
            if self.view.state != "stopped":
                self._state("stopped", "no longer routed to")
            return NEVER
        url = urlsplit(wanted.spec.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        self._endpoint = Endpoint(
            host=url.hostname or "", port=port, prefix=url.path.rstrip("/"), tls=url.scheme == "https"
        )
        self._set(port=port)
        health = await self._engine().health(self._endpoint)
        was, self.routable = self.routable, health.state == "ready"
        if self.routable and self.view.state != "ready":
            self._state("ready", "")
            await self._yard.link.acknowledged(self._yard.link.status().snapshot, 2)
        elif not self.routable:
            reason = health.reason or f"{wanted.spec.url} does not answer"
            if was or self.view.state != "backoff" or self.view.reason != reason:
                self._state("backoff", reason)
        return 2.0

    # ---------------------------------------------------------------------------------------- stop

    async def _end(self, wanted: tables.Wanted | None) -> float:
        """Withdraw the route, drain, TERM, KILL."""
        yard, launch = self._yard, self._launch
        assert launch is not None
        replicas = yard.settings().replicas
        self._state("draining", "takes no new requests")
        self.routable = False
        yard.changed(self)
        await yard.link.acknowledged(yard.link.status().snapshot, 2)
        deadline = _now() + replicas.drain_timeout_s
        while yard.link.in_flight(self.id) and _now() < deadline and self._exit is None:
            await self._sleep(0.2)
            self._wake.clear()
        why = "removed" if wanted is None else "stopped" if wanted.wanted == "stopped" else "replaced"
        self._state("stopping", why)
        self._asked, self._stop = why, None
        try:
            self._stop = await yard.gate.intent(CORRAL, "replica.stop", f"replica:{self.id}", f"auto-{launch.id}")
        except StoreError as error:
            log.error("%s is stopped without a record of the intent: %s", self.id, error)
        # Some engines hang in their own clean-up until they are asked a second time.
        again = min(self._engine().abilities.term_again_s, replicas.stop_timeout_s)
        asks = [(SIGTERM, again)] if again else []
        asks += [(SIGTERM, replicas.stop_timeout_s - again), (SIGKILL, 10.0)]
        for signal, wait in asks:
            if self._exit is None:
                await yard.node.signal(launch.id, signal)
                deadline = _now() + wait
                while self._exit is None and _now() < deadline:
                    await self._sleep(min(0.5, wait))
                    self._wake.clear()
        if self._exit is None:
            if self._stop:
                await yard.gate.outcome(self._stop, "failed", reason="the process does not end on SIGKILL")
            self._stop, self._asked = None, ""
            self._set(reason="the process does not end on SIGKILL")
            return 5.0
        return await self._stopped()

    async def _stopped(self) -> float:
        """It has ended because we asked: record that. Repeated from its beginning if the store fails in between."""
        launch, why = self._launch, self._asked
        assert launch is not None
        stop, self._stop = self._stop, None
        if stop:
            await self._yard.gate.outcome(stop, "done", after={"launch": launch.id, "why": why})
        await self._settle("interrupted", None, f"{why} before it was ready")
        await self._finish(why, ())
        self._asked = ""
        self._state("stopped", why)
        await self._save()
        return 0

    async def _died(self) -> float:
        """The engine ended though nobody asked: say why, and back off or fail."""
        yard, exit, wanted = self._yard, self._exit, self._wanted
        assert exit is not None and self._launch is not None
        was_ready = self._ready_at is not None
        self.routable = False
        tail = await self._tail()
        failure = self._engine().explain(code=exit.code, signal=exit.signal, log_tail=tail, was_ready=was_ready)
        reason = reason_of(exit, failure, self.view.rss_planned, self.limit)
        launch = self._launch.id
        if self._effect is not None and not was_ready:
            await self._settle("failed", None, reason)
            self._told = launch
        if self._told != launch:  # else the store failed after this record and we are here again
            await self._settle("failed", None, reason)
            await yard.gate.record(
                CORRAL, "replica.died", f"replica:{self.id}", f"auto-{launch}", "done", reason=reason,
                after={"launch": launch, "code": exit.code, "signal": signal_name(exit.signal)},
            )  # fmt: skip
            self._told = launch
        steady = was_ready and _now() - self._ready_since >= yard.settings().replicas.steady_s
        await self._finish(reason, failure.lines)
        then = verdict(
            wanted=wanted is not None and wanted.wanted != "stopped", reason=reason, permanent=failure.permanent,
            restarts=self.view.restarts, steady=steady, pauses=yard.settings().replicas.backoff_s,
        )  # fmt: skip
        if then.pause is not None:
            self._due = _now() + then.pause
        next_try = None if then.pause is None else yard.clock() + then.pause
        self._set(restarts=then.restarts, next_try=next_try)
        self._state(then.state, then.reason)
        await self._save()
        return 0

    async def _finish(self, reason: str, lines: tuple[str, ...]) -> None:
        """Record the launch's end and forget its process."""
        launch, exit = self._launch, self._exit or ExitRecord()
        assert launch is not None
        story = LaunchStory(
            launch=launch.id,
            started_at=self._began,
            ended_at=exit.time or self._yard.clock(),
            code=exit.code,
            signal=exit.signal,
            reason=reason,
            lines=lines,
            peak_rss_bytes=exit.peak_rss_bytes,
        )
        await self._yard.store.transact(lambda db: tables.end_launch(db, story))
        await self._tidy(launch.id)
        self._launch = self._row = self._exit = self._endpoint = self._ready_at = self._silent_since = None
        self._since_before = None
        self.picture.gone()

    async def _tidy(self, newest: str) -> None:
        """Keep the folders (logs) of the last two launches."""

        def old(db: sqlite3.Connection) -> list[str]:
            return tables.launches_of(db, self.id)[2:12]

        for launch in await self._yard.store.read(old):
            try:
                await self._yard.node.remove(launch)
            except CorralError:
                continue

    async def _tail(self) -> list[str]:
        assert self._launch is not None
        try:
            piece = await self._yard.node.read_log(self._launch.id, -16384, 16384)
        except (CorralError, OSError):
            return []
        return piece.data.decode("utf-8", "replace").splitlines()

    async def _settle(self, outcome: str, after: object, reason: str = "") -> None:
        """Write the outcome of the start, once."""
        effect, self._effect = self._effect, None
        if effect is not None:
            await self._yard.gate.outcome(effect, outcome, after=after, reason=reason)  # type: ignore[arg-type]

    # ---------------------------------------------------------------------------------------- its picture

    def _engine(self) -> Engine:
        return self._yard.engines.get(self._wanted.spec.engine if self._wanted else self.view.engine or "xllamacpp")

    def _set(self, **fields: object) -> None:
        self.picture.set(**fields)

    def _state(self, state: str, reason: str) -> None:
        self.picture.state(state, reason)

    async def _save(self) -> None:
        self._owed, row = True, self.picture.row()
        await self._yard.store.transact(lambda db: tables.put_replica(db, row))
        self._owed = False


def _now() -> float:
    """Seconds on a clock that nobody sets."""
    return asyncio.get_running_loop().time()
