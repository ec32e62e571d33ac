"""What is done with each second's samples: the watchdog over private memory, and whom the engines' counters cost."""

from typing import Any, cast

import msgspec
import pytest
from doubles import MIB
from world import World

from core.deployments.figures import Figures
from core.gateway import wire
from core.nouns import Counters, ProcessSample


def sample(world: World, mib: int) -> ProcessSample:
    """A look at the process that lives: so much private memory (MiB); the plan of a double is 1 MiB."""
    (launch,) = world.host.living()
    return ProcessSample(
        time=1.0, launch=launch.id, cpu_percent=5.0, rss_bytes=2 * mib * MIB, anon_bytes=mib * MIB, pss_bytes=0
    )


@pytest.fixture
async def ready(world: World) -> World:
    await world.want("running")
    await world.state("ready")
    return world


def figures(world: World) -> Figures:
    return Figures({"d/0": world.runner}, world.gate)


async def kills(world: World) -> list[tuple[str, Any]]:
    found = [each for each in await world.audit.ls(limit=1000) if each.verb == "watchdog.kill"]
    return [(each.reason, each.after) for each in found]


async def test_a_replica_within_its_limit_is_left_alone(ready: World) -> None:
    await figures(ready).sampled([sample(ready, 1)], cast(Any, ready.link))
    assert not ready.host.signals
    assert (ready.runner.view.rss_bytes, ready.runner.view.anon_bytes) == (2 * MIB, MIB)


async def test_one_over_its_limit_is_asked_then_killed_and_its_death_carries_the_reason(ready: World) -> None:
    ready.host.stubborn = True
    watchdog, look = figures(ready), sample(ready, 3)
    await watchdog.sampled([look], cast(Any, ready.link))
    assert [signal for _, signal in ready.host.signals] == [15] and ready.host.living()
    await watchdog.sampled([look], cast(Any, ready.link))
    assert [signal for _, signal in ready.host.signals] == [15, 9]
    reason = "private memory 3 MiB is over its limit of 1 MiB"
    await ready.recorded("replica.died", "done")
    (died,) = [each for each in await ready.audit.ls(limit=1000) if each.verb == "replica.died"]
    assert died.reason == reason
    await ready.until(lambda: ready.runner.view.restarts == 1 and ready.runner.view.state == "ready")
    found = await kills(ready)
    assert [told for told, _ in found] == [reason, reason]
    assert [after["signal"] for _, after in found] == ["SIGTERM", "SIGKILL"]


async def test_one_that_ends_when_it_is_asked_carries_the_reason_too(ready: World) -> None:
    await figures(ready).sampled([sample(ready, 3)], cast(Any, ready.link))
    await ready.recorded("replica.died", "done")
    (died,) = [each for each in await ready.audit.ls(limit=1000) if each.verb == "replica.died"]
    assert died.reason == "private memory 3 MiB is over its limit of 1 MiB"


async def test_one_that_had_ended_by_itself_is_not_said_to_be_killed(ready: World) -> None:
    look = sample(ready, 3)
    ready.host.die(look.launch, signal=11)
    await figures(ready).sampled([look], cast(Any, ready.link))
    await ready.recorded("replica.died", "done")
    (died,) = [each for each in await ready.audit.ls(limit=1000) if each.verb == "replica.died"]
    assert died.reason == "code None, signal 11"


async def test_an_engine_is_asked_for_its_counters_only_while_requests_run(
    ready: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def counters(endpoint: object) -> Counters:
        asked.append(1)
        return Counters(time=float(len(asked)), prompt_tokens=0, generated_tokens=0, slots_busy=ready.link.busy)

    monkeypatch.setattr(ready.engine, "counters", counters)
    looks = figures(ready)
    for _ in range(5):
        await looks.sampled([], cast(Any, ready.link))
    assert not asked
    ready.link.busy = 1
    await looks.sampled([], cast(Any, ready.link))
    assert len(asked) == 1 and ready.runner.view.slots_busy == 1
    ready.link.busy = 0
    for _ in range(5):
        await looks.sampled([], cast(Any, ready.link))
    assert len(asked) == 2 and ready.runner.view.slots_busy == 0


async def test_what_waits_at_the_gateway_is_shown_on_each_replica_until_it_waits_no_more(ready: World) -> None:
    def live(**queued: int) -> wire.Live:
        return wire.Live(requests=1, in_flight=1, queued=queued, replicas=(), connections=1, spooled=0)

    looks = figures(ready)
    looks.live(live(d=38, other=2))
    assert ready.runner.view.queued == 38
    await looks.sampled([], cast(Any, ready.link))  # nothing runs: it has its own word for that
    assert ready.runner.view.queued == 38
    looks.live(live(other=2))
    assert ready.runner.view.queued == 0


async def test_a_process_that_is_stopped_is_told_at_the_next_look_and_until_it_goes_on(ready: World) -> None:
    looks, link = figures(ready), cast(Any, ready.link)
    pid = ready.runner.view.pid
    await looks.sampled([msgspec.structs.replace(sample(ready, 1), stopped=True)], link)
    assert ready.runner.view.reason == f"its process is stopped: `kill -CONT {pid}` lets it go on"
    assert ready.runner.view.state == "ready"
    await looks.sampled([sample(ready, 1)], link)
    assert ready.runner.view.reason == ""
