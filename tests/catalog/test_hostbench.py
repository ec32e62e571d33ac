"""What is made of the times of probes; and a host measured for real, with few types."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from core.catalog import hostbench
from core.catalog.hostbench import (
    BIG,
    LARGE,
    LOOKING,
    Measured,
    attention,
    hidden_of,
    rate,
    thread_counts,
    vocabulary_of,
)
from core.catalog.probemodel import Probe
from core.engines.registry import registry
from core.nodes.local import Local
from core.nouns import Beside, Rate
from core.paths import Paths
from core.settings import EnginesTable

BESIDE = Beside(threads=1, layer_s=1e-5, token_s=1e-4, attention_short=3e9, attention_one=4e9, attention_prompt=1e10)


def test_few_counts_of_threads_stand_for_many() -> None:
    assert [thread_counts(n) for n in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8]]
    assert thread_counts(64)[0] == 1 and thread_counts(64)[-1] == 64 and len(thread_counts(64)) == 6


def test_rates_are_of_the_weights_alone() -> None:
    probe = Probe(kind="Q8_0")
    beside = probe.n_layer * 1e-5
    weights, read = probe.layer_weights, 512
    look = read**2 / 2 * probe.n_layer * probe.n_head * 128 / 1e10
    found = Measured(
        one=weights / 20e9 + beside + 1e-4, two=2 * weights / 18e9 + beside + 2e-4,
        four=4 * weights / 25e9 + beside + 4e-4,
        prompt=weights * read / 40e9 + look + beside + 0.002 + weights / 20e9 + beside + 1e-4, read=read,
    )  # fmt: skip
    told = rate(probe, 1, found, BESIDE, 0.002)
    assert (told.one, told.two, told.four, told.prompt) == (
        pytest.approx(20e9), pytest.approx(18e9), pytest.approx(25e9), pytest.approx(40e9)
    )  # fmt: skip
    noisy = rate(probe, 1, Measured(one=1e-5, two=1e-5, four=1e-5, prompt=1e-5, read=read), BESIDE, 0.002)
    assert noisy.one > 0 and noisy.prompt > 0  # a fifth of a time stays


def test_looking_back_is_what_a_long_conversation_takes_more() -> None:
    each = LOOKING.n_layer * LOOKING.n_head * 128
    few, one, prompt = attention(
        Measured(
            one=0.001, short_one=0.001 + 100 * each / 3e9, long_one=0.001 + 1000 * each / 5e9,
            prompt=0.4 + 1000**2 / 2 * each / 2e10, read=1000,
            short=0.04 + 100**2 / 2 * each / 2e10, short_read=100,
        )
    )  # fmt: skip
    assert few == pytest.approx(3e9) and one == pytest.approx(5e9) and prompt == pytest.approx(2e10)


@pytest.mark.parametrize("hidden", [-0.2, 0.0, 0.6, 1.0])
def test_what_reading_adds_to_multiplying_by_how_many_are_answered(hidden: float) -> None:
    rates = Rate(kind="Q8_0", threads=2, one=20e9, two=12e9, four=16e9, prompt=20e9)
    steps = []
    for users, each in ((1, 20e9), (2, 12e9), (4, 16e9)):
        compute, memory = users * BIG.layer_weights / each, BIG.bytes / 30e9
        beside = users * BESIDE.token_s + BIG.n_layer * BESIDE.layer_s
        steps.append(max(compute, memory) + (1 - hidden) * min(compute, memory) + beside)
    found = hidden_of(Measured(one=steps[0], two=steps[1], four=steps[2]), rates, BESIDE, 30e9)
    assert (found.threads, found.one, found.two, found.four) == (2, *[pytest.approx(hidden, abs=1e-3)] * 3)
    assert hidden_of(Measured(one=1.0, two=1.0, four=1.0), rates, BESIDE, 30e9).two == -2


def test_an_entry_of_the_vocabulary_costs_beside_its_table() -> None:
    """The table is weights as others are, of the type that it has in the probe."""
    rates = [Rate(kind="Q8_0", threads=1, one=20e9, two=12e9, four=16e9, prompt=20e9),
             Rate(kind="F16", threads=1, one=8e9, two=12e9, four=16e9, prompt=20e9)]  # fmt: skip
    table = LARGE.n_vocab * LARGE.n_embd / 8e9
    took = table + LARGE.n_layer * BESIDE.layer_s + BESIDE.token_s + LARGE.n_vocab * 3e-9
    assert vocabulary_of(Measured(one=took), rates, BESIDE) == pytest.approx(3e-9)
    assert vocabulary_of(Measured(one=1e-6), rates, BESIDE) == 0


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each probe once, with short prompts and answers: all is measured as it is, and less well."""
    for name, value in {
        "ROUNDS": 1, "MORE_ROUNDS": 1, "PROMPT": 256, "LONG": 512, "SHORT": 96, "ANSWER": 16, "BIG_ANSWER": 10,
        "BIG": msgspec.structs.replace(BIG, n_layer=2), "MEMORY_S": 0.05, "MEMORY_MIB": 64,
    }.items():  # fmt: skip
        monkeypatch.setattr(hostbench, name, value)


@pytest.mark.journey
@pytest.mark.timeout(240)
async def test_a_host_is_measured_with_the_real_engine(tmp_path: Path, short: None) -> None:
    await measured(tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_host_is_measured_as_long_as_its_owner_would_wait(tmp_path: Path) -> None:
    await measured(tmp_path)


async def measured(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    for each in (paths.launches, paths.records, tmp_path / "probes"):
        each.mkdir(parents=True, exist_ok=True)
    node, engine, steps = Local(paths), registry(EnginesTable()).get("xllamacpp"), []
    facts = msgspec.structs.replace(await node.facts(), cores=1)

    async def watch() -> None:
        async for _ in node.watch():
            pass

    watching = asyncio.create_task(watch())
    try:
        found = await hostbench.measure(
            node, engine, tmp_path / "probes", facts, by="ada", at=time.time(), replicas=0, load=0.0,
            kinds=("Q8_0", "Q4_K"), progress=lambda step, done, total: steps.append((step, done, total)),
        )  # fmt: skip
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert [each.kind for each in found.rates] == ["Q8_0", "Q4_K"] and len(steps) == steps[0][2]
    assert all(1e8 < rate < 1e13 for each in found.rates for rate in (each.one, each.two, each.four, each.prompt))
    assert found.bandwidths[0].bytes_s > 1e8 and -2 <= found.hidden[0].two <= 1 and found.crowded == 0
    assert await node.launches() == [] and list((tmp_path / "probes").iterdir()) == []
