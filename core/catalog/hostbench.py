"""What a host does in a second, measured with the engine itself on probes (core/catalog/probemodel.py): half a minute.

- Reading memory, by threads: a small program of its own (core/catalog/bandwidth.py). How much of it is hidden behind
  multiplying: a probe of 100 million weights.
- Weights a second of each type with one thread, and of one type with each count of threads: a probe of 20 million
  weights, which a cache holds, with one token a step, two and four at once and a prompt of 512.
- What a step costs beside weights: a probe of 32 layers with next to nothing in them; one with 65,536 entries of
  vocabulary; looking back: a probe with small matrices and a long prompt.

The best of a few short rounds counts: what else runs makes a round slower and none faster.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from core.catalog import bandwidth, sizing
from core.catalog.probemodel import Probe, write
from core.catalog.timing import Meter, step_s
from core.catalog.trial import engine_for, new_secret
from core.engines.base import Engine, LaunchPlan
from core.errors import Failed
from core.nodes.base import Node
from core.nouns import Bandwidth, Beside, DeploymentSpec, HostBench, NodeFacts, Noun, Rate

KINDS = (
    "Q8_0", "Q4_K", "Q6_K", "Q5_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4", "Q3_K", "Q2_K", "F16",
)  # fmt: skip
"""Types of weights. The first one is measured with each count of threads, the others with one."""
THIN = Probe(kind="Q8_0", n_layer=32, n_embd=64, n_ff=64, n_head=1)
LARGE = Probe(kind="Q8_0", n_layer=2, n_embd=64, n_ff=64, n_head=1, n_vocab=65536)
"""Of a large vocabulary."""
BIG = Probe(kind="Q8_0", n_layer=8, n_embd=1024, n_ff=2816, n_head=16)
"""100 million weights, which no cache holds whole: what reading them from memory adds."""
LOOKING = Probe(kind="Q8_0", n_layer=6, n_embd=512, n_ff=32, n_head=8)
LONG, SHORT = 1536, 192
PROMPT, ANSWER, ROUNDS = 512, 48, 3
THREAD_COUNTS = 6
READY_S = 60.0
MEMORY_S, MEMORY_MIB = 0.4, 256

Progress = Callable[[str, int, int], None]


class Measured(Noun, frozen=True, kw_only=True):
    """Of one probe, seconds, the best round."""

    one: float
    """A step with one token."""
    two: float = 0.0
    four: float = 0.0
    prompt: float = 0.0
    """To the first token after `read` tokens."""
    read: int = 0
    short: float = 0.0
    short_read: int = 0
    long_one: float = 0.0
    """A step of a conversation that has `read` tokens."""


def thread_counts(cores: int) -> list[int]:
    """Which are measured: 1, 2, 4, … and all."""
    powers = [1 << n for n in range(cores.bit_length()) if 1 << n < cores]
    counts = [*powers, cores] if cores > 1 else [1]
    return counts if len(counts) <= THREAD_COUNTS else [*counts[:1], *counts[-(THREAD_COUNTS - 1) :]]


def need_bytes() -> int:
    """What a measurement reserves: the largest probe as a replica, and the buffer that is read."""
    return max(_plan_bytes(probe) for probe in (BIG, LOOKING, *(Probe(kind=kind) for kind in KINDS))) + (
        MEMORY_MIB << 20
    )


def steps(cores: int, kinds: Sequence[str] = KINDS) -> int:
    """Of which the progress is told."""
    return 2 + 3 * len(thread_counts(cores)) + len(kinds)


class _Told:
    """Tells the progress: what is begun, and how much is done."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def begin(self, step: str) -> None:
        self._progress(step, self._done, self._total)
        self._done += 1


