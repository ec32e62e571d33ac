"""The runners of all replicas and what is wanted of them, as one picture: told to routes, events and whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from core.access import Gate
from core.budgets.admission import Holding
from core.deployments import tables
from core.deployments.derived import Derived, expected, route_of
from core.deployments.gatewaylink import GatewayLink
from core.deployments.lending import Lending
from core.deployments.rot import Lost
from core.deployments.runner import Runner
from core.deployments.sensitive import Sensitive
from core.deployments.strays import Strays
from core.deployments.yard import Yard
from core.engines.base import EngineRegistry
from core.errors import NotFound, missing
from core.events import Bus
from core.gateway import wire
from core.nodes.base import Node
from core.nouns import Deployment, Replica


class Herd:
    """What `Deployments` has in memory; its verbs change what is wanted."""

    link: GatewayLink
    lending: Lending
    sensitive: Sensitive
    _yard: Yard

    def __init__(self, bus: Bus, gate: Gate, node: Node, engines: EngineRegistry, clock: Callable[[], float]) -> None:
        self._bus, self._node, self._engines, self._clock = bus, node, engines, clock
        self._wanted: dict[str, tables.Wanted] = {}
        self._runners: dict[str, Runner] = {}
        self._leaving: dict[str, tables.Wanted] = {}
        """Removed, with replicas that still answer."""
        self._derived = Derived(bus, clock)
        self._newer: dict[str, int] = {}
        """By deployment, the version that what it wants means now."""
        self._lost: dict[str, Lost] = {}
        """By deployment, that the bytes of the version that it got were found rotten or gone."""
        self._changes = asyncio.Condition()
        self._strays = Strays(node, gate, self._changes)
        self._tasks: asyncio.TaskGroup | None = None

    # ---------------------------------------------------------------------------------------- what is there

    def _notice(self) -> None:
        """Before a state is said: a process that has just ended is not ready, though its keeper still writes."""
        for runner in self._runners.values():
            runner.notice()

    def ls(self) -> list[Deployment]:
        self._notice()
        return [self._derived.get(name) or self._derive(name) for name in sorted(self._wanted)]  # type: ignore[misc]

    def get(self, name: str) -> Deployment:
        """Raises `NotFound`."""
        if name not in self._wanted:
            raise self._unknown(name)
        self._notice()
        return self._derive(name)  # type: ignore[return-value]

    def replicas(self) -> list[Replica]:
        self._notice()
        mine = [self._remarked(runner, runner.view) for runner in self._runners.values()]
        return sorted(mine, key=lambda view: view.place) + self._strays.replicas()

    def launches(self) -> list[str]:
        """Launch ids that live, for sampling."""
        return [r.launch.id for r in self._runners.values() if r.launch is not None and r.launch.alive]

    def opening(self) -> set[str]:
        """The versions (`chat@3`) whose files engines are about to open."""
        return {runner.opens for runner in self._runners.values()}

    # ---------------------------------------------------------------------------------------- what becomes of each

    async def _live(self, runner: Runner) -> None:
        await runner.run()
        self._runners.pop(runner.id, None)
        if not self._of(runner.deployment):
            self._leaving.pop(runner.deployment, None)
        self._bus.publish("replica.gone", f"replica:{runner.id}")
        self._derive(runner.deployment)
        async with self._changes:
            self._changes.notify_all()

    async def _watch(self) -> None:
        async for launch in self._node.watch():
            if launch.kind != "replica" or launch.alive:
                continue
            if self._strays.ended(launch.id):
                async with self._changes:
                    self._changes.notify_all()
            for runner in self._runners.values():
                runner.ended(launch)

    # ---------------------------------------------------------------------------------------- all of them

    def _holdings(self, except_for: str = "") -> list[Holding]:
        """What replicas hold: running ones, and those admitted that have not started yet."""
        held = list(self.lending.lent)
        for runner in self._runners.values():
            wanted = self._wanted.get(runner.deployment)
            due = wanted is not None and wanted.wanted == "running" and runner.view.state != "failed"
            if runner.deployment != except_for and (runner.holds or due):
                held.append(Holding(plan_bytes=runner.view.plan_bytes, anon_bytes=runner.view.anon_bytes))
        return held

    def _touched(self, name: str) -> int:
        """Private memory of a deployment's replicas, which is free again when they are replaced (bytes)."""
        return sum(runner.view.anon_bytes for runner in self._of(name))

    def derive_all(self) -> None:
        """Rights or marks have changed: what is shown of deployments may be different."""
        for name in self._wanted:
            self._derive(name)

    def _unknown(self, name: str) -> NotFound:
        whole, slash, index = name.rpartition("/")
        if slash and whole in self._wanted and index.isdecimal():
            return NotFound(
                f"{name} is one replica of the deployment {whole}",
                "a deployment is started, stopped, changed and removed as a whole",
                f"name {whole}, or `corral scale {whole} N` for fewer or more replicas",
            )
        return missing("deployment", name)

    def _of(self, name: str) -> list[Runner]:
        mine = (runner for runner in self._runners.values() if runner.deployment == name)
        return sorted(mine, key=lambda runner: runner.view.place)

    def _running(self) -> int:
        return sum(r.launch is not None and r.launch.alive for r in self._runners.values())

    def _accept(self, wanted: tables.Wanted, *, anew: bool = False) -> None:
        """After the commit: tell the runners, with new ones for new replicas."""
        name = wanted.spec.name
        self._wanted[name] = wanted
        if anew:
            self._newer[name] = wanted.version
        self._leaving.pop(name, None)
        for index in range(wanted.spec.replicas):
            replica = f"{name}/{index}"
            if replica not in self._runners and self._tasks is not None:
                self._runners[replica] = Runner(self._yard, name, index, None)
                self._tasks.create_task(self._live(self._runners[replica]))
        for runner in self._of(name):
            self._tell(runner, anew=anew)
        self._derive(name)
        self.link.set_routes(self._routes())  # one without replicas has a way too: it says why it takes nothing

    def _tell(self, runner: Runner, *, anew: bool = False) -> None:
        wanted = self._wanted.get(runner.deployment)
        if wanted is not None and runner.index >= wanted.spec.replicas:
            wanted = None
        runner.want(wanted, anew=anew)

    def _changed(self, view: Replica) -> None:
        runner = self._runners.get(view.id)
        shown = view if runner is None else self._remarked(runner, view)
        self._bus.publish("replica", f"replica:{view.id}", shown)
        self._derive(view.deployment)
        self.link.set_routes(self._routes())
        if self._tasks is not None:
            self._wakeup()

    def _wakeup(self) -> None:
        async def notify() -> None:
            async with self._changes:
                self._changes.notify_all()

        if self._tasks is not None:
            self._tasks.create_task(notify())

    def _routes(self) -> list[wire.Route]:
        routes = []
        for name, wanted in sorted((self._leaving | self._wanted).items()):
            ways = [way for runner in self._of(name) if (way := runner.route()) is not None]
            if ways or name in self._wanted:
                shown, engine = self._derived.get(name), self._engines.get(wanted.spec.engine)
                soon = name in self._wanted and expected(wanted, self._views(name, wanted), self._clock())
                state = shown.state if shown else "removed"
                routes.append(route_of(wanted, state, ways, engine.abilities, expected=soon))
        return routes

    def _derive(self, name: str) -> Deployment | None:
        wanted = self._wanted.get(name)
        if wanted is None:
            return None
        newer = self._newer.get(name, wanted.version)
        return self._derived.derive(
            wanted, self._views(name, wanted), self.sensitive.of(name), newer=newer if newer != wanted.version else 0,
            remark=next(filter(None, map(self._remark, self._of(name))), ""),
        )  # fmt: skip

    def troubles(self) -> list[str]:
        """What must be seen for as long as it lasts, as sentences; no names: not all who read them may see each."""
        count = len({runner.deployment for runner in self._runners.values() if self._remark(runner)})
        which = "a deployment serves" if count == 1 else f"{count} deployments serve"
        return [f"{which} bytes that have rotted or are gone: see `corral deployments`"] if count else []

    def _remark(self, runner: Runner) -> str:
        lost = self._lost.get(runner.deployment)
        ready = runner.view.state == "ready"
        return lost.remark(runner.deployment, runner.started_at) if lost is not None and ready else ""

    def _remarked(self, runner: Runner, view: Replica) -> Replica:
        """What is shown of a replica: one that has nothing else to say has its remark as reason."""
        if view.state != "ready" or view.reason or not (remark := self._remark(runner)):
            return view
        return msgspec.structs.replace(view, reason=remark)

    def _views(self, name: str, wanted: tables.Wanted) -> list[Replica]:
        return [r.view_for(wanted) for r in self._of(name) if r.index < wanted.spec.replicas]
