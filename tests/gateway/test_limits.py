"""Limits against a model with a clock of its own: with several subjects at once there is never one too many, and never
a refusal while all of them have room; also over kill -9, a hand-over and a clock that is set."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.gateway import wire
from core.gateway.clock import Clock
from core.gateway.gauges import KINDS
from core.gateway.limits import Hold, Short, headers
from core.gateway.subjects import Subjects
from core.gateway.windows import Window

DAY = 86400.0


class Host:
    """Seconds since its boot that go on evenly, and a wall clock that somebody may set. It begins on the last day but
    one of a month."""

    def __init__(self) -> None:
        self.now, self.set = 5_000.0, datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()

    def boot(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.set

    def clock(self) -> Clock:
        return Clock(self.boot, self.wall)


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(0, 9)), max_size=60))
def test_a_window_counts_all_of_the_last_minute_and_nothing_that_is_over_for_a_second(
    steps: list[tuple[float, int]],
) -> None:
    window, now, seen = Window(), 100.0, []
    for pause, amount in steps:
        now += pause
        window.turn(now)
        window.add(amount)
        seen.append((now, amount))
        certain = sum(n for at, n in seen if now - at < 60)
        at_most = sum(n for at, n in seen if now - at < 61)
        assert certain <= window.sum <= at_most


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 9)), min_size=1, max_size=40), st.integers(0, 100))
def test_until_says_when_there_is_room_to_the_second(steps: list[tuple[float, int]], room: int) -> None:
    window, other, now = Window(), Window(), 100.0
    for pause, amount in steps:
        now += pause
        for each in (window, other):
            each.turn(now)
            each.add(amount)
    wait = window.until(now, room)
    window.turn(now + wait)
    assert window.sum <= room
    if wait > 0.01:
        other.turn(now + wait - 0.01)
        assert other.sum > room


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 9), st.integers(-5, 5)), max_size=30))
def test_a_correction_changes_what_counts_still_and_nothing_else(steps: list[tuple[float, int, int]]) -> None:
    window, now, slots = Window(), 100.0, []
    for pause, amount, change in steps:
        now += pause
        window.turn(now)
        window.add(amount)
        slots.append((now, window.at))
        at, slot = slots[0]
        before = window.sum
        window.correct(slot, change)
        if now - at < 60:
            assert window.sum == before + change
        elif now - at >= 62:
            assert window.sum == before
        window.correct(slot, -change)
        assert window.sum == before


LIMITED = ("user:1000", "each:user", "group:100", "key:k1", "deployment:d", "model:m")
GROUP = frozenset({100})
SMALL = {
    "rpm": st.integers(1, 4), "concurrency": st.integers(1, 3),
    **{kind: st.integers(1, 90) for kind in KINDS if kind != "rpm"},
}  # fmt: skip


# Few at a time: where many apply, the tightest hides what is wrong with the others.
FEW = st.lists(st.sampled_from([*SMALL]), min_size=1, max_size=2, unique=True).flatmap(
    lambda kinds: st.fixed_dictionaries({kind: SMALL[kind] for kind in kinds})
)


def limited(subject: str, **limits: int | str) -> wire.Limited:
    """Limits of the user 1000 and of the group 100, who alone are meant by name."""
    uids, gids = (1000,) if subject == "user:1000" else (), (100,) if "group:100" in subject else ()
    return wire.Limited(subject=subject, name="x", limits=wire.Limits(**limits), uids=uids, gids=gids)


@dataclass
class Entry:
    """One request that was let in; `used` as it counts now."""

    at: float
    meters: tuple[str, ...]
    used: tuple[int, int, int, int]
    day: str
    month: str
    hold: Hold
    runs: bool = True
    made: tuple[int, int] = (0, 0)
    answers: int = 1
    late: float | None = None
    """Since when it may count as if it had been asked then: a gateway that follows does not know its second."""


class Keeping(RuleBasedStateMachine):
    """Requests of three kinds of callers come, go on, end and pause; gateways die and are replaced; the model keeps a
    list of all that was let in."""

    @initialize(limits=st.dictionaries(st.sampled_from(LIMITED), FEW, min_size=1, max_size=3), own=FEW | st.just({}))
    def begin(self, limits: dict[str, dict[str, int]], own: dict[str, int]) -> None:
        self.host = Host()
        self.limits = limits
        self.own = own
        self.snapshot = [limited(subject, **each) for subject, each in limits.items()]
        self.key = wire.Key(
            id="k1", name="ci", hash="", owner="x", uid=1000, behind=1000, groups=(100,), limits=wire.Limits(**own)
        )
        self.entries: list[Entry] = []
        self.before: Subjects | None = None
        self.subjects = self.start()

    def start(self) -> Subjects:
        subjects = Subjects(self.host.clock())
        subjects.use(self.snapshot, [self.key])
        return subjects

    def applying(self, who: str) -> dict[tuple[str, str], int]:
        """By meter and kind, what a caller of this kind has to keep."""
        found: dict[tuple[str, str], list[int]] = {}

        def apply(meter: str, *layers: dict[str, int]) -> None:
            for kind in SMALL:
                said = next((layer[kind] for layer in layers if kind in layer), 0)
                if said:
                    found.setdefault((meter, kind), []).append(said)

        get = {subject: self.limits.get(subject, {}) for subject in LIMITED}
        if who == "key":
            apply("key:k1", self.own)
            apply("key:k1", get["key:k1"])
        uid = 1001 if who == "other" else 1000
        apply(f"user:{uid}", get["user:1000"] if uid == 1000 else {}, get["each:user"])
        for each in ("group:100", "deployment:d", "model:m"):
            apply(each, get[each])
        return {place: min(said) for place, said in found.items()}

    def counted(self, meter: str, kind: str, seconds: int) -> int:
        """What counts of a kind: in the last 60 seconds for certain, in 61 at most."""
        now, found = self.host.now, 0
        if kind == "concurrency":
            return sum(entry.runs * entry.answers for entry in self.entries if meter in entry.meters)
        what, per, _ = KINDS[kind]
        clock = self.subjects.clock
        for entry in self.entries:
            since = entry.at if seconds == 60 or entry.late is None else max(entry.at, entry.late)
            there = {
                "minute": now - since < seconds, "day": entry.day == clock.day, "month": entry.month == clock.month,
            }  # fmt: skip
            if meter in entry.meters and there[per]:
                found += entry.used[what]
        return found

    @rule(
        who=st.sampled_from(["key", "person", "other"]), tokens_in=st.integers(0, 30), tokens_out=st.integers(0, 30),
        answers=st.sampled_from([1, 1, 2, 3]),
    )  # fmt: skip
    def ask(self, who: str, tokens_in: int, tokens_out: int, answers: int) -> None:
        subjects = self.subjects
        whose = (
            subjects.of_key(self.key) if who == "key" else subjects.of_person(1001 if who == "other" else 1000, GROUP)
        )
        meters = whose + subjects.of_target("d", "m")
        subjects.clock.now()
        wanted = (1, tokens_in, tokens_out, tokens_in + tokens_out)
        full: dict[tuple[str, str], list[bool]] = {}
        for (meter, kind), most in self.applying(who).items():
            amount = answers if kind == "concurrency" else wanted[KINDS[kind].what]
            counted = [self.counted(meter, kind, seconds) for seconds in (60, 61)]
            full[meter, kind] = [(n > 0 or answers > 1) and n + amount > most for n in counted]
        hold = subjects.admit(meters, tokens_in, tokens_out, lambda: entry.made, answers)
        if isinstance(hold, Hold):
            assert not any(certain for certain, _ in full.values()), "one too many"
            clock = subjects.clock
            entry = Entry(
                self.host.now, tuple(meter.id for meter in meters), wanted, clock.day, clock.month, hold,
                answers=answers,
            )  # fmt: skip
            self.entries.append(entry)
        else:
            assert full[hold.meter.id, hold.kind][1], "refused while there is room"
            assert hold.seconds >= 0 and hold.most > 0

    def one_that_runs(self, which: int) -> Entry:
        running = [entry for entry in self.entries if entry.runs]
        return running[which % len(running)]

    @precondition(lambda self: any(entry.runs for entry in getattr(self, "entries", ())))
    @rule(which=st.integers(0, 9), tokens_in=st.integers(0, 30), tokens_out=st.integers(0, 30))
    def go_on(self, which: int, tokens_in: int, tokens_out: int) -> None:
        entry = self.one_that_runs(which)
        if not sum(entry.made):
            entry.made = (min(tokens_in, entry.used[1]), min(tokens_out, entry.used[2]))

    @precondition(lambda self: any(entry.runs for entry in getattr(self, "entries", ())))
    @rule(which=st.integers(0, 9), more=st.integers(0, 30))
    def end(self, which: int, more: int) -> None:
        entry = self.one_that_runs(which)
        tokens_in, tokens_out = entry.made[0], entry.made[1] + more
        (self.subjects if entry.late is None else self.before or self.subjects).settle(
            entry.hold, tokens_in, tokens_out
        )
        entry.runs = False
        entry.used = (1, tokens_in, tokens_out, tokens_in + tokens_out)
        if entry.late is not None:
            entry.late = self.host.now
        self.tell()

    def tell(self) -> None:
        """The gateway that was replaced says what it still does, as it does five times a second."""
        if self.before is not None:
            self.subjects.beside(self.before.in_flight())

    @precondition(lambda self: getattr(self, "before", None) is None)
    @rule()
    def kill_9(self) -> None:
        """Right after the file was written: what running requests had made by then counts, and nothing else of them."""
        kept = self.subjects.kept() or self.subjects.uses
        self.subjects = self.start()
        self.subjects.restore(kept)
        for entry in self.entries:
            if entry.runs:
                entry.runs, entry.used = False, (1, *entry.made, sum(entry.made))

    @precondition(lambda self: getattr(self, "before", None) is None)
    @rule()
    def hand_over(self) -> None:
        kept = self.subjects.kept() or self.subjects.uses
        self.subjects.hand_over(True)
        self.before, self.subjects = self.subjects, self.start()
        self.subjects.restore(kept)
        for entry in self.entries:
            if entry.runs:
                entry.late = self.host.now
        self.tell()

    @precondition(lambda self: getattr(self, "before", None) is not None)
    @rule()
    def see_the_former_out(self) -> None:
        for entry in list(self.entries):
            if entry.runs and entry.late is not None:
                self.end_of(entry)
        self.tell()
        self.subjects.beside({})
        self.before = None

    def end_of(self, entry: Entry) -> None:
        assert self.before is not None
        self.before.settle(entry.hold, *entry.made)
        entry.runs, entry.used = False, (1, *entry.made, sum(entry.made))

    @rule(seconds=st.sampled_from([0.3, 0.3, 0.7, 1.0, 20.0, 59.0, 60.0, 61.0, 4000.0, DAY]))
    def wait(self, seconds: float) -> None:
        self.host.now += seconds
        for entry in self.entries:
            if entry.late is not None and self.before is not None:
                entry.late = self.host.now
        self.subjects.clock.now()
        self.tell()

    @rule(by=st.sampled_from([-3 * DAY, -3600.0, 3600.0, 40 * DAY]))
    def somebody_sets_the_clock(self, by: float) -> None:
        clock = self.subjects.clock
        had = clock.day, clock.month
        self.host.set += by
        clock.now()
        assert (clock.day, clock.month) == had
        self.host.set -= by

    @invariant()
    def the_headers_never_say_more_than_is_left(self) -> None:
        if hasattr(self, "subjects"):
            meters = self.subjects.of_person(1000, GROUP) + self.subjects.of_target("d", "m")
            for line in headers(meters, self.subjects.clock).split(b"\r\n"):
                assert not line.startswith(b"x-ratelimit-remaining") or int(line.split(b": ")[1]) >= 0


TestKeeping = Keeping.TestCase
TestKeeping.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)


class Caller:
    """One key and what is used of its limits."""

    def __init__(self) -> None:
        self.host = Host()
        self.subjects = Subjects(self.host.clock())

    def limits(self, **limits: int) -> None:
        key = wire.Key(id="k1", name="ci", hash="", owner="x", uid=1000, limits=wire.Limits(**limits))
        self.subjects.use([], [key])
        self.meters = self.subjects.of_key(key)

    def ask(self, tokens_in: int, tokens_out: int) -> Hold:
        hold = self.subjects.admit(self.meters, tokens_in, tokens_out, lambda: (0, 0))
        assert isinstance(hold, Hold)
        return hold

    def used(self) -> dict[str, int]:
        asked = wire.Ask(what="spent", request="r", subjects=("key:k1",))
        return {each.kind: each.used for each in self.subjects.spent(asked)}


def test_a_limit_that_comes_counts_what_comes_after_it_also_within_a_second() -> None:
    one = Caller()
    one.limits(rpm=9)
    before = [one.ask(5, 5), one.ask(7, 5)]
    one.limits(rpm=9, tpm=20)
    assert one.used() == {"rpm": 2, "tpm": 0}
    for hold in (*before, one.ask(10, 10)):
        one.subjects.settle(hold, 1, 2)
    assert one.used() == {"rpm": 3, "tpm": 3}
    one.host.now += 1
    assert one.used() == {"rpm": 3, "tpm": 3}


def test_what_was_reserved_is_given_back_where_it_was_taken() -> None:
    one = Caller()
    one.limits(tpm=100, daily_tokens=1000)
    hold = one.ask(10, 10)
    one.host.now += 5
    one.subjects.settle(hold, 0, 0)
    for _ in range(70):
        assert one.used() == {"tpm": 0, "daily_tokens": 0}
        one.host.now += 1


def test_more_than_was_reserved_counts_at_once() -> None:
    one = Caller()
    one.limits(tpm=60)
    hold = one.ask(1, 1)
    one.host.now += 1
    one.ask(1, 1)
    one.subjects.settle(hold, 30, 25)
    assert isinstance(one.subjects.admit(one.meters, 5, 5, lambda: (0, 0)), Short)
