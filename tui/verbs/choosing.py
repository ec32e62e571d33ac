"""Which model to take, with the reasons."""

from __future__ import annotations

import click

from core.nouns import USES, Choice, Recommendation, Wishes
from tui.amounts import Number, Size, Tokens, Whole
from tui.columns import CELL
from tui.command import filled, options, run, with_options
from tui.lines import as_json, bounded, say, table
from tui.plain import line
from tui.words import size


@click.command("recommend")
@click.option(
    "--for", "use", type=click.Choice(USES), default="general", show_default=True, help="what it is wanted for"
)
@click.option("--users", type=Whole(1, 256), default=1, show_default=True, help="who are answered at once")
@click.option(
    "--context", "ctx", type=Tokens(), default="4096", show_default=True, help="tokens of each conversation, e.g. 8k"
)
@click.option(
    "--min-speed", type=Number(0, 1e6), default=0.0, help="tokens/s for each of the users; 10 is faster than one reads"
)
@click.option("--memory", type=Size(), default="0", help="what it may take, e.g. 16GiB (default: what is free)")
@click.option("--node", default="local", callback=filled, show_default=True, help="host to weigh it for")
@click.option(
    "--licence",
    "licences",
    multiple=True,
    callback=filled,
    help="only these, e.g. apache-2.0 or apache* (repeat for more)",
)
@click.option("--prompt", type=Tokens(), default="512", show_default=True, help="tokens of a question")
@click.option("--limit", type=Whole(1, 100), default=10, show_default=True, help="answers at most")
@with_options
def recommend(
    use: str, users: int, ctx: int, min_speed: float, memory: int, node: str, licences: tuple[str, ...], prompt: int,
    limit: int,
) -> None:  # fmt: skip
    """Which model to take, of those stored and those in the catalogue.

    Each with its reasons, and the command that pulls and deploys it. Exit 5 if none meets every wish.
    """
    wishes = Wishes(
        use=use, users=users, ctx=ctx, min_speed=min_speed, memory=memory, node=node, licences=licences, prompt=prompt,
        limit=limit,
    )  # fmt: skip
    found = run(lambda client: client.choosing.recommend(wishes))
    if options().json:
        as_json(found)
    elif options().quiet:
        for each in found.choices:
            say(line(each.name))
    else:
        print_recommendation(found)
    if not found.choices:
        raise click.exceptions.Exit(5)


def print_recommendation(found: Recommendation) -> None:
    """The table, and why."""
    if found.plain:
        say(f"plain advice: {line(found.plain)}")
    if found.overruled:
        say(f"but {line(found.overruled)}")
    shown = found.choices or found.nearest
    if not found.choices:
        say(f"nothing meets every wish ({found.weighed} looked at)" + ("; the nearest:" if shown else ""))
    say()
    table(
        ("#", "MODEL", "QUANT", "QUALITY", "TOK/S EACH", "MEMORY", "LICENCE", "WHERE"),
        [_row(each) for each in shown],
        spare=("WHERE", "LICENCE", "QUANT", "MEMORY"),
    )
    for each in shown:
        say()
        say(f"{each.rank}. {line(each.title)} {line(each.quantization)}".rstrip())
        for need in each.needs:
            say(f"   needs {line(need)}")
        for reason in each.reasons:
            say(f"   - {line(reason)}")
        if each.commands:
            say(f"   $ {line(' && '.join(each.commands))}")
    for words in found.notes:
        say()
        say(f"note: {line(words)}")


def _row(each: Choice) -> tuple[object, ...]:
    speed = f"{each.speed.each:.1f}" if each.speed.known else "?"
    memory = ("<= " if each.bound else "") + size(each.plan_bytes) if each.plan_bytes else "?"
    memory += " (too much)" if each.short_bytes else ""
    return (
        each.rank, each.name, each.quantization, "?" if each.quality is None else f"{each.quality:.2f}", speed,
        memory, bounded(each.licence or "?", CELL), "stored" if each.stored else "catalogue",
    )  # fmt: skip
