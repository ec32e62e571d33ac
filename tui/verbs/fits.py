"""Which models fit this host now: all that are stored, and all of the curated list."""

from __future__ import annotations

import click

from core.nouns import Fit
from tui.command import options, run, with_options
from tui.lines import as_json, say, table
from tui.plain import line
from tui.words import size


@click.command()
@click.option("--all", "every", is_flag=True, help="also what does not fit")
@with_options
def fits(every: bool) -> None:
    """Which models fit this host now, stored and in the catalogue.

    With the default context and one slot; `corral fit MODEL` plans a stored one exactly. REPACKED is what of TAKES is a
    copy of the weights, which the engine makes of some quantisations for the CPU.
    """
    found = run(lambda client: client.catalog.fits())
    shown = [each for each in found.models if every or each.fits]
    if options().json:
        as_json({"room_bytes": found.room_bytes, "models": shown})
        return
    if options().quiet:
        for each in shown:
            if every or each.there:
                say(line(each.name))
        return
    copied = any(each.repack_bytes for each in shown)
    table(
        ("NAME", "STORED", "QUANT", "SIZE", "TAKES", *(["REPACKED"] if copied else []), "FITS"),
        [
            (each.name, "yes" if each.stored else "no", each.quantization or "?", _size(each),
             size(each.plan_bytes) if each.plan_bytes else "?",
             *([size(each.repack_bytes) if each.repack_bytes else "-"] if copied else []), _fits(each))
            for each in shown
        ],
        spare=("SIZE", "REPACKED", "QUANT"),
    )  # fmt: skip
    for each in shown:
        if each.state == "away":
            say(f"! {line(each.name)} is away: its tier {line(each.tier)} is not there")
    say(f"{size(found.room_bytes)} may be had now" + ("" if shown else "; nothing fits that"))


def _size(fit: Fit) -> str:
    return f"{'~' if fit.computed else ''}{size(fit.bytes)}" if fit.bytes else "?"


def _fits(fit: Fit) -> str:
    if not fit.there:
        return fit.state
    return "yes" if fit.fits else "no" if fit.plan_bytes else "?"
