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
    """One turn: the last bytes of it, from byte `base` on, and who follows.

    At least `TURN_BYTES` are kept, which is far more than the daemon leaves unstored; what nobody hears may be no more.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.data = bytearray()
        self.base = 0
        self.content_type = b"text/event-stream"
        self.followers: list[Follower] = []
        self.ended: float | None = None
        self.left_at = time.monotonic()
        """When the last listener went."""
        self._unheard = 0

    def add(self, data: bytes, last: bool, *, heard: bool = False) -> bool:
        """Keep and pass on; False when nobody has heard `TURN_BYTES` of it. `heard`: its first client is there."""
        self.data += data
        if len(self.data) > 2 * TURN_BYTES:
            self.base += len(self.data) - TURN_BYTES
            del self.data[:-TURN_BYTES]
        if last:
            self.ended = time.monotonic()
        self._unheard = 0 if heard or self.followers else self._unheard + len(data)
        for follower in tuple(self.followers):
            follower.turn_part(data, last)
        return self._unheard <= TURN_BYTES

    def since(self, offset: int) -> bytes | None:
        """What was sent from byte `offset` on; None if that is no longer kept."""
        return bytes(self.data[offset - self.base :]) if offset >= self.base else None

    def leave(self, follower: Follower) -> None:
        """One that followed no longer does."""
        if follower in self.followers:
            self.followers.remove(follower)
            self.left_at = time.monotonic()

    def alone(self) -> float:
        """Seconds since anybody listened."""
        return 0.0 if self.followers else time.monotonic() - self.left_at


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
