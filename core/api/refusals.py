"""Records of refusals, bounded: the socket of a shared daemon is open to everybody, and the trail is for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from core.access import Gate
from core.errors import CorralError
from core.nouns import Actor

log = logging.getLogger(__name__)

EACH = 30
"""Refusals of one user in a window that are recorded one by one; the rest is counted by verb and reason."""
KINDS = 10
"""Verbs and reasons of a window that have a record each; all others share one."""
WINDOW_S = 60.0


OTHERS = ("api.refused", "")


class _Window:
    """One user's window."""

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.recorded = 0
        self.actor: Actor | None = None
        self.more: Counter[tuple[str, str]] = Counter()
        """How often, by verb and reason; ("api.refused", "") for those that are of no kind of their own."""


class Refusals:
    """Records that somebody was refused. Nothing is lost: what is not recorded one by one is counted."""

    def __init__(self, gate: Gate, clock: Callable[[], float] | None = None) -> None:
        self._gate = gate
        self._clock = clock or time.monotonic
        self._windows: dict[int, _Window] = {}

    async def record(
        self, actor: Actor, verb: str, object: str, request: str, reason: str, after: dict[str, Any] | None = None
    ) -> None:
        """One refusal; `after` has what was tried. Errors of the store are logged: the refusal stands without its
        record."""
        await self.settle()
        window = self._windows.setdefault(actor.uid, _Window(self._clock() + WINDOW_S))
        if window.recorded >= EACH:
            kind = (verb, reason)
            window.more[kind if kind in window.more or len(window.more) < KINDS else OTHERS] += 1
            window.actor = actor
            return
        window.recorded += 1
        await self._write(actor, verb, object, request, reason, after)

    async def settle(self, *, all: bool = False) -> None:
        """Close the windows that are over (`all`: every one, at the daemon's end) with one record for each verb and
        reason of the rest."""
        now = self._clock()
        over = [uid for uid, window in self._windows.items() if all or now >= window.ends]
        for window in [self._windows.pop(uid) for uid in over]:
            for (verb, why), times in window.more.items():
                assert window.actor is not None
                reason = f"{times} more refusals within {WINDOW_S:.0f} s, not recorded one by one"
                told = f"{reason}: {why}" if why else reason
                await self._write(window.actor, verb, "route:any", f"many-{times}", told, {"times": times})

    async def run(self) -> None:
        """Close windows until cancelled."""
        while True:
            await asyncio.sleep(WINDOW_S)
            await self.settle()

    async def _write(
        self, actor: Actor, verb: str, object: str, request: str, reason: str, after: dict[str, Any] | None = None
    ) -> None:
        try:
            await self._gate.record(actor, verb, object, request, "refused", after=after, reason=reason)
        except CorralError as error:
            log.error("a refusal could not be recorded: %s", error)
