"""What happened in the last minute, as a sum that is exact and whose cost is fixed.

A minute is a sliding window of 60 slots of a second: what happened in a slot counts until 60 seconds after the slot's
end. So there is never one too many in any minute, and what was used is free again at most a second late.
"""

from __future__ import annotations

SLOTS = 60
_SIZE = SLOTS + 1


class Window:
    """The sum of what was added in the last minute. `now` are seconds on a clock that nobody sets: `turn` to it first,
    all else is of that moment."""

    __slots__ = ("_index", "_last", "_slots", "at", "sum")

    def __init__(self) -> None:
        self._slots = [0] * _SIZE
        self._index = self._last = 0
        self.at = 0
        """The slot of now."""
        self.sum = 0

    def turn(self, now: float) -> None:
        """Leave behind what is over."""
        at = int(now)
        if at <= self.at:
            return
        slots = self._slots
        for each in range(self.at + 1, min(at, self.at + _SIZE) + 1):
            index = each % _SIZE
            self.sum -= slots[index]
            slots[index] = 0
        self.at, self._index = at, at % _SIZE

    def add(self, amount: int) -> None:
        """Add it in this second."""
        self._slots[self._index] += amount
        self.sum += amount
        self._last = self.at

    def correct(self, slot: int, amount: int) -> None:
        """Add it (it may be below zero) to what was added in an earlier slot; nothing if that is over."""
        if self.at - slot < _SIZE:
            self._slots[slot % _SIZE] += amount
            self.sum += amount

    def put(self, slot: int, amount: int) -> None:
        """Add what was used in an earlier slot; nothing if that is over."""
        if slot <= self.at:
            self.correct(slot, amount)
            self._last = max(self._last, slot)

    def until(self, now: float, room: int) -> float:
        """Seconds until the sum is `room` or less, if nothing is added."""
        left = self.sum
        for age in range(SLOTS, -1, -1):
            if left <= room:
                break
            left -= self._slots[(self.at - age) % _SIZE]
            if left <= room:
                return max(0.0, self.at - age + _SIZE - now)
        return 0.0

    def clear(self, now: float, more: int = 0) -> float:
        """Seconds until all of it is over, and `more`, if that is added now."""
        if more:
            return self.at + _SIZE - now
        return self._last + _SIZE - now if self.sum else 0.0

    def slots(self) -> dict[int, int]:
        """What was added, by slot."""
        there = range(max(0, self.at - SLOTS), self.at + 1)
        return {slot: amount for slot in there if (amount := self._slots[slot % _SIZE])}
