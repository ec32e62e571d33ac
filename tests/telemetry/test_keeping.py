"""How long usage is kept, with a clock that the test moves, forward, back and out of step."""

import sqlite3
from contextlib import closing

import pytest
from metered import NOON, Usage, line

from core.store import copies
from core.store.hourly import EVERY_S
from core.telemetry.keeping import AWAY_S, WAIT_S, Days, UsageRetention
from core.telemetry.rollups import DAY, KEPT_FROM, state


class Keeping:
    def __init__(self, usage: Usage) -> None:
        self.usage, self.days = usage, Days(30, 100)
        self.again()

    def again(self) -> None:
        """A daemon starts."""
        usage = self.usage
        self.retention = UsageRetention(
            usage.store, usage.gate, days=lambda: self.days, clock=lambda: usage.now, steady=lambda: usage.steady
        )

    async def sweep(self) -> int:
        return await self.retention.sweep()

    async def there(self) -> tuple[int, int]:
        """Lines, and sums of days."""
        ((lines,),) = await self.usage.sql("SELECT count(*) FROM usage_lines")
        ((sums,),) = await self.usage.sql("SELECT count(*) FROM usage_rollups WHERE span = 86400")
        return lines, sums


@pytest.fixture
def keeping(usage: Usage) -> Keeping:
    return Keeping(usage)


async def test_lines_go_before_their_sums_and_each_time_is_recorded(usage: Usage, keeping: Keeping) -> None:
    await usage.commit(line(NOON), line(NOON + 1), line(NOON + 20 * DAY))
    await usage.roll()
    assert await keeping.sweep() == 0
    usage.passes(30 * DAY)
    assert await keeping.sweep() == 0  # whole days: the day is over at midnight
    usage.passes(DAY)
    assert await keeping.sweep() == 2
    assert await keeping.there() == (1, 2)
    usage.passes(80 * DAY)
    assert await keeping.sweep() == 1 + 2
    assert await keeping.there() == (0, 1)
    records = await usage.audit.ls(verb="usage.expire")
    assert [(each.actor, each.object, each.before, each.after) for each in records] == [
        ("corral", "usage:all", {"lines": 2, "rollups": 0}, {"keep_days": 30, "keep_rollup_days": 100}),
        ("corral", "usage:all", {"lines": 1, "rollups": 2}, {"keep_days": 30, "keep_rollup_days": 100}),
    ]
    kept_from = await usage.store.read(lambda db: state(db, KEPT_FROM))
    assert kept_from is not None and kept_from % DAY == 0 and kept_from <= usage.now - 30 * DAY


async def test_a_line_that_is_not_summed_up_stays(usage: Usage, keeping: Keeping) -> None:
    await usage.commit(line(NOON))
    usage.passes(40 * DAY)
    assert await keeping.sweep() == 0
    await usage.roll()
    assert await keeping.sweep() == 1
    assert await usage.roll() == 0 and await keeping.there() == (0, 1)


async def test_0_keeps_for_ever_and_sums_outlast_their_lines(usage: Usage, keeping: Keeping) -> None:
    await usage.commit(line(NOON))
    await usage.roll()
    usage.passes(50 * DAY)
    for days in (Days(0, 10), Days(0, 0), Days(60, 10)):
        keeping.days = days
        assert await keeping.sweep() == 0
    assert Days(60, 10).sums == 60 and Days(0, 10).sums == 0


@pytest.mark.parametrize("restart", [False, True])
async def test_a_clock_set_ahead_removes_nothing_while_it_can_be_set_right(
    usage: Usage, keeping: Keeping, restart: bool
) -> None:
    await usage.commit(line(NOON))
    await usage.roll()
    assert await keeping.sweep() == 0
    usage.now += 3650 * DAY
    if restart:
        keeping.again()
    assert await keeping.sweep() == 0
    usage.passes(EVERY_S / 2)
    assert await keeping.sweep() == 0
    usage.now -= 3650 * DAY
    if restart:
        keeping.again()
    for _ in range(5):
        assert await keeping.sweep() == 0
        usage.passes(EVERY_S)
    assert await keeping.there() == (1, 1)


async def test_a_host_that_was_off_for_long_removes_after_an_hour(usage: Usage, keeping: Keeping) -> None:
    await usage.commit(line(NOON))
    await usage.roll()
    assert await keeping.sweep() == 0
    usage.now += AWAY_S + 40 * DAY
    usage.steady = 3.0
    keeping.again()
    assert await keeping.sweep() == 0
    usage.passes(WAIT_S)
    assert await keeping.sweep() == 1


async def test_nothing_of_it_is_left_in_a_copy(usage: Usage, keeping: Keeping) -> None:
    await usage.commit(line(NOON, deployment="Weidenkatze"), line(NOON + 35 * DAY, deployment="Dotterblume"))
    with closing(sqlite3.connect(usage.paths.database)) as db:
        copy = copies.make(db, usage.paths.backups, usage.now)
    await usage.roll()
    keeping.days = Days(30, 30)
    assert await keeping.sweep() == 0
    assert b"Weidenkatze" in copy.read_bytes()
    usage.passes(40 * DAY)
    assert await keeping.sweep() == 1 + 2
    for file in (copy, *usage.paths.state.glob("corral.db*")):
        assert b"Weidenkatze" not in file.read_bytes(), file
    assert b"Dotterblume" in copy.read_bytes()


async def test_many_lines_go_in_pieces(usage: Usage, keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.telemetry.keeping.PIECE", 4)
    await usage.commit(*[line(NOON + n) for n in range(10)])
    await usage.roll()
    usage.passes(40 * DAY)
    assert await keeping.sweep() == 10
    records = await usage.audit.ls(verb="usage.expire")
    assert [each.before["lines"] for each in records] == [4, 4, 2]
