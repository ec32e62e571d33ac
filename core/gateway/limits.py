"""What subjects may use, and how much they have: requests and tokens a minute, requests at once, tokens a day and a
month. Exact, all that apply at once or none, and O(1) for each.

A minute is a sliding window of 60 slots of a second: what happened in a slot counts until 60 seconds after the slot's
end. So there is never one too many in any minute, and what was used is free again at most a second late.

Tokens are reserved before (the prompt estimated by its bytes, the answer by max_tokens or what a slot holds) and
settled after by what the engine counted. One answer whose reservation would be over the whole limit is let in when
nothing else counts: else it could never be asked for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from core.gateway import wire
from core.gateway.clock import Clock
from core.hours import Hours

log = logging.getLogger("gateway")

SLOTS = 60
BYTES_A_TOKEN = 4
"""English text has some four bytes a token; settled by the engine's own count afterwards."""

_REQUESTS, _TOKENS = (
    b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%.1fs\r\n" % ((name,) * 3)
    for name in (b"requests", b"tokens")
)
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

    def settle(self, now: float, hold: Hold, used: Amounts) -> None:
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

    def settle(self, now: float, hold: Hold, used: Amounts) -> None:
        self.turn()
        if self.of(hold):
            reserved = hold.amounts[self.what]
            self.sum += used[self.what] - reserved
            self.held -= reserved

    def of(self, hold: Hold) -> bool:
        """Does what `hold` uses belong to the day (month) that is counted now?"""
        return (hold.day if self._daily else hold.month) == self.period

    def fold(self, now: float) -> None:
        self.turn()
        self.sum += self.added
        self.elsewhere = self.added = 0


Gauge = Minute | Period


class Short(NamedTuple):
    """Whose limit is reached and which, and after how many seconds it has room again."""

    meter: Meter
    kind: str
    words: str
    most: int
    seconds: float


class Hold:
    """What one request has reserved. `used`: its tokens in and out so far."""

    __slots__ = ("amounts", "at", "base", "day", "final", "meters", "month", "taken", "used")

    def __init__(self, meters: Sequence[Meter], amounts: Amounts, now: float, clock: Clock) -> None:
        self.meters = meters
        self.taken = [meter.gauges for meter in meters]
        """On what it was taken: limits may change meanwhile."""
        self.amounts = amounts
        self.at = int(now)
        self.day, self.month = clock.day, clock.month
        self.used: Callable[[], tuple[int, int]] = _nothing
        self.final: tuple[int, int] | None = None
        """Once it has ended."""
        self.base: tuple[int, int] | None = None
        """What it had used when this gateway handed over, if it ran by then."""


def _limits(gauge: Gauge) -> bool:
    return gauge.most > 0


def _nothing() -> tuple[int, int]:
    return 0, 0


def amounts(tokens_in: int, tokens_out: int) -> Amounts:
    return 1, tokens_in, tokens_out, tokens_in + tokens_out


