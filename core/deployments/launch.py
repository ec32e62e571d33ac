"""One launch of a replica, from its committed intent to its recorded end: started or adopted, watched, ended, told.

Only its runner calls it, from one task; `notice` and `ended` may come at any time. A launch takes requests only after
the gateway has acknowledged its route, and it is asked to end only after the gateway has drained it and the route was
withdrawn, so that nobody is ever sent to a process that is not there.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from signal import SIGKILL, SIGTERM
from typing import NamedTuple

import msgspec

from core.access import Effect
from core.catalog import corrections
from core.deployments import tables
from core.deployments.ending import ENDED, LOST, never_ran, of_ours, reason_of, signal_name
from core.deployments.loading import Load
from core.deployments.order import draw_up
from core.deployments.picture import Picture
from core.deployments.yard import Yard
from core.engines.base import Endpoint, Engine
from core.errors import CorralError, StoreError
from core.nodes.base import ExitRecord, LaunchOrder, LaunchState
from core.nouns import CORRAL, LaunchStory

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks at a replica that is ready."""
SILENT_S = 30.0
"""After so long without an answer a replica that is ready says so."""
UNREACHABLE_S = 5.0
"""After so long without its socket a replica is started anew."""


class Death(NamedTuple):
    """Why a launch ended though nobody asked. `steady`: it was ready for so long that earlier deaths don't count."""

    reason: str
    permanent: bool
    steady: bool


