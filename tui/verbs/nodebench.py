"""A host measured: what it reads from memory and passes of weights in a second."""

from __future__ import annotations

import click

from core.nouns import HostBench
from tui.command import filled, note, options, run, with_options
from tui.lines import as_json, ask, say, table
from tui.measured import begun, turn
from tui.plain import line
from tui.words import age, plural


@click.command("bench")
@click.argument("node", default="local", callback=filled)
@click.option("--last", is_flag=True, help="show what was measured last, and measure nothing")
@click.option("--status", is_flag=True, help="how far the one under way is")
@click.option("--cancel", is_flag=True, help="end the one under way, whoever began it; nothing of it is kept")
@click.option("--no-wait", is_flag=True, help="begin it and come back at once")
@click.option("--force", is_flag=True, help="keep it though others' work made nonsense of it")
@with_options
def bench(node: str, last: bool, status: bool, cancel: bool, no_wait: bool, force: bool) -> None:
    """Measure how fast a host is: about a minute.

    Its memory by threads, and what the default engine passes of each type of weights in a second. `corral fit` and
    `corral models recommend` reckon with it. What was seen of models so far is compared anew afterwards. Ctrl+c ends
    it, and nothing is kept; where this is ended otherwise (SIGTERM, a closed terminal) it goes on: --status, --cancel.
    """
    if turn(f"node:{node}", status=status, cancel=cancel, last=last, no_wait=no_wait):
        return
    if last:
        found = run(lambda client: client.choosing.node(node))
        if options().json:
            as_json(found)
        elif found.host is None:
            say(f"{line(node)} was not measured yet: corral nodes bench")
        else:
            print_host(found.host)
            say(f"{len(found.seen)} corrections by what was seen since (--json shows them)")
        return
    kept = run(lambda client: client.choosing.node(node))
    if kept.host is not None and kept.seen:
        said = f"{len(kept.seen)} {plural(len(kept.seen), 'correction')} by what was seen of models are learned anew"
        ask(f"{line(node)} was measured {age(kept.host.at)} ago; {said}. Measure it again?")

    job = begun(lambda client: client.choosing.measure_node(node, force=force), no_wait=no_wait)
    if job is None or job.host is None:
        return
    if options().json:
        as_json(job.host)
    elif not options().quiet:
        print_host(job.host)


def print_host(host: HostBench) -> None:
    """What was measured of a host."""
    say(f"{line(host.node)}: {line(host.cpu_model) or 'a CPU without a name'}, {host.cores} cores; {line(host.engine)}"
        f" {line(host.version)}; {age(host.at)}, took {host.seconds:.0f} s")  # fmt: skip
    table(
        ("THREADS", "READS MEMORY", "A LAYER", "A TOKEN", "LOOKS BACK NEAR/FAR/PROMPT", "VARIES"),
        [
            (at.threads, f"{read.bytes_s / 1e9:.1f} GB/s", f"{at.layer_s * 1e6:.1f} us", f"{at.token_s * 1e6:.0f} us",
             " / ".join(f"{each / 1e9:.1f}" for each in (at.attention_short, at.attention_one, at.attention_prompt))
             + " G/s", f"{at.spread:.0%}")
            for at, read in zip(host.beside, host.bandwidths, strict=True)
        ],
    )  # fmt: skip
    say()
    table(
        ("WEIGHTS", "THREADS", "ONE TOKEN", "TWO AT ONCE", "FOUR", "A PROMPT"),
        [
            (
                each.kind,
                each.threads,
                *(f"{rate / 1e9:.1f} G/s" for rate in (each.one, each.two, each.four, each.prompt)),
            )
            for each in host.rates
        ],
    )
    if host.crowded:
        say()
        say(f"threads on all {host.cores} cores beside one busy program: {host.crowded:.0%} is left of the speed")
    if host.replicas or host.load > 0.6:
        note(f"{host.replicas} replicas and a load of {host.load:.1f} a core were there: measure it again when idle")
