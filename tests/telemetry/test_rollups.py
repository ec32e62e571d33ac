"""Sums by hour and day: each line in them once, whatever ends the daemon and whatever the clock says."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metered import NOON, PACKAGES, Usage, cells, line

from core.errors import StoreError
from core.paths import Paths
from core.store import Store
from core.telemetry.rollups import DAY, EVERY_S, HOUR, ROLLED, Rollups, state


async def test_a_line_is_in_the_sums_of_its_hour_and_of_its_day(usage: Usage) -> None:
    await usage.commit(line(NOON), line(NOON + 60, key="k1"), line(NOON + HOUR), line(NOON + DAY, uid=2))
    assert await usage.roll() == 4
    rows = await usage.sql("SELECT span, start, user, groupname, key, requests, prompt_tokens, cached_tokens,"
                           " answer_tokens, queue_us, core_us, first_token, total FROM usage_rollups")  # fmt: skip
    day, hour = int(NOON) // DAY * DAY, int(NOON)
    one = (9, 4, 3, 250_000, 1_500_000)
    assert sorted(row[:-2] for row in rows) == [
        (HOUR, hour, "ann", "staff", "", 1, *one), (HOUR, hour, "ann", "staff", "k1", 1, *one),
        (HOUR, hour + HOUR, "ann", "staff", "", 1, *one), (HOUR, hour + DAY, "ben", "guests", "", 1, *one),
        (DAY, day, "ann", "staff", "", 2, 18, 8, 6, 500_000, 3_000_000), (DAY, day, "ann", "staff", "k1", 1, *one),
        (DAY, day + DAY, "ben", "guests", "", 1, *one),
    ]  # fmt: skip
    assert {row[-2:] for row in rows if row[5] == 2} == {('{"151":2}', '{"167":2}')}


async def test_what_no_engine_counted_is_marked_and_a_refusal_has_no_total_time(usage: Usage) -> None:
    await usage.commit(
        line(NOON, estimated=True, outcome="client-gone", prompt_tokens=None),
        line(NOON, prompt_tokens=None, answer_tokens=None, cached_tokens=None),
        line(NOON, outcome="refused", prompt_tokens=None, answer_tokens=None, requests=70, first_token_s=None),
    )
    await usage.roll()
    sql = "SELECT outcome, requests, estimated, answer_tokens, total FROM usage_rollups WHERE span = 3600"
    assert sorted(await usage.sql(sql)) == [
        ("client-gone", 1, 1, 3, "{}"), ("ok", 1, 1, 0, '{"167":1}'), ("refused", 70, 0, 0, "{}")
    ]  # fmt: skip


async def test_lines_that_come_after_all_were_removed_are_summed_up_too(usage: Usage) -> None:
    """A number that is given out a second time would be taken for one that is summed up already."""
    await usage.commit(line(NOON), line(NOON))
    await usage.roll()
    await usage.store.transact(lambda db: db.execute("DELETE FROM usage_lines"))
    await usage.commit(line(NOON))
    assert await usage.roll() == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.lists(st.floats(-1e6, 4e9), min_size=1, max_size=6)),
        st.tuples(st.just("roll"), st.integers(1, 4)),
        st.tuples(st.just("fail"), st.integers(1, 4)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_line_is_counted_twice_or_lost_however_times_and_transactions_fall(steps, tmp_path_factory) -> None:
    async def walk(folder: Path) -> None:
        paths = Paths(folder, folder / "corral.toml", "0badcafe")
        paths.state.mkdir()
        store = await Store.open(paths, packages=PACKAGES)
        try:
            usage, total = Usage(paths, store), 0
            for what, value in steps:
                if what == "commit":
                    await usage.commit(*[line(time, uid=total % 2 + 1) for time in value])
                    total += len(value)
                elif what == "roll":
                    await usage.roll(value)
                else:
                    await _ends_before_the_commit(store, value)
                rolled = (await store.read(lambda db: state(db, ROLLED))) or 0
                for span in (HOUR, DAY):
                    found = await store.read(lambda db, span=span: cells(db, span))
                    assert sum(sums[0] for sums in found.values()) == rolled
                    assert sum(sums[3] for sums in found.values()) == rolled * 3
            assert await Rollups(store).roll() == total - rolled if steps else True
        finally:
            await store.close()

    asyncio.run(walk(tmp_path_factory.mktemp("r")))


async def _ends_before_the_commit(store: Store, limit: int) -> None:
    from core.telemetry.rollups import roll

    class Killed(Exception):
        pass

    def work(db):
        roll(db, limit)
        raise Killed

    try:
        await store.transact(work)
    except Killed:
        return


CHILD = """
import asyncio, sys
from pathlib import Path
from core.paths import Paths
from core.store import Store
from core.telemetry.rollups import roll

async def main():
    folder = Path(sys.argv[1])
    store = await Store.open(Paths(folder, folder / "corral.toml", "0badcafe"), packages=tuple(sys.argv[2:]))
    print("open", flush=True)
    while await store.transact(lambda db: roll(db, 7)):
        print("rolled", flush=True)
    await store.close()

asyncio.run(main())
"""


async def test_kill_9_at_any_point_counts_nothing_twice(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=PACKAGES)
    await Usage(paths, store).commit(*[line(NOON + n * 600, uid=n % 2 + 1) for n in range(3000)])
    await store.close()
    dice, killed = random.Random(7), 0
    while True:
        child = subprocess.Popen([sys.executable, "-P", "-c", CHILD, str(tmp_path), *PACKAGES],
                                 stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
                                 env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip
        assert child.stdout is not None
        stop, ended = dice.randrange(10, 40), False
        for _ in range(stop):
            if not child.stdout.readline():
                ended = True
                break
        if not ended:
            time.sleep(dice.random() * 0.01)  # anywhere in a transaction or between two
            child.send_signal(signal.SIGKILL)
            killed += 1
        child.stdout.close()
        assert child.wait(20) == (0 if ended else -signal.SIGKILL)
        if ended:
            break
    assert killed >= 10
    store = await Store.open(paths, packages=PACKAGES)
    by_span = [await store.read(lambda db, span=span: cells(db, span)) for span in (HOUR, DAY)]
    await store.close()
    for found in by_span:
        assert {key[1]: tuple(sums[:4]) for key, sums in found.items()} == {
            "ann": (1500, 13500, 6000, 4500), "ben": (1500, 13500, 6000, 4500)
        }  # fmt: skip


async def test_it_goes_on_after_a_store_that_could_not_be_written(usage: Usage) -> None:
    await usage.commit(line(NOON))
    rollups, real, pauses = Rollups(usage.store), usage.store.transact, []

    async def failing(fn: object) -> None:
        raise StoreError("the disk is full")

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        usage.store.transact = real  # type: ignore[method-assign]
        if len(pauses) == 2:
            raise asyncio.CancelledError

    usage.store.transact = failing  # type: ignore[method-assign,assignment]
    try:
        await rollups.run(pause)
    except asyncio.CancelledError:
        assert pauses == [EVERY_S] * 2
    assert await usage.sql("SELECT sum(requests) FROM usage_rollups WHERE span = 3600") == [(1,)]
