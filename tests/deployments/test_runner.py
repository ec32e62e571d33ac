"""The life of a replica: what is shown, what is recorded, and that nothing runs that nobody wants."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doubles import PLAN
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from world import World

from core.deployments import tables
from core.errors import StoreError
from core.nodes.base import LaunchState
from core.nouns import ProcessSample
from core.settings import ReplicasTable, Settings


async def test_a_start_goes_over_loading_to_ready_and_is_recorded(world: World) -> None:
    await world.want("running")
    await world.state("ready")
    assert world.states[-3:] == ["starting", "loading", "ready"]
    await world.until(lambda: world.runner.view.pid == world.host.living()[0].pid)
    await world.recorded("replica.start", "done")
    assert await world.verbs() == [("replica.start", "intent"), ("replica.start", "done")]
    assert world.runner.route() is not None


async def test_what_it_took_when_it_was_ready_is_kept_beside_what_the_formula_alone_had_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizing learns from that, and what it has learned is no part of what it is compared with."""

    async def samples(launches: Sequence[str], *, pss: bool = False) -> list[ProcessSample]:
        found = ProcessSample(time=0.0, launch="", cpu_percent=0.0, rss_bytes=108 << 20, anon_bytes=0)
        return [msgspec.structs.replace(found, launch=each) for each in launches]

    parts = msgspec.structs.replace(PLAN.parts, learned=4 << 20)
    monkeypatch.setattr("world.PLAN", msgspec.structs.replace(PLAN, parts=parts, ready_bytes=104 << 20))
    monkeypatch.setattr(world.host, "samples", samples)
    await world.want("running")
    await world.state("ready")
    sql = "SELECT arch, engine, model, planned, measured FROM size_seen"
    rows: list[tuple[object, ...]] = []
    async with asyncio.timeout(10):
        while not rows or not rows[0][-1]:
            rows = await world.store.read(lambda db: db.execute(sql).fetchall())
    assert rows == [("llama", "xllamacpp", "m", 100 << 20, 108 << 20)]


async def test_it_is_ready_only_when_the_gateway_knows_the_way(world: World) -> None:
    world.link.acknowledges = False
    await world.want("running")
    await world.until(lambda: "waits for the gateway" in world.runner.view.reason)
    assert "ready" not in world.states
    world.link.acknowledges = True
    await world.state("ready")


async def test_a_stop_drains_first_and_asks_before_it_kills(world: World) -> None:
    await world.want("running")
    await world.state("ready")
    world.link.busy, world.host.stubborn = 1, True
    await world.want("stopped")
    await world.state("draining")
    route = world.runner.route()
    assert route is not None and route.draining and not world.host.signals
    await world.state("stopped")
    assert [signal for _, signal in world.host.signals] == [15, 9]
    assert not world.host.living()
    await world.recorded("replica.stop", "done")
    assert (await world.verbs())[2:4] == [("replica.stop", "intent"), ("replica.stop", "done")]


async def test_a_death_is_restarted_with_pauses_and_then_failed(world: World) -> None:
    await world.want("running")
    for restart in range(4):
        await world.state("ready")
        world.host.die(world.host.living()[0].id, signal=11)
        await world.state("backoff" if restart < 3 else "failed")
        assert world.runner.view.restarts == min(restart + 1, 3)
    assert world.runner.view.reason == "code None, signal 11; it was restarted 3 times"
    assert [verb for verb in await world.verbs() if verb[0] == "replica.died"] == [("replica.died", "done")] * 4
    await world.want("running")
    await world.state("ready")
    assert world.runner.view.restarts == 0


async def test_what_is_told_to_have_ended_is_not_ready_though_nobody_has_looked_why(world: World) -> None:
    await world.want("running")
    await world.state("ready")
    (launch,) = world.host.living()
    world.runner.ended(msgspec.structs.replace(launch, alive=False))
    world.runner.notice()
    assert (world.runner.view.state, world.runner.route()) == ("unknown", None)


async def test_a_death_after_a_steady_time_does_not_count(world: World) -> None:
    world.settings = Settings(replicas=ReplicasTable(backoff_s=(0.002,), steady_s=0))
    await world.want("running")
    for _ in range(4):
        await world.state("ready")
        world.host.die(world.host.living()[0].id, signal=11)
        await world.state("backoff")
        assert world.runner.view.restarts == 1


