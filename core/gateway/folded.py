"""Requests that are refused before they reach a deployment: counted, and told as one line each second.

Whoever reaches the socket can have thousands a second refused. A line for each would fill the spool, and with it
shut out those who may.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from core.gateway import wire

KINDS = 1024
"""Kinds of refusal that are told apart between two flushes; what comes beyond them is told of nobody in particular."""

Kind = tuple[int, str, str, int, str, str]
"""uid, deployment, path, HTTP status, key, and whose key."""


class Folded:
    """Counts of refusals since the last `lines`."""

    def __init__(self, new_id: Callable[[], str], clock: Callable[[], float] = time.time) -> None:
        self._new_id = new_id
        self._clock = clock
        self._counts: Counter[Kind] = Counter()

    def add(self, uid: int, deployment: str, path: str, status: int, key: str = "", owner: str = "") -> None:
        """Count one. `deployment` is one that is there, or empty: names that clients make up are no usage."""
        kind = (uid, deployment, path, status, key, owner)
        if len(self._counts) >= KINDS and kind not in self._counts:
            kind = (-1, "", "", status, "", "")
        self._counts[kind] += 1

    def lines(self) -> Iterator[wire.UsageLine]:
        """Take what was counted."""
        counts, self._counts = self._counts, Counter()
        now = self._clock()
        for (uid, deployment, path, status, key, owner), requests in counts.items():
            yield wire.UsageLine(
                id=self._new_id(), time=now, uid=uid, deployment=deployment, model="", replica="", launch="", path=path,
                status=status, outcome="refused", requests=requests, key=key,
                actor=owner,
            )  # fmt: skip
