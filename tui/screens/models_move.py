"""The form that moves a version to another tier: what room there is, and how fast it loads from there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from core.nouns import Model
from tui.moving import told
from tui.screens.models_forms import OfModel
from tui.widgets.form import Field


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