async def test_a_start_that_can_never_work_is_not_repeated(world: World) -> None:
    world.engine.permanent, world.engine.ready = True, False
    await world.want("running")
    await world.state("loading")
    world.host.die(world.host.living()[0].id, code=1)
    await world.state("failed")
    assert world.runner.view.restarts == 0 and len(world.host.launched) == 1
    assert await world.verbs() == [("replica.start", "intent"), ("replica.start", "failed")]


async def test_a_host_that_refuses_is_told_with_its_reason(world: World) -> None:
    world.host.refuses = True
    await world.want("running")
    await world.state("backoff")
    assert "this host refuses" in world.runner.view.reason
    world.host.refuses = False
    await world.state("ready")


async def test_without_room_nothing_is_started(world: World) -> None:
    world.room = "it needs 3 MiB more"
    await world.want("running")
    await world.state("backoff")
    assert world.runner.view.reason == "it needs 3 MiB more" and not world.host.launched


async def test_cores_less_one_are_shared_with_those_that_run_unless_somebody_says_otherwise(world: World) -> None:
    world.host.cores = 9
    await world.want("running")
    await world.state("ready")
    world.others = 3
    await world.want("running", fresh=True)
    await world.until(lambda: len(world.host.orders) == 2 and world.runner.view.state == "ready")
    await world.want("running", fresh=True, threads=6)
    await world.until(lambda: len(world.host.orders) == 3 and world.runner.view.state == "ready")
    assert [order.spec["threads"] for order in world.host.orders] == [8, 2, 6]
    assert world.runner.view.threads == 6


async def test_the_stacks_of_many_threads_have_room_beside_the_plan(world: World) -> None:
    """Of a host with many CPUs; a quota in a container does not make a server start fewer of its own."""
    world.host.cores, world.host.cpus = 4, 128
    await world.want("running", threads=64)
    await world.state("ready")
    (order,) = world.host.orders
    room = order.limits.data_bytes - PLAN.plan_bytes
    assert room >= (64 + 128) * order.limits.stack_bytes


async def test_a_new_generation_replaces_the_process(world: World) -> None:
    await world.want("running")
    await world.state("ready")
    (old,) = world.host.living()
    await world.want("running", fresh=True)
    await world.until(lambda: world.runner.view.state == "ready" and world.host.living()[0].id != old.id)
    assert len(world.host.living()) == 1 and "stopping" in world.states


async def test_a_process_ends_before_a_server_of_somebody_else_takes_its_place(world: World) -> None:
    await world.want("running")
    await world.state("ready")
    await world.want("running", fresh=True, url="http://127.0.0.1:8080/base")
    await world.until(lambda: (route := world.runner.route()) and route.endpoint == "tcp:127.0.0.1:8080")
    await world.state("ready")
    assert not world.host.living() and world.runner.view.port == 8080
    await world.want("running", fresh=True)
    await world.until(lambda: world.host.living() and world.runner.view.state == "ready")
    route = world.runner.route()
    assert route is not None and route.endpoint.startswith("unix:")


async def test_a_server_of_somebody_else_is_ready_when_the_gateway_has_the_way_to_it(world: World) -> None:
    world.link.acknowledges = False
    await world.want("running", url="http://127.0.0.1:8080")
    await world.state("loading")
    assert "gateway" in world.runner.view.reason and world.told[-1] == "tcp:127.0.0.1:8080"
    world.link.acknowledges = True
    await world.state("ready")
    assert world.states.count("ready") == 1 and not world.runner.view.reason


async def test_another_server_on_the_same_port_is_told_to_the_gateway(world: World) -> None:
    await world.want("running", url="http://127.0.0.1:8080")
    await world.state("ready")
    world.states.clear()
    await world.want("running", fresh=True, url="http://localhost:8080")
    await world.until(lambda: (route := world.runner.route()) and route.endpoint == "tcp:localhost:8080")
    await world.until(lambda: world.told and world.told[-1] == "tcp:localhost:8080")
    assert set(world.states) <= {"ready"} and world.runner.view.port == 8080  # nothing was taken down for it


async def test_the_next_daemon_adopts_what_runs(world: World) -> None:
    await world.want("running")
    await world.state("ready")
    (before,) = world.host.living()
    await world.saved("ready")
    since, cores = world.runner.view.since, world.runner.route().cores
    await world.end()
    world.states.clear()
    world.since.clear()
    await world.start()
    await world.state("ready")
    assert world.runner.route().cores == cores > 0, "core-hours are counted on"
    assert world.since["ready"] == since, "a deployment's age is that of its replicas when they are ready first"
    assert world.states[-2:] == ["loading", "ready"] and world.host.living() == [before]


