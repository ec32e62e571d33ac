"""The memory plan beside the resident set of the real engines, over contexts, slots and cache types.

For each engine that is here, with the sample and gemma-3-270m (fetched once): one JSON object a point (MiB; `ready`
when the model is loaded, `used` after a prompt of a whole batch), then the largest errors of each. Exits 1 when the
default engine is over 5 % anywhere. `--quick`: fewer points; `--engine NAME`: that one alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import gemma
from bench_console import machine  # these three lie beside this file
from resident import measure, shape

from core.catalog import sample_path, sizing
from core.engines.base import Engine
from core.engines.registry import registry
from core.settings import EnginesTable

MIB = 1 << 20
LIMIT = 0.05
MOST_CELLS = 131072
"""Of a point: 3 GiB of cache with the sample."""
KINDS = ("f16", "q8_0", "q4_0")
PER = (256, 512, 2048, 8192, 32768)
SLOTS = (1, 2, 4, 8, 16)
ODD = ((700, 1), (1000, 3), (5000, 7), (16384, 64), (65536, 256))
"""Total context and slots that are no powers, and very many slots."""


def points(ctx_train: int, engine: Engine, quick: bool) -> Iterator[tuple[int, int, str]]:
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
        planned = sizing.resident(
            sizing.parts(known, ctx, parallel, kind, engine=engine.abilities)  # type: ignore[arg-type]
        )
        ready_errors.append(planned / found.ready - 1)
        used_errors.append(planned / found.used - 1)
        row = {"engine": engine.name, "model": model.stem[:12], "ctx": ctx, "parallel": parallel, "cache": kind}
        row |= {"plan": planned // MIB, "ready": found.ready // MIB, "used": found.used // MIB}
        row |= {"error_ready": round(ready_errors[-1], 4), "error_used": round(used_errors[-1], 4)}
        print(json.dumps(row), flush=True)
    told = {"engine": engine.name, "model": model.stem[:12], "points": len(ready_errors)}
    for name, errors in (("ready", ready_errors), ("used", used_errors)):
        told[name] = [round(min(errors), 4), round(max(errors), 4)]
    print(json.dumps(told | {"machine": machine()}), flush=True)
    return max(map(abs, ready_errors + used_errors))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--engine")
    asked = parser.parse_args()
    engines = registry(table())
    kept = True
    files = list(models())
    for name in [asked.engine] if asked.engine else [name for name in engines.names if name != "attach"]:
        engine = engines.get(name)
        there = engine.availability()
        if not there.found:
            print(f"{name} is left out: {there.reason}", file=sys.stderr)
            continue
        worst = max((compare(engine, model, asked.quick) for model in files), default=0.0)
        kept = kept and (worst < LIMIT or name != engines.names[0])
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
