"""What is said of a version that was imported or pulled."""

from __future__ import annotations

from core.nouns import Model
from tui.lines import bounded, say
from tui.plain import line
from tui.words import size


def arrived(how: str, model: Model, stored: int = 0, *, deployed: bool = False) -> None:
    """`imported`, `pulled`: what it is, where it lies if not in the first of all tiers, what of it (bytes) was stored
    before, and what may come next, unless it is `deployed`."""
    said = model.reference if model.versions > 1 else model.name
    where = f", in {line(model.tier)}" if model.tier != "home" else ""
    say(f"{how} {line(said)}: {size(model.bytes)}, licence {bounded(model.licence or 'not stated')}{where}")
    if stored:
        part = "its bytes" if stored >= model.bytes else f"{size(stored)} of it"
        say(f"{part} were stored already: no second copy is kept")
    for flag in model.flags:
        shows = "template" if "chat template" in flag else "show"
        say(f"! {line(flag)}: corral models {shows} {line(model.reference)}")
    if deployed:
        return
    if "live" in model.aliases:
        say(f"next: corral deploy {line(model.name)}")
    else:
        say(f"next: corral models alias {line(model.name)} live {model.version}, or corral deploy {line(said)}")