async def test_a_launch_whose_keeper_has_not_written_yet_is_waited_for(world: World) -> None:
    """The daemon died between the keeper's start and its launch.json: the lock is held, and nothing else is known."""
    await world.want("running")
    await world.state("ready")
    (whole,) = world.host.living()
    await world.end()
    bare = msgspec.structs.replace(whole, pid=None, keeper_pid=None, spec={}, owner="", kind="")
    world.host.launched[whole.id] = bare
    looks, find = 0, world.host.launches

    async def launches() -> list[LaunchState]:
        nonlocal looks
        looks += 1
        if looks == 3:
            world.host.launched[whole.id] = whole
        return await find()

    world.host.launches = launches  # type: ignore[method-assign]
    world.states.clear()
    await world.start()
    await world.state("ready")
    assert looks >= 3 and world.runner.view.pid == whole.pid and list(world.host.launched) == [whole.id]


async def test_what_died_while_no_daemon_was_there_is_told_and_started_again(world: World) -> None:
    await world.want("running")
    await world.state("ready")
    await world.end()
    world.host.die(world.host.living()[0].id, signal=9)
    await world.start()
    await world.until(lambda: "backoff" in world.states)
    await world.state("ready")
    assert ("replica.died", "done") in await world.verbs()


async def test_a_launch_that_never_came_to_be_is_closed(world: World) -> None:
    """The daemon died between the commit of the launch and its process."""
    await world.want("running")
    await world.state("ready")
    await world.end()
    world.host.launched.clear()
    await world.start()
    await world.state("ready")
    assert len(await world.store.read(tables.open_launches)) == 1
    assert "ended before the process was started" in " ".join(each.reason for each in await world.audit.ls())


async def test_a_pause_left_by_an_earlier_daemon_is_no_longer_than_the_longest(world: World) -> None:
    """The clock was set back by a year meanwhile."""
    await world.want("stopped")
    await world.until(lambda: world.runner.view.state == "stopped")
    await world.end()
    row = tables.ReplicaRow(
        id="d/0", deployment="d", state="backoff", reason="x", since=0, restarts=1, next_try=4e9, launch=""
    )
    await world.store.transact(lambda db: tables.put_replica(db, row))
    assert world.wanted is not None
    world.wanted = msgspec.structs.replace(world.wanted, wanted="running")
    world.states.clear()
    await world.start()
    await world.state("ready")
    assert world.states[:2] == ["backoff", "starting"] and world.runner.view.next_try is None


async def test_deployed_again_while_its_row_is_deleted(world: World) -> None:
    await world.want("stopped")
    await world.until(lambda: world.runner.view.state == "stopped")
    write = world.store.transact

    async def late(fn):  # type: ignore[no-untyped-def]
        done = await write(fn)
        world.store.transact = write  # type: ignore[method-assign]
        world.runner.want(world.wanted)
        return done

    world.store.transact = late  # type: ignore[method-assign]
    await world.want(None)
    await world.want("running")
    await world.state("ready")
    assert not world.runner.gone


async def test_started_again_by_a_person_while_it_dies(world: World) -> None:
    """The death's record is being written when she asks: her request counts, not the death."""
    world.engine.permanent, world.engine.ready = True, False
    await world.want("running")
    await world.state("loading")
    world.host.die(world.host.living()[0].id, code=1)
    await world.until(lambda: world.runner._launch and world.runner._launch.exit)
    world.states.clear()
    await world.want("running", anew=True)
    world.engine.ready = True
    await world.state("ready")
    assert world.states[-4:] == ["stopped", "starting", "loading", "ready"] and not world.runner.view.restarts


async def test_a_ready_replica_that_does_not_answer_says_so(world: World) -> None:
    await world.want("running")
    await world.state("ready")
    world.engine.ready = False
    assert world.runner._launch is not None
    world.runner._launch._silent_since = asyncio.get_running_loop().time() - 40
    world.runner._wake.set()
    await world.until(lambda: "has not answered" in world.runner.view.reason)
    assert world.runner.view.state == "ready" and world.host.living()
    world.engine.ready = True
    world.runner._wake.set()
    await world.until(lambda: not world.runner.view.reason)