class Meter:
    """What one subject has used, against what it may. It outlives the snapshots."""

    __slots__ = (
        "_clock", "_said", "bounds", "busy", "concurrency", "day", "elsewhere", "gauges", "hours", "id",
        "longest_answer", "longest_prompt", "made", "month", "touched", "whose",
    )  # fmt: skip

    def __init__(self, id: str, clock: Clock) -> None:
        self.id = id
        self.whose = id
        """In words, for whoever it stops."""
        self._clock = clock
        self._said: tuple[wire.Limits, tuple[str, ...]] = wire.Limits(), ()
        self.gauges: tuple[Gauge, ...] = ()
        self.concurrency = self.longest_prompt = self.longest_answer = 0
        self.hours: tuple[Hours | None, ...] = ()
        """It is served while all of these are open; None: hours that cannot be read, which are never."""
        self.bounds = False
        """There are lengths or hours to look at."""
        self.busy = self.elsewhere = 0
        """Requests in flight here, and at a gateway that was replaced and still ends its own."""
        self.touched = False
        self.made: dict[int, list[int]] = {}
        self.day, self.month = [0] * 4, [0] * 4

    def follow(self, limits: wire.Limits, hours: Iterable[str] = ()) -> None:
        """Take limits that may have changed; what was used of those that stay stays counted."""
        said = limits, tuple(hours)
        if said == self._said:
            return
        self._said = said
        before = {gauge.kind: gauge for gauge in self.gauges}
        found: list[Gauge] = []
        for kind, (_, per, _) in KINDS.items():
            most = max(0, getattr(limits, kind))
            gauge = before.get(kind)
            if gauge is None and most:
                gauge = Minute(kind) if per == "minute" else Period(kind, self._clock)
            if gauge is not None:  # one without a limit counts on: it may have one again
                gauge.most = most
                found.append(gauge)
        self.gauges = tuple(found)
        self.concurrency = max(0, limits.concurrency)
        self.longest_prompt, self.longest_answer = max(0, limits.longest_prompt), max(0, limits.longest_answer)
        self.hours = tuple(read_hours(each) for each in said[1])
        self.bounds = bool(self.longest_prompt or self.longest_answer or self.hours)

    @property
    def limits(self) -> bool:
        """Is there any limit?"""
        return bool(self.concurrency or self.bounds or any(gauge.most for gauge in self.gauges))

    def idle(self, now: float) -> bool:
        """Is there nothing to remember?"""
        return not (self.busy or self.elsewhere or any(gauge.used(now) for gauge in self.gauges))

    def short(self, now: float, wanted: Amounts) -> Short | None:
        """The limit that has no room for a request of these tokens the longest; None if all have."""
        found = None
        if self.concurrency and self.busy + self.elsewhere >= self.concurrency:
            found = Short(self, "concurrency", "requests at once", self.concurrency, 1.0)
        for gauge in self.gauges:
            if not gauge.most:
                continue
            amount = wanted[gauge.what]
            used = gauge.used(now)
            if used and used + amount > gauge.most:
                seconds = gauge.wait(now, max(0, gauge.most - amount))
                if found is None or seconds > found.seconds:
                    found = Short(self, gauge.kind, gauge.words, gauge.most, seconds)
        return found

    def take(self, now: float, wanted: Amounts) -> None:
        self.busy += 1
        self.touched = True
        for gauge in self.gauges:
            gauge.take(now, wanted[gauge.what])

    # ---------------------------------------------------------------------------------------- for people

    def spent(self, now: float) -> list[wire.Spent]:
        """What is used of each limit, and after how many seconds all of it is free."""
        found = []
        if self.concurrency:
            found.append(self._spent("concurrency", self.concurrency, self.busy + self.elsewhere, 0.0))
        for gauge in filter(_limits, self.gauges):
            found.append(self._spent(gauge.kind, gauge.most, gauge.used(now), gauge.clear(now)))
        for kind in ("longest_prompt", "longest_answer"):
            if most := getattr(self, kind):
                found.append(self._spent(kind, most, 0, 0.0))
        for hours in self.hours:
            closed = hours.closed_for(self._clock.unix(now)) if hours is not None else 0.0
            words = hours.text if hours is not None else "never: they cannot be read"
            found.append(self._spent("hours", 0, 0, closed, words))
        return found

    def _spent(self, kind: str, most: int, used: int, seconds: float, words: str = "") -> wire.Spent:
        return wire.Spent(
            subject=self.id, whose=self.whose, kind=kind, most=most, used=used, seconds=round(seconds, 1), words=words
        )

    # ---------------------------------------------------------------------------------------- over a restart

    def kept(self, now: float) -> wire.Use:
        """What a gateway that starts goes on from: without what is reserved, with what running requests have `made`."""
        fields: dict[str, object] = {}
        minutes: dict[str, dict[int, int]] = {}
        for gauge in self.gauges:
            if isinstance(gauge, Minute):
                slots = gauge.window.settled(now)
                if gauge.what != REQUEST:
                    for slot, made in self.made.items():
                        if now - slot <= SLOTS:
                            slots[slot] = slots.get(slot, 0) + made[gauge.what]
                if gauge.added:
                    slots[int(now)] = slots.get(int(now), 0) + gauge.added
                if slots:
                    minutes[gauge.kind] = slots
            else:
                daily = KINDS[gauge.kind].per == "day"
                made = self.day if daily else self.month
                sum = gauge.used(now) - gauge.elsewhere - gauge.held + gauge.added + made[gauge.what]
                if sum:
                    fields["day" if daily else "month"] = gauge.period
                    fields["tokens" if gauge.kind == "daily_tokens" else gauge.kind] = sum
        return wire.Use(minutes=minutes, **fields)  # type: ignore[arg-type]

    def restore(self, use: wire.Use, now: float) -> None:
        """Go on from what was kept; a day that is over counts nothing."""
        for gauge in self.gauges:
            if isinstance(gauge, Minute):
                for slot, amount in use.minutes.get(gauge.kind, {}).items():
                    gauge.window.put(now, slot, amount)
            else:
                daily = KINDS[gauge.kind].per == "day"
                gauge.period = use.day if daily else use.month
                gauge.sum = use.tokens if gauge.kind == "daily_tokens" else getattr(use, gauge.kind)
                gauge.held = 0
        self.touched = True

    def beside(self, held: wire.Held) -> None:
        """What a gateway that was replaced still has in flight of it."""
        self.elsewhere = held.requests
        for gauge in self.gauges:
            gauge.turn()
            reserved_in, reserved_out, used_in, used_out = getattr(held, KINDS[gauge.kind].per)
            gauge.added = (held.asked, used_in, used_out, used_in + used_out)[gauge.what]
            gauge.elsewhere = gauge.added + (0, reserved_in, reserved_out, reserved_in + reserved_out)[gauge.what]
        self.touched = True

    def alone(self, now: float) -> None:
        """That gateway has ended."""
        self.elsewhere = 0
        for gauge in self.gauges:
            gauge.fold(now)
        self.touched = True


