"""Chat turns that outlive the daemon: what was answered so far, kept by turn id for whoever comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

TURN_BYTES = 1 << 20
ALONE_S = 60.0
"""How long a turn runs on without its daemon, and how long an ended one is kept."""
TURNS = 256


class Follower(Protocol):
    def turn_part(self, data: bytes, last: bool) -> None: ...


class Turn:
    """One turn: the bytes sent so far, and who follows."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.data = bytearray()
        self.content_type = b"text/event-stream"
        self.followers: list[Follower] = []
        self.ended: float | None = None

    def add(self, data: bytes, last: bool) -> bool:
        """Keep and pass on; False when the turn has outgrown `TURN_BYTES`."""
        self.data += data
        if last:
            self.ended = time.monotonic()
        for follower in tuple(self.followers):
            follower.turn_part(data, last)
        return len(self.data) <= TURN_BYTES


class Turns:
    """The turns by id."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}

    def begin(self, id: str, stop: Callable[[], None]) -> Turn | None:
        """None if that id runs, or too many do."""
        self.prune()
        if id in self._turns or len(self._turns) >= TURNS:
            return None
        turn = self._turns[id] = Turn(stop)
        return turn

    def __len__(self) -> int:
        return len(self._turns)

    def get(self, id: str) -> Turn | None:
        return self._turns.get(id)

    def prune(self) -> None:
        """Forget turns that ended a while ago."""
        limit = time.monotonic() - ALONE_S
        for id in [id for id, turn in self._turns.items() if turn.ended is not None and turn.ended < limit]:
            del self._turns[id]