async def measure(
    node: Node, engine: Engine, folder: Path, facts: NodeFacts, *, by: str, at: float, replicas: int, load: float,
    progress: Progress, kinds: Sequence[str] = KINDS,
) -> HostBench:  # fmt: skip
    """Measure the host, of which each core had `load` programs that wanted it; probes are written to `folder`, which an
    engine must be able to enter. Raises `Failed`."""
    began, counts = time.monotonic(), thread_counts(facts.cores)
    told = _Told(progress, steps(facts.cores, kinds))

    async def probe(what: Probe, threads: int) -> Measured:
        return await _probe(node, engine, folder, what, threads, facts)

    told.begin("memory")
    bandwidths = await _memory(counts)
    beside: list[Beside] = []
    rates: list[Rate] = []
    first_s = 0.0
    for threads in counts:
        told.begin(f"a step of nothing, {threads} threads")
        thin = await probe(THIN, threads)
        told.begin(f"looking back, {threads} threads")
        beside.append(beside_of(threads, thin, await probe(LOOKING, threads)))
        if threads == 1:
            first_s = max(0.0, thin.short - thin.one)
        told.begin(f"{kinds[0]}, {threads} threads")
        rates.append(
            rate(Probe(kind=kinds[0]), threads, await probe(Probe(kind=kinds[0]), threads), beside[-1], first_s)
        )
    told.begin("a large vocabulary")
    wide = await probe(LARGE, 1)
    table_s = LARGE.n_vocab * LARGE.n_embd / max(rates[0].one, 1.0)
    told.begin("more than a cache holds")
    overlap = overlap_of(await probe(BIG, 1), rates[0], beside[0], bandwidths[0].bytes_s)
    spare = wide.one - beside[0].token_s - LARGE.n_layer * beside[0].layer_s - table_s
    for kind in kinds[1:]:
        told.begin(f"{kind}, 1 thread")
        rates.append(rate(Probe(kind=kind), 1, await probe(Probe(kind=kind), 1), beside[0], first_s))
    return HostBench(
        node=node.name, cpu_model=facts.cpu_model, cores=facts.cores, engine=engine.name,
        version=engine.availability().version, at=at, by=by, bandwidths=tuple(bandwidths), rates=tuple(rates),
        beside=tuple(beside), vocabulary_s=max(0.0, spare / LARGE.n_vocab), first_s=first_s,
        overlap=round(overlap, 3), seconds=round(time.monotonic() - began, 1), replicas=replicas, load=round(load, 2),
    )  # fmt: skip


def overlap_of(big: Measured, rate: Rate, beside: Beside, bytes_s: float) -> float:
    """What of the shorter of reading and multiplying is hidden behind the longer; -0.5 to 1 whatever noise says."""
    compute, memory = BIG.layer_weights / rate.one, BIG.bytes / bytes_s
    took = big.one - beside.token_s - BIG.n_layer * beside.layer_s
    return min(1.0, max(-0.5, (compute + memory - took) / min(compute, memory)))


def beside_of(threads: int, thin: Measured, looking: Measured) -> Beside:
    """What a step costs beside its weights."""
    token_s = max(1e-7, (thin.four - thin.one) / 3)
    one, prompt = attention(looking)
    return Beside(
        threads=threads, layer_s=max(1e-8, (thin.one - token_s) / THIN.n_layer), token_s=token_s, attention_one=one,
        attention_prompt=prompt,
    )  # fmt: skip


