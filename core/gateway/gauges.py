"""How much of one limit is used: of one that counts a minute, or a day or a month.

Each is turned to a moment first (`turn`, once a second and at the end of a day); what is asked or told then is of that
moment. So most of what a request costs here is additions.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from core.gateway.clock import Clock, Date
from core.gateway.windows import SLOTS, Window

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
    """When a request has reserved what it may use: its slot, its day and month."""

    at: int
    date: Date


class Minute(Window):
    """What was used in the last minute: `sum`, and `elsewhere`: what a gateway before this one has used since it handed
    over (`added`), and what it holds in reserve. What running requests have reserved is in `sum`."""

    __slots__ = ("_open", "added", "elsewhere", "kind", "most", "what", "words")

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.what, _, self.words = KINDS[kind]
        self.most = self.elsewhere = self.added = 0
        self._open: dict[int, int] = {}

    def used(self) -> int:
        return self.sum + self.elsewhere

    def wait(self, now: float, room: int) -> float:
        """Seconds until no more than `room` is used, if nothing comes."""
        return self.until(now, max(0, room - self.elsewhere))

    def settle(self, hold: Reserved, more: int) -> None:
        """A request has used so much more (or less, below zero) than it had reserved."""
        self.correct(hold.at, more)

    def open(self, hold: Reserved, more: int) -> None:
        """One that runs has used so much more, or less, by now: for the next `kept` alone."""
        self._open[hold.at] = self._open.get(hold.at, 0) + more

    def kept(self) -> dict[int, int]:
        """By slot, what was used for certain."""
        slots = self.slots()
        for slot, more in self._open.items():
            if self.at - slot <= SLOTS:
                slots[slot] = slots.get(slot, 0) + more
        self._open = {}
        if self.added:
            slots[self.at] = slots.get(self.at, 0) + self.added
        return {slot: amount for slot, amount in slots.items() if amount}

    def fold(self) -> None:
        """The gateway before has ended: what it had added is ours from now on."""
        if self.added:
            self.add(self.added)
        self.elsewhere = self.added = 0


class Period:
    """What was used in a day or a month; the next one begins at nothing. `sum` and `elsewhere` as a minute's."""

    __slots__ = (
        "_clock", "_daily", "_open", "added", "elsewhere", "kind", "most", "period", "sum", "what", "words",
    )  # fmt: skip

    def __init__(self, kind: str, clock: Clock) -> None:
        self.kind = kind
        self._clock = clock
        self.what, per, self.words = KINDS[kind]
        self._daily = per == "day"
        self.most = self.sum = self.elsewhere = self.added = self._open = 0
        self.period = ""

    def turn(self, now: float) -> None:
        """See that it is the period of now, as the clock has it."""
        period = self._of(self._clock.date)
        if period != self.period:
            self.period = period
            self.sum = self.elsewhere = self.added = self._open = 0

    def used(self) -> int:
        return self.sum + self.elsewhere

    def wait(self, now: float, room: int) -> float:
        return self.clear(now)

    def clear(self, now: float, more: int = 0) -> float:
        return max(0.0, (self._clock.day_ends if self._daily else self._clock.month_ends) - now)

    def add(self, amount: int) -> None:
        self.sum += amount

    def settle(self, hold: Reserved, more: int) -> None:
        if self._of(hold.date) == self.period:
            self.sum += more

    def open(self, hold: Reserved, more: int) -> None:
        if self._of(hold.date) == self.period:
            self._open += more

    def kept(self) -> int:
        more, self._open = self._open, 0
        return self.sum + self.added + more

    def _of(self, date: Date) -> str:
        return date.day if self._daily else date.month

    def fold(self) -> None:
        self.sum += self.added
        self.elsewhere = self.added = 0


Gauge = Minute | Period
