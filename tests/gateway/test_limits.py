"""Limits of a key against a model with a clock of its own: never one too many, never refused while there is room."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.gateway import wire
from core.gateway.limits import Hold, Meter, Window, estimate

DAY = 86400.0


class Clock:
    """Seconds that go on evenly, and a wall clock that somebody may set."""

    def __init__(self) -> None:
        self.now, self.set = 5_000.0, 1_790_000_000.0

    def even(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.set


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(0, 9)), max_size=60))
def test_a_window_counts_all_of_the_last_minute_and_nothing_that_is_over_for_a_second(
    steps: list[tuple[float, int]],
) -> None:
    window, now, seen = Window(), 100.0, []
    for pause, amount in steps:
        now += pause
        window.add(now, amount)
        seen.append((now, amount))
        certain = sum(n for at, n in seen if now - at < 60)
        at_most = sum(n for at, n in seen if now - at < 61)
        assert certain <= window.count(now) <= at_most


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 9)), min_size=1, max_size=40), st.integers(0, 100))
def test_until_says_when_there_is_room_to_the_second(steps: list[tuple[float, int]], room: int) -> None:
    window, now = Window(), 100.0
    for pause, amount in steps:
        now += pause
        window.add(now, amount)
    wait = window.until(now, room)
    assert window.count(now + wait) <= room
    if wait > 0.01:
        other = Window()
        at = 100.0
        for pause, amount in steps:
            at += pause
            other.add(at, amount)
        assert other.count(now + wait - 0.01) > room


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 9), st.integers(-5, 5)), max_size=30))
def test_a_correction_changes_what_counts_still_and_nothing_else(steps: list[tuple[float, int, int]]) -> None:
    window, now, slots = Window(), 100.0, []
    for pause, amount, change in steps:
        now += pause
        slots.append((now, window.add(now, amount), amount))
        at, slot, had = slots[0]
        before = window.count(now)
        window.correct(now, slot, change)
        if now - at < 60:
            assert window.count(now) == before + change
        elif now - at >= 62:
            assert window.count(now) == before
        window.correct(now, slot, -change)
        assert had >= 0


class Keeping(RuleBasedStateMachine):
    """Requests come, end and pause; the model keeps a list of all that was let in."""

    @initialize(rpm=st.integers(0, 5), tpm=st.integers(0, 60), at_once=st.integers(0, 3), daily=st.integers(0, 90))
    def begin(self, rpm: int, tpm: int, at_once: int, daily: int) -> None:
        self.clock = Clock()
        self.limits = wire.KeyLimits(rpm=rpm, tpm=tpm, concurrency=at_once, daily_tokens=daily)
        self.meter = Meter(self.clock.even, self.clock.wall)
        self.asked: list[float] = []
        self.used: list[list[float]] = []
        """[when, tokens as they count now, day]"""
        self.running: list[tuple[Hold, list[float]]] = []

    def day(self) -> int:
        return math.floor(self.clock.wall() / DAY)

    def tokens(self, seconds: float) -> float:
        return sum(n for at, n, _ in self.used if self.clock.now - at < seconds)

    def today(self) -> float:
        return sum(n for _, n, day in self.used if day == self.day())

    @rule(tokens=st.integers(1, 30))
    def ask(self, tokens: int) -> None:
        limits, now = self.limits, self.clock.now
        short = self.meter.short(limits, tokens)
        requests = [sum(now - at < span for at in self.asked) for span in (60, 61)]
        full = {
            "concurrency": (limits.concurrency > 0 and len(self.running) >= limits.concurrency,) * 2,
            "requests": tuple(limits.rpm > 0 and n >= limits.rpm for n in requests),
            "tokens": tuple(
                limits.tpm > 0 and self.tokens(s) > 0 and self.tokens(s) + tokens > limits.tpm for s in (60, 61)
            ),
            "tokens a day": (
                limits.daily_tokens > 0 and self.today() > 0 and self.today() + tokens > limits.daily_tokens,
            ) * 2,
        }  # fmt: skip
        if short is None:
            assert not any(certain for certain, _ in full.values()), "one too many"
            hold = self.meter.take(tokens)
            entry = [now, float(tokens), float(self.day())]
            self.asked.append(now)
            self.used.append(entry)
            self.running.append((hold, entry))
        else:
            assert full[short.limit][1], "refused while there is room"
            assert short.seconds >= 0 and short.most > 0

    @precondition(lambda self: getattr(self, "running", None))
    @rule(used=st.integers(0, 30), which=st.integers(0, 9))
    def end(self, used: int, which: int) -> None:
        hold, entry = self.running.pop(which % len(self.running))
        self.meter.settle(hold, used)
        entry[1] = float(used)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 20.0, 59.0, 60.0, 61.0, 4000.0, DAY]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(by=st.sampled_from([-3 * DAY, -3600.0, 3600.0, 3 * DAY]))
    def somebody_sets_the_clock(self, by: float) -> None:
        had = self.meter._today()
        self.clock.set += by
        assert self.meter._today() == had
        self.clock.set -= by

    @invariant()
    def what_runs_is_what_was_let_in(self) -> None:
        assert not hasattr(self, "meter") or self.meter.busy == len(self.running)


TestKeeping = Keeping.TestCase


def test_a_day_goes_on_after_a_restart_and_one_that_is_over_does_not() -> None:
    clock = Clock()
    first = Meter(clock.even, clock.wall)
    first.settle(first.take(30), 50)
    kept = first.kept()
    second = Meter(clock.even, clock.wall)
    second.restore(kept)
    assert second.short(wire.KeyLimits(daily_tokens=60), 20) is not None
    clock.now += DAY
    third = Meter(clock.even, clock.wall)
    third.restore(kept)
    assert third.day_tokens == 0


def test_a_wall_clock_that_was_set_back_over_a_restart_does_not_free_the_day_before() -> None:
    clock = Clock()
    first = Meter(clock.even, clock.wall)
    first.settle(first.take(30), 50)
    clock.set -= 2 * DAY
    second = Meter(clock.even, clock.wall)
    second.restore(first.kept())
    assert second.day_tokens == 50 and second.day == first.day


@pytest.mark.parametrize(
    ("body", "answer", "ctx", "tokens"),
    [(400, 100, 4096, 201), (400, None, 4096, 4096), (400, -1, 4096, 4096), (40, 9999, 4096, 4107), (40, 7, 0, 18)],
)
def test_what_is_reserved(body: int, answer: int | None, ctx: int, tokens: int) -> None:
    assert estimate(body, answer, ctx) == tokens
