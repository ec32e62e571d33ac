"""The memory plan beside the resident set of the real engines, over contexts, slots, cache types and architectures.

For each engine that is here, with the sample and gemma-3-270m (fetched once): one JSON object a point (MiB; `ready`
when the model is loaded, `used` after a prompt of a whole batch), then the largest errors of each. Exits 1 when a
plan is over 5 % off anywhere. `--quick`: fewer points; `--engine NAME` and `--model NAME` (or how it begins): that
one alone; `--chance N`: not the grid but N points by chance (`--seed`), embeddings among them, each with all slots
full at once, which must not be over 5 % above the most that is planned.

Then, with the default engine, one small file with random weights for each architecture that the formula knows
(architectures.toml), which is over where a plan is off by more than 5 % and 24 MiB: `--architectures` for them alone,
`NAME` for one, `--kind Q4_0` for weights that are copied, `--table` for docs/sizing.md. `--projectors`: the same with
towers of pictures (projectors.py), each asked its largest picture.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import architectures  # these five lie beside this file
import gemma
import projectors
from bench_console import machine
from resident import Resident, measure, shape

from core.catalog import sample_path, sizing
from core.catalog.sizing import CacheType
from core.catalog.sizing.projector import graph_bytes
from core.engines.base import Engine
from core.engines.registry import registry
from core.nouns import ModelShape, PlanParts
from core.settings import EnginesTable

MIB = 1 << 20
LIMIT = 0.05
LEAST = 24 * MIB
"""So much may a plan be off, however small the model."""
MOST_CELLS = 131072
"""Of a point: 3 GiB of cache with the sample."""
MOST_FILLED = 6144
"""Cells of a point by chance: all of them are computed."""
KINDS: tuple[CacheType, ...] = ("f16", "q8_0", "q4_0")
PER = (256, 512, 2048, 8192, 32768)
SLOTS = (1, 2, 4, 8, 16)
ODD = ((700, 1), (1000, 3), (5000, 7), (16384, 64), (65536, 256))
"""Total context and slots that are no powers, and very many slots."""


def points(ctx_train: int, engine: Engine, quick: bool) -> Iterator[tuple[int, int, CacheType]]:
    """Total context, slots and cache type: all that this engine takes with such a model, in steps."""
    many = engine.abilities.parallel
    slots = (1, 4, 16) if quick else SLOTS
    for per, parallel, kind in product(PER[1::2] if quick else PER, slots if many else (1,), KINDS):
        if per <= ctx_train and per * parallel <= MOST_CELLS:
            yield per * parallel, parallel, kind
    for (ctx, parallel), kind in product(() if quick else ODD, ("f16", "q4_0")):
        if many or parallel == 1:
            yield ctx, parallel, kind


def models() -> Iterator[Path]:
    sample = sample_path()
    if sample is None:
        print("the sample is left out: it is not installed", file=sys.stderr)
    else:
        yield sample
    try:
        yield gemma.fetch()
    except (RuntimeError, OSError) as error:
        print(f"gemma-3-270m is left out: {error}", file=sys.stderr)


def table() -> EnginesTable:
    """With the engines of `make test-engines`, where there are any."""
    spec = importlib.util.spec_from_file_location("build", Path(__file__).parents[1] / "engines/build.py")
    assert spec and spec.loader
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    built = build.found()
    return (
        EnginesTable(llama_server=str(built.llama_server), llama_cpp_python=str(built.python))
        if built
        else EnginesTable()
    )


def compare(engine: Engine, model: Path, quick: bool) -> float:
    """Measure and print all points; the largest error of them."""
    known = shape(model)
    ready_errors, used_errors = [], []
    for ctx, parallel, kind in points(known.ctx_train, engine, quick):
        found = measure(engine, model, known, ctx, parallel, kind)
        plan = sizing.parts(known, ctx, parallel, kind, engine=engine.abilities)
        ready_errors.append(sizing.ready(plan) / found.ready - 1)
        used_errors.append(sizing.resident(plan) / found.used - 1)
        row = {"engine": engine.name, "model": model.stem[:12], "ctx": ctx, "parallel": parallel, "cache": kind}
        row |= {"ready": found.ready // MIB, "used": found.used // MIB}
        row |= {"error_ready": round(ready_errors[-1], 4), "error_used": round(used_errors[-1], 4)}
        print(json.dumps(row), flush=True)
    told = {"engine": engine.name, "model": model.stem[:12], "points": len(ready_errors)}
    for name, errors in (("ready", ready_errors), ("used", used_errors)):
        told[name] = [round(min(errors), 4), round(max(errors), 4)]
    print(json.dumps(told | {"machine": machine()}), flush=True)
    return max(map(abs, ready_errors + used_errors))


def chances(
    rng: random.Random, count: int, ctx_train: int, engine: Engine
) -> Iterator[tuple[int, int, CacheType, bool]]:
    """As `points`, beyond the grid: any context, slots and cache type; one in three embeds. Not xllamacpp, whose server
    is llama-server's: these models don't say how they are to be embedded, and it takes that from nowhere else."""
    for _ in range(count):
        embeds = engine.name != "xllamacpp" and rng.random() < 0.34
        parallel = rng.choice((1, 2, 4, 8)) if embeds else rng.randint(1, 12)
        if not engine.abilities.parallel:
            parallel = 1
        each = rng.randint(256, min(ctx_train, 8192, MOST_FILLED // parallel))
        yield each * parallel, parallel, rng.choice(KINDS), embeds


def chance(engine: Engine, model: Path, count: int, seed: int) -> float:
    """Measure and print points by chance; the largest error, where too little planned for full slots is one."""
    known, worst = shape(model), 0.0
    for ctx, parallel, kind, embedding in chances(random.Random(seed), count, known.ctx_train, engine):
        found = measure(engine, model, known, ctx, parallel, kind, embedding=embedding, fill=True)
        able = engine.abilities
        plan = sizing.parts(known, ctx, parallel, kind, engine=able, embedding=embedding)
        most = sizing.full(plan, known, ctx, parallel, engine=able)
        errors = {
            "ready": sizing.ready(plan) / found.ready - 1,
            "used": sizing.resident(plan) / found.used - 1,
            "full": most / found.full - 1,
        }
        row = {"engine": engine.name, "model": model.stem[:12], "ctx": ctx, "parallel": parallel, "cache": kind}
        row |= {"embedding": embedding} | {key: value // MIB for key, value in found._asdict().items()}
        row |= {f"error_{key}": round(value, 4) for key, value in errors.items()}
        row["reserved"] = sizing.reserved(most, 0) // MIB
        print(json.dumps(row), flush=True)
        worst = max(worst, -errors["full"], *(abs(errors[key]) for key in ("ready", "used")))
    return worst


def off(planned: int, found: int, bound: bool = False) -> bool:
    """Is a plan over its limit? A bound may be above, and never below."""
    return planned < found if bound else abs(planned - found) > max(LIMIT * found, LEAST)


def one_architecture(
    engine: Engine, name: str, kind: str = "Q8_0", ctx: int = 8192, parallel: int = 4, cache: CacheType = "f16",
    fill: bool = False,
) -> tuple[ModelShape, PlanParts, int, Resident]:  # fmt: skip
    """Shape, plan, the most that is planned, and what was found."""
    with tempfile.TemporaryDirectory(prefix="arch-") as folder:
        file = Path(folder, f"{name}.gguf")
        architectures.write(file, name, kind)
        known, embeds = shape(file), architectures.encoder(name)
        ctx = min(ctx, known.ctx_train * parallel)
        found = measure(engine, file, known, ctx, parallel, cache, embedding=embeds, fill=fill)
    plan = sizing.parts(known, ctx, parallel, cache, engine=engine.abilities, embedding=embeds)
    return known, plan, sizing.full(plan, known, ctx, parallel, engine=engine.abilities), found


def over_architectures(engine: Engine, names: Sequence[str], kind: str, table: bool) -> bool:
    """Measure and print them all; whether all plans were within their limits."""
    kept = True
    if table:
        print(
            "| architecture | kind | weights | KV | state | copies | compute | ready: plan, found | used: plan, found |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        known, plan, _, found = one_architecture(engine, name, kind)
        planned = sizing.ready(plan), sizing.resident(plan)
        bad = any(off(*each, bound=known.margin > 0) for each in zip(planned, found[:2], strict=True))
        kept = kept and not bad
        if table:
            uses = (plan.weights, plan.kv_cache, plan.state, plan.repack, plan.compute)
            pairs = [
                f"{one // MIB}, {other // MIB} ({one / other - 1:+.1%})"
                for one, other in zip(planned, found[:2], strict=True)
            ]
            print("|", " | ".join([name, kind, *(str(use // MIB) for use in uses), *pairs]), "|", flush=True)
        else:
            row = {"architecture": name, "kind": kind, "ready": found.ready // MIB, "used": found.used // MIB}
            row |= {"error_ready": round(planned[0] / found.ready - 1, 4)}
            row |= {"error_used": round(planned[1] / found.used - 1, 4), "bound": known.margin > 0, "over": bad}
            print(json.dumps(row), flush=True)
    return kept


def over_projectors(engine: Engine, names: Sequence[str]) -> bool:
    """Measure and print them all: what each takes beside its file and the model's plan; whether it was as planned."""
    kept = True
    for name in names:
        tower = projectors.TOWERS[name]
        with tempfile.TemporaryDirectory(prefix="tower-") as folder:
            model, beside = Path(folder, "model.gguf"), Path(folder, "projector.gguf")
            architectures.write(model, tower.model)
            projectors.write(beside, name)
            known, size, side = shape(model), beside.stat().st_size, tower.largest or tower.image
            shown = projectors.picture(side, side)
            found = measure(engine, model, known, 8192, 1, "f16", projector=str(beside), picture=shown)
        alone = sizing.parts(known, 8192, 1, "f16", engine=engine.abilities)
        others = sizing.resident(alone) + size
        planned = graph_bytes(projectors.metadata(name), known.n_embd)
        bad = off(others + planned, found.full, bound=tower.largest > 0)
        kept = kept and not bad
        row = {"tower": name, "file": size // MIB, "found": (found.full - others) // MIB, "planned": planned // MIB}
        row["just ready"] = (found.ready - sizing.ready(alone) - size) // MIB
        print(json.dumps(row | {"all": found.full // MIB, "over": bad}), flush=True)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--engine")
    parser.add_argument("--model", default="")
    parser.add_argument("--chance", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--architectures", nargs="*", metavar="NAME")
    parser.add_argument("--projectors", nargs="*", metavar="NAME")
    parser.add_argument("--kind", default="Q8_0")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    engines = registry(table())
    if asked.architectures is not None:
        names = asked.architectures or list(architectures.described())
        return 0 if over_architectures(engines.get("xllamacpp"), names, asked.kind, asked.table) else 1
    if asked.projectors is not None:
        names = asked.projectors or list(projectors.TOWERS)
        return 0 if over_projectors(engines.get("xllamacpp"), names) else 1
    kept = True
    files = [each for each in models() if each.stem.lower().startswith(asked.model)]
    for name in [asked.engine] if asked.engine else [name for name in engines.names if name != "attach"]:
        engine = engines.get(name)
        there = engine.availability()
        if not there.found:
            print(f"{name} is left out: {there.reason}", file=sys.stderr)
            continue
        for model in files:
            if asked.chance:
                worst = chance(engine, model, asked.chance, asked.seed)
            else:
                worst = compare(engine, model, asked.quick)
            kept = kept and worst < LIMIT
    if not (asked.engine or asked.model or asked.chance or asked.quick):
        kept = over_architectures(engines.get("xllamacpp"), list(architectures.described()), asked.kind, False) and kept
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
