"""The routes about usage: one's own, which needs no more than what makes it, and everybody's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from core.access import Gate, Keys
from core.api.server import Call, Server
from core.errors import Invalid
from core.nouns import Actor, UsageReport
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


NO_KEY = "-"
"""Asks for what came without a key."""


def add_usage(
    server: Server, usage: UsageReader, gate: Gate, keys: Keys, *, clock: Callable[[], float] = time.time
) -> None:
    def asked(call: Call, own: tuple[int, str] | None, also: tuple[str, ...] = ()) -> Asked:
        by = tuple(word for word in (call.text("by", "") or "").split(",") if word)
        only = {word: tuple(texts) for word in FILTERS if (texts := call.http.query.getall(word, []))}
        if "key" in only:
            only["key"] = _ids(keys, call.actor if own is not None else None, only["key"])
        since, until = (call.number(name, 0, -1e11, 1e11) if call.text(name) else None for name in ("since", "until"))
        _check_span(since, until, clock())
        return Asked(by, since, until, tuple(only.items()), own, also, call.whole("limit", ROWS, 1, ROWS))

    def named(found: UsageReport) -> UsageReport:
        """With the names of keys beside their ids, which alone are of one key for good."""
        if "key" not in found.by:
            return found
        names = {key.id: f"{key.owner.name}/{key.name}" for key in keys.all()}
        rows = []
        for row in found.rows:
            pairs = list(row.group.items())
            at = list(row.group).index("key") + 1
            pairs.insert(at, ("key_name", names.get(str(row.group["key"]), "")))
            rows.append(msgspec.structs.replace(row, group=dict(pairs)))
        at = found.by.index("key") + 1
        return msgspec.structs.replace(found, by=(*found.by[:at], "key_name", *found.by[at:]), rows=tuple(rows))

    async def mine(call: Call) -> Any:
        also = tuple(str(account.subject) for account in gate.rights.accounts_of(call.actor))
        return named(await usage.report(asked(call, (call.actor.uid, call.actor.name), also)))

    async def everybody(call: Call) -> Any:
        return named(await usage.report(asked(call, None)))

    server.add("GET", "/usage", "deployments.use", mine)
    server.add("GET", "/usage/all", "usage.read-others", everybody, on="usage:all")


def _ids(keys: Keys, actor: Actor | None, texts: Sequence[str]) -> tuple[str, ...]:
    """The ids that are meant, "" for none. Raises `NotFound`."""
    found: dict[str, None] = {}
    for text in texts:
        found |= {"": None} if text == NO_KEY else {key.id: None for key in keys.matching(actor, text)}
    return tuple(found)


def _check_span(since: float | None, until: float | None, now: float) -> None:
    """Raises `Invalid` for a time in which nothing can have been used: an empty answer would look like one."""
    if since is not None and since > now:
        raise Invalid(f"that time begins at {_moment(since)}", "it is still to come", "give a --since that has been")
    if since is not None and until is not None and since >= until:
        raise Invalid(
            "that time ends before it begins", f"it is from {_moment(since)} until {_moment(until)}",
            "give an --until after --since; `--until 1h` is an hour ago",
        )  # fmt: skip


def _moment(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M UTC}"
    except (ValueError, OverflowError, OSError):
        return f"{at:g} s"
