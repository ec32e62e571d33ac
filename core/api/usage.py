"""The routes about usage: one's own, which needs no more than what makes it, and everybody's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.access import Gate
from core.api.server import Call, Server
from core.nouns import UsageReport
from core.settings import UsageTable
from core.store import Store
from core.telemetry.prices import Prices
from core.telemetry.report import FILTERS, ROWS, Asked, report


class UsageReader:
    """Asks the store, with the prices of now."""

    def __init__(self, store: Store, settings: Callable[[], UsageTable]) -> None:
        self._store, self._settings = store, settings

    async def report(self, asked: Asked) -> UsageReport:
        """Raises `Invalid`, `StoreError`."""
        table = self._settings()
        prices = Prices(table.prices)
        return await self._store.read(lambda db: report(db, asked, prices, table.currency))


def add_usage(server: Server, usage: UsageReader, gate: Gate) -> None:
    def asked(call: Call, own: tuple[int, str] | None, also: tuple[str, ...] = ()) -> Asked:
        by = tuple(word for word in (call.text("by", "") or "").split(",") if word)
        only = tuple((word, tuple(texts)) for word in FILTERS if (texts := call.http.query.getall(word, [])))
        since, until = (call.number(name, 0, -1e11, 1e11) if call.text(name) else None for name in ("since", "until"))
        return Asked(by, since, until, only, own, also, call.whole("limit", ROWS, 1, ROWS))

    async def mine(call: Call) -> Any:
        also = tuple(str(account.subject) for account in gate.rights.accounts_of(call.actor))
        return await usage.report(asked(call, (call.actor.uid, call.actor.name), also))

    async def everybody(call: Call) -> Any:
        return await usage.report(asked(call, None))

    server.add("GET", "/usage", "deployments.use", mine)
    server.add("GET", "/usage/all", "usage.read-others", everybody, on="usage:all")
