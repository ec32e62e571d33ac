"""What happened in the last minute, as a sum that is exact and whose cost is fixed.

A minute is a sliding window of 60 slots of a second: what happened in a slot counts until 60 seconds after the slot's
end. So there is never one too many in any minute, and what was used is free again at most a second late.
"""

from __future__ import annotations

SLOTS = 60


class Window:
    """The sum of what was added in the last minute. `now` are seconds on a clock that nobody sets."""

    __slots__ = ("_at", "_held", "_last", "_slots", "sum")

    def __init__(self) -> None:
        self._slots = [0] * (SLOTS + 1)
        self._held = [0] * (SLOTS + 1)
        """Of each slot, what is reserved only."""
        self._at = self._last = 0
        self.sum = 0

    def _move(self, now: float) -> None:
        at = int(now)
        if at <= self._at:
            return
        slots = self._slots
        for each in range(self._at + 1, min(at, self._at + len(slots)) + 1):
            index = each % len(slots)
            self.sum -= slots[index]
            slots[index] = self._held[index] = 0
        self._at = at

    def count(self, now: float) -> int:
        if now >= self._at + 1:  # else a call for nothing, several times a request
            self._move(now)
        return self.sum

    def add(self, now: float, amount: int, *, held: bool = False) -> int:
        """Add, or reserve (`held`); the slot, for `correct`."""
        if now >= self._at + 1:
            self._move(now)
        index = self._at % len(self._slots)
        self._slots[index] += amount
        if held:
            self._held[index] += amount
        self.sum += amount
        self._last = self._at
        return self._at

    def put(self, now: float, slot: int, amount: int) -> None:
        """Add what was used in an earlier slot; nothing if that is over."""
        self._move(now)
        if slot <= self._at:
            self.correct(now, slot, amount)
            self._last = max(self._last, slot)

    def correct(self, now: float, slot: int, amount: int, held: int = 0) -> None:
        """Add `amount` (it may be below zero) to what was added in `slot`, of which so much was `held` until now;
        nothing if that is over."""
        if now >= self._at + 1:
            self._move(now)
        if self._at - slot < len(self._slots):
            index = slot % len(self._slots)
            self._slots[index] += amount
            self._held[index] -= held
            self.sum += amount

    def until(self, now: float, room: int) -> float:
        """Seconds until the sum is `room` or less, if nothing is added."""
        self._move(now)
        left, size = self.sum, len(self._slots)
        for age in range(size - 1, -1, -1):
            if left <= room:
                break
            left -= self._slots[(self._at - age) % size]
            if left <= room:
                return max(0.0, self._at - age + size - now)
        return 0.0

    def clear(self, now: float) -> float:
        """Seconds until all of it is over."""
        self._move(now)
        return max(0.0, self._last + len(self._slots) - now) if self.sum else 0.0

    def settled(self, now: float) -> dict[int, int]:
        """By slot, what was used for certain: without what is reserved."""
        self._move(now)
        size = len(self._slots)
        found = {}
        for slot in range(max(0, self._at - size + 1), self._at + 1):
            index = slot % size
            if amount := self._slots[index] - self._held[index]:
                found[slot] = amount
        return found
