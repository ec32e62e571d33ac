"""A store with its chain, its signer and its exporter, as the tests of proof use it."""

import sqlite3
from pathlib import Path

from core.access import Gate, Rights
from core.audit import Audit, Exporter, Signer
from core.audit.signer import Work
from core.nouns import CORRAL, Actor
from core.paths import Paths
from core.proof.prooffile import read_proofs
from core.proof.statements import Checkpoint, Key
from core.settings import AuditTable
from core.store import Store

ALICE = Actor(uid=1000, name="alice")
MALLORY = Actor(uid=1001, name="mallory")


class Place:
    """A store with its chain and signer; `again` is a new daemon on them."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder, folder / "corral.toml", "0badcafe")
        self.paths.state.mkdir(exist_ok=True)
        self.settings = AuditTable(checkpoint_records=10)
        self.now, self.monotonic = 1_790_000_000.0, 50.0

    async def open(self) -> "Place":
        self.store = await Store.open(self.paths, packages=("core.store", "core.audit"))
        self.audit = Audit(self.store, self.paths, clock=lambda: self.now)
        await self.audit.compare()
        self.gate = Gate(self.store, self.audit, Rights(mode="user", owner_uid=1000))
        self.signer = Signer(
            self.store, self.audit, self.paths, lambda: self.settings, environ={}, clock=lambda: self.now,
            monotonic=lambda: self.monotonic,
        )  # fmt: skip
        return self

    async def again(self) -> None:
        await self.store.close()
        await self.open()
        await self.signer.start()

    async def fill(self, count: int) -> None:
        for n in range(count):
            await self.gate.record(CORRAL, "test.done", f"thing:{n}", "r", "done", after={"n": n})

    async def rotate(self, actor: Actor = ALICE, *, lost: bool = False) -> Key:
        async def act(work: Work) -> Key:
            return await self.gate.act(actor, "audit.key-rotate", "audit:keys", "r", work, permission="audit.keys")

        return await self.signer.rotate(act, lost=lost)

    async def checkpoint(self) -> Checkpoint:
        made = await self.signer.checkpoint()
        assert made is not None
        return made

    def kept(self) -> list[Checkpoint]:
        return read_proofs(self.paths.audit_proof).checkpoints

    async def faults(self) -> list[str]:
        return [fault.how for fault in (await self.audit.verify()).faults]

    async def export(self, since: str | None = None) -> bytes:
        exporter = Exporter(self.audit, self.signer, self.paths, self.store.database_id, clock=lambda: self.now)
        return b"".join([piece async for piece in exporter.pieces(since)])


def tamper(paths: Paths, *statements: str) -> None:
    """With the triggers put back."""
    db = sqlite3.connect(paths.database)
    there = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for statement in (*(f"DROP TRIGGER {name}" for name, _ in there), *statements, *(sql for _, sql in there)):
        db.execute(statement)
    db.commit()
    db.close()
