"""What a key may use: requests and tokens a minute, requests at once, tokens a day. Exact, and O(1) a request.

A minute is a sliding window of 60 slots of a second: what happened in a slot counts until 60 seconds after the slot's
end. So there is never one too many in any minute, and what was used is free again at most a second late.

Tokens are reserved before (the prompt estimated by its bytes, the answer by max_tokens or what a slot holds) and
settled after by what the engine counted. One answer whose reservation would be over the whole limit is let in when
nothing else counts: else it could never be asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from core.gateway import wire

SLOTS = 60
BYTES_A_TOKEN = 4
"""English text has some four bytes a token; settled by the engine's own count afterwards."""


class Window:
    """The sum of what was added in the last minute. `now` are seconds on a clock that nobody sets."""

    __slots__ = ("_at", "_slots", "sum")

    def __init__(self) -> None:
        self._slots = [0] * (SLOTS + 1)
        self._at = 0
        self.sum = 0

    def _move(self, now: float) -> None:
        at = int(now)
        if at <= self._at:
            return
        slots = self._slots
        for each in range(self._at + 1, min(at, self._at + len(slots)) + 1):
            index = each % len(slots)
            self.sum -= slots[index]
            slots[index] = 0
        self._at = at

    def count(self, now: float) -> int:
        self._move(now)
        return self.sum

    def add(self, now: float, amount: int) -> int:
        """Add; the slot, for `correct`."""
        self._move(now)
        self._slots[self._at % len(self._slots)] += amount
        self.sum += amount
        return self._at

    def correct(self, now: float, slot: int, amount: int) -> None:
        """Add `amount` (it may be below zero) to what was added in `slot`; nothing if that is over."""
        self._move(now)
        if self._at - slot < len(self._slots):
            self._slots[slot % len(self._slots)] += amount
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


class Short(msgspec.Struct, frozen=True):
    """Which limit is reached, and after how many seconds it has room again."""

    limit: str
    most: int
    seconds: float


class Hold(msgspec.Struct, frozen=True):
    """What one request has reserved."""

    slot: int
    day: str
    tokens: int


class Meter:
    """What one key has used. `monotonic` and `wall` are clocks (seconds)."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock, self._wall = monotonic, wall
        self._began, self._wall_began = monotonic(), wall()
        self.requests, self.tokens = Window(), Window()
        self.busy = self.elsewhere = 0
        """Requests in flight here, and at a gateway that was replaced and still ends its own."""
        self._drift = 0
        self.day, self.day_tokens = "", 0

    def _today(self) -> str:
        """The day in UTC by a clock that goes on evenly from the start: a clock that is set neither frees nor locks.
        Never before a day that was counted already."""
        moment = self._wall_began + self._clock() - self._began
        return max(self.day, datetime.fromtimestamp(moment, UTC).date().isoformat())

    def _turn(self) -> None:
        today = self._today()
        if today != self.day:
            self.day, self.day_tokens = today, 0

    def short(self, limits: wire.KeyLimits, tokens: int) -> Short | None:
        """The limit that has no room for a request of so many tokens; None if all have."""
        now = self._clock()
        if limits.concurrency and self.busy + self.elsewhere >= limits.concurrency:
            return Short("concurrency", limits.concurrency, 1.0)
        if limits.rpm and self.requests.count(now) >= limits.rpm:
            return Short("requests", limits.rpm, self.requests.until(now, limits.rpm - 1))
        if limits.tpm and (used := self.tokens.count(now)) and used + tokens > limits.tpm:
            return Short("tokens", limits.tpm, self.tokens.until(now, max(0, limits.tpm - tokens)))
        if limits.daily_tokens:
            self._turn()
            if self.day_tokens and self.day_tokens + tokens > limits.daily_tokens:
                return Short("tokens a day", limits.daily_tokens, self._midnight())
        return None

    def _midnight(self) -> float:
        moment = self._wall_began + self._clock() - self._began
        return math.ceil((math.floor(moment / 86400) + 1) * 86400 - moment)

    def take(self, tokens: int) -> Hold:
        """Count a request that was let in."""
        now = self._clock()
        self._turn()
        self.busy += 1
        self.requests.add(now, 1)
        self.day_tokens += tokens
        return Hold(self.tokens.add(now, tokens), self.day, tokens)

    def settle(self, hold: Hold, tokens: int) -> None:
        """The request has ended; `tokens` were used."""
        self.busy -= 1
        self.tokens.correct(self._clock(), hold.slot, tokens - hold.tokens)
        self._turn()
        if hold.day == self.day:
            self.day_tokens += tokens - hold.tokens
            self._drift += tokens - hold.tokens

    def take_drift(self) -> int:
        """By how much settled requests of today differ from what was reserved for them, since the last call."""
        drift, self._drift = self._drift, 0
        return drift

    def left(self, limits: wire.KeyLimits) -> list[tuple[str, int, int, float]]:
        """(name, limit, remaining, seconds until all of it is free) of the limits of a minute."""
        now, found = self._clock(), []
        for name, most, window in (("requests", limits.rpm, self.requests), ("tokens", limits.tpm, self.tokens)):
            if most:
                found.append((name, most, max(0, most - window.count(now)), window.until(now, 0)))
        return found

    # ---------------------------------------------------------------------------------------- over a restart

    def kept(self) -> wire.KeyUse:
        """What a gateway that starts goes on from. Minutes are not kept: they are over by then, or all but."""
        self._turn()
        return wire.KeyUse(day=self.day, tokens=self.day_tokens)

    def restore(self, use: wire.KeyUse) -> None:
        """Go on from what was kept; a day that is over counts nothing."""
        self.day, self.day_tokens = use.day, use.tokens
        self._turn()


def estimate(body: int, answer: int | None, ctx_per_slot: int) -> int:
    """Tokens to reserve for a request of `body` bytes that asks for `answer` tokens at most (None: it does not say)."""
    prompt = body // BYTES_A_TOKEN + 1
    if answer is None or answer < 0:
        return max(prompt, ctx_per_slot)
    return prompt + (min(answer, ctx_per_slot) if ctx_per_slot else answer)
