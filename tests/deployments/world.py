"""A replica's world: a real store and audit trail, doubles of host, engine and gateway, daemons that come and go."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from doubles import PLAN, AttachDouble, CatalogDouble, EngineDouble, HostDouble, LinkDouble

from core.access import Gate, Rights
from core.audit import Audit
from core.deployments import tables
from core.deployments.runner import Runner
from core.deployments.yard import Yard
from core.engines.base import EngineRegistry
from core.nouns import DeploymentSpec, Replica
from core.paths import Paths
from core.settings import ReplicasTable, Settings
from core.store import Store

PACKAGES = ("core.store", "core.audit", "core.catalog", "core.deployments")
QUICK = ReplicasTable(backoff_s=(0.002, 0.002, 0.002), steady_s=3600, drain_timeout_s=0.02, stop_timeout_s=0.05)


class World:
    """One replica, `d/0`, and what is known of it."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder, folder / "corral.toml", "0badcafe")
        self.paths.state.mkdir(exist_ok=True)
        self.host, self.engine, self.link = HostDouble(), EngineDouble(), LinkDouble()
        self.settings = Settings(replicas=QUICK)
        self.room = ""
        self.others = 0
        """Replicas that run beside this one."""
        self.generation = 0
        self.wanted: tables.Wanted | None = None
        self.task: asyncio.Task[None] | None = None
        self.states: list[str] = []
        self.since: dict[str, float] = {}
        """Of each state, as it was told when it began."""
        self.told: list[str] = []
        """The ways that the gateway was told."""
        self.daemons = 0
        """How many were killed."""

    async def open(self) -> None:
        self.store = await Store.open(self.paths, packages=PACKAGES)
        self.audit = Audit(self.store, self.paths, clock=time.time)
        self.gate = Gate(self.store, self.audit, Rights(mode="user", owner_uid=0))
        await self.start()

    async def close(self) -> None:
        await self.end()
        await self.store.close()

    async def start(self) -> None:
        """A daemon starts: it reads what is known and adopts what runs."""
        rows = {row.id: row for row in await self.store.read(tables.all_replicas)}
        self.runner = Runner(self._yard(), "d", 0, rows.get("d/0"))
        for launch, row in (await self.store.read(tables.open_launches)).items():
            self.runner.adopt(row, self.host.launched.get(launch))
        self.host.ended = self.runner.ended
        self.runner.want(self.wanted)
        self.task = asyncio.create_task(self.runner.run())

    async def end(self) -> None:
        """The daemon is killed: its task is gone wherever it was, and writes nothing more."""
        if self.task is not None:
            self.daemons += not self.task.done()
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
            self.task = None
            # Its last transaction is shielded, and a process that is killed takes its writer along: none comes later.
            await type(self.store).transact(self.store, lambda db: None)

    async def want(
        self, wanted: str | None, *, anew: bool = True, fresh: bool = False, url: str = "", public: bool = False,
        **fields: Any,
    ) -> None:  # fmt: skip
        """Say what should be: `running`, `stopped` or None; `fresh` for a new generation; `url` of an attached server
        in place of an engine, `public` if it may be on the internet alone; more `fields` of the spec."""
        self.generation += fresh
        engine = "attach" if url else "xllamacpp"
        spec = DeploymentSpec(name="d", model="m", ctx=512, engine=engine, url=url, **fields)  # type: ignore[arg-type]
        self.wanted = wanted and tables.Wanted(  # type: ignore[assignment]
            spec=spec,
            wanted=wanted,
            generation=self.generation,
            plan=PLAN,
            created_at=0,
            created_by="a",
            public=public,
        )
        if self.runner.gone or self.task is None or self.task.done():
            await self.end()
            await self.start()
        self.runner.want(self.wanted, anew=anew)

    async def until(self, check: Callable[[], Any], seconds: float = 10) -> None:
        """Wait for a condition, or for a state by its name."""
        try:
            async with asyncio.timeout(seconds):
                while not check():
                    await asyncio.sleep(0.001)
        except TimeoutError:
            view = self.runner.view
            raise AssertionError(f"it is {view.state} ({view.reason}), alive {self.host.living()}") from None

    async def state(self, *states: str) -> None:
        await self.until(lambda: self.runner.view.state in states)

    async def verbs(self) -> list[tuple[str, str]]:
        return [(each.verb, each.outcome) for each in await self.audit.ls(limit=1000)]

    async def recorded(self, verb: str, outcome: str) -> None:
        """Wait until it is in the trail."""
        async with asyncio.timeout(10):
            while (verb, outcome) not in await self.verbs():
                await asyncio.sleep(0.001)

    async def saved(self, state: str) -> None:
        """Wait until the database has it in this state."""
        async with asyncio.timeout(10):
            while [row.state for row in await self.store.read(tables.all_replicas)] != [state]:
                await asyncio.sleep(0.001)

    async def open_intents(self) -> list[Any]:
        return await self.store.read(
            lambda db: db.execute(
                "SELECT seq, verb FROM audit a WHERE outcome = 'intent' AND NOT EXISTS"
                " (SELECT 1 FROM audit b WHERE b.effect = a.effect AND b.seq > a.seq)"
            ).fetchall()
        )

    def _yard(self) -> Yard:
        async def waits(replica: str) -> str:
            return self.room

        return Yard(
            store=self.store, gate=self.gate, node=self.host, engines=EngineRegistry([self.engine, AttachDouble()]),
            catalog=cast(Any, CatalogDouble()), link=cast(Any, self.link), settings=lambda: self.settings,
            clock=time.time, changed=self._changed, running=lambda: self.others, waits=waits, keys=self.paths.keys,
        )  # fmt: skip

    def _changed(self, view: Replica) -> None:
        state = view.state
        if not self.states or self.states[-1] != state:
            self.states.append(state)
            self.since[state] = view.since
        if (route := self.runner.route()) is not None:
            self.told.append(route.endpoint)
