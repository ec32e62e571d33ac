"""Moves to another tier in words: what one would be, what each tier takes, what goes along and what stays."""

from __future__ import annotations

from collections.abc import Sequence

from core.nouns import LoadTime, Model, MoveJob, Tier
from tui.plain import line
from tui.words import lasting, size

HERE, SHUT = "* ", "- "
"""Before the tier where a version lies, and before one that cannot take it."""


def way(model: Model, to: str, tiers: Sequence[Tier], *, spills: bool = True) -> str:
    """What moving a version to the tier `to` would be; with `spills`, where that one spills to if it is full."""
    chosen = next((each for each in tiers if each.name == to), None)
    if chosen is None:
        return f"No tier is called {to}"
    if to == model.tier:
        return f"{model.reference} lies in {to} already"
    return f"{size(model.bytes)} of {model.reference} go from {model.tier} to {to}, {_room(model, chosen, spills)}"


def rooms(model: Model, tiers: Sequence[Tier], loads: Sequence[LoadTime]) -> list[str]:
    """Each tier with its free room and how fast it loads from there; the one where the version lies is marked, and so
    is one that cannot take it, with its reason."""
    times = {each.tier: each for each in loads}
    wide = max((len(each.name) for each in tiers), default=0)
    out = []
    for tier in tiers:
        load = times.get(tier.name)
        cold = f", loads in {lasting(load.cold_s)} cold" if load is not None and load.cold_s is not None else ""
        mark, why = _taken(model, tier, tiers)
        out.append(line(f"{mark}{tier.name:{wide}}  {size(tier.free_bytes):>9} left{cold}{why}"))
    return out


def shut(model: Model, to: str, tiers: Sequence[Tier]) -> bool:
    """Whether a tier cannot take a version, as far as the tiers tell."""
    return any(each.name == to and _taken(model, each, tiers)[0] != "  " for each in tiers)


def _taken(model: Model, tier: Tier, tiers: Sequence[Tier]) -> tuple[str, str]:
    """The mark of a tier and why."""
    if tier.name == model.tier:
        return HERE, f", {model.reference} lies here" + (f", {tier.state}: {tier.reason}" if tier.reason else "")
    if tier.state != "there":
        return SHUT, f", {tier.state}: {tier.reason}"
    if tier.free_bytes >= model.bytes:
        return "  ", ""
    there, seen, to = {each.name: each for each in tiers}, {tier.name}, tier.spill
    while to in there and to not in seen:
        if to == model.tier:
            return SHUT, f", too little: it spills to {to}, where that lies"
        if there[to].state == "there" and there[to].free_bytes >= model.bytes:
            return "  ", f", too little: it goes to {to}, to which that spills"
        seen.add(to)
        to = there[to].spill
    return SHUT, f", too little: it takes {size(model.bytes)}"


def planned(job: MoveJob, tiers: Sequence[Tier]) -> list[str]:
    """What a move would be, as the daemon says it."""
    room = next((each.free_bytes for each in tiers if each.name == job.to_tier), None)
    left = f", where {size(room)} are left" if room is not None else ""
    full = f" ({'; '.join(job.spilled)})" if job.spilled else ""
    words = f"{size(job.bytes_total)} of {job.model} go from {job.from_tier} to {job.to_tier}{full}{left}"
    return [line(words), *map(line, along(job))]


def along(job: MoveJob) -> list[str]:
    """What goes with a version, what would bring it back, and what stays where it was."""
    out = [f"with its {' and its '.join(job.beside)}"] if job.beside else []
    out += [f"with {', '.join(job.touches)}, being made of the same bytes"] if job.touches else []
    out += [back(job)] if job.back else []
    out += [f"{size(job.left_bytes)} stay on {job.from_tier} as well, until it takes changes"] if job.left_bytes else []
    return out


def back(job: MoveJob) -> str:
    """Whose start would undo a move."""
    need = "need" if len(job.back) > 1 else "needs"
    return f"{', '.join(job.back)}, stopped now, {need} it elsewhere than on {job.to_tier}: a start moves it there"


def _room(model: Model, tier: Tier, spills: bool) -> str:
    if tier.state != "there":
        return f"which is {tier.state}: {tier.reason}"
    if tier.free_bytes >= model.bytes:
        return f"where {size(tier.free_bytes)} are left"
    on = f"; it spills to {tier.spill}" if tier.spill and spills else ""
    return f"WHERE ONLY {size(tier.free_bytes)} ARE LEFT{on}"
