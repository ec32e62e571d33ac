"""What a host does in a second, measured with the engine itself on probes (core/catalog/probemodel.py): about a minute.

- Reading memory, by threads: a small program of its own (core/catalog/bandwidth.py). How much of it is hidden behind
  multiplying, by how many are answered at once: a probe of 100 million weights.
- Weights a second of each type with one thread, and of one type with each count of threads: a probe of 20 million
  weights, which a cache holds, with one token a step, two and four at once and a prompt of 512.
- What a step costs beside weights: a probe of 32 layers with next to nothing in them; one with 65,536 entries of
  vocabulary; looking back: a probe with small matrices and a long prompt.
- What is left of it when threads on all cores share them with one other busy program: they wait for each other at each
  of hundreds of operations a token, and the one that has lost its core lets all of them wait.

The median of a few short rounds counts: a model will have the same neighbours. How far rounds lie apart is kept.
Several at once are asked of neighbouring slots: llama.cpp makes one batch of those alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from core.catalog import bandwidth, sizing
from core.catalog.probemodel import Probe, write
from core.catalog.timing import Meter, each_rate
from core.catalog.trial import engine_for, new_secret
from core.engines.base import Engine, LaunchPlan
from core.errors import Failed
from core.nodes.base import Node
from core.nouns import Bandwidth, Beside, DeploymentSpec, Hidden, HostBench, NodeFacts, Noun, Rate

KINDS = (
    "Q8_0", "Q4_K", "Q6_K", "Q5_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4", "Q3_K", "Q2_K", "F16",
)  # fmt: skip
"""Types of weights. The first one is measured with each count of threads, the others with one."""
THIN = Probe(kind="Q8_0", n_layer=32, n_embd=64, n_ff=64, n_head=1)
LARGE = Probe(kind="Q8_0", n_layer=2, n_embd=32, n_ff=32, n_head=1, n_vocab=65536)
"""Of a large vocabulary, and a small table of it."""
BIG = Probe(kind="Q8_0", n_layer=8, n_embd=1024, n_ff=2816, n_head=16)
"""100 million weights, which no cache holds whole: what reading them from memory adds."""
LOOKING = Probe(kind="Q8_0", n_layer=6, n_embd=512, n_ff=32, n_head=8)
LONG, SHORT = 1536, 192
PROMPT, ANSWER, ROUNDS, MORE_ROUNDS = 512, 48, 3, 5
"""More of them where threads wait for each other: their rounds lie further apart."""
BIG_ANSWER = 20
THREAD_COUNTS = 6
READY_S = 60.0
MEMORY_S, MEMORY_MIB = 0.4, 256
MOST_SPREAD, MOST_APART, LEAST_HIDDEN = 1.0, 20.0, -2.0
"""Beyond these a measurement is of what else ran: rounds of one probe twice as long as others, rates of types (they are
up to five times apart), what is hidden at the bound that noise is held to."""
TODO = "end what else runs there and measure it again, or keep it all the same: corral nodes bench --force"
BUSY = f"import time\nend = time.monotonic() + {READY_S}\nprint(flush=True)\nwhile time.monotonic() < end: pass"

Progress = Callable[[str, int, int], None]


class Measured(Noun, frozen=True, kw_only=True):
    """Of one probe, seconds, the median round."""

    one: float
    """A step with one token."""
    two: float = 0.0
    four: float = 0.0
    prompt: float = 0.0
    """To the first token after `read` tokens."""
    read: int = 0
    short: float = 0.0
    short_read: int = 0
    short_one: float = 0.0
    """A step of a conversation that has `short_read` tokens."""
    long_one: float = 0.0
    """A step of one that has `read` tokens."""
    crowded: float = 0.0
    """A step with one token while another program keeps a core busy, in the slowest round: chance decides who waits."""
    best: float = 0.0
    """The fastest round of a step with one token."""
    spread: float = 0.0
    """By how much the slowest round of a step took longer than the fastest, a fraction."""


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
    return 1 + 4 * len(thread_counts(cores)) + len(kinds)


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
    hidden: list[Hidden] = []
    first_s = crowded = 0.0
    for threads, memory in zip(counts, bandwidths, strict=True):
        told.begin(f"a step of nothing, {threads} threads")
        thin = await probe(THIN, threads)
        told.begin(f"looking back, {threads} threads")
        looking = await probe(LOOKING, threads)
        if threads == 1:
            first_s = max(0.0, thin.short - thin.one)
        told.begin(f"{kinds[0]}, {threads} threads")
        crowd = threads == facts.cores > 1
        small = await _probe(node, engine, folder, Probe(kind=kinds[0]), threads, facts, crowd=crowd)
        crowded = min(1.0, small.best / small.crowded) if crowd else 0.0
        told.begin(f"more than a cache holds, {threads} threads")
        big = await probe(BIG, threads)
        spread = statistics.median(each.spread for each in (thin, looking, small, big))
        # A token is sampled and sent by one thread, however many there are; between steps as short as these, with all
        # cores in use, the difference would be anything.
        token_s = beside[0].token_s if beside else max(1e-7, (thin.four - thin.one) / 3)
        beside.append(beside_of(threads, thin, looking, token_s, spread))
        rates.append(rate(Probe(kind=kinds[0]), threads, small, beside[-1], first_s))
        hidden.append(hidden_of(big, rates[-1], beside[-1], memory.bytes_s))
    told.begin("a large vocabulary")
    wide = await probe(LARGE, 1)
    for kind in kinds[1:]:
        told.begin(f"{kind}, 1 thread")
        rates.append(rate(Probe(kind=kind), 1, await probe(Probe(kind=kind), 1), beside[0], first_s))
    return HostBench(
        node=node.name, cpu_model=facts.cpu_model, cores=facts.cores, engine=engine.name,
        version=engine.availability().version, at=at, by=by, bandwidths=tuple(bandwidths), rates=tuple(rates),
        beside=tuple(beside), vocabulary_s=vocabulary_of(wide, rates, beside[0]), first_s=first_s,
        looked=(SHORT, LONG), hidden=tuple(hidden), crowded=round(crowded, 3),
        seconds=round(time.monotonic() - began, 1), replicas=replicas, load=round(load, 2),
    )  # fmt: skip


def nonsense(found: HostBench) -> str:
    """Why nothing can be reckoned from a measurement, as other programs had the cores meanwhile; "" where it can."""
    busy = f" (load {found.load:.1f} a core)" if found.load else ""
    for row in found.beside:
        if row.spread > MOST_SPREAD:
            return f"rounds of one probe lay {row.spread:.0%} apart with {row.threads} threads{busy}"
    for hidden in found.hidden:
        if min(hidden.one, hidden.two, hidden.four) <= LEAST_HIDDEN:
            return f"reading and multiplying hindered each other beyond belief with {hidden.threads} threads{busy}"
    alone = [each.one for each in found.rates if each.threads == 1]
    if alone and max(alone) > MOST_APART * min(alone):
        return f"types of weights lay {max(alone) / min(alone):.0f}-fold apart with one thread{busy}"
    return ""


def vocabulary_of(wide: Measured, rates: Sequence[Rate], beside: Beside) -> float:
    """Seconds of each entry: its table (F16) aside, which is weights as others are."""
    table = next((each.one for each in rates if each.kind == "F16"), rates[0].one / 2)
    table_s = LARGE.n_vocab * LARGE.n_embd / max(table, 1.0)
    return max(0.0, wide.one - beside.token_s - LARGE.n_layer * beside.layer_s - table_s) / LARGE.n_vocab


def hidden_of(big: Measured, rate: Rate, beside: Beside, bytes_s: float) -> Hidden:
    """What of the shorter of reading and multiplying is hidden behind the longer; -2 to 1 whatever noise says."""

    def of(users: int, took: float, weights_s: float) -> float:
        compute, memory = BIG.layer_weights * users / weights_s, BIG.bytes / bytes_s
        left = took - users * beside.token_s - BIG.n_layer * beside.layer_s
        return round(min(1.0, max(-2.0, (compute + memory - left) / min(compute, memory))), 3)

    return Hidden(
        threads=rate.threads, one=of(1, big.one, rate.one), two=of(2, big.two, rate.two),
        four=of(4, big.four, rate.four),
    )  # fmt: skip


def beside_of(threads: int, thin: Measured, looking: Measured, token_s: float, spread: float) -> Beside:
    """What a step costs beside its weights."""
    short, one, prompt = attention(looking)
    return Beside(
        threads=threads, layer_s=max(1e-8, (thin.one - token_s) / THIN.n_layer), token_s=token_s,
        attention_short=short, attention_one=one, attention_prompt=prompt, spread=round(spread, 3),
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


def attention(found: Measured) -> tuple[float, float, float]:
    """Multiplications a second while looking back: of an answer with little and with much behind it, of a prompt."""
    each = LOOKING.n_layer * LOOKING.n_head * 2 * (LOOKING.n_embd // LOOKING.n_head)
    few = max(found.short_one - found.one, 0.05 * found.short_one)
    one = max(found.long_one - found.one, 0.05 * found.long_one)
    scale = found.read / max(1, found.short_read)
    more = max(found.prompt - scale * found.short, 0.05 * found.prompt)
    looked = (found.read**2 - scale * found.short_read**2) / 2
    return found.short_read * each / few, found.read * each / one, looked * each / more


def _left(whole: float, beside: float) -> float:
    """Of a time without what belongs to something else; a fifth of it stays whatever noise says."""
    return max(whole - beside, 0.2 * whole, 1e-9)


def _plan_bytes(probe: Probe) -> int:
    shape, ctx = probe.shape(), _ctx(probe)
    found = sizing.parts(shape, ctx, 4, "f16")
    return sizing.reserved(sizing.full(found, shape, ctx, 4), 0)


def _ctx(probe: Probe) -> int:
    return 4 * sizing.pad256(LONG + ANSWER + 64) if probe == LOOKING else 4 * sizing.pad256(PROMPT + ANSWER + 64)


async def _probe(
    node: Node, engine: Engine, folder: Path, probe: Probe, threads: int, facts: NodeFacts, *, crowd: bool = False
) -> Measured:  # fmt: skip
    """Start the engine with one probe, and time it; `crowd`: beside another program, too."""
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
            meter = Meter(endpoint, timeout_s=READY_S)
            found = await _rounds(meter, probe, ROUNDS if threads == 1 else MORE_ROUNDS)
            if not crowd:
                return found
            async with _busy():
                steps = [await _one(meter, 1, 4, ANSWER) for _ in range(MORE_ROUNDS)]
            return msgspec.structs.replace(found, crowded=max(steps))


async def _rounds(meter: Meter, probe: Probe, rounds: int) -> Measured:
    """What is asked of each probe is what is wanted to be known of it."""
    long, big = probe == LOOKING, probe == BIG
    read, few = (LONG, SHORT) if long else (PROMPT, 1)
    answer = BIG_ANSWER if big else ANSWER
    await meter.warm()
    one, two, four, prompt, short, short_one, long_one = [], [], [], [], [], [], []
    tokens, short_tokens = read, few
    for _ in range(rounds):
        one.append(await _one(meter, 1, 4, answer))
        if not long:
            two.append(await _one(meter, 2, 4, answer))
            four.append(await _one(meter, 4, 4, answer))
        if big:
            continue
        asked = await meter.prompt(read)
        tokens = asked.prompt_tokens or read
        prompt.append(asked.first_s)
        asked = await meter.prompt(few)
        short_tokens = asked.prompt_tokens or few
        short.append(asked.first_s)
        if long:
            short_one.append(await _one(meter, 1, few, ANSWER))
            long_one.append(await _one(meter, 1, read, ANSWER))
    return Measured(
        one=_typical(one), two=_typical(two), four=_typical(four), prompt=_typical(prompt), read=tokens,
        short=_typical(short), short_read=short_tokens, short_one=_typical(short_one),
        long_one=_typical(long_one), best=min(one),
        spread=max(one) / min(one) - 1,
    )  # fmt: skip


async def _one(meter: Meter, users: int, filled: int, tokens: int) -> float:
    """Seconds of a step; of several at once while all of them are answered."""
    answers = await meter.decode(users, filled, tokens, side_by_side=True)
    rate = each_rate(answers)
    return _step(1 / rate if rate else 0.0)


def _typical(rounds: Sequence[float]) -> float:
    return statistics.median(rounds) if rounds else 0.0


@contextlib.asynccontextmanager
async def _busy() -> AsyncIterator[None]:
    """While another program wants a core; it ends by itself should nobody end it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", BUSY, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, env={}
    )
    try:
        async with asyncio.timeout(READY_S):
            if process.stdout is None or not await process.stdout.readline():
                raise Failed("the host was not measured", "a program that keeps a core busy did not start", "try again")
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


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
