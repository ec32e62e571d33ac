"""A model measured over threads, slots and context, and its curve as a chart."""

from __future__ import annotations

import os
import sys

import click

from core.client.catalog import parted
from core.nouns import Bench
from tui.amounts import Counts
from tui.command import filled, named, note, options, run, with_options
from tui.lines import as_json, say, table
from tui.measured import begun, turn
from tui.plain import draws_ascii, line
from tui.words import age, plural

BAR = 24


@click.command("bench")
@click.argument("model", required=False, callback=filled, shell_complete=named("models"))
@click.option("--threads", type=Counts(), default=(), help="e.g. 1,2 (default: 1, what a replica gets, all cores)")
@click.option("--parallel", type=Counts(), default="1,2,4", show_default=True, help="conversations at once")
@click.option(
    "--ctx", type=Counts(tokens=True), default="512", show_default=True,
    help="cells of each conversation, nearly filled",
)  # fmt: skip
@click.option("--engine", default="xllamacpp", shell_complete=named("engines"), show_default=True)
@click.option("--cache-type", type=click.Choice(["f16", "q8_0", "q4_0"]), default="f16", show_default=True)
@click.option("--last", is_flag=True, help="show what was measured last, and measure nothing")
@click.option("--status", is_flag=True, help="how far the one under way is")
@click.option("--cancel", is_flag=True, help="end the one under way, whoever began it; nothing of it is kept")
@click.option("--no-wait", is_flag=True, help="begin it and come back at once")
@with_options
def bench(
    model: str | None, threads: tuple[int, ...], parallel: tuple[int, ...], ctx: tuple[int, ...], engine: str,
    cache_type: str, last: bool, status: bool, cancel: bool, no_wait: bool,
) -> None:  # fmt: skip
    """Measure a model over threads, slots and context.

    The curve is kept, drawn, and corrects what `corral fit` and `corral models recommend` say. Each point is admitted
    as a deployment would be; what does not fit is left out. Ctrl+c ends it, and nothing is kept; where this is ended
    otherwise (SIGTERM, a closed terminal) it goes on: --status, --cancel, without MODEL those of whichever it is.
    """
    if model is None and not status and not cancel:
        raise click.UsageError("name a model")
    object = f"model:{parted(model)[0]}" if model else "model:*"
    if turn(object, status=status, cancel=cancel, last=last, no_wait=no_wait):
        return
    assert model is not None
    if last:
        kept = run(lambda client: client.choosing.benches(model))
        if options().json:
            as_json(kept)
        elif kept:
            print_bench(kept[0])
        else:
            say(f"{line(model)} was not measured yet: corral models bench {line(model)}")
        return

    job = begun(
        lambda client: client.choosing.measure_model(
            model, threads=threads, parallel=parallel, ctx=ctx, engine=engine, cache_type=cache_type
        ),
        no_wait=no_wait,
    )  # fmt: skip
    if job is None or job.bench is None:
        return
    if options().json:
        as_json(job.bench)
    elif not options().quiet:
        print_bench(job.bench)


def print_bench(found: Bench) -> None:
    """The curve as bars of the tokens/s of all together, beside those of each."""
    say(f"{line(found.model)} on {line(found.node)}, {line(found.engine)} {line(found.version)}, cache"
        f" {line(found.cache_type)}; {age(found.at)}")  # fmt: skip
    most = max((each.total for each in found.points), default=0.0) or 1.0
    block = "#" if draws_ascii(os.environ, sys.stdout.encoding) else "█"
    table(
        ("THREADS", "AT ONCE", "CONTEXT", "EACH", "TOTAL", "EXPECTED", "PROMPT", "FIRST", "ALL TOGETHER, TOKENS/S"),
        [
            (at.threads, at.parallel, at.ctx, f"{at.each:.1f}", f"{at.total:.1f}",
             f"{at.expected:.1f}" if at.expected else "-", f"{at.prefill:.0f}", f"{at.ttft_s:.2f} s",
             block * max(1, round(BAR * at.total / most)))
            for at in found.points
        ],
        spare=("EXPECTED", "PROMPT", "CONTEXT", "FIRST"),
    )  # fmt: skip
    for words in found.left_out:
        note(f"left out: {words}")
    if found.replicas:
        note(f"{found.replicas} {plural(found.replicas, 'replica')} ran beside it")
