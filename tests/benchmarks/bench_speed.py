"""What is reckoned of a speed beside what the real engine does, over threads and slots, and how long an answer takes.

For 1 and for all threads, the sample and gemma-3-270m: the host is measured with that model's types (`--host FILE`: as
it was kept there; `--keep FILE`). Then each count of slots: what is reckoned before the model ever ran, one run that is
learned of, what is told then, and five runs of the same minute, whose median both are held against: tokens/s of each
conversation and of a prompt, time to the first token of one and of the last of all. One JSON object a point, then the
medians of the errors by threads and what, and how often the truth lay within the error that was told. Exits 1 when a
median is over 25 % before, or over 10 % after. Beside other work the figures say little: `load` tells what there was.
`--model`: only those that begin so; `--threads N`: no others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import gemma
import msgspec
from bench_console import machine  # these lie beside this file
from resident import shape

from core.catalog import curated, hostbench, sample_path, sizing
from core.catalog.choosing import Candidate, Host, recommend
from core.catalog.curated import shape_for
from core.catalog.files import header_of
from core.catalog.seen import Observation, fold
from core.catalog.speed import Seat, predict, reckon
from core.catalog.timing import Meter, Rates
from core.catalog.trial import engine_for, new_secret
from core.catalog.work import Work, of_headers, of_shape
from core.engines.base import Engine, LaunchPlan
from core.engines.registry import registry
from core.nodes.local import Local
from core.nouns import DeploymentSpec, HostBench, Seen, Speed, Wishes
from core.paths import Paths
from core.settings import EnginesTable

FILLED, ANSWER, RUNS = 192, 48, 5
BEFORE, AFTER = 0.25, 0.10
SLOTS = (1, 2, 4)


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[Local]:
    """A node whose launches are watched."""
    paths = Paths(folder, folder / "corral.toml", "0badcafe")
    for each in (paths.launches, paths.records):
        each.mkdir(parents=True, exist_ok=True)
    node = Local(paths)

    async def watch() -> None:
        async for _ in node.watch():
            pass

    watching = asyncio.create_task(watch())
    try:
        yield node
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def work_of(model: Path) -> Work:
    fd = os.open(model, os.O_RDONLY)
    try:
        return of_headers([header_of(fd, model.name)], shape(model))
    finally:
        os.close(fd)


class Errors(NamedTuple):
    """Of one point, as fractions: positive is told too fast."""

    threads: int
    before: dict[str, float]
    after: dict[str, float]
    within: tuple[int, int]
    """How many of them lay in the error that was told, before and after."""


async def point(node: Local, engine: Engine, model: Path, host: HostBench, threads: int, slots: int) -> Errors:
    """Measure and print one."""
    known, work = shape(model), work_of(model)
    ctx = sizing.pad256(FILLED + ANSWER + 64) * slots
    spec = DeploymentSpec(name="m", model="m", ctx=ctx, parallel=slots, threads=threads)
    plan = LaunchPlan(
        spec=spec, alias="m", model_path=str(model), shape=known, ctx=ctx, parallel=slots, threads=threads,
        secret=new_secret(), cache_ram_mib=0,
    )  # fmt: skip
    facts = await node.facts()
    async with engine_for(
        node, engine, plan, owner="bench/m", plan_bytes=8 << 30, cpus=facts.cpus, ready_s=120
    ) as endpoint:  # fmt: skip
        meter = Meter(endpoint)
        await meter.warm()
        first = await meter.round(slots, FILLED, ANSWER)
        runs = [await meter.round(slots, FILLED, ANSWER) for _ in range(RUNS)]
    seat = Seat(threads=threads, parallel=slots)
    told = {"users": slots, "ctx": FILLED + ANSWER // 2, "prompt": first.filled}
    before = predict(work, host, seat, **told)
    after = predict(work, host, seat, **told, seen=learned(work, host, seat, first, slots))
    measured = {what: statistics.median(each) for what, each in by_what(runs).items()}
    row: dict[str, object] = {"model": model.stem[:12], "threads": threads, "slots": slots}
    off, both = [], (before, after)
    for said in both:
        rates = rates_of(said, first.filled)
        off.append({what: rates[what] / measured[what] - 1 for what in measured})
    for what, true in measured.items():
        reckoned = [rates_of(said, first.filled)[what] for said in both]
        row[what] = [round(each, 3) for each in (true, *reckoned)]
        row[f"{what}_error"] = [round(each[what], 3) for each in off]
    spread = max(run.each for run in runs) / min(run.each for run in runs) - 1
    row |= {"told_error": [before.error, after.error], "spread": round(spread, 2), "load": os.getloadavg()[0]}
    print(json.dumps(row), flush=True)
    inside = [
        sum(lies(each, said.error if what == "prefill" else said.error_each) for what, each in found.items())
        for found, said in zip(off, both, strict=True)
    ]  # fmt: skip
    return Errors(threads, off[0], off[1], (inside[0], inside[1]))


def lies(off: float, error: float) -> bool:
    """Whether the truth was in the bar: what was told times (1 - error) to (1 + error)."""
    return 1 - error <= 1 / (1 + off) <= 1 + error


def by_what(runs: Sequence[Rates]) -> dict[str, list[float]]:
    """As rates, so that more is faster."""
    return {
        "decode": [run.each for run in runs], "prefill": [run.prefill for run in runs],
        "first_all": [1 / run.last_s for run in runs],
    }  # fmt: skip


def rates_of(said: Speed, filled: int) -> dict[str, float]:
    """A prompt's as it was measured: by the time to its first token."""
    return {"decode": said.each, "prefill": filled / said.ttft_s, "first_all": 1 / said.ttft_all_s}


