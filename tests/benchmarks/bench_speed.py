"""What is reckoned of a speed beside what the real engine does, over threads and slots, and how long an answer takes.

The host is measured first (`--host FILE`: as it was kept there; `--keep FILE`). Then, for the sample and gemma-3-270m,
each count of threads and slots: what is reckoned before the model ever ran, one run that is learned of, what is told
then, and five runs of the same minute, whose median both are held against: tokens/s of each conversation, and of a
prompt. One JSON object a point, then the medians of the errors. Exits 1 when they are over 25 % before, or over 10 %
after. Beside other work the figures say little: `load` tells what there was. `--model`: only those that begin so;
`--threads N`: no others.
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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

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
from core.nouns import DeploymentSpec, HostBench, Seen, Wishes
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


async def point(
    node: Local, engine: Engine, model: Path, host: HostBench, threads: int, slots: int
) -> dict[str, tuple[float, float]]:
    """Measure and print one; (error before, error after) of both rates."""
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
    measured = {"decode": statistics.median(run.each for run in runs),
                "prefill": statistics.median(run.prefill for run in runs)}  # fmt: skip
    said = {"decode": (before.each, after.each), "prefill": (rate(before, first), rate(after, first))}
    errors = {what: (b / measured[what] - 1, a / measured[what] - 1) for what, (b, a) in said.items()}
    spread = max(run.each for run in runs) / min(run.each for run in runs)
    row = {"model": model.stem[:12], "threads": threads, "slots": slots, "spread": round(spread, 2)}
    for what in measured:
        row |= {what: round(measured[what], 1), f"{what}_reckoned": [round(each, 1) for each in said[what]],
                f"{what}_error": [round(each, 3) for each in errors[what]]}  # fmt: skip
    print(json.dumps(row | {"load": os.getloadavg()[0]}), flush=True)
    return errors


def rate(said: object, first: Rates) -> float:
    """Of a prompt as it was measured: by the time to its first token."""
    return first.filled / said.ttft_s  # type: ignore[attr-defined]


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


async def work(asked: argparse.Namespace) -> bool:
    engine = registry(EnginesTable()).get("xllamacpp")
    models = [each for each in (sample_path(), gemma.fetch()) if each is not None]
    errors: dict[str, list[tuple[float, float]]] = {"decode": [], "prefill": []}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with house(Path(folder)) as node:
            facts = await node.facts()
            if asked.host:
                host = msgspec.json.decode(Path(asked.host).read_bytes(), type=HostBench)
            else:
                host = await hostbench.measure(
                    node, engine, Path(folder), facts, by="bench", at=time.time(), replicas=0,
                    load=os.getloadavg()[0] / facts.cpus, progress=lambda step, done, total: None,
                )  # fmt: skip
            if asked.keep:
                Path(asked.keep).write_bytes(msgspec.json.encode(host))
            print(json.dumps({"host": host.cpu_model, "seconds": host.seconds, "load": host.load}), flush=True)
            form(host)
            for model in models:
                if not model.stem.lower().startswith(asked.model):
                    continue
                for threads in sorted({1, facts.cores}) if not asked.threads else [asked.threads]:
                    for slots in SLOTS:
                        for what, each in (await point(node, engine, model, host, threads, slots)).items():
                            errors[what].append(each)
    kept = True
    for when, most in (("before", BEFORE), ("after", AFTER)):
        row: dict[str, object] = {"when": when, "aim": most}
        for what, found in errors.items():
            sizes = sorted(abs(each[when == "after"]) for each in found)
            row[what] = {"median": round(statistics.median(sizes), 3), "most": round(sizes[-1], 3)}
            kept = kept and statistics.median(sizes) <= most
        print(json.dumps(row | {"points": len(errors["decode"]), "machine": machine()}), flush=True)
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
