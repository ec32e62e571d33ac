"""What is deployed when its pull is stored: as who began the pull asked, with the rights that he has at that moment.

It happens once: what is deployed and the pull's row that says so are one transaction. A daemon that ends before leaves
it to the next one; what was refused stands in the row, and nobody tries it again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from core.access import Gate
from core.catalog.pull import rows
from core.catalog.pull.later import Later
from core.catalog.pull.rows import Row, replaced
from core.catalog.service import Catalog
from core.catalog.sizing.parts import DEFAULT_CTX_PER_SLOT
from core.errors import Conflict, CorralError, Failed, StoreError, TimedOut
from core.nouns import Actor, DeploymentSpec, Pull, PulledDeploy

log = logging.getLogger(__name__)

Also = Callable[[sqlite3.Connection], None]


class Deployer(Protocol):
    """What pulls need of the deployments, which lie above the catalog."""

    begun: asyncio.Event
    """It takes what is to be deployed."""

    async def foresee(self, spec: DeploymentSpec, *, replace: bool) -> None:
        """Raises what `deploy` would refuse whatever the model turns out to be."""

    async def deploy(
        self, actor: Actor, request: str, spec: DeploymentSpec, *, replace: bool, also: Also
    ) -> tuple[object, bool]:  # fmt: skip
        """Permit, admit and record it, and whether that changed anything; `also` is part of that transaction."""


class Rows(Protocol):
    """Of the pulls: their rows as they are now."""

    def row(self, id: str) -> Row: ...

    async def keep(self, row: Row) -> None: ...

    def show(self, row: Row) -> None: ...


class Deploying:
    """Only `Running` makes one. `who` tells what the host knows now of somebody who asked before."""

    def __init__(
        self, gate: Gate, catalog: Catalog, deployer: Deployer, rows: Rows, who: Callable[[Actor], Awaitable[Actor]]
    ) -> None:
        self._gate, self._catalog, self._deployer, self._rows, self._who = gate, catalog, deployer, rows, who
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._later = Later()

    def begin(self, pull: Pull) -> None:
        """Deploy what is to be deployed of a pull that is stored."""
        if pull.state == "done" and pull.open and pull.id not in self._tasks:
            self._tasks[pull.id] = asyncio.create_task(self._carry_out(pull.id))

    def mend(self) -> None:
        """Try again what the disk or a directory kept from being done."""
        for id in self._later.due():
            self.begin(self._rows.row(id).pull)

    async def close(self) -> None:
        """What is not recorded is the next daemon's."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _carry_out(self, id: str) -> None:
        try:
            await self._deploy(self._rows.row(id))
            self._later.drop(id)
        except (StoreError, TimedOut) as error:
            self._waits(id, error)
        except Exception as error:
            # Anything: whoever waits for it must hear of it.
            if not isinstance(error, CorralError):
                log.exception("an error of ours while what pull %s was for was deployed", id)
            told = error if isinstance(error, CorralError) else Failed("the daemon failed", "a bug", "see its log")
            await self._failed(id, told)
        finally:
            self._tasks.pop(id, None)

    async def _deploy(self, row: Row) -> None:
        """Raises why it cannot be."""
        await self._deployer.begun.wait()
        wanted, pulled = row.pull.deploy, row.pull.model
        assert wanted is not None and pulled is not None
        actor = await self._who(row.actor)
        try:
            self._gate.require(actor, "models.read", f"model:{pulled.name}")
        except CorralError as error:
            subject = f"deployment:{wanted.spec.name}"
            await self._gate.refuse(actor, "deployments.create", subject, row.request, str(error))
            raise
        model = await self._catalog.get(f"{pulled.name}@{pulled.version}")
        spec = msgspec.structs.replace(
            wanted.spec, model=model.name if "live" in model.aliases else model.reference
        )  # fmt: skip
        done = msgspec.structs.replace(wanted, spec=spec, state="done", error=None)

        def also(db: sqlite3.Connection) -> None:
            now = rows.one(db, row.pull.id)
            if now is None or now.pull.deploy is None or now.pull.deploy.state != "waits":
                raise Conflict(f"{spec.name} is not deployed", "somebody has said so meanwhile")
            rows.put(db, replaced(now, deploy=done))

        _, changed = await self._deployer.deploy(actor, row.request, spec, replace=wanted.replace, also=also)
        done = msgspec.structs.replace(done, changed=changed)
        self._rows.show(replaced(self._rows.row(row.pull.id), deploy=done))

    async def _failed(self, id: str, error: CorralError) -> None:
        row = self._rows.row(id)
        wanted = row.pull.deploy
        if wanted is None or wanted.state != "waits":
            return
        log.warning("pull %s is stored and not deployed: %s", id, error)
        failed = replaced(row, deploy=msgspec.structs.replace(wanted, state="failed", error=error.body()))
        try:
            await self._rows.keep(failed)
        except StoreError as unwritten:
            self._waits(id, unwritten)

    def _waits(self, id: str, error: CorralError) -> None:
        """It is tried again: nothing is decided by a disk that takes no record."""
        self._later.put(id)
        row = self._rows.row(id)
        if row.pull.deploy is not None and row.pull.deploy.state == "waits":
            told = type(error)(error.what, error.why, "it is tried again by itself")
            self._rows.show(replaced(row, deploy=msgspec.structs.replace(row.pull.deploy, error=told.body())))


def deploy_of(said: PulledDeploy, name: str) -> PulledDeploy:
    """What a person says, as it is kept: of the model that the pull becomes, and not begun."""
    return PulledDeploy(spec=msgspec.structs.replace(said.spec, model=name), replace=said.replace)


def cells(spec: DeploymentSpec) -> int:
    """What the memory of a quantisation is weighed with: the cells of all conversations; 0: of one, as is usual."""
    return spec.ctx or (spec.parallel * DEFAULT_CTX_PER_SLOT if spec.parallel > 1 else 0)
