"""How long chats are kept, by user, group and deployment.

The strictest rule wins: `none` before days, fewer days before more, days before `keep`. [chats] keep_days counts where
no rule speaks. Whoever must keep something in spite of a rule puts it under legal hold, which wins over all of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from core.access import Gate
from core.access.people import subject_named
from core.errors import Invalid, NotFound
from core.nouns import Actor, RetentionRule
from core.store import Store

OBJECT = "chat:retention"
DAY_S = 86400.0
LONGEST = 36500
"""Days."""
_COLUMNS = "kind, name, number, days, reason, by, at"


class Rules:
    """Those in force; `default` is [chats] keep_days of now, 0 for keeping."""

    def __init__(self, store: Store, gate: Gate, clock: Callable[[], float], default: Callable[[], int]) -> None:
        self._store, self._gate, self._clock, self._default = store, gate, clock, default
        self._there: tuple[RetentionRule, ...] = ()

    async def start(self) -> None:
        self._there = await self._store.read(_all)

    def ls(self) -> list[RetentionRule]:
        return list(self._there)

    @property
    def by_group(self) -> bool:
        """Whether groups matter at all."""
        return any(each.kind == "group" for each in self._there)

    def longest(self) -> int | None:
        """Days after which no rule, nor the default, keeps anything; None: some are kept for ever."""
        default = self._default() or None
        found = [default, *(each.days for each in self._there)]
        return None if any(days is None for days in found) else max(days for days in found if days is not None)

    def days(self, uid: int, name: str, groups: Iterable[int], deployment: str) -> int | None:
        """Days that a chat of this user with this deployment is kept; 0: nothing is, None: for ever."""
        gids = set(groups)
        mine = [
            each.days
            for each in self._there
            if (each.kind == "user" and (each.name, each.number) == (name, uid))
            or (each.kind == "group" and each.number in gids)
            or (each.kind == "deployment" and each.name == deployment)
        ]
        if not mine:
            return self._default() or None
        return min((days for days in mine if days is not None), default=None)

    async def put(self, actor: Actor, request: str, subject: str, days: int | None, reason: str) -> RetentionRule:
        """Make or change the rule for `user:NAME`, `group:NAME` or `deployment:NAME`. Raises `Invalid`, `NotFound`."""
        if days is not None and not 0 <= days <= LONGEST:
            raise Invalid(f"{days} days cannot be kept", f"it may be 0 to {LONGEST}")
        self._gate.require(actor, "chats.retention", OBJECT)
        kind, _, name = subject.partition(":")
        if kind == "deployment" and name and len(name) <= 63:
            number = -1
        elif kind in ("user", "group"):
            number = (await subject_named(subject)).id
        else:
            raise Invalid(f"{subject!r} is nothing that a rule is for", todo="say user:, group: or deployment:NAME")
        rule = RetentionRule(
            kind=kind, name=name, number=number, days=days, reason=reason[:500], by=actor.name,  # type: ignore[arg-type]
            at=self._clock(),
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> tuple[tuple[RetentionRule, ...], Any, Any]:
            before = next((each for each in _all(db) if (each.kind, each.name) == (kind, name)), None)
            db.execute(
                f"INSERT OR REPLACE INTO chat_retention ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (rule.kind, rule.name, rule.number, rule.days, rule.reason, rule.by, rule.at),
            )
            return _all(db), before, rule

        self._there = await self._gate.act(
            actor, "chats.retention", f"chats:{subject}", request, work, on=OBJECT, reason=reason
        )
        return rule

    async def rm(self, actor: Actor, request: str, subject: str, reason: str) -> None:
        """Raises `NotFound`."""
        kind, _, name = subject.partition(":")

        def work(db: sqlite3.Connection) -> tuple[tuple[RetentionRule, ...], Any, Any]:
            before = next((each for each in _all(db) if (each.kind, each.name) == (kind, name)), None)
            if before is None:
                raise NotFound(f"there is no rule for {subject}", todo="corral chats retention")
            db.execute("DELETE FROM chat_retention WHERE kind = ? AND name = ?", (kind, name))
            return _all(db), before, None

        self._there = await self._gate.act(
            actor, "chats.retention", f"chats:{subject[:80]}", request, work, on=OBJECT, reason=reason
        )


def _all(db: sqlite3.Connection) -> tuple[RetentionRule, ...]:
    rows = db.execute(f"SELECT {_COLUMNS} FROM chat_retention ORDER BY kind, name")  # noqa: S608 - constants only
    return tuple(RetentionRule(**dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in rows)
