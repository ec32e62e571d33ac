"""A daemon's life that is killed at any moment while it imports, moves or collects: one good copy of each version or
none of it, nothing else on any disk, and a space ledger that says just that. `make soak` kills it hundreds of times."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lives
import pytest
from hub_double import Fault, HubDouble, in_a_thread
from pullworld import ME, World, model
from stores import opened, take
from tiered import add, elsewhere, large, sound

from core.nouns import PULL_ENDED

MIB = 1 << 20
LONGEST_S = {"moving": 0.15, "importing": 0.5, "collecting": 0.8}
"""From the first step to the kill: each is once round by then, more or less."""
ROUNDS = int(os.environ.get("CORRAL_KILL_ROUNDS") or 300)


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    with elsewhere(tmp_path) as path:
        yield path


async def begun(folder: Path, fast: Path, *, lands: bool = False) -> None:
    """What the lives work with, `lands`: on the other disk; home holds no more than they store at once, so that bytes
    that leak are refused."""
    file = large(folder, mib=8)
    for n in range(3):
        lives.split(folder, n)
    async with opened(folder) as catalog:
        await add(catalog, fast, capacity=9 * MIB, landing=lands or None)
        await take(catalog, file)


async def killed(
    folder: Path, what: str, rounds: int, hub: HubDouble | None = None
) -> set[tuple[tuple[str, str], ...]]:  # fmt: skip
    """Kill a life at any moment of `what`, again and again; what there was after each: versions and their tiers. With a
    hub it pulls meanwhile, and what is left of a pull is gone on with, or cancelled."""
    beside = [hub.url] if hub else []
    seed = int(os.environ.get("CORRAL_KILL_SEED") or random.SystemRandom().getrandbits(32))
    print(f"CORRAL_KILL_SEED={seed}")
    dice, seen, met = random.Random(seed), set[tuple[tuple[str, str], ...]](), 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    for _ in range(rounds):
        process = subprocess.Popen(
            [sys.executable, lives.__file__, str(folder), what, *beside], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment,
        )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        with process.stdout, process.stderr:
            assert process.stdout.readline() == b"ready\n", process.stderr.read().decode()
            await asyncio.sleep(dice.uniform(0.0, LONGEST_S[what]))  # the moment is the matter
            process.send_signal(signal.SIGKILL)
            told = process.stderr.read().decode()
            assert process.wait() == -signal.SIGKILL, told
        if hub is not None:
            met += await _pulls_end(World(folder, hub), cancel=dice.random() < 0.5)
        async with opened(folder) as catalog:
            await sound(catalog)
            seen.add(tuple(sorted((model.reference, model.tier) for model in await catalog.all())))
    print(f"{rounds} kills while {what}, of which {met} met a pull")
    return seen


async def _pulls_end(world: World, *, cancel: bool) -> int:
    """The next daemon goes on with what was pulled, to its end or until somebody cancels it; how many there were."""
    await world.open()
    try:
        before = {each.id for each in world.pulls.ls() if each.state not in PULL_ENDED}
        for id in before:
            ended = await (world.pulls.cancel(ME, "r", id) if cancel else world.ended(world.pulls.get(id)))
            assert ended.state in ("done", *(["cancelled"] if cancel else [])), ended
            there = [each for each in await world.catalog.all() if each.name == "p"]
            assert len(there) == (ended.state == "done"), ended
        await sound(world.catalog)
        return len(before)
    finally:
        await world.close()


@pytest.mark.parametrize("what", lives.WORK)
async def test_a_kill_at_any_moment_leaves_one_good_copy_or_none(tmp_path: Path, fast: Path, what: str) -> None:
    await begun(tmp_path, fast)
    await killed(tmp_path, what, 4)


@contextlib.contextmanager
def slow_hub() -> Iterator[HubDouble]:
    """It gives 200 KiB within some 0.1 s, so that most kills meet a pull on its way."""
    with in_a_thread() as hub:
        hub.files["p.gguf"] = model(200_000)
        hub.faults = Always(Fault(slow_s=0.0005))  # type: ignore[assignment]
        yield hub


class Always(tuple[Fault, ...]):
    """The same for each who asks."""

    def __new__(cls, fault: Fault) -> "Always":
        return super().__new__(cls, (fault,))

    def popleft(self) -> Fault:
        return self[0]


async def test_a_kill_while_something_is_pulled_too_leaves_one_good_copy_or_none(tmp_path: Path, fast: Path) -> None:
    await begun(tmp_path, fast, lands=True)
    with slow_hub() as hub:
        await killed(tmp_path, "moving", 4, hub)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", lives.WORK)
async def test_hundreds_of_kills_while_something_is_pulled_too_leave_one_good_copy_or_none(
    tmp_path: Path, fast: Path, what: str
) -> None:
    await begun(tmp_path, fast, lands=what == "moving")
    with slow_hub() as hub:
        seen = await killed(tmp_path, what, ROUNDS, hub)
    print(f"{ROUNDS} kills while {what} and pulling; what was there afterwards: {len(seen)}, e.g. {sorted(seen)[:8]}")
    assert len(seen) > 1


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", lives.WORK)
async def test_hundreds_of_kills_leave_one_good_copy_or_none(tmp_path: Path, fast: Path, what: str) -> None:
    await begun(tmp_path, fast)
    seen = await killed(tmp_path, what, ROUNDS)
    print(f"{ROUNDS} kills while {what}; what was there afterwards: {sorted(seen)[:8]} … {len(seen)} in all")
    assert len(seen) > 1
