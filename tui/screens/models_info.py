"""One model on a screen of its own: all that is known of it, and what happened to it."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import CorralError
from core.nouns import Event, ModelChange
from tui.modelstory import Story, read, whole
from tui.plain import plain
from tui.screens.whole import Whole
from tui.spoken import spoken
from tui.stock import Offer
from tui.words import moment


class Info(Whole):
    """Versions, header, template, licence, memory, load times, what the catalogue says; read anew when it changes."""

    def __init__(self, offer: Offer) -> None:
        super().__init__(f"Reading {offer.name}")
        self.story = Story(offer, (offer.model,) if offer.model else ())

    def on_mount(self) -> None:
        super().on_mount()
        self._show()
        self._ask()

    def on_resize(self) -> None:
        super().on_resize()
        if self.stands:
            self._show()

    def draw(self, kinds: set[str]) -> None:
        if "reload" in kinds:
            self._ask()

    def happened(self, event: Event) -> None:
        if event.type == "model" and event.object == f"model:{self.story.offer.name}":
            self._ask()

    def _ask(self) -> None:
        if self.corral.client is not None:
            self.run_worker(self._read, group="story", exclusive=True, exit_on_error=True)  # type: ignore[arg-type]

    async def _read(self) -> None:
        offer = self.story.offer
        model = self.corral.state.models.get(offer.name) if offer.model is not None else None
        try:
            self.story = await read(self.corral.client, offer._replace(model=model or offer.model), whole=True)
        except (CorralError, OSError, EOFError, TimeoutError) as error:
            if self.stands:
                self.say(spoken(error))
            return
        if self.stands:
            self._show()

    def _show(self) -> None:
        self.set(whole(self.story, max(40, self.app.size.width - 2), self.corral.ascii))


def told(changes: Sequence[ModelChange]) -> str:
    """What happened to a name's versions and aliases, newest first."""
    lines = [f"{moment(c.at)}  {c.by:10}  {c.what:14}  @{c.version}  {c.detail}".rstrip() for c in changes]
    return plain("\n".join(lines)) or "Nothing happened to it yet"


class History(Whole):
    """Read anew when something happens to it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Reading what happened to {name}")
        self.model = name

    def on_mount(self) -> None:
        super().on_mount()
        self._ask()

    def happened(self, event: Event) -> None:
        if event.type == "model" and event.object == f"model:{self.model}":
            self._ask()

    def _ask(self) -> None:
        self.corral.act(lambda client: client.catalog.history(self.model), self._show)

    def _show(self, found: Sequence[ModelChange]) -> None:
        self.set(f"{plain(self.model)}, newest first\n\n{told(found)}")
