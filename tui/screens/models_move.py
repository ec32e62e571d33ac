"""The form that moves a version to another tier: what room there is, how fast it loads from there, what goes along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from textual.content import Content

from core.errors import CorralError
from core.nouns import Model, MoveJob
from tui.moving import HERE, SHUT, along, planned, rooms, shut, way
from tui.plain import line
from tui.screens.models_forms import OfModel
from tui.spoken import spoken
from tui.widgets.form import Field
from tui.words import size


class MoveForm(OfModel):
    """The move is a job of the daemon: `t` on the Models screen shows how far it is."""

    HEADLINE = "Move a version to another tier: copied, verified, switched, then removed where it was"
    SENDS = "Move"

    def fields(self) -> list[Field]:
        return [
            Field("which", "version", str(self.model.version), "its number, or an alias"),
            Field("tier", "to tier", "", "its name; those that there are stand below"),
        ]

    def typed(self) -> tuple[str, str]:
        """`chat@3` and a tier. Raises ValueError."""
        return self.version(), self.value("tier")

    def drawn(self, words: str) -> Content:
        """With the tiers that cannot be taken dimmed."""
        lines = words.split("\n")
        return Content("\n").join(
            Content.styled(each, "dim") if each.startswith((SHUT, HERE)) else Content(each) for each in lines
        )

    def question(self) -> Callable[[Any], Awaitable[str]]:
        wanted, tier = self.typed()

        async def ask(client: Any) -> str:
            model: Model = await client.model(wanted)
            tiers = await client.tiers.ls()
            listed = rooms(model, tiers, await client.tiers.loads(wanted))
            return "\n".join([*await _meant(client, model, tier, tiers), "", *listed])

        return ask

    def action_send(self) -> None:
        try:
            wanted, tier = self.typed()
        except ValueError as error:
            self.say(str(error))
            return
        if not tier:  # a version that is not there comes first
            self.corral.act(lambda client: client.model(wanted), lambda model: self.say("Name the tier"))
            return

        async def move(client: Any) -> MoveJob:
            begun: MoveJob = await client.tiers.move(wanted, tier)
            return begun

        def asked(plan: MoveJob) -> None:
            if not plan.touches:
                self.corral.act(move, self._taken)
                return
            what = f"Move {size(plan.bytes_total)} to {plan.to_tier}: {plan.model} {', '.join(along(plan))}?"
            self.confirmed(line(what), move, then=self._taken)

        self.corral.act(lambda client: client.tiers.move(wanted, tier, move=False), asked)

    def _taken(self, job: MoveJob) -> None:
        self.corral.state.moves[job.id] = job
        self.leave(f"{job.model} goes from {job.from_tier} to {job.to_tier}; t shows how far", self.model.name)


async def _meant(client: Any, model: Model, tier: str, tiers: Any) -> list[str]:
    """What the move would be; the daemon is asked where the tiers alone do not forbid it."""
    if not tier:
        return [f"{model.reference}, {size(model.bytes)}, lies in {model.tier}"]
    if tier not in [each.name for each in tiers] or shut(model, tier, tiers):
        return [way(model, tier, tiers)]
    try:
        return planned(await client.tiers.move(model.reference, tier, move=False), tiers)
    except CorralError as error:
        return [spoken(error)]
