"""How much of one limit is used: of one that counts a minute, or a day or a month."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from core.gateway.clock import Clock
from core.gateway.windows import Window

REQUEST, IN, OUT, BOTH = range(4)
Amounts = tuple[int, int, int, int]
"""1 request, its tokens in, out, and both."""


class Kind(NamedTuple):
    """What a limit counts, in which time, and in words."""

    what: int
    per: str
    words: str


KINDS = {
    "rpm": Kind(REQUEST, "minute", "requests a minute"),
    "tpm": Kind(BOTH, "minute", "tokens a minute"),
    "tpm_in": Kind(IN, "minute", "tokens in a minute"),
    "tpm_out": Kind(OUT, "minute", "tokens out a minute"),
    "daily_tokens": Kind(BOTH, "day", "tokens a day"),
    "daily_in": Kind(IN, "day", "tokens in a day"),
    "daily_out": Kind(OUT, "day", "tokens out a day"),
    "monthly_tokens": Kind(BOTH, "month", "tokens a month"),
    "monthly_in": Kind(IN, "month", "tokens in a month"),
    "monthly_out": Kind(OUT, "month", "tokens out a month"),
}
"""Those that are counted over time, by the field of `wire.Limits`."""


class Reserved(Protocol):
    """What one request has reserved, and when: its slot, day and month."""

    amounts: Amounts
    at: int
    day: str
    month: str


def amounts(tokens_in: int, tokens_out: int) -> Amounts:
    return 1, tokens_in, tokens_out, tokens_in + tokens_out


class Minute:
    """What was used in the last minute. `elsewhere` counts too: what a gateway before this one has used since it handed
    over (`added`), and what it holds in reserve."""

    __slots__ = ("added", "elsewhere", "kind", "most", "what", "window", "words")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.what, _, self.words = KINDS[kind]
        self.most = self.elsewhere = self.added = 0
        self.window = Window()

    def used(self, now: float) -> int:
        return self.window.count(now) + self.elsewhere

    def wait(self, now: float, room: int) -> float:
        """Seconds until no more than `room` is used, if nothing comes."""
        return self.window.until(now, max(0, room - self.elsewhere))

    def clear(self, now: float) -> float:
        """Seconds until all of it is free."""
        return self.window.clear(now)

    def turn(self) -> None:
        """A minute slides by itself."""

    def take(self, now: float, amount: int) -> None:
        self.window.add(now, amount, held=self.what != REQUEST)

    def settle(self, now: float, hold: Reserved, used: Amounts) -> None:
        if self.what != REQUEST:
            reserved = hold.amounts[self.what]
            self.window.correct(now, hold.at, used[self.what] - reserved, reserved)

    def fold(self, now: float) -> None:
        """The gateway before has ended: what it had added is ours from now on."""
        if self.added:
            self.window.add(now, self.added)
        self.elsewhere = self.added = 0


class Period:
    """What was used in a day or a month; the next one begins at nothing."""

    __slots__ = ("_clock", "_daily", "added", "elsewhere", "held", "kind", "most", "period", "sum", "what", "words")

    def __init__(self, kind: str, clock: Clock) -> None:
        self.kind = kind
        self._clock = clock
        self.what, per, self.words = KINDS[kind]
        self._daily = per == "day"
        self.most = self.elsewhere = self.added = 0
        self.sum = self.held = 0
        """All of it, and what of it is reserved only."""
        self.period = ""

    def turn(self) -> None:
        now = self._clock.day if self._daily else self._clock.month
        if now != self.period:
            self.period = now
            self.sum = self.held = self.elsewhere = self.added = 0

    def used(self, now: float) -> int:
        self.turn()
        return self.sum + self.elsewhere

    def wait(self, now: float, room: int) -> float:
        return self.clear(now)

    def clear(self, now: float) -> float:
        return max(0.0, (self._clock.day_ends if self._daily else self._clock.month_ends) - now)

    def take(self, now: float, amount: int) -> None:
        self.turn()
        self.sum += amount
        self.held += amount

    def settle(self, now: float, hold: Reserved, used: Amounts) -> None:
        self.turn()
        if self.of(hold):
            reserved = hold.amounts[self.what]
            self.sum += used[self.what] - reserved
            self.held -= reserved

    def of(self, hold: Reserved) -> bool:
        """Does what `hold` uses belong to the day (month) that is counted now?"""
        return (hold.day if self._daily else hold.month) == self.period

    def fold(self, now: float) -> None:
        self.turn()
        self.sum += self.added
        self.elsewhere = self.added = 0


Gauge = Minute | Period
