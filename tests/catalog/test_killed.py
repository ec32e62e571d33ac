"""A daemon's life that is killed at any moment while it imports, moves or collects: one good copy of each version or
none of it, nothing else on any disk, and a space ledger that says just that. `make soak` kills it hundreds of times."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lives
import pytest
from stores import opened, take
from tiered import add, elsewhere, large, sound

MIB = 1 << 20
LONGEST_S = {"moving": 0.15, "importing": 0.5, "collecting": 0.8}
"""From the first step to the kill: each is once round by then, more or less."""
ROUNDS = int(os.environ.get("CORRAL_KILL_ROUNDS") or 300)


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    with elsewhere(tmp_path) as path:
        yield path


async def begun(folder: Path, fast: Path) -> None:
    """What the lives work with; home holds no more than they store at once, so that bytes that leak are refused."""
    file = large(folder, mib=8)
    for n in range(3):
        lives.split(folder, n)
    async with opened(folder) as catalog:
        await add(catalog, fast, capacity=9 * MIB)
        await take(catalog, file)


async def killed(folder: Path, what: str, rounds: int) -> set[tuple[tuple[str, str], ...]]:
    """Kill a life at any moment of `what`, again and again; what there was after each: versions and their tiers."""
    seed = int(os.environ.get("CORRAL_KILL_SEED") or random.SystemRandom().getrandbits(32))
    print(f"CORRAL_KILL_SEED={seed}")
    dice, seen = random.Random(seed), set[tuple[tuple[str, str], ...]]()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    for _ in range(rounds):
        process = subprocess.Popen(
            [sys.executable, lives.__file__, str(folder), what], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment,
        )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        with process.stdout, process.stderr:
            assert process.stdout.readline() == b"ready\n", process.stderr.read().decode()
            await asyncio.sleep(dice.uniform(0.0, LONGEST_S[what]))  # the moment is the matter
            process.send_signal(signal.SIGKILL)
            told = process.stderr.read().decode()
            assert process.wait() == -signal.SIGKILL, told
        async with opened(folder) as catalog:
            await sound(catalog)
            seen.add(tuple(sorted((model.reference, model.tier) for model in await catalog.all())))
    return seen


@pytest.mark.parametrize("what", lives.WORK)
async def test_a_kill_at_any_moment_leaves_one_good_copy_or_none(tmp_path: Path, fast: Path, what: str) -> None:
    await begun(tmp_path, fast)
    await killed(tmp_path, what, 4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", lives.WORK)
async def test_hundreds_of_kills_leave_one_good_copy_or_none(tmp_path: Path, fast: Path, what: str) -> None:
    await begun(tmp_path, fast)
    seen = await killed(tmp_path, what, ROUNDS)
    print(f"{ROUNDS} kills while {what}; what was there afterwards: {sorted(seen)[:8]} … {len(seen)} in all")
    assert len(seen) > 1