def rate(probe: Probe, threads: int, found: Measured, beside: Beside, first_s: float) -> Rate:
    """Weights a second of a probe, with what a step costs beside them taken away."""
    weights = probe.layer_weights
    layers = probe.n_layer * beside.layer_s
    look = found.read**2 / 2 * probe.n_layer * probe.n_head * 2 * (probe.n_embd // probe.n_head)
    one = _left(found.one, layers + beside.token_s)
    two = _left(found.two, layers + 2 * beside.token_s)
    four = _left(found.four, layers + 4 * beside.token_s)
    prompt = _left(found.prompt, first_s + layers + found.one + look / beside.attention_prompt)
    return Rate(
        kind=probe.kind, threads=threads, one=weights / one, two=2 * weights / two, four=4 * weights / four,
        prompt=weights * found.read / prompt,
    )  # fmt: skip


def attention(found: Measured) -> tuple[float, float]:
    """Multiplications a second while looking back: of an answer, and of a prompt."""
    each = LOOKING.n_layer * LOOKING.n_head * 2 * (LOOKING.n_embd // LOOKING.n_head)
    one = max(found.long_one - found.one, 0.05 * found.long_one)
    scale = found.read / max(1, found.short_read)
    more = max(found.prompt - scale * found.short, 0.05 * found.prompt)
    looked = (found.read**2 - scale * found.short_read**2) / 2
    return found.read * each / one, looked * each / more


def _left(whole: float, beside: float) -> float:
    """Of a time without what belongs to something else; a fifth of it stays whatever noise says."""
    return max(whole - beside, 0.2 * whole, 1e-9)


def _plan_bytes(probe: Probe) -> int:
    shape, ctx = probe.shape(), _ctx(probe)
    found = sizing.parts(shape, ctx, 4, "f16")
    return sizing.reserved(sizing.full(found, shape, ctx, 4), 0)


def _ctx(probe: Probe) -> int:
    return 4 * sizing.pad256(LONG + ANSWER + 64) if probe == LOOKING else 4 * sizing.pad256(PROMPT + ANSWER + 64)


async def _probe(node: Node, engine: Engine, folder: Path, probe: Probe, threads: int, facts: NodeFacts) -> Measured:
    """Start the engine with one probe, and time it."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        Path(place).chmod(0o711)
        file = Path(place) / "probe.gguf"
        await asyncio.to_thread(write, probe, file)
        file.chmod(0o444)
        ctx = _ctx(probe)
        spec = DeploymentSpec(name="bench", model="probe", ctx=ctx, parallel=4, threads=threads, engine=engine.name)
        plan = LaunchPlan(
            spec=spec, alias="bench", model_path=str(file), shape=probe.shape(), ctx=ctx, parallel=4, threads=threads,
            secret=new_secret(), cache_ram_mib=0,
        )  # fmt: skip
        async with engine_for(
            node, engine, plan, owner=f"bench/{probe.kind}", plan_bytes=_plan_bytes(probe), cpus=facts.cpus,
            ready_s=READY_S,
        ) as endpoint:  # fmt: skip
            return await _rounds(Meter(endpoint, timeout_s=READY_S), probe)


async def _rounds(meter: Meter, probe: Probe) -> Measured:
    """What is asked of each probe is what is wanted to be known of it."""
    long, big = probe == LOOKING, probe == BIG
    read, few = (LONG, SHORT) if long else (PROMPT, 1)
    await meter.warm()
    one, two, four, prompt, short, long_one = [], [], [], [], [], []
    tokens, short_tokens = read, few
    for _ in range(ROUNDS):
        one.append(_step(step_s(await meter.decode(1, 4, ANSWER))))
        if big:
            continue
        if not long:
            two.append(_step(step_s(await meter.decode(2, 4, ANSWER))))
            four.append(_step(step_s(await meter.decode(4, 4, ANSWER))))
        asked = await meter.prompt(read)
        tokens = asked.prompt_tokens or read
        prompt.append(asked.first_s)
        asked = await meter.prompt(few)
        short_tokens = asked.prompt_tokens or few
        short.append(asked.first_s)
        if long:
            long_one.append(_step(step_s(await meter.decode(1, read, ANSWER))))
    return Measured(
        one=min(one), two=min(two, default=0.0), four=min(four, default=0.0), prompt=min(prompt, default=0.0),
        read=tokens, short=min(short, default=0.0), short_read=short_tokens, long_one=min(long_one, default=0.0),
    )  # fmt: skip


def _step(seconds: float) -> float:
    if seconds <= 0:
        raise Failed("the host was not measured", "the engine's answers were too short to be timed", "try again")
    return seconds


async def _memory(counts: Sequence[int]) -> list[Bandwidth]:
    """What so many threads read at once, by the program for it."""
    argv = [sys.executable, "-I", "-S", str(bandwidth.__file__), str(MEMORY_MIB), str(MEMORY_S), *map(str, counts)]
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={}
    )
    try:
        async with asyncio.timeout(READY_S):
            out, err = await process.communicate()
    except TimeoutError:
        raise Failed("the host was not measured", "reading its memory took too long", "try again") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = err.decode("utf-8", "replace").strip().splitlines()
        raise Failed("the host was not measured", said[-1] if said else f"exit code {process.returncode}")
    found = json.loads(out)
    return [Bandwidth(threads=count, bytes_s=float(found[str(count)])) for count in counts]
