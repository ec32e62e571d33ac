"""Deployments: what a person asks for, admitted and recorded in one transaction, then carried out by runners."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from core.access import Access, Gate
from core.audit import Audit
from core.budgets.admission import Holding, Room
from core.catalog import Catalog
from core.deployments import tables
from core.deployments.attached import addresses_of
from core.deployments.capacity import Capacity, admit, waits
from core.deployments.changes import exists, same, told
from core.deployments.derived import settled
from core.deployments.explain import sentences
from core.deployments.figures import Figures
from core.deployments.gatewaylink import GatewayLink
from core.deployments.lending import Lending
from core.deployments.logs import read_log
from core.deployments.planning import Planning
from core.deployments.rot import find
from core.deployments.runner import Runner
from core.deployments.sensitive import Sensitive, said
from core.deployments.yard import Yard
from core.engines.base import EngineRegistry
from core.errors import CorralError, Invalid, NotAllowed, NotFound
from core.events import Bus
from core.gateway import wire
from core.nodes.base import Node
from core.nodes.labels import Labels
from core.nouns import (
    Actor,
    Deployment,
    DeploymentSpec,
    Explanation,
    LogText,
    ProcessSample,
    Replica,
)
from core.paths import Paths
from core.settings import Settings
from core.store import Store

log = logging.getLogger(__name__)


def nothing_else(db: sqlite3.Connection) -> None:
    """What most deployments change beside themselves."""


class Deployments(Planning):
    """The service that owns the noun. `start` adopts, `run` reconciles, `close` leaves everything running."""

    def __init__(
        self,
        *,
        store: Store,
        gate: Gate,
        audit: Audit,
        node: Node,
        engines: EngineRegistry,
        catalog: Catalog,
        bus: Bus,
        paths: Paths,
        settings: Callable[[], Settings],
        allowed: Callable[[], wire.Allowed],
        keys: Callable[[], tuple[wire.Key, ...]] = tuple,
        limited: Callable[[], tuple[wire.Limited, ...]] = tuple,
        gateway_uid: int | None = None,
        name: Callable[[int], Awaitable[str]] | None = None,
        access: Access,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(bus, gate, node, engines, clock)
        self._store, self._gate, self._audit = store, gate, audit
        self._catalog, self._settings = catalog, settings
        self._figures = Figures(self._runners, gate)
        self._capacity = Capacity(node, engines, catalog, settings)
        self.labels = Labels(
            store, gate, lambda: [node.name], lambda name, there: self.sensitive.needing(name, dict(there))
        )
        self.sensitive = Sensitive(gate, access, self.labels, runs=self._runs_on, spec=self._spec_of, clock=clock)
        self.begun = asyncio.Event()
        """It runs: what is accepted now is carried out."""
        self._admitting = asyncio.Lock()
        """Held from the look at the host to the accepted change: two may not be admitted against the same room."""
        self.lending = Lending(self._capacity, self._admitting, self._holdings)
        self.link = GatewayLink(
            node, store, gate, paths, settings, allowed=allowed, keys=keys, limited=limited,
            on_live=self._figures.live, gateway_uid=gateway_uid, clock=clock, name=name,
        )  # fmt: skip
        self._yard = Yard(
            store=store, gate=gate, node=node, engines=engines, catalog=catalog, link=self.link, settings=settings,
            clock=clock, changed=self._changed, running=self._running, waits=self._waits, keys=paths.keys,
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Read what is wanted, adopt what runs, explain what does not."""
        await self.labels.start()
        rows = {row.id: row for row in await self._store.read(tables.all_replicas)}
        launches = {each.id: each for each in await self._node.launches() if each.kind == "replica"}
        known = await self._store.read(tables.open_launches)
        for wanted in await self._store.read(tables.all_wanted):
            self._wanted[wanted.spec.name] = wanted
            self._derive(wanted.spec.name)
        ids = [f"{name}/{i}" for name, w in self._wanted.items() for i in range(w.spec.replicas)]
        for replica in dict.fromkeys([*ids, *rows, *(row.replica for row in known.values())]):
            name, _, index = replica.rpartition("/")
            self._runners[replica] = Runner(self._yard, name, int(index), rows.get(replica))
        for launch, row in known.items():
            self._runners[row.replica].adopt(row, launches.get(launch))
        self._strays.find(each for each in launches.values() if each.id not in known)
        await self.follow()
        self.link.set_routes(self._routes())

    async def run(self) -> None:
        """Reconcile until cancelled; replicas run on after that."""
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            self.begun.set()
            group.create_task(self.link.run())
            group.create_task(self._watch())
            for runner in list(self._runners.values()):
                self._tell(runner)
                group.create_task(self._live(runner))

    # ---------------------------------------------------------------------------------------- verbs

    async def deploy(
        self, actor: Actor, request: str, spec: DeploymentSpec, *, replace: bool,
        also: Callable[[sqlite3.Connection], None] = nothing_else,
    ) -> tuple[Deployment, bool]:  # fmt: skip
        """Admit and record what should run; the deployment, and whether anything changes. A name that exists needs
        `replace`, unless the same runs already; the error tells the changes. `also` is part of the transaction."""
        verb, subject = "deployments.create", f"deployment:{spec.name}"
        try:
            spec, model = await self._capacity.complete(spec)
            if spec.tier and model is not None:
                await self._catalog.moves.check(actor, model, spec.tier, spec.name)
            public = await self._public(actor, spec)
        except CorralError as error:
            await self._gate.refuse(actor, verb, subject, request, str(error))
            if isinstance(error, NotAllowed):
                error.recorded = True
            raise
        async with self._admitting:
            left = await self._capacity.look(self._holdings(except_for=spec.name))
            plan, freed = self._capacity.plan(spec, model, left), self._touched(spec.name)
            version = model.version if model is not None else 0
            before = self._wanted.get(spec.name)
            failed = before is not None and self.get(spec.name).state == "failed"

            def work(db: sqlite3.Connection) -> tuple[tables.Wanted, object, object]:
                also(db)
                old = tables.one_wanted(db, spec.name)
                if old is not None and same(old, spec, version) and not (replace and (failed or old.public != public)):
                    return old, told(old), told(old)
                if old is not None and not replace:
                    raise exists(old, spec, version)
                if model is not None and not tables.has_model(db, model):
                    raise NotFound(f"no model {model.reference}", "it was removed just now", "import it again")
                self.sensitive.check(spec, self._node.name)
                admit(spec, plan, left, replicas=spec.replicas, freed=freed)
                new = tables.Wanted(
                    spec=spec,
                    wanted="running",
                    generation=old.generation + 1 if old else 1,
                    plan=plan,
                    created_at=old.created_at if old else self._clock(),
                    created_by=old.created_by if old else actor.name,
                    version=version,
                    public=public,
                )
                tables.put_wanted(db, new)
                return new, told(old) if old else None, told(new)

            wanted = await self._gate.act(actor, verb, subject, request, work)
            changed = before is None or wanted != before
            if changed:
                self._accept(wanted, anew=True)
        return self.get(spec.name), changed

    async def _public(self, actor: Actor, spec: DeploymentSpec) -> bool:
        """Whether its server is asked at addresses of the internet alone. Raises `NotAllowed` for another one that the
        actor may not attach; one that is attached already stays so."""
        if not spec.url or self._gate.may(actor, "deployments.attach-private", f"deployment:{spec.name}"):
            return False
        before = self._wanted.get(spec.name)
        if before is not None and before.spec.url == spec.url:
            return before.public
        with contextlib.suppress(OSError, TimeoutError):  # a name that means nothing now is looked at when it does
            await addresses_of(spec.url, public_only=True)
        return True

    async def scale(self, actor: Actor, request: str, name: str, replicas: int) -> Deployment:
        """Change the number of replicas, 0 to 64."""
        if not 0 <= replicas <= 64:
            raise Invalid(f"cannot scale to {replicas}", "a deployment has 0 to 64 replicas")
        async with self._admitting:
            left = await self._capacity.look(self._holdings())

            def work(db: sqlite3.Connection) -> tuple[tables.Wanted, object, object]:
                old = self._row(db, name)
                grown = replicas - old.spec.replicas
                if grown > 0:
                    self.sensitive.check(old.spec, self._node.name)
                if grown > 0 and old.wanted == "running":
                    admit(old.spec, old.plan, left, replicas=grown)
                spec = msgspec.structs.replace(old.spec, replicas=replicas)
                new = msgspec.structs.replace(old, spec=spec)
                tables.put_wanted(db, new)
                return new, {"replicas": old.spec.replicas}, {"replicas": replicas}

            self._accept(await self._gate.act(actor, "deployments.scale", f"deployment:{name}", request, work))
        return self.get(name)

    async def turn(self, actor: Actor, request: str, name: str, verb: str) -> Deployment:
        """`start`, `stop` or `restart` a deployment. What could not be served is not ended to be started."""
        if verb != "stop":
            await self._servable(actor, request, name, verb)
        async with self._admitting:
            left, freed = await self._capacity.look(self._holdings(except_for=name)), self._touched(name)
            renewed = await self._renewed(name, left) if verb != "stop" else None

            def work(db: sqlite3.Connection) -> tuple[tables.Wanted, object, object]:
                old = self._row(db, name)
                now = old
                if renewed is not None and renewed.spec == old.spec and renewed.version != old.version:
                    now = msgspec.structs.replace(old, plan=renewed.plan, version=renewed.version)
                if verb != "stop":
                    self.sensitive.check(old.spec, self._node.name)
                    admit(old.spec, now.plan, left, replicas=old.spec.replicas, freed=freed)
                anew = verb == "restart" or now.version != old.version
                new = msgspec.structs.replace(
                    now, wanted="stopped" if verb == "stop" else "running", generation=old.generation + anew
                )
                tables.put_wanted(db, new)
                return (
                    new, {"wanted": old.wanted, "version": old.version}, {"wanted": new.wanted, "version": new.version},
                )  # fmt: skip

            wanted = await self._gate.act(actor, f"deployments.{verb}", f"deployment:{name}", request, work)
            self._accept(wanted, anew=verb != "stop")
        return self.get(name)

    async def _servable(self, actor: Actor, request: str, name: str, verb: str) -> None:
        """Raises `Conflict`, recorded, where the bytes of what a deployment wants are not there."""
        wanted = self._wanted.get(name)
        if wanted is None or not self._engines.get(wanted.spec.engine).abilities.starts:
            return
        try:
            await self._catalog.serving(wanted.spec.model)
        except CorralError as error:
            await self._gate.refuse(actor, f"deployments.{verb}", f"deployment:{name}", request, str(error))
            raise

    async def _renewed(self, name: str, left: Room) -> tables.Wanted | None:
        """A deployment with the version that what it wants means now, and the plan of that; None: nothing to renew."""
        wanted = self._wanted.get(name)
        if wanted is None or not self._engines.get(wanted.spec.engine).abilities.starts:
            return None
        model = await self._catalog.get(wanted.spec.model)
        if model.version == wanted.version:
            return None
        plan = self._capacity.plan(wanted.spec, model, left)
        return msgspec.structs.replace(wanted, plan=plan, version=model.version)

    async def follow(self) -> None:
        """Aliases may mean other versions now, and bytes may be lost or whole again: say of each deployment whether it
        would get another version, and whether what it serves is whole."""
        self._newer = {}
        for name, wanted in list(self._wanted.items()):
            if self._engines.get(wanted.spec.engine).abilities.starts:
                with contextlib.suppress(CorralError):
                    self._newer[name] = (await self._catalog.get(wanted.spec.model)).version
                await self._look_for_rot(name, wanted)
            self._derive(name)
            if wanted.spec.tier:  # its version may have come to its tier
                for runner in self._of(name):
                    runner.look()

    async def _look_for_rot(self, name: str, wanted: tables.Wanted) -> None:
        """Know whether the bytes of the version that a deployment got were found rotten or gone."""
        before, lost = self._lost.pop(name, None), await find(self._catalog, wanted.exactly)
        if lost is not None:
            self._lost[name] = lost
        if lost != before:
            for runner in self._of(name):
                self._changed(runner.view)

    async def rm(self, actor: Actor, request: str, name: str) -> None:
        """Remove a deployment; its replicas drain and end."""

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            old = self._row(db, name)
            tables.delete_wanted(db, name)
            return None, old.spec, None

        await self._gate.act(actor, "deployments.rm", f"deployment:{name}", request, work)
        wanted = self._wanted.pop(name, None)
        if wanted is not None and self._of(name):
            self._leaving[name] = wanted
        self._derived.forget(name)
        for runner in self._of(name):
            runner.want(None)
        self.link.set_routes(self._routes())
        self._bus.publish("deployment.gone", f"deployment:{name}")

    async def stop_all(self) -> list[Replica]:
        """Stop every replica, for `corral shutdown --all`; what is wanted stays wanted. The answer is what did not end
        in the time that draining and stopping may take."""
        replicas = self._settings().replicas
        timeout = replicas.drain_timeout_s + replicas.stop_timeout_s + 20
        for runner in self._runners.values():
            if runner.launch is not None and (wanted := self._wanted.get(runner.deployment)) is not None:
                runner.want(msgspec.structs.replace(wanted, wanted="stopped"))
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                group.create_task(self._strays.end(replicas.stop_timeout_s))
                async with self._changes:
                    await self._changes.wait_for(lambda: not self.launches() and not self._strays)
        except TimeoutError:
            log.error("not everything ended within %.0f s", timeout)
        return [each for each in self.replicas() if each.launch in self.launches() or each.launch in self._strays]

    async def wait(self, name: str, timeout: float) -> Deployment:
        """The deployment when it is settled (ready, failed, stopped), or as it is after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), self._changes:
                await self._changes.wait_for(lambda: name not in self._wanted or settled(self.get(name)))
        except TimeoutError:
            pass
        return self.get(name)

    async def explain(self, name: str) -> Explanation:
        """Why it is in its state."""
        deployment = self.get(name)
        replicas = tuple(self._remarked(runner, runner.view) for runner in self._of(name))
        stories = tuple(await self._store.read(lambda db: tables.stories(db, name)))
        records = await self._audit.ls(object=f"deployment:{name}", limit=20)
        for replica in replicas:
            records += await self._audit.ls(object=f"replica:{replica.id}", limit=20)
        records = sorted(records, key=lambda record: record.seq)[-30:]
        return Explanation(
            deployment=deployment,
            sentences=(
                *sentences(deployment, replicas, stories, self._clock()),
                *filter(None, [self._catalog.corrections.told(story.launch) for story in stories[:1]]),
                *([said(deployment.mark)] if deployment.mark is not None else []),
            ),
            replicas=replicas,
            launches=stories,
            audit=tuple(records),
        )

    async def logs(
        self, name: str, replica: int, start: int, limit: int, *, previous: bool, wait: float,
        since: float | None = None,
    ) -> LogText:  # fmt: skip
        """A range of a replica's log, from byte `start` or from the time `since` on; `wait` seconds for more if there
        is none yet."""
        self.get(name)
        return await read_log(
            self._store, self._node, f"{name}/{replica}", start, limit, previous=previous, wait=wait, since=since,
            lives=lambda launch: launch in self.launches(),
        )  # fmt: skip

    async def sampled(self, samples: Sequence[ProcessSample]) -> None:
        """What the node measured of `launches`."""
        await self._figures.sampled(samples, self.link)

    # ---------------------------------------------------------------------------------------- inside

    async def _waits(self, replica: str) -> str:
        """The last look before a launch; replicas that only wait don't hold each other up."""
        wanted = self._wanted.get(replica.rpartition("/")[0])
        if wanted is None:
            return ""
        if why := self.sensitive.hinders(wanted.spec.name, self._node.name):
            return why
        if tier := wanted.spec.tier:
            why = await self._catalog.moves.ensure(wanted.exactly, tier, wanted.spec.name)
            if why:
                return why
        others = [
            Holding(plan_bytes=each.view.plan_bytes, anon_bytes=each.view.anon_bytes)
            for each in self._runners.values()
            if each.id != replica and each.holds
        ]
        return waits(wanted.plan, await self._capacity.look([*others, *self.lending.lent]))

    def _runs_on(self, name: str) -> list[str]:
        """Nodes that replicas of a deployment hold something on."""
        return [runner.view.node for runner in self._of(name) if runner.holds]

    def _spec_of(self, name: str) -> DeploymentSpec | None:
        wanted = self._wanted.get(name)
        return wanted.spec if wanted is not None else None

    def _row(self, db: sqlite3.Connection, name: str) -> tables.Wanted:
        row = tables.one_wanted(db, name)
        if row is None:
            raise self._unknown(name)
        return row