def admit(meters: Sequence[Meter], clock: Clock, tokens_in: int, tokens_out: int) -> Hold | Short:
    """Reserve on all meters, or on none: then which limit has no room the longest."""
    now = clock.boot()
    clock.turn(now)
    wanted = amounts(tokens_in, tokens_out)
    worst: Short | None = None
    for meter in meters:
        short = meter.short(now, wanted)
        if short is not None and (worst is None or short.seconds > worst.seconds):
            worst = short
    if worst is not None:
        return worst
    for meter in meters:
        meter.take(now, wanted)
    return Hold(meters, wanted, now, clock)


def settle(hold: Hold, clock: Clock, tokens_in: int, tokens_out: int) -> None:
    """The request has ended; so many tokens were used."""
    now = clock.boot()
    clock.turn(now)
    hold.final = tokens_in, tokens_out
    used = amounts(tokens_in, tokens_out)
    for meter, gauges in zip(hold.meters, hold.taken, strict=True):
        meter.busy -= 1
        meter.touched = True
        for gauge in gauges:
            gauge.settle(now, hold, used)


def estimate(body: int, answer: int | None, ctx_per_slot: int, answers: int = 1) -> tuple[int, int]:
    """Tokens (in, out) to reserve for a request of `body` bytes that asks for `answers` answers of `answer` tokens at
    most (None: it does not say)."""
    prompt = body // BYTES_A_TOKEN + 1
    if answer is None or answer < 0:
        return prompt, max(0, ctx_per_slot - prompt) * answers
    return prompt, (min(answer, ctx_per_slot) if ctx_per_slot else answer) * answers


def headers(meters: Iterable[Meter], clock: Clock) -> bytes:
    """x-ratelimit-* as OpenAI's clients read them, of the limit that has the least left; nothing without limits."""
    now = clock.boot()
    clock.turn(now)
    requests: Gauge | None = None
    tokens: Gauge | None = None
    requests_left = tokens_left = 0
    for meter in meters:
        for gauge in meter.gauges:
            most = gauge.most
            if most <= 0:
                continue
            left = most - gauge.used(now)
            if gauge.what == REQUEST:
                if requests is None or left < requests_left:
                    requests, requests_left = gauge, left
            elif tokens is None or left < tokens_left:
                tokens, tokens_left = gauge, left
    out = b""
    if requests is not None:
        out = _REQUESTS % (requests.most, max(0, requests_left), requests.clear(now))
    if tokens is not None:
        out += _TOKENS % (tokens.most, max(0, tokens_left), tokens.clear(now))
    return out


@functools.lru_cache(maxsize=1024)
def read_hours(text: str) -> Hours | None:
    """None for hours that this host cannot read, which the daemon would not have taken: never is the safe answer."""
    try:
        return Hours(text)
    except ValueError as error:
        log.error("hours that cannot be read, so nobody is served by them: %s", error)
        return None
