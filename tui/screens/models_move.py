"""The form that moves a version to another tier: what room there is, and how fast it loads from there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from core.nouns import LoadTime, Model, Tier
from tui.plain import line
from tui.screens.models_forms import OfModels
from tui.widgets.form import Field
from tui.words import lasting, size


class MoveForm(OfModels):
    """The move is a job of the daemon: `t` on the Models screen shows how far it is."""

    HEADLINE = "Move a version to another tier: copied, verified, switched, then removed where it was"
    SENDS = "Move"

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def fields(self) -> list[Field]:
        return [
            Field("which", "version", str(self.model.version), "its number, or an alias"),
            Field("tier", "to tier", "", "its name; those that there are stand below"),
        ]

    def typed(self) -> tuple[str, str]:
        """`chat@3` and a tier. Raises ValueError."""
        which = self.value("which")
        if not which:
            raise ValueError("Name the version: its number, or an alias")
        return f"{self.model.name}{'@' if which.isdecimal() else ':'}{which}", self.value("tier")

    def question(self) -> Callable[[Any], Awaitable[str]]:
        wanted, tier = self.typed()

        async def ask(client: Any) -> str:
            model: Model = await client.model(wanted)
            return told(model, tier, await client.tiers.ls(), await client.tiers.loads(wanted))

        return ask

    def action_send(self) -> None:
        try:
            wanted, tier = self.typed()
            if not tier:
                raise ValueError("Name the tier")
        except ValueError as error:
            self.say(str(error))
            return

        def taken(job: Any) -> None:
            self.corral.state.moves[job.id] = job
            self.leave(f"{job.model} goes from {job.from_tier} to {job.to_tier}; t shows how far", self.model.name)

        self.corral.act(lambda client: client.tiers.move(wanted, tier), taken)


def told(model: Model, to: str, tiers: Sequence[Tier], loads: Sequence[LoadTime]) -> str:
    """What the move would be, and what there is to choose from."""
    out = []
    chosen = next((each for each in tiers if each.name == to), None)
    if not to:
        out.append(f"{model.reference}, {size(model.bytes)}, lies in {model.tier}")
    elif chosen is None:
        out.append(f"No tier is called {to}")
    elif to == model.tier:
        out.append(f"{model.reference} lies in {to} already")
    else:
        out.append(f"{size(model.bytes)} of {model.reference} go from {model.tier} to {to}, {_room(model, chosen)}")
    times = {each.tier: each for each in loads}
    out.append("")
    for tier in tiers:
        load = times.get(tier.name)
        cold = f", loads in {lasting(load.cold_s)} cold" if load is not None and load.cold_s is not None else ""
        what = "" if tier.state == "there" else f", {tier.state}: {tier.reason}"
        out.append(f"  {tier.name:12} {size(tier.free_bytes):>9} left{cold}{what}")
    return "\n".join(map(line, out))


def _room(model: Model, tier: Tier) -> str:
    if tier.state != "there":
        return f"which is {tier.state}: {tier.reason}"
    if tier.free_bytes >= model.bytes:
        return f"where {size(tier.free_bytes)} are left"
    spills = f"; it spills to {tier.spill}" if tier.spill else ""
    return f"WHERE ONLY {size(tier.free_bytes)} ARE LEFT{spills}"
