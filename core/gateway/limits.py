"""What subjects may use, and how much they have: requests and tokens a minute, requests at once, tokens a day and a
month. Exact, all that apply at once or none, and O(1) for each.

Within a second nothing is over yet, so that all gauges of a kind grow alike: it is enough to know what the fullest of
each kind leaves, and to add up what comes. What came goes into the gauges when the second has passed, or when somebody
looks at them.

Tokens are reserved before (the prompt estimated by its bytes, the answer by max_tokens or what a slot holds) and
settled after by what the engine counted. One answer whose reservation would be over the whole limit is let in when
nothing else counts: else it could never be asked for. Of several in one request each is one at once.
"""

from __future__ import annotations

import functools
import logging
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from core.gateway import wire
from core.gateway.clock import Clock
from core.gateway.gauges import BOTH, IN, KINDS, OUT, REQUEST, Amounts, Gauge, Minute, Period
from core.hours import Hours

log = logging.getLogger("gateway")

BYTES_A_TOKEN = 4
"""English text has some four bytes a token; settled by the engine's own count afterwards."""

_REQUESTS, _TOKENS = (
    b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%ds\r\n" % ((name,) * 3)
    for name in (b"requests", b"tokens")
)


_WIDE = [math.inf] * 4
_GAUGES: Callable[[Meter], tuple[Gauge, ...]] = operator.attrgetter("gauges")


class Hold:
    """What one request has reserved, of so many `answers`. `used`: its tokens in and out so far."""

    __slots__ = ("amounts", "answers", "at", "base", "date", "final", "meters", "taken", "tick", "used")

    def __init__(
        self, meters: Sequence[Meter], amounts: Amounts, now: float, clock: Clock, used: Callable[[], tuple[int, int]],
        answers: int = 1,
    ) -> None:  # fmt: skip
        self.meters = meters
        self.answers = answers
        self.taken = list(map(_GAUGES, meters))
        """On what it was taken: limits may change meanwhile."""
        self.amounts = amounts
        self.at = int(now)
        self.date = clock.date
        self.tick = clock.tick
        self.used = used
        self.final: tuple[int, int] | None = None
        """Once it has ended."""
        self.base: tuple[int, int] | None = None
        """What it had used when this gateway handed over, if it ran by then."""

    def open(self) -> None:
        """Tell all gauges what it has used by now, in place of what it has reserved."""
        _, *reserved, _ = self.amounts
        more_in, more_out = (used - held for used, held in zip(self.used(), reserved, strict=True))
        more = 0, more_in, more_out, more_in + more_out
        for gauges in self.taken:
            for gauge in gauges:
                if gauge.what:
                    gauge.open(self, more[gauge.what])


