"""Access over a real store, in system mode, as the tests of who may do what share it."""

from __future__ import annotations

from typing import Any

from core.access import Access, Gate, Glass, Inquiry, Keys, Rights, ServiceAccounts
from core.audit import Audit
from core.nouns import Actor, AuditRecord, Subject
from core.paths import Paths
from core.store import Store

ROOT = Actor(uid=-1, name="root", through="cli")
"""Above all rights, as Corral itself is: whom the tests begin with."""
NOW = 1_000_000.0
FIRST = Subject(kind="group", name="sys", id=3)
"""In force in each test: this group's members are the first admins."""


class House:
    """Rights, keys and service accounts. `bin` and `daemon` are users that every host has."""

    def __init__(self, store: Store, paths: Paths) -> None:
        self.now = NOW
        self.store = store
        self.audit = Audit(store, paths)
        self.gate = Gate(store, self.audit, Rights(mode="system", owner_uid=0), clock=self.clock)
        self.access = Access(store, self.gate, clock=self.clock)
        self.inquiry = Inquiry(self.gate, self.access.gone, clock=self.clock)
        self.glass = Glass(self.gate, self.access, clock=self.clock)
        self.keys = Keys(store, self.gate, clock=self.clock)
        self.accounts = ServiceAccounts(self.gate, self.access, self.keys, clock=self.clock)
        self.told = self.keys_told = 0
        self.access.on_change.append(self._told)
        self.keys.on_change.append(self._keys_told)

    def clock(self) -> float:
        return self.now

    def _told(self) -> None:
        self.told += 1

    def _keys_told(self) -> None:
        self.keys_told += 1

    async def grant(self, actor: Actor, what: str, subject: str, scope: str = "*", **more: Any) -> str:
        return (await self.access.grant(actor, "r", what=what, subject=subject, scope=scope, **more)).id

    async def records(self) -> list[AuditRecord]:
        return await self.audit.ls(limit=1000)

    async def refusals(self) -> list[str]:
        return [record.reason for record in await self.records() if record.outcome == "refused"]

    def may(self, actor: Actor, permission: str, object: str = "deployment:chat") -> bool:
        return self.gate.may(actor, permission, object)
