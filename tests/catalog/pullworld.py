"""A daemon's life as far as pulls need one, over the stand-in for a hub."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gguf_maker as maker
from hub_double import HubDouble

from core.access import Gate, Rights
from core.audit import Audit
from core.catalog import Catalog, sizing
from core.catalog.pull import Pulls
from core.catalog.pull.deploying import Also
from core.errors import CorralError, NotAllowed
from core.events import Bus
from core.nouns import PULL_ENDED, Actor, DeploymentSpec, Grant, ModelShape, Plan, Pull, Subject
from core.paths import Paths
from core.settings import PullTable
from core.store import Store

ME = Actor(uid=1234, name="ada", groups=(0,))
BOB = Actor(uid=1235, name="bob", groups=(0,))
STRANGER = Actor(uid=99, name="eve")
REPO, NAME = "acme/tiny-GGUF", "tiny-Q4_0.gguf"
SOURCE = f"hf:{REPO}"


def model(size: int = 0, fill: bytes = b"\1", **meta: object) -> bytes:
    """A small GGUF of some `size` bytes."""
    rows = max(1, size // (64 * 4))
    return maker.make({**maker.METADATA, **meta}, tensors=[("token_embd.weight", [64, rows], 0, None)], fill=fill)


class Deployments:
    """Stands for the deployments: by the rights of the gate, in a transaction, as the real ones do it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.begun.set()
        self.made: list[tuple[Actor, str, DeploymentSpec, bool]] = []
        self.refused: CorralError | None = None
        self.unforeseen: CorralError | None = None
        self.left: set[str] = set()
        """Users who are not on the host any more."""
        self.before: Callable[[], Awaitable[object]] | None = None
        """What somebody does in the last moment."""
        self.gate: Gate

    async def foresee(self, spec: DeploymentSpec, *, replace: bool) -> None:
        if self.unforeseen is not None:
            raise self.unforeseen

    async def deploy(
        self, actor: Actor, request: str, spec: DeploymentSpec, *, replace: bool, also: Also
    ) -> tuple[object, bool]:
        def work(db: sqlite3.Connection) -> tuple[None, None, object]:
            also(db)
            if self.refused is not None:
                raise self.refused
            return None, None, spec

        if self.before is not None:
            await self.before()
        await self.gate.act(actor, "deployments.create", f"deployment:{spec.name}", request, work)
        self.made.append((actor, request, spec, replace))
        return None, len({each[2] for each in self.made}) == len(self.made)

    async def who(self, actor: Actor) -> Actor:
        if actor.name in self.left:
            raise NotAllowed(f"{actor.name} is not on this host any more")
        return actor


class World:
    """One daemon at a time over one home; `again` is the next one."""

    def __init__(self, folder: Path, hub: HubDouble) -> None:
        self.paths = Paths(folder / "home", folder / "corral.toml", "0badcafe")
        self.hub = hub
        self.settings = PullTable(hub=hub.url)
        self.free = 8 << 30
        self.environ: dict[str, str] = {}
        self.waits: list[float] = []
        self.deployments = Deployments()
        self.grants = [
            Grant(id="g1", what="admin", subject=Subject(kind="group", name="root", id=0), by="root", at=0.0)
        ]

    async def open(self) -> None:
        self.paths.state.mkdir(parents=True, exist_ok=True)
        self.store = await Store.open(self.paths, packages=("core.store", "core.audit", "core.catalog"))
        self.audit = Audit(self.store, self.paths)
        self.gate = Gate(self.store, self.audit, Rights(mode="system", owner_uid=1234, grants=self.grants))
        self.deployments.gate = self.gate
        self.bus = Bus()
        self.catalog = Catalog(self.store, self.gate, self.paths, self.bus)
        self.pulls = Pulls(
            self.store, self.gate, self.catalog, self.paths, self.bus, lambda: self.settings, plan=self.plan,
            left=self.left, deployer=self.deployments, who=self.deployments.who, environ=self.environ, wait=self.wait,
        )  # fmt: skip
        await self.catalog.start()
        await self.pulls.start()

    async def close(self) -> None:
        await self.pulls.close()
        await self.catalog.close()
        await self.store.close()

    async def again(self) -> None:
        """The daemon ends, the next one starts."""
        await self.close()
        await self.open()

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def plan(self, shape: ModelShape, ctx: int) -> Plan:
        return sizing.plan(
            shape, model="it", ctx=ctx or sizing.default_ctx(shape, 1), parallel=1, cache_type="f16", cache_ram_mib=0,
            free_bytes=self.free, reserve_bytes=0, reserved_bytes=0,
        )  # fmt: skip

    async def left(self) -> int:
        return self.free

    # ---------------------------------------------------------------------------------------- asking

    async def pull(self, source: str, actor: Actor = ME, **fields: Any) -> Pull:
        given = {"name": "m", "secret": "", "endpoint": "", **fields}
        return await self.pulls.begin(actor, "request1", source, **given)

    async def until(self, id: str, when: Callable[[Pull], bool]) -> Pull:
        async with asyncio.timeout(30):
            async with contextlib.aclosing(self.bus.follow(None, idle_s=0.2)) as batches:
                while not when(self.pulls.get(id)):
                    await anext(batches)
        return self.pulls.get(id)

    async def ended(self, pull: Pull) -> Pull:
        return await self.until(pull.id, lambda now: now.state in (*PULL_ENDED, "paused", "needs token"))

    async def pulled(self, source: str, **fields: Any) -> Pull:
        return await self.ended(await self.pull(source, **fields))

    async def stands(self, source: str = SOURCE, *, after: int = 100_000, **fields: Any) -> Pull:
        """A pull whose server stands still after so many bytes, which are here."""

        def stop(count: int) -> None:
            if self.hub.sent >= after:
                self.hub.gate.clear()

        self.hub.sent, self.hub.on_bytes = 0, stop
        pull = await self.pull(source, **fields)
        return await self.until(pull.id, lambda now: now.bytes_done > 0 and not self.hub.gate.is_set())

    def flows(self) -> None:
        """The server goes on."""
        self.hub.on_bytes = lambda count: None
        self.hub.gate.set()

    def left_over(self) -> list[str]:
        """Every file below the models' folder."""
        return sorted(
            str(each.relative_to(self.paths.models)) for each in self.paths.models.rglob("*") if each.is_file()
        )