class Meter:
    """What one subject has used, against what it may. It outlives the snapshots. Where its `tick` is not the clock's,
    `turn` it first."""

    __slots__ = (
        "_clock", "_said", "bounds", "busy", "came", "came_in", "came_out", "concurrency", "elsewhere", "gauges",
        "hours", "id", "limiting", "longest_answer", "longest_prompt", "room", "tick", "tight", "touched", "whose",
    )  # fmt: skip

    def __init__(self, id: str, clock: Clock) -> None:
        self.id = id
        self.whose = id
        """In words, for whoever it stops."""
        self._clock = clock
        self._said: tuple[wire.Limits, tuple[str, ...]] = wire.Limits(), ()
        self.tick = -1
        """The clock's, to which it was turned; -1 where what its gauges leave is to be looked at again."""
        self.came = self.came_in = self.came_out = 0
        """Requests and tokens since then, which are in no gauge yet."""
        self.room = _WIDE
        """What the gauges of each kind left then: requests, tokens in, out, both."""
        self.tight: list[Gauge | None] = []
        """Those that leave so little."""
        self.gauges: tuple[Gauge, ...] = ()
        self.limiting: tuple[Gauge, ...] = ()
        """Those that have a limit."""
        self.concurrency = self.longest_prompt = self.longest_answer = 0
        self.hours: tuple[Hours | None, ...] = ()
        """It is served while all of these are open; None: hours that cannot be read, which are never."""
        self.bounds = False
        """There are lengths or hours to look at."""
        self.busy = self.elsewhere = 0
        """Answers in flight here, and at a gateway that was replaced and still ends its own."""
        self.touched = False

    def follow(self, limits: wire.Limits, hours: Iterable[str] = ()) -> None:
        """Take limits that may have changed; what was used of those that stay stays counted."""
        said = limits, tuple(hours)
        if said == self._said:
            return
        self._said = said
        self.turn(self._clock.now())  # what came is in the gauges that were there
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
        self.limiting = tuple(gauge for gauge in found if gauge.most)
        self.tick = -1
        self.concurrency = max(0, limits.concurrency)
        self.longest_prompt, self.longest_answer = max(0, limits.longest_prompt), max(0, limits.longest_answer)
        self.hours = tuple(read_hours(each) for each in said[1])
        self.bounds = bool(self.longest_prompt or self.longest_answer or self.hours)

    @property
    def limits(self) -> bool:
        """Is there any limit?"""
        return bool(self.concurrency or self.bounds or self.limiting)

    def turn(self, now: float) -> None:
        """Put what came into the gauges, and leave behind what is over by `now`, which the clock has just said."""
        came = self.came, self.came_in, self.came_out, self.came_in + self.came_out
        self.came = self.came_in = self.came_out = 0
        for gauge in self.gauges:
            if came[gauge.what]:
                gauge.add(came[gauge.what])
            gauge.turn(now)
        room = list(_WIDE)
        self.tight = [None] * 4
        for gauge in self.limiting:
            if (left := gauge.most - gauge.used()) < room[gauge.what]:
                room[gauge.what], self.tight[gauge.what] = left, gauge
        self.room = room
        self.tick = self._clock.tick

    def idle(self) -> bool:
        """Is there nothing to remember?"""
        return not (self.busy or self.elsewhere or any(gauge.used() for gauge in self.gauges))

    def full(self, wanted: Amounts, answers: int = 1) -> bool:
        """Has any limit no room for a request of these tokens? (`short` says so for certain.)"""
        requests, room_in, room_out, room = self.room
        _, tokens_in, tokens_out, tokens = wanted
        return (
            self.came >= requests
            or self.came_in + self.came_out + tokens > room
            or self.came_in + tokens_in > room_in
            or self.came_out + tokens_out > room_out
            or 0 < self.concurrency < self.busy + self.elsewhere + answers
        )

    def short(self, now: float, wanted: Amounts, answers: int = 1) -> Short | None:
        """The limit that has no room for a request of these tokens the longest; None if all have."""
        self.turn(now)
        found = None
        if self.concurrency and self.busy + self.elsewhere + answers > self.concurrency:
            found = Short(self, "concurrency", "requests at once", self.concurrency, 1.0)
        for gauge in self.limiting:
            amount = wanted[gauge.what]
            used = gauge.used()
            if (used or answers > 1) and used + amount > gauge.most:
                seconds = gauge.wait(now, max(0, gauge.most - amount))
                if found is None or seconds > found.seconds:
                    found = Short(self, gauge.kind, gauge.words, gauge.most, seconds)
        return found

    def take(self, tokens_in: int, tokens_out: int, answers: int = 1) -> None:
        self.busy += answers
        self.touched = True
        self.came += 1
        self.came_in += tokens_in
        self.came_out += tokens_out

    def settle(self, hold: Hold, gauges: Sequence[Gauge], now: float, more_in: int, more_out: int) -> None:
        """A request has ended, of an earlier second or told of once more, which had reserved on `gauges`, and has used
        so much more than that, or less."""
        self.turn(now)
        more = 0, more_in, more_out, more_in + more_out
        for gauge in gauges:
            gauge.settle(hold, more[gauge.what])
        self.tick = -1

    # ---------------------------------------------------------------------------------------- for people

    def spent(self, now: float) -> list[wire.Spent]:
        """What is used of each limit, and after how many seconds all of it is free."""
        self.turn(now)
        found = []
        if self.concurrency:
            found.append(self._spent("concurrency", self.concurrency, self.busy + self.elsewhere, 0.0))
        for gauge in self.limiting:
            found.append(self._spent(gauge.kind, gauge.most, gauge.used(), gauge.clear(now)))
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
        """What a gateway that starts goes on from: without what is reserved, with what running requests have made, as
        their holds have told (`Hold.open`)."""
        self.turn(now)
        fields: dict[str, object] = {}
        minutes: dict[str, dict[int, int]] = {}
        for gauge in self.gauges:
            if isinstance(gauge, Minute):
                if slots := gauge.kept():
                    minutes[gauge.kind] = slots
            elif sum := gauge.kept():
                fields[KINDS[gauge.kind].per] = gauge.period
                fields["tokens" if gauge.kind == "daily_tokens" else gauge.kind] = sum
        return wire.Use(minutes=minutes, **fields)  # type: ignore[arg-type]

    def restore(self, use: wire.Use, now: float) -> None:
        """Go on from what was kept; a day that is over counts nothing."""
        self.turn(now)
        for gauge in self.gauges:
            if isinstance(gauge, Minute):
                for slot, amount in use.minutes.get(gauge.kind, {}).items():
                    gauge.put(slot, amount)
            elif gauge.period == (use.day if KINDS[gauge.kind].per == "day" else use.month):
                gauge.sum = use.tokens if gauge.kind == "daily_tokens" else getattr(use, gauge.kind)
        self.touched, self.tick = True, -1

    def beside(self, held: wire.Held, now: float) -> None:
        """What a gateway that was replaced still has in flight of it."""
        self.turn(now)
        self.elsewhere = held.requests
        for gauge in self.gauges:
            reserved_in, reserved_out, used_in, used_out = getattr(held, KINDS[gauge.kind].per)
            gauge.added = (held.asked, used_in, used_out, used_in + used_out)[gauge.what]
            gauge.elsewhere = gauge.added + (0, reserved_in, reserved_out, reserved_in + reserved_out)[gauge.what]
        self.touched, self.tick = True, -1

    def alone(self, now: float) -> None:
        """That gateway has ended."""
        self.turn(now)
        self.elsewhere = 0
        for gauge in self.gauges:
            gauge.fold()
        self.touched, self.tick = True, -1


