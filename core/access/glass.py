"""Breaking the glass: in an emergency root takes what he does not hold, for a while, with a reason, and it rings.

It is a grant like another, but that it rings: a record of its own, a line at alert level in the sinks and in the log, a
warning in every console for as long as it lasts, and a second record when it has ended.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from core.access import tables
from core.access.gate import Gate
from core.access.grantrules import check, check_what
from core.access.knownnames import LOOK_EVERY_S
from core.access.service import Access
from core.errors import Conflict, CorralError, Invalid
from core.nouns import CORRAL, Actor, Grant, Subject

log = logging.getLogger(__name__)

BREAK = "access.break-glass"
SHORTEST_S, LONGEST_S = 60.0, 8 * 3600.0


_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""What steers a terminal: without its first letter the rest would be read as text."""


class Glass:
    """Emergency grants. `on_ring` is called with a sentence when the glass is broken and when it is whole again."""

    def __init__(self, gate: Gate, access: Access, *, clock: Callable[[], float] = time.time) -> None:
        self._gate = gate
        self._access = access
        self._clock = clock
        self.on_ring: list[Callable[[str], object]] = []

    async def take(
        self, actor: Actor, request: str, *, reason: str, what: str = "admin", scope: str = "*", seconds: float = 3600.0
    ) -> Grant:  # fmt: skip
        """Take `what` on `scope` for `seconds`. Raises `Invalid`, `NotAllowed`, `Conflict` (a daemon of one's own)."""
        if self._gate.rights.mode == "user":
            raise Conflict(
                "there is no glass to break here", "the owner of a daemon of his own may do everything already",
                "what he does is in the audit trail like anybody's",
            )  # fmt: skip
        if not reason.strip():
            raise Invalid("no reason was given", "whoever reads the trail must know why", "--reason ...")
        check(what, scope, reason, None, self._clock())
        if not SHORTEST_S <= seconds <= LONGEST_S:
            raise Invalid(f"{seconds:g} s is too short or too long", "it is a minute to 8 hours", "--for 1h")
        now = self._clock()
        made = Grant(
            id=f"g{secrets.token_hex(4)}", what=what, scope=scope, reason=reason, by=actor.name, at=now,
            until=now + seconds, glass=True, subject=Subject(kind="user", name=actor.name, id=actor.uid),
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            check_what(self._gate.rights, what)
            tables.put_grant(db, made)
            self._access.put_in_force(db)
            return None, None, made

        await self._gate.act(actor, BREAK, f"access:{made.subject}", request, work, reason=reason, tried=made)
        self._ring(said(made))
        await self._access.changed()
        return made

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Take away what has ended, at once, until cancelled."""
        while True:
            try:
                await self.mend()
            except CorralError as error:
                log.error("an emergency grant has ended and is not recorded yet: %s", error)
            await pause(self.next_end(LOOK_EVERY_S))  # none is shorter, so none ends unseen

    def broken(self) -> list[Grant]:
        """Those in force now."""
        now = self._clock()
        return [each for each in self._gate.rights.grants if each.glass and each.until is not None and now < each.until]

    def troubles(self) -> list[str]:
        """What everybody is told for as long as it lasts."""
        broken = self.broken()
        if len(broken) < 2:
            return [said(each) for each in broken]
        last = max(broken, key=lambda each: each.until or 0.0)
        words = f"the glass is broken {len(broken)} times, the last one until {_until(last)}: {last.subject}"
        return [f"{words} took {last.what} on {last.scope}; `corral access ls` has all"]

    def next_end(self, longest: float) -> float:
        """Seconds until one ends, `longest` at most."""
        return max(0.0, min([longest, *(each.until - self._clock() for each in self.broken() if each.until)]))

    async def mend(self) -> None:
        """Record those that have ended, and take them away. Raises `StoreError`."""
        now = self._clock()
        ended = [g for g in self._gate.rights.grants if g.glass and g.until is not None and now >= g.until]
        for each in ended:

            def work(db: sqlite3.Connection, each: Grant = each) -> tuple[None, object, object]:
                tables.delete_grant(db, each.id)
                self._access.put_in_force(db)
                return None, each, None

            object = f"access:{each.subject}"
            await self._gate.act(CORRAL, "access.glass-whole", object, each.id, work, reason="its time is over")
            self._ring(
                f"the glass is whole again: {each.subject} holds {each.what} on {each.scope} no more ({each.id})"
            )
        if ended:
            await self._access.changed()

    def _ring(self, words: str) -> None:
        log.critical("%s", words)
        for ring in self.on_ring:
            ring(words)


def said(grant: Grant) -> str:
    """A sentence for everybody, on one line: it goes to logs too."""
    reason = "".join(letter if letter.isprintable() else " " for letter in _SEQUENCE.sub("", grant.reason))
    return f"the glass is broken: {grant.subject} took {grant.what} on {grant.scope} until {_until(grant)}: {reason}"


def _until(grant: Grant) -> str:
    return datetime.fromtimestamp(grant.until or 0.0, UTC).strftime("%H:%M UTC")
