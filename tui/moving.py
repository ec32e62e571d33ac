"""What a move to another tier would be, in words: what goes where, what room there is, how fast it loads from there."""

from __future__ import annotations

from collections.abc import Sequence

from core.nouns import LoadTime, Model, Tier
from tui.plain import line
from tui.words import lasting, size


def way(model: Model, to: str, tiers: Sequence[Tier], *, spills: bool = True) -> str:
    """What moving a version to the tier `to` would be; with `spills`, where that one spills to if it is full."""
    chosen = next((each for each in tiers if each.name == to), None)
    if chosen is None:
        return f"No tier is called {to}"
    if to == model.tier:
        return f"{model.reference} lies in {to} already"
    return f"{size(model.bytes)} of {model.reference} go from {model.tier} to {to}, {_room(model, chosen, spills)}"


def told(model: Model, to: str, tiers: Sequence[Tier], loads: Sequence[LoadTime]) -> str:
    """What the move would be, and what there is to choose from."""
    out = [way(model, to, tiers) if to else f"{model.reference}, {size(model.bytes)}, lies in {model.tier}", ""]
    times = {each.tier: each for each in loads}
    for tier in tiers:
        load = times.get(tier.name)
        cold = f", loads in {lasting(load.cold_s)} cold" if load is not None and load.cold_s is not None else ""
        what = "" if tier.state == "there" else f", {tier.state}: {tier.reason}"
        out.append(f"  {tier.name:12} {size(tier.free_bytes):>9} left{cold}{what}")
    return "\n".join(map(line, out))


def _room(model: Model, tier: Tier, spills: bool) -> str:
    if tier.state != "there":
        return f"which is {tier.state}: {tier.reason}"
    if tier.free_bytes >= model.bytes:
        return f"where {size(tier.free_bytes)} are left"
    on = f"; it spills to {tier.spill}" if tier.spill and spills else ""
    return f"WHERE ONLY {size(tier.free_bytes)} ARE LEFT{on}"