class Launch:
    """`state` is None until the host has said what became of it; `exit` is set when its process is gone."""

    def __init__(
        self, yard: Yard, picture: Picture, row: tables.LaunchRow, *, wake: asyncio.Event,
        save: Callable[[], Awaitable[None]], engine: str = "",
    ) -> None:  # fmt: skip
        self.row = row
        self.state: LaunchState | None = None
        self.exit: ExitRecord | None = None
        self.asked = ""
        """Why we told the process to end (removed, stopped, replaced)."""
        self.routable = False
        self.draining = False
        """It has its way, for the requests that it still answers, and gets no new ones."""
        self.endpoint: Endpoint | None = None
        self._yard = yard
        self._picture = picture
        self._wake = wake
        self._save = save
        self._engine_name = engine
        self._load: Load | None = None
        """Of an adopted one nobody knows how long it took."""
        self._effect: Effect | None = None
        self._stop: Effect | None = None
        self._waits_since = _now()
        self._ready_at: float | None = None
        self._ready_since = 0.0
        self._since_before: float | None = None
        """Since when an adopted process has been ready."""
        self._silent_since: float | None = None
        """Since when it has not answered though it is ready."""
        self._unsaved = False
        """It is ready, and that is not in the database yet."""
        self._told = False
        """Its death is recorded."""
        self._lost_since: float | None = None
        """Since when its process has been gone, though its keeper has not said how it ended."""
        self._killed = ""
        """Why Corral ended it, if it did so without anybody's asking."""

    @property
    def engine(self) -> Engine:
        """The one that it was started with, which need not be the one that is wanted now."""
        return self._yard.engines.get(self._engine_name or self._picture.view.engine or "xllamacpp")

    # ---------------------------------------------------------------------------------------- begin

    @classmethod
    async def commit(
        cls, yard: Yard, picture: Picture, wanted: tables.Wanted, *, wake: asyncio.Event,
        save: Callable[[], Awaitable[None]],
    ) -> tuple[Launch, LaunchOrder]:  # fmt: skip
        """Plan a launch and commit it, with its intent; what the host has to be told then."""
        made = await draw_up(yard, wanted, picture.view.id)

        def put(db: sqlite3.Connection, effect: str) -> None:
            """In the transaction of its intent: a launch is either known wholly or was never begun."""
            tables.put_launch(db, msgspec.structs.replace(made.row, effect=effect))
            if made.formula:
                corrections.planned(
                    db, made.row.id, made.kind, wanted.spec.model_name, made.formula, made.row.started_at
                )
            row = picture.row()
            tables.put_replica(
                db, msgspec.structs.replace(row, state="starting", reason="", next_try=None, launch=made.row.id)
            )

        effect = await yard.gate.intent(
            CORRAL, "replica.start", f"replica:{made.row.replica}", made.row.request, after=made.told, also=put
        )
        launch = cls(yard, picture, made.row, wake=wake, save=save, engine=wanted.spec.engine)
        launch._effect, launch._load = effect, Load(yard, wanted.exactly)
        return launch, made.order

    async def start(self, order: LaunchOrder) -> None:
        """Have the host start it. What goes wrong is its end."""
        picture = self._picture
        picture.set(launch=order.id, threads=order.spec["threads"], pid=None, port=None, socket=None, next_try=None)
        picture.state("starting", "the process is being started")
        if self._load is not None:
            await self._load.begin()
        try:
            self.state = await self._yard.node.launch(order)
        except CorralError as error:
            self._never(ExitRecord(reason=str(error), time=self._yard.clock()))
            return
        except Exception as error:
            log.exception("%s: an error of ours", order.owner)
            self._never(ExitRecord(reason=of_ours(error), time=self._yard.clock()))
            return
        picture.set(pid=self.state.pid)
        picture.state("loading", "the engine loads the model")

    def _never(self, exit: ExitRecord) -> None:
        self.exit = exit
        self.state = never_ran(self.row.id, self.row.replica, self.row.started_at, exit)

    def adopt(self, found: LaunchState | None, *, saved: bool) -> None:
        """Take over what an earlier daemon started; `found` None: its process never came to be. `saved`: the database
        has the replica's state as it was with this launch."""
        picture = self._picture
        if found is None:
            self._never(ExitRecord(reason="the daemon ended before the process was started"))
            return
        self.state = found
        self._engine_name = str(found.spec.get("engine", ""))
        picture.set(launch=found.id, pid=found.pid, threads=int(found.spec.get("threads", 0)))
        if not found.alive:
            self.exit = found.exit or ExitRecord(reason=LOST)
            picture.set(pid=None)
            picture.state("unknown", "it ended while no daemon ran")  # until the reason is looked at
        elif picture.view.state not in ("draining", "stopping"):
            if picture.view.state == "ready" and saved:
                self._since_before = picture.view.since
            picture.state("loading", "adopted from the daemon before")

    async def _meet(self) -> None:
        """Its keeper had not written launch.json yet when it was adopted: look again."""
        for found in await self._yard.node.launches():
            if found.id == self.row.id and found.pid is not None:
                self.adopt(found, saved=False)

    # ---------------------------------------------------------------------------------------- watch

    def ended(self, found: LaunchState) -> None:
        """The node saw a launch end."""
        if found.id == self.row.id and not found.alive:
            self.exit = found.exit or ExitRecord(reason=LOST)
            self._wake.set()

    def notice(self) -> bool:
        """Whether its process is gone, also when nobody has said so yet: then it is not shown as ready any more."""
        if self.exit is None and self._lost_since is None and not self._yard.node.lives(self.row.id):
            self._lost_since = _now()
        if self.exit is None and self._lost_since is None:
            return False
        if self._picture.view.state == "ready":  # until its runner has looked why
            self.routable = False
            self._picture.state("unknown", ENDED)
        return True

    async def look(self) -> float:
        """Ask for health until it is ready, then each `LOOK_S`; seconds until the next look."""
        yard, picture = self._yard, self._picture
        if self.state is not None and self.state.pid is None:
            await self._meet()
        launch = self.state
        assert launch is not None
        endpoint = self._find_endpoint(launch) if launch.pid is not None else None
        health = await self.engine.health(endpoint) if endpoint else None
        if self.notice():
            return self._lost()
        if health is None or health.state != "ready":
            if picture.view.state == "ready":
                return self._silent() if health is not None else await self._unreachable()
            if _now() - self._waits_since > yard.settings().replicas.start_timeout_s:
                await self.kill(f"it was not ready after {yard.settings().replicas.start_timeout_s:.0f} s")
                return 10.0
            return 0.1
        if picture.view.state == "ready":
            if self._unsaved:
                await self._record_ready()
            self._silent_since = None
            picture.set(reason="")
            return LOOK_S
        if self._load is not None:
            self._load.ready()
        self.endpoint = endpoint
        self.routable = True
        yard.changed(picture.view)
        if not await yard.link.acknowledged(yard.link.status().snapshot, 5):
            picture.state("loading", "loaded; waits for the gateway")
            return 0.2
        if self.notice():
            return self._lost()
        self._ready_at, self._ready_since = yard.clock(), _now()
        if self._since_before is None:
            picture.state("ready", "")
        else:  # in one step: who hears that it is ready asks at once since when
            picture.set(state="ready", reason="", since=self._since_before)
            self._since_before = None
        await self._settle("done", {"launch": launch.id, "pid": launch.pid})
        self._unsaved = True
        await self._record_ready()
        return LOOK_S

    def _lost(self) -> float:
        """Its process is gone; its keeper says how within milliseconds, unless something else holds the launch."""
        if self.exit is not None:
            return 0
        if _now() - (self._lost_since or 0.0) > UNREACHABLE_S:
            self._picture.state("unknown", f"{ENDED}, and something that it has started runs on")
            return 1.0
        return 0.1

    def _silent(self) -> float:
        """Ready, and it does not answer: a busy engine answers late, so nothing is ended, but after a while it is said.
        Whether its process lives is watched by the node."""
        self._silent_since = self._silent_since or _now()
        seconds = _now() - self._silent_since
        if seconds >= SILENT_S and not self._picture.stopped:
            self._picture.set(reason=f"it has not answered its health check for {seconds:.0f} s")
        return 1.0

    async def _unreachable(self) -> float:
        """Ready, and its socket is gone (somebody removed its folder): nobody can ask it, so it begins anew."""
        self._silent_since = self._silent_since or _now()
        if _now() - self._silent_since < UNREACHABLE_S:
            return 0.5
        await self.kill("its socket was gone, so that nobody could ask it")
        return 10.0

    async def kill(self, why: str, signal: int = SIGKILL) -> None:
        """End it at once, for a reason that its end will be told with."""
        before, self._killed = self._killed, why
        if not await self._yard.node.signal(self.row.id, signal):
            self._killed = before  # it has ended, and not for this reason
            return
        self._picture.set(reason=why)

    async def _record_ready(self) -> None:
        await self._save()
        rss = await self._measure()
        ready_at = self._ready_at

        def put(db: sqlite3.Connection) -> bool:
            tables.measured(db, self.row.id, rss, ready_at or 0.0)
            return corrections.measured(db, self.row.id, rss, ready_at or 0.0)

        if await self._yard.store.transact(put):
            await self._yard.catalog.corrections.refresh()
        if self._load is not None:
            await self._load.record(self.engine.name)
        self._unsaved = False

    async def _measure(self) -> int:
        for sample in await self._yard.node.samples([self.row.id], pss=True):
            self._picture.figures(sample)
            return sample.rss_bytes
        return 0

    def _find_endpoint(self, launch: LaunchState) -> Endpoint | None:
        node, picture = self._yard.node, self._picture
        if self.engine.abilities.unix_socket:
            socket = node.socket(launch)
            picture.set(socket=socket or None, port=None)
            return Endpoint(socket=socket, secret=self.row.secret) if socket else None
        port = node.port(launch)
        if port is None:
            return None
        picture.set(socket=None, port=port)
        return Endpoint(host="127.0.0.1", port=port, secret=self.row.secret)

    # ---------------------------------------------------------------------------------------- end

    async def end(self, why: str) -> float:
        """Drain, withdraw the route, TERM, KILL; 0 when its process is gone, else seconds until the next try."""
        yard, picture = self._yard, self._picture
        replicas = yard.settings().replicas
        picture.state("draining", "takes no new requests")
        self.draining = True
        yard.changed(picture.view)
        await yard.link.acknowledged(yard.link.status().snapshot, 2)
        deadline = _now() + replicas.drain_timeout_s
        while yard.link.in_flight(self.row.replica) and _now() < deadline and self.exit is None:
            await nap(self._wake, 0.2)
            self._wake.clear()
        self.routable = False
        yard.changed(picture.view)
        await yard.link.acknowledged(yard.link.status().snapshot, 2)
        picture.state("stopping", why)
        self.asked, self._stop = why, None
        try:
            self._stop = await yard.gate.intent(CORRAL, "replica.stop", f"replica:{self.row.replica}", self.row.request)
        except StoreError as error:
            log.error("%s is stopped without a record of the intent: %s", self.row.replica, error)
        # Some engines hang in their own clean-up until they are asked a second time.
        again = min(self.engine.abilities.term_again_s, replicas.stop_timeout_s)
        asks = [(SIGTERM, again)] if again else []
        asks += [(SIGTERM, replicas.stop_timeout_s - again), (SIGKILL, 10.0)]
        for signal, wait in asks:
            if self.exit is None:
                await yard.node.signal(self.row.id, signal)
                deadline = _now() + wait
                while self.exit is None and _now() < deadline:
                    await nap(self._wake, min(0.5, wait))
                    self._wake.clear()
        if self.exit is not None:
            return 0
        if self._stop:
            await yard.gate.outcome(self._stop, "failed", reason="the process does not end on SIGKILL")
        self._stop, self.asked = None, ""
        picture.set(reason="the process does not end on SIGKILL")
        return 5.0

    async def stopped(self) -> None:
        """It has ended because we asked: record that. Repeated from its beginning if the store fails in between."""
        stop, self._stop = self._stop, None
        if stop:
            await self._yard.gate.outcome(stop, "done", after={"launch": self.row.id, "why": self.asked})
        await self._settle("interrupted", None, f"{self.asked} before it was ready")
        await self._finish(self.asked, ())

    async def died(self, limit: int) -> Death:
        """It has ended though nobody asked: find out why and record it. `limit`: bytes of its private memory."""
        yard, exit, id = self._yard, self.exit, self.row.id
        assert exit is not None
        was_ready = self._ready_at is not None
        self.routable = False
        tail = await self._tail()
        failure = self.engine.explain(code=exit.code, signal=exit.signal, log_tail=tail, was_ready=was_ready)
        if self._killed:
            failure, reason = msgspec.structs.replace(failure, permanent=False), self._killed
        else:
            reason = reason_of(exit, failure, self._picture.view.rss_planned, limit)
        if self._effect is not None and not was_ready:
            await self._settle("failed", None, reason)
            self._told = True
        if not self._told:  # else the store failed after this record and we are here again
            await self._settle("failed", None, reason)
            await yard.gate.record(
                CORRAL, "replica.died", f"replica:{self.row.replica}", self.row.request, "done", reason=reason,
                after={"launch": id, "code": exit.code, "signal": signal_name(exit.signal)},
            )  # fmt: skip
            self._told = True
        steady = was_ready and _now() - self._ready_since >= yard.settings().replicas.steady_s
        await self._finish(reason, failure.lines)
        return Death(reason, failure.permanent, steady)

    async def _finish(self, reason: str, lines: tuple[str, ...]) -> None:
        """Record its end in the database and keep the folders (logs) of the last two launches."""
        exit = self.exit or ExitRecord()
        story = LaunchStory(
            launch=self.row.id,
            started_at=self.row.started_at,
            ended_at=exit.time or self._yard.clock(),
            code=exit.code,
            signal=exit.signal,
            reason=reason,
            lines=lines,
            peak_rss_bytes=exit.peak_rss_bytes,
        )
        await self._yard.store.transact(lambda db: tables.end_launch(db, story))
        for old in (await self._yard.store.read(lambda db: tables.launches_of(db, self.row.replica)))[2:12]:
            try:
                await self._yard.node.remove(old)
            except CorralError as error:
                log.warning("%s: %s", self.row.replica, error)

    async def _tail(self) -> list[str]:
        try:
            piece = await self._yard.node.read_log(self.row.id, -16384, 16384)
        except (CorralError, OSError) as error:
            log.warning("%s: why it died may stay unknown, its log cannot be read: %s", self.row.replica, error)
            return []
        return piece.data.decode("utf-8", "replace").splitlines()

    async def _settle(self, outcome: str, after: object, reason: str = "") -> None:
        """Write the outcome of the start, once."""
        effect, self._effect = self._effect, None
        if effect is not None:
            await self._yard.gate.outcome(effect, outcome, after=after, reason=reason)  # type: ignore[arg-type]


async def nap(wake: asyncio.Event, seconds: float) -> None:
    """Wait for `wake`, but not for longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass


def _now() -> float:
    """Seconds on a clock that nobody sets."""
    return asyncio.get_running_loop().time()
