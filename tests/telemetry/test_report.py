"""What is answered about usage is what the lines say, however much of them is summed up."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metered import NOON, PACKAGES, Usage, line

from core.errors import Invalid
from core.nouns import UsageReport
from core.paths import Paths
from core.settings import PriceTable
from core.store import Store
from core.telemetry.keeping import Days, UsageRetention
from core.telemetry.prices import Prices
from core.telemetry.report import Asked, report
from core.telemetry.rollups import DAY, HOUR

FREE = Prices({})


async def ask(usage: Usage, prices: Prices = FREE, **fields: object) -> UsageReport:
    return await usage.store.read(lambda db: report(db, Asked(**fields), prices, "EUR"))


def table(found: UsageReport) -> dict[tuple, tuple[int, int, int, int]]:
    return {
        tuple(row.group.values()): (
            row.sums.requests,
            row.sums.prompt_tokens,
            row.sums.cached_tokens,
            row.sums.answer_tokens,
        )
        for row in found.rows
    }


BY = ["user", "day", "hour", "key"]
TIMES = st.integers(0, 5 * 24 * 12).map(lambda n: n * 300.0)
STEPS = st.lists(st.tuples(st.lists(TIMES, max_size=12), st.integers(0, 40)), min_size=1, max_size=4)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=STEPS, since=st.none() | TIMES, until=st.none() | TIMES, by=st.sampled_from(["user", "day", "hour", "key"])
)
def test_an_answer_is_exactly_what_the_lines_say(steps, since, until, by, tmp_path_factory) -> None:
    async def walk(folder: Path) -> tuple[UsageReport, list]:
        paths = Paths(folder, folder / "corral.toml", "0badcafe")
        paths.state.mkdir()
        store = await Store.open(paths, packages=PACKAGES)
        try:
            usage, made = Usage(paths, store), []
            for n, (times, rolled) in enumerate(steps):
                lines = [
                    line(NOON + time, uid=i % 2 + 1, key=f"k{n}", answer_tokens=i, outcome="ok" if i % 3 else "timeout")
                    for i, time in enumerate(times)
                ]
                await usage.commit(*lines)
                made += lines
                if rolled:
                    await usage.roll(rolled)
            bounds = {
                "since": None if since is None else NOON + since,
                "until": None if until is None else NOON + until,
            }
            return await ask(usage, by=(by,), **bounds), made
        finally:
            await store.close()

    found, made = asyncio.run(walk(tmp_path_factory.mktemp("r")))
    inside = [
        x for x in made
        if (since is None or x.time >= NOON + since) and (until is None or x.time < NOON + until)
    ]  # fmt: skip
    assert found.total.requests == len(inside)
    assert found.total.answer_tokens == sum(x.answer_tokens for x in inside)
    assert found.total.errors == sum(x.outcome == "timeout" for x in inside)
    truth: dict[object, int] = {}
    for x in inside:
        key = {"user": ("ann", 1) if x.uid == 1 else ("ben", 2), "key": (x.key,)}.get(by)
        if key is None:
            key = x.time // {"day": DAY, "hour": HOUR}[by]
        truth[key] = truth.get(key, 0) + 1
    mine = {tuple(row.group.values()): row.sums.requests for row in found.rows}
    assert sorted(mine.values()) == sorted(truth.values())
    if by in ("user", "key"):
        assert mine == truth


async def test_groups_have_names_and_an_order(usage: Usage) -> None:
    await usage.commit(
        line(NOON), line(NOON + DAY, uid=2, answer_tokens=50), line(NOON + DAY + HOUR, uid=2, model="n", version=2),
    )  # fmt: skip
    await usage.roll()
    assert table(await ask(usage, by=("user",))) == {("ben", 2): (2, 18, 8, 53), ("ann", 1): (1, 9, 4, 3)}
    assert list(table(await ask(usage, by=("user",)))) == [("ben", 2), ("ann", 1)]
    assert list(table(await ask(usage, by=("day",)))) == [("2023-11-15",), ("2023-11-16",)]
    assert next(iter(table(await ask(usage, by=("hour",))))) == ("2023-11-15T12:00Z",)
    assert list(table(await ask(usage, by=("version",)))) == [("m", 1), ("n", 2)]
    assert (await ask(usage)).rows == ()
    assert table(await ask(usage, by=("group",), only=(("model", ("n", "x")),))) == {("guests",): (1, 9, 4, 3)}
    assert table(await ask(usage, by=("model",), only=(("user", ("be*",)), ("deployment", ("chat",))))) == {
        ("m",): (1, 9, 4, 50), ("n",): (1, 9, 4, 3)
    }  # fmt: skip
    few = await ask(usage, by=("hour",), limit=1)
    assert (len(few.rows), few.left_out, few.total.requests) == (1, 2, 3)


async def test_times_are_of_what_has_them(usage: Usage) -> None:
    await usage.commit(
        *[line(NOON, first_token_s=n / 10, total_s=n) for n in range(1, 101)],
        line(NOON, outcome="refused", requests=500, first_token_s=None, total_s=0.0),
        line(NOON, uid=2, first_token_s=None),
    )
    for _ in range(2):
        found = {row.group["user"]: row.sums for row in (await ask(usage, by=("user",))).rows}
        ann, ben = found["ann"], found["ben"]
        assert ann.first_token_p50_s == pytest.approx(5, rel=0.05)
        assert ann.first_token_p95_s == pytest.approx(9.5, rel=0.05)
        assert ann.total_p50_s == pytest.approx(50, rel=0.05) and ann.total_p95_s == pytest.approx(95, rel=0.05)
        assert (ben.first_token_p50_s, ann.requests, ann.errors) == (None, 600, 500)
        assert ann.queue_s == 101 * 0.25
        await usage.roll()


async def test_where_the_lines_are_gone_whole_hours_are_told(usage: Usage) -> None:
    await usage.commit(line(NOON + 60), line(NOON + 1800), line(NOON + 40 * DAY + 60), line(NOON + 40 * DAY + 1800))
    await usage.roll()
    exact = await ask(usage, since=NOON + 600, until=NOON + 40 * DAY + 600)
    assert (exact.total.requests, exact.since, exact.until) == (2, NOON + 600, NOON + 40 * DAY + 600)
    usage.now += 50 * DAY
    retention = UsageRetention(
        usage.store, usage.gate, days=lambda: Days(30, 0), clock=lambda: usage.now, steady=lambda: 0.0
    )
    assert await retention.sweep() == 2
    later = await ask(usage, since=NOON + 600, until=NOON + 40 * DAY + 600)
    assert (later.total.requests, later.since, later.until) == (3, NOON, NOON + 40 * DAY + 600)
    within = await ask(usage, since=NOON + 600, until=NOON + 700)
    assert (within.total.requests, within.since, within.until) == (2, NOON, NOON + HOUR)


async def test_cost_is_by_the_longest_pattern_and_says_what_has_none(usage: Usage) -> None:
    prices = Prices(
        {
            "*": PriceTable(per_million_in=1000),
            "phi-*": PriceTable(per_million_in=10, per_million_cached=1, per_million_out=100, per_core_hour=2),
            "phi-3": PriceTable(per_million_in=1),
        }
    )
    many = {"prompt_tokens": 3_000_000, "cached_tokens": 1_000_000, "answer_tokens": 500_000, "core_s": 1800.0}
    await usage.commit(line(NOON, model="phi-2", **many), line(NOON, model="phi-3", **many), line(NOON, **many))
    await usage.roll()
    found = await ask(usage, prices, by=("model",))
    costs = {row.group["model"]: row.sums.cost for row in found.rows}
    assert costs == {"phi-2": 20 + 1 + 50 + 1, "phi-3": 3, "m": 3000}
    assert (found.total.cost, found.total.unpriced, found.total.core_hours) == (3075, 0, 1.5)
    some = await ask(usage, Prices({"phi-3": PriceTable(per_million_in=1)}))
    assert (some.total.cost, some.total.unpriced, some.currency) == (3, 2, "EUR")
    assert (await ask(usage)).total.cost is None


async def test_one_s_own_is_by_uid_and_name(usage: Usage) -> None:
    """A number that was given out again, and a name that was, are somebody else's."""
    await usage.commit(line(NOON), line(NOON, uid=2))
    for _ in range(2):
        assert (await ask(usage, own=(1, "ann"))).total.requests == 1
        assert (await ask(usage, own=(1, "new"))).total.requests == 0
        assert (await ask(usage, own=(2, "ann"))).total.requests == 0
        assert (await ask(usage, own=(1, "ann"), only=(("user", ("ben",)),))).total.requests == 0
        assert (await ask(usage, own=(1, "ann"))).mine
        await usage.roll()


@pytest.mark.parametrize("fields", [{"by": ("prompt",)}, {"only": (("uid; --", ("1",)),)}])
async def test_what_usage_is_not_kept_by_is_told(usage: Usage, fields: dict) -> None:
    with pytest.raises(Invalid):
        await ask(usage, **fields)
    assert (await ask(usage)).total.requests == 0  # no transaction is left open


async def test_an_answer_sees_one_moment(usage: Usage) -> None:
    """A piece is summed up by the writer while the reader is between its statements."""
    await usage.commit(*[line(NOON + n * 60) for n in range(200)])
    for _ in range(20):
        roll = asyncio.create_task(usage.roll(10))
        answers = [await ask(usage, by=("user",), since=NOON - 60) for _ in range(3)]
        await roll
        assert {each.total.requests for each in answers} == {200}