WANT = st.tuples(
    st.just("want"), st.sampled_from(["running", "running", "stopped", None]), st.booleans(), st.booleans()
)
WEATHER = st.tuples(
    st.just("weather"),
    st.fixed_dictionaries({
        "ready": st.booleans(), "permanent": st.booleans(), "refuses": st.booleans(), "stubborn": st.booleans(),
        "busy": st.integers(0, 1), "acknowledges": st.booleans(), "room": st.sampled_from(["", "", "full"]),
    }),
)  # fmt: skip
STEP = st.one_of(
    WANT, WEATHER, st.tuples(st.just("kill"), st.sampled_from([9, 11])), st.just(("daemon",)),
    st.tuples(st.just("disk"), st.integers(1, 3)), st.just(("calm",)),
)  # fmt: skip


# What happens between two steps is up to threads, so a failure need not come again: no shrinking.
@settings(max_examples=60, deadline=None, database=None, phases=[Phase.generate])
@given(st.lists(st.tuples(STEP, st.integers(0, 12)), max_size=25))
def test_whatever_happens_it_becomes_what_is_wanted(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_life(World(Path(folder)), steps))


async def _life(world: World, steps: list[Any]) -> None:
    await world.open()
    try:
        for (what, *how), turns in steps:
            match what:
                case "want":
                    await world.want(how[0], anew=how[1], fresh=how[2])
                case "weather":
                    _weather(world, **how[0])
                case "kill":
                    for each in world.host.living():
                        world.host.die(each.id, signal=how[0])
                case "daemon":
                    await world.end()
                    await world.start()
                case "disk":
                    _fail(world, how[0])
                case "calm":
                    await _calm(world)
            for _ in range(turns):  # let it get anywhere: not waiting for anything
                await asyncio.sleep(0.0003)
        await _calm(world)
    finally:
        await world.close()


def _weather(
    world: World,
    *,
    ready: bool,
    permanent: bool,
    refuses: bool,
    stubborn: bool,
    busy: int,
    acknowledges: bool,
    room: str,
) -> None:
    world.engine.ready, world.engine.permanent = ready, permanent
    world.host.refuses, world.host.stubborn = refuses, stubborn
    world.link.busy, world.link.acknowledges, world.room = busy, acknowledges, room


def _fail(world: World, writes: int) -> None:
    """The next writes to the store fail."""
    write, left = type(world.store).transact.__get__(world.store), writes

    async def failing(fn: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise StoreError("the database cannot be written", "it is a test")
        return await write(fn)

    world.store.transact = failing  # type: ignore[method-assign]


async def _calm(world: World) -> None:
    """All is well again: it becomes what is wanted and stays it, nothing else runs, and each intent has its outcome."""
    _weather(world, ready=True, permanent=False, refuses=False, stubborn=False, busy=0, acknowledges=True, room="")
    world.store.transact = type(world.store).transact.__get__(world.store)  # type: ignore[method-assign]
    await world.want(world.wanted and world.wanted.wanted)
    try:
        async with asyncio.timeout(10):
            while wrong := await _wrong(world):
                world.runner._wake.set()  # what would wait for seconds looks now
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(wrong) from None


async def _wrong(world: World) -> str:
    """What is not yet as it is wanted, or not written down."""
    wanted, runner = world.wanted, world.runner
    await world.gate.recover()
    view, living = runner.view, {each.id for each in world.host.living()}
    state = None if wanted is None else "ready" if wanted.wanted == "running" else "stopped"
    if runner.gone != (wanted is None) or (state and view.state != state):
        return f"it is {view.state}: {view.reason}"
    if len(living) != (state == "ready"):
        return f"alive {living}"
    if living and world.host.living()[0].spec["generation"] != world.generation:
        return "an older generation runs"
    if living != (known := set(await world.store.read(tables.open_launches))):
        return f"alive {living}, known {known}"
    rows = [row.state for row in await world.store.read(tables.all_replicas)]
    if rows != ([state] if state else []) and not (state == "stopped" and not rows):
        return f"rows {rows}"
    # A killed daemon leaves a start and a stop at most: the next one closes them (core.daemon).
    if len(left := await world.open_intents()) > 2 * world.daemons:
        return f"open intents {left} of {world.daemons} daemons"
    return ""