# Below Meter: compiled, a tuple looks up the classes of its fields when it is made.
class Short(NamedTuple):
    """Whose limit is reached and which, and after how many seconds it has room again."""

    meter: Meter
    kind: str
    words: str
    most: int
    seconds: float


def headers(meters: Iterable[Meter], clock: Clock) -> bytes:
    """x-ratelimit-* as OpenAI's clients read them, of the limit that has the least left; nothing without limits."""
    now, tick = clock.now(), clock.tick
    requests_left = tokens_left = math.inf
    requests = tokens = None
    requests_came = tokens_came = 0
    for meter in meters:
        if meter.tick != tick:
            meter.turn(now)
        left, left_in, left_out, left_both = meter.room
        came_in, came_out = meter.came_in, meter.came_out
        if (left := left - meter.came) < requests_left:
            requests_left, requests, requests_came = left, meter.tight[REQUEST], meter.came
        if (left := left_both - came_in - came_out) < tokens_left:
            tokens_left, tokens, tokens_came = left, meter.tight[BOTH], came_in + came_out
        if (left := left_in - came_in) < tokens_left:
            tokens_left, tokens, tokens_came = left, meter.tight[IN], came_in
        if (left := left_out - came_out) < tokens_left:
            tokens_left, tokens, tokens_came = left, meter.tight[OUT], came_out
    out = b""
    if requests is not None:
        out = _REQUESTS % (requests.most, max(0, requests_left), requests.clear(now, requests_came) + 0.999)
    if tokens is not None:
        out += _TOKENS % (tokens.most, max(0, tokens_left), tokens.clear(now, tokens_came) + 0.999)
    return out


@functools.lru_cache(maxsize=1024)
def read_hours(text: str) -> Hours | None:
    """None for hours that this host cannot read, which the daemon would not have taken: never is the safe answer."""
    try:
        return Hours(text)
    except ValueError as error:
        log.error("hours that cannot be read, so nobody is served by them: %s", error)
        return None