def learned(work: Work, host: HostBench, seat: Seat, first: Rates, slots: int) -> list[Seen]:
    """As the daemon does of a first run."""
    found = []
    for what, seen, users in (("decode", first.each, slots), ("prefill", first.prefill, 1)):
        ctx = FILLED + ANSWER // 2
        raw = reckon(work, host, seat, users=users, ctx=ctx, prompt=first.filled)
        expected = 1 / raw.step_s if what == "decode" else first.filled / (raw.first_s + raw.prompt_s + raw.step_s)
        observation = Observation(what=what, rate=seen, users=users, ctx=ctx, prompt=first.filled, at=0.0)
        kept = fold(None, observation, expected, sha256="m", engine="x", version="1", threads=seat.threads)
        found += [kept] if kept is not None else []
    return found


def form(host: HostBench) -> None:
    """How long the console's form waits for an answer: the whole catalogue, no model stored."""
    entries = curated.load()
    known = {(e.name, f.quantization): shape_for(e, f.quantization) for e in entries for f in e.files}
    found = [
        Candidate(
            name=e.name, title=e.title, stored=False, quantization=f.quantization, bytes=f.bytes, family=e.family,
            params=e.params, uses=e.uses, ctx=e.ctx, licence=e.licence, scores=e.scores, entry=e.name, repo=e.repo,
            shape=(s := known[e.name, f.quantization]),
            work=of_shape(s, active_params=e.active_params, params=e.params) if s is not None else None,
        )
        for e in entries for f in e.files
    ]  # fmt: skip
    times = []
    for _ in range(9):
        began = time.perf_counter()
        recommend(Wishes(use="code", users=8), found, Host(room_bytes=16 << 30, threads=host.cores, bench=host))
        times.append(time.perf_counter() - began)
    print(json.dumps({"recommend": len(found), "ms": round(statistics.median(times) * 1000, 1)}), flush=True)


async def measure(node: Local, engine: Engine, folder: Path, model: Path, threads: int) -> HostBench:
    """The host with so many threads, and the types that a model has."""
    facts, work = await node.facts(), work_of(model)
    kinds = dict.fromkeys(("Q8_0", *work.layers, *work.output, "F16"))
    found = await hostbench.measure(
        node, engine, folder, msgspec.structs.replace(facts, cores=threads), by="bench", at=time.time(), replicas=0,
        load=os.getloadavg()[0] / facts.cpus, progress=lambda step, done, total: None,
        kinds=[kind for kind in kinds if kind in hostbench.KINDS],
    )  # fmt: skip
    return msgspec.structs.replace(found, cores=facts.cores)


async def work(asked: argparse.Namespace) -> bool:
    engine = registry(EnginesTable()).get("xllamacpp")
    models = [each for each in (sample_path(), gemma.fetch()) if each is not None]
    errors: list[Errors] = []
    kept = [msgspec.json.decode(line, type=HostBench) for line in Path(asked.host).read_bytes().splitlines()
            ] if asked.host else []  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with house(Path(folder)) as node:
            facts = await node.facts()
            for threads in sorted({1, facts.cores}) if not asked.threads else [asked.threads]:
                for model in models:
                    if not model.stem.lower().startswith(asked.model):
                        continue
                    host = kept.pop(0) if kept else await measure(node, engine, Path(folder), model, threads)
                    if asked.keep:
                        with Path(asked.keep).open("ab") as out:
                            out.write(msgspec.json.encode(host) + b"\n")
                    print(json.dumps({"host": host.cpu_model, "seconds": host.seconds, "load": host.load,
                                      "crowded": host.crowded, "spread": [each.spread for each in host.beside]}),
                          flush=True)  # fmt: skip
                    if not errors:
                        form(host)
                    errors += [await point(node, engine, model, host, threads, slots) for slots in SLOTS]
    return told(errors)


def told(errors: Sequence[Errors]) -> bool:
    """Print the medians; whether all are as they should be."""
    kept = True
    for threads in sorted({each.threads for each in errors}):
        of = [each for each in errors if each.threads == threads]
        for when, most in (("before", BEFORE), ("after", AFTER)):
            row: dict[str, object] = {"threads": threads, "when": when, "aim": most}
            for what in of[0].before:
                sizes = sorted(abs((each.after if when == "after" else each.before)[what]) for each in of)
                row[what] = {"median": round(statistics.median(sizes), 3), "most": round(sizes[-1], 3)}
                kept = kept and statistics.median(sizes) <= most
            row["within"] = f"{sum(each.within[when == 'after'] for each in of)} of {len(of) * len(of[0].before)}"
            print(json.dumps(row | {"points": len(of), "machine": machine()}), flush=True)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="")
    parser.add_argument("--keep", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--threads", type=int, default=0)
    return 0 if asyncio.run(work(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
