"""One replica for its life: what is wanted of it, when it is tried again, and what others see; one task.

The process that runs for it at a time is its `Launch`; a server of somebody else is `Attached`.
"""

from __future__ import annotations

import asyncio
import logging
from signal import SIGKILL

import msgspec

from core.deployments import tables
from core.deployments.attached import NEVER, Attached
from core.deployments.ending import of_ours, verdict
from core.deployments.launch import Launch, nap
from core.deployments.picture import Picture
from core.deployments.yard import Yard
from core.errors import CorralError, StoreError
from core.gateway import wire
from core.nodes.base import LaunchState
from core.nouns import Replica

log = logging.getLogger(__name__)


class Runner:
    """One replica. `want` and `ended` may be called at any time; the task acts on them."""

    def __init__(self, yard: Yard, deployment: str, index: int, row: tables.ReplicaRow | None) -> None:
        self.id = f"{deployment}/{index}"
        self.deployment = deployment
        self.index = index
        self._yard = yard
        self._wanted: tables.Wanted | None = None
        self._wake = asyncio.Event()
        self._launch: Launch | None = None
        self._due = asyncio.get_running_loop().time() + self._left(row)
        self._anew = False
        self._saved_launch = row.launch if row else ""
        self._starting = ""
        """The version that a launch is being drawn up for."""
        self._owed = False
        """The database does not have its state yet, because a write failed."""
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
        self.picture = Picture(view, yard.clock, lambda: yard.changed(self.view))
        self._attached = Attached(yard, self.picture)

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
        if self.launch is None:
            self._forget()
        self._wake.set()

    def _forget(self) -> None:
        """A person asked: what failed before does not count. Waits until the launch that ends has its record."""
        anew, self._anew = self._anew, False
        if anew:
            self._owed = True
            self.picture.set(restarts=0, next_try=None)
            if self.view.state in ("failed", "backoff"):
                self.picture.state("stopped", "will be started")

    def _left(self, row: tables.ReplicaRow | None) -> float:
        """Seconds of the pause that an earlier daemon left; the host's clock may have jumped meanwhile."""
        if row is None or row.next_try is None:
            return 0.0
        return min(
            max(0.0, row.next_try - self._yard.clock()), max(self._yard.settings().replicas.backoff_s, default=0)
        )

    def adopt(self, row: tables.LaunchRow, found: LaunchState | None) -> None:
        """Take over what an earlier daemon started; `found` None: its process never came to be."""
        self._launch = Launch(self._yard, self.picture, row, wake=self._wake, save=self._save)
        self._launch.adopt(found, saved=self._saved_launch == row.id)

    def ended(self, found: LaunchState) -> None:
        """The node saw a launch end."""
        if self._launch is not None:
            self._launch.ended(found)

    def notice(self) -> None:
        """Look whether the process that is shown as ready still is there."""
        if self._launch is not None:
            self._launch.notice()

    async def kill(self, why: str, signal: int = SIGKILL) -> None:
        """End its process; it is told with this reason."""
        if self._launch is not None:
            await self._launch.kill(why, signal)

    @property
    def launch(self) -> LaunchState | None:
        return self._launch.state if self._launch else None

    @property
    def started_at(self) -> float | None:
        """When what runs was launched (UTC seconds); None: nothing of ours runs."""
        return self._launch.row.started_at if self._launch is not None else None

    @property
    def holds(self) -> bool:
        """Its reservation is taken: from the commit of its launch to its end."""
        return self._launch is not None

    @property
    def opens(self) -> str:
        """The version (`chat@3`) whose files an engine is about to open; "" if none is."""
        if self._launch is not None and self.view.state != "ready":
            return f"{self.view.model}@{self.view.version}"
        return self._starting

    def look(self) -> None:
        """Something that it may wait for has changed."""
        self._wake.set()

    @property
    def limit(self) -> int:
        """Bytes of private memory at which the watchdog ends it; 0 for a server of somebody else."""
        return (self._wanted.spec.memory if self._wanted else 0) or self.view.plan_bytes

    def view_for(self, wanted: tables.Wanted) -> Replica:
        """Its picture as `wanted` sees it: one that runs an older generation is about to be replaced."""
        if self._launch is None or self._launch.row.generation == wanted.generation:
            return self.view
        return msgspec.structs.replace(self.view, state="stopping", reason="will be replaced")

    def route(self) -> wire.ReplicaRoute | None:
        """How the gateway reaches it; None while it takes no requests."""
        launch = self._launch
        endpoint = self._attached.endpoint if launch is None else launch.endpoint if launch.routable else None
        if endpoint is None:
            return None
        kind = "tls" if endpoint.tls else "tcp"
        return wire.ReplicaRoute(
            id=self.id,
            launch=self.view.launch,
            endpoint=f"unix:{endpoint.socket}" if endpoint.socket else f"{kind}:{endpoint.host}:{endpoint.port}",
            secret=endpoint.secret,
            slots=max(1, self.view.parallel),
            prefix=endpoint.prefix,
            draining=launch is not None and launch.draining,
            version=self.view.version,
            node=self.view.node,
            cores=self.view.threads,
            at=endpoint.at,
        )

    async def count(self) -> None:
        """Ask the engine for its counters and show the rates since the last time."""
        launch = self._launch
        if launch is not None and launch.endpoint is not None and self.view.state == "ready":
            self.picture.count(await launch.engine.counters(launch.endpoint))

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
                self.picture.state(self.view.state, str(error))
                pause = 2.0
            except Exception as error:
                # One replica must not take the daemon along; it is looked at again.
                log.exception("%s: an error of ours", self.id)
                self.picture.set(reason=of_ours(error))
                pause = 5.0
            if not self.gone:
                await nap(self._wake, pause)

    async def _step(self) -> float:
        """Do the next thing; seconds until the next look."""
        if self._owed:
            await self._save()
        wanted, launch = self._wanted, self._launch
        if launch is None:
            if wanted is not None and not self._yard.engines.get(wanted.spec.engine).abilities.starts:
                return await self._attached.look(wanted)
            self._attached.endpoint = None
            return await self._idle(wanted)
        if launch.exit is not None:
            return await (self._stopped(launch) if launch.asked else self._died(launch))
        if wanted is None:
            return await launch.end("removed")
        if wanted.wanted == "stopped":
            return await launch.end("stopped")
        if launch.row.generation != wanted.generation:
            return await launch.end("replaced")
        return await launch.look()

    async def _idle(self, wanted: tables.Wanted | None) -> float:
        if wanted is None:
            await self._yard.store.transact(lambda db: tables.delete_replica(db, self.id))
            if self._wanted is None:  # else it was deployed again while its row was deleted
                self.gone = True
                self._yard.changed(self.view)
            return 0
        self._forget()
        if wanted.wanted == "stopped":
            if self.view.state != "stopped":
                self.picture.set(restarts=0, next_try=None)
                self.picture.state("stopped", "stopped")
                await self._save()
            return NEVER
        if self.view.state == "failed":
            return NEVER
        now = asyncio.get_running_loop().time()
        if self.view.state == "backoff" and self.view.next_try is not None and now < self._due:
            return self._due - now
        return await self._start(wanted)

    async def _start(self, wanted: tables.Wanted) -> float:
        short = await self._yard.waits(self.id)
        if short or self._yard.store.low:
            reason = short or "the disk with the database is full: nothing is started until there is room"
            if self.view.state != "backoff" or self.view.reason != reason:
                self.picture.set(next_try=None)
                self.picture.state("backoff", reason)
            return 5.0
        self._starting = wanted.exactly
        try:
            self._launch, order = await Launch.commit(
                self._yard, self.picture, wanted, wake=self._wake, save=self._save
            )  # fmt: skip
        finally:
            self._starting = ""
        await self._launch.start(order)
        return 0 if self._launch.exit is not None else 0.1

    async def _stopped(self, launch: Launch) -> float:
        await launch.stopped()
        self._forgo()
        self.picture.state("stopped", launch.asked)
        await self._save()
        return 0

    async def _died(self, launch: Launch) -> float:
        """Say why, and back off or fail."""
        death = await launch.died(self.limit)
        self._forgo()
        wanted = self._wanted
        then = verdict(
            wanted=wanted is not None and wanted.wanted != "stopped", reason=death.reason, permanent=death.permanent,
            restarts=self.view.restarts, steady=death.steady, pauses=self._yard.settings().replicas.backoff_s,
        )  # fmt: skip
        if then.pause is not None:
            self._due = asyncio.get_running_loop().time() + then.pause
        next_try = None if then.pause is None else self._yard.clock() + then.pause
        self.picture.set(restarts=then.restarts, next_try=next_try)
        self.picture.state(then.state, then.reason)
        await self._save()
        return 0

    def _forgo(self) -> None:
        """Its launch has its record: forget it."""
        self._launch = None
        self.picture.gone()

    async def _save(self) -> None:
        self._owed, row = True, self.picture.row()
        await self._yard.store.transact(lambda db: tables.put_replica(db, row))
        self._owed = False
