"""What is stored and what the catalogue has, in one list: which version is live, what fits, what it is for; and every
verb on it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.timer import Timer
from textual.widgets import Static

from core.errors import Changed, CorralError, NotFound
from core.nouns import CatalogueEntry, Event, Fits, Model, Verified
from tui import underway
from tui.modelstory import Story, read, short
from tui.rights import none, unseen
from tui.screens import FOLDER
from tui.screens.room import Line, Note, Room
from tui.spoken import spoken
from tui.stock import COLUMNS, Filter, Offer, offers, row, source_of
from tui.widgets.table import Row, Table
from tui.words import removal

TODO = ("i imports a file, p pulls one, m the sample", "models.import")
"""What to do where no model is, and what it needs."""
REST_S = 0.15
"""The cursor stands so long on a row before more of it is asked for."""
SOON_S = 0.1
ROOMY = (100, 28)
"""Cells and lines from which on there is a pane below the list."""
PANE = 13
"""Lines of it at most."""
OF_STORED = frozenset({"deploy", "remove", "alias", "diff", "history", "note", "move", "fit", "curve"})
"""What is done with a stored model alone."""


class Shelf(Table):
    """The list, whose filter knows more of a row than its cells."""

    def __init__(self) -> None:
        super().__init__(COLUMNS, id="models")
        self.offers: dict[str, Offer] = {}

    def offer(self) -> Offer | None:
        """The one under the cursor."""
        return self.offers.get(self.key)

    def unmatched(self) -> str:
        unknown = Filter(self.needle).unknown
        known = ", ".join(f"{key}:" for key in Filter.KEYS)
        return f"No filter is called {unknown}: there are {known}" if unknown else super().unmatched()

    def _matching(self, rows: list[Row]) -> list[Row]:
        if not self.needle:
            return rows
        wanted = Filter(self.needle)
        return [each for each in rows if wanted.takes(self.offers[each.key], each.cells)]


class Models(Room):
    """Screen 3."""

    ROOM = "models"
    CSS_PATH: ClassVar = [*Room.CSS_PATH, FOLDER / "models.tcss"]
    ASKS = frozenset({
        "import_model", "pull", "sample", "recommend", "verify", "gc", "explain", *OF_STORED,
    })  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._read: set[str] = set()
        """Jobs that are over and were taken note of."""
        self._entries: tuple[CatalogueEntry, ...] | None = None
        self._fits: Fits | None = None
        self._drawn: list[Any] = []
        """What the rows were made of."""
        self._stories: dict[str, Story] = {}
        self._timer: Timer | None = None
        self._asking: Timer | None = None
        self._asked: set[str] = set()
        """Kinds of changes that were not asked about yet."""
        self._seen_first = False
        """What had ended before this console looked was taken note of by somebody."""

    def fill(self) -> ComposeResult:
        yield Shelf()
        yield Note(id="job")
        yield Line(id="detail")
        yield Static("", id="pane", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.fold()

    def table(self) -> Shelf:
        return self.query_one(Shelf)

    def fold(self) -> None:
        roomy = self.app.size.width >= ROOMY[0] and self.app.size.height >= ROOMY[1]
        self.query_one("#pane").display = roomy
        self.query_one("#detail").display = not roomy
        self._show_chosen()

    # ------------------------------------------------------------------ drawing

    def draw(self, kinds: set[str]) -> None:
        if self.is_current and kinds & {"all", "reload", "model", "deployment", "deployment.gone", "model.gone"}:
            self._soon(kinds)
        self._show_rows()
        self._show_jobs()
        self._show_chosen()

    def _soon(self, kinds: set[str]) -> None:
        """Ask when the screen stands: with a thousand models the answer takes as long as drawing it."""
        self._asked |= kinds
        if self._asking is None:
            self._asking = self.set_timer(SOON_S, self._ask)

    def _ask(self) -> None:
        """Read what the picture has not: the catalogue once, and what fits now."""
        known, kinds = self.corral.state, self._asked
        self._asked, self._asking = set(), None
        if self.corral.client is None or unseen(known.me, "models.read", "models") or not self.stands:
            return
        self._stories.clear()
        entries = None if "reload" in kinds else self._entries
        look = partial(self._look, entries, bool(kinds & {"all", "reload"}))
        self.run_worker(look, group="stock", exclusive=True, exit_on_error=True)  # type: ignore[arg-type]

    async def _look(self, entries: tuple[CatalogueEntry, ...] | None, opened: bool) -> None:
        client = self.corral.client
        try:
            if entries is None:
                self._entries = (await client.curated.read()).entries
                if self.stands:
                    self._show_rows()
            self._keep(await client.catalog.fits())
            if opened:
                self.corral.state.verified = await _verified(client)
        except (CorralError, OSError, EOFError, TimeoutError) as error:
            if self.stands:
                self.say(spoken(error))
        if self.stands:
            self._show_rows()
            self._show_jobs()
            self._show_chosen()
            self.mind_keys()

    def _keep(self, found: Fits) -> None:
        """Take what fits now; what is the same as before makes no row anew."""
        if self._fits is None or self._fits.models != found.models:
            self._fits = found

    def _show_rows(self) -> None:
        """Make the rows anew where what they are made of is another: with a thousand models that takes 20 ms."""
        known, shelf = self.corral.state, self.table()
        shelf.none(self._no_model())
        made_of = [*known.models.values(), None, *known.deployments.values(), self._entries, self._fits, known.me]
        if len(made_of) == len(self._drawn) and all(a is b for a, b in zip(made_of, self._drawn, strict=True)):
            return
        self._drawn = made_of
        seen = () if unseen(known.me, "models.read", "models") else self._entries or ()
        found = offers(known.models, seen, self._fits, known.deployments.values())
        shelf.offers = {each.key: each for each in found}
        shelf.set_rows([row(each, self.corral.ascii) for each in found])

    def _show_jobs(self) -> None:
        """Tell of the newest that goes on, else of the newest that went wrong, until that is read or the next one of
        its kind is done."""
        known = self.corral.state
        if not self._seen_first and known.connection == "live":
            self._seen_first = True
            self._read |= {each.key for each in underway.jobs(known) if each.over and each.kind != "verify"}
        found = [each for each in underway.jobs(known) if each.key not in self._read]
        going = [each for each in found if not each.over]
        wrong = underway.troubles(found)
        words = ""
        if going:
            more = f" (t shows all {len(going)})" if len(going) > 1 else ""
            words = underway.told(going[0], self.corral.ascii) + more
        elif wrong:
            words = f"{underway.told(wrong[0], self.corral.ascii)} (esc takes this away)"
        elif not self.corral.state.models and self.corral.state.connection == "live":
            words = self._no_model()
        self.query_one("#job", Note).set(words)

    def _no_model(self) -> str:
        me = self.corral.state.me
        return unseen(me, "models.read", "models") or none(me, "No model yet", *TODO)

    def _show_chosen(self) -> None:
        """What is known of the row under the cursor; the rest comes when the cursor rests there."""
        if not self.stands:
            return
        offer, pane = self.table().offer(), self.query_one("#pane", Static)
        story = self._stories.get(offer.key) if offer is not None else None
        if offer is None:
            lines = ["--"]
        else:
            if story is None or story.offer.model is not offer.model:
                story = Story(offer, (offer.model,) if offer.model else ())
                self._rest()
            lines = short(story, max(40, self.app.size.width - 2), self.corral.ascii)
        self.query_one("#detail", Line).set(f"-- {lines[0]}")
        if pane.display:
            text = "\n".join(lines[:PANE])
            if str(pane.content) != text:
                pane.update(text)

    def _rest(self) -> None:
        """Ask for the rest of the chosen one when the cursor stands still, and only where there is room to show it."""
        if self._timer is not None:
            self._timer.stop()
        if self.query_one("#pane").display and self.corral.client is not None and self.is_current:
            self._timer = self.set_timer(REST_S, self._read_chosen)

    def _read_chosen(self) -> None:
        offer = self.table().offer()
        if offer is not None and self.corral.client is not None:
            self.run_worker(partial(self._tell, offer), group="story", exclusive=True, exit_on_error=True)  # type: ignore[arg-type]

    async def _tell(self, offer: Offer) -> None:
        try:
            story = await read(self.corral.client, offer, whole=False)
        except (CorralError, OSError, EOFError, TimeoutError):
            return  # the connection is being looked after elsewhere
        self._stories[offer.key] = story
        if self.stands:
            self._show_chosen()

    # ------------------------------------------------------------------ what is under way

    def happened(self, event: Event) -> None:
        if event.type == "bench" and isinstance(event.data, dict) and event.data.get("state") == "done":
            self._stories.pop(event.object.partition(":")[2], None)  # its pane has a curve to show
            self._show_chosen()

    def action_back(self) -> None:
        if not self.query("#needle.on"):
            self._read |= {each.key for each in underway.jobs(self.corral.state) if each.over}
            self._show_jobs()
        super().action_back()

    def on_table_moved(self, event: Table.Moved) -> None:
        self._show_chosen()
        self.mind_keys()

    async def on_table_opened(self, event: Table.Opened) -> None:
        await self.action_do("explain")

    # ------------------------------------------------------------------ what may be done

    def hindered(self, action: str) -> str:
        known, offer = self.corral.state, self.table().offer()
        if action in OF_STORED | {"explain"} and offer is None:
            return none(known.me, "No model is selected", *TODO)
        if action in OF_STORED and offer is not None and offer.model is None:
            return none(known.me, f"{offer.name} is not stored", "p pulls it", "models.import")
        if action == "remove" and offer is not None and offer.users:
            return f"{offer.name} is used by {', '.join(offer.users)}: remove that first, on screen 2"
        if action == "diff" and offer is not None and offer.model is not None and offer.model.versions < 2:
            return f"{offer.name} has one version: there is nothing to compare it with"
        if action == "sample" and any(m.origin == "sample" for m in known.models.values()):
            return "The sample is here already"
        return super().hindered(action)

    def about(self, action: str) -> str:
        offer = self.table().offer()
        mine = action in ("remove", "alias", "note", "move") and offer is not None
        return f"model:{offer.name}" if mine and offer is not None else ""

    def field_keys(self, field: Any) -> list[str]:
        return ["enter To the rows", "use:code fit:yes tier:fast by: flag: -word", "esc Clear"]

    def copied(self) -> str:
        offer = self.table().offer()
        return offer.name if offer is not None else ""

    def _chosen_name(self) -> str:
        offer = self.table().offer()
        return offer.name if offer is not None else ""

    # ------------------------------------------------------------------ verbs

    def action_deploy(self) -> None:
        from tui.screens.deploy import DeployForm

        self.app.push_screen(DeployForm(self._chosen_name()))

    def action_explain(self) -> None:
        from tui.screens.models_info import Info

        offer = self.table().offer()
        if offer is not None:
            self.app.push_screen(Info(offer))

    def action_import_model(self) -> None:
        from tui.screens.importing import ImportForm

        self.app.push_screen(ImportForm())

    def action_pull(self) -> None:
        from tui.screens.models_pull import PullForm

        offer = self.table().offer()
        source = source_of(offer) if offer is not None else ""
        self.app.push_screen(PullForm(source, offer.name if offer is not None and source else ""))

    def action_sample(self) -> None:
        self.corral.act(lambda client: client.import_sample(None), lambda job: self.say(""))

    def action_recommend(self) -> None:
        from tui.screens.models_recommend import Recommend

        self.app.push_screen(Recommend())

    def action_alias(self) -> None:
        from tui.screens.models_forms import AliasForm

        self._form(AliasForm)

    def action_note(self) -> None:
        from tui.screens.models_forms import NoteForm

        self._form(NoteForm)

    def action_diff(self) -> None:
        from tui.screens.models_forms import DiffForm

        self._form(DiffForm)

    def action_fit(self) -> None:
        from tui.screens.models_fit import FitForm

        self._form(FitForm)

    def action_curve(self) -> None:
        from tui.screens.models_curve import Curve

        self._form(Curve)

    def action_move(self) -> None:
        from tui.screens.models_move import MoveForm

        self._form(MoveForm)

    def _form(self, form: Any) -> None:
        offer = self.table().offer()
        if offer is not None and offer.model is not None:
            self.app.push_screen(form(offer.model))

    def action_history(self) -> None:
        from tui.screens.models_info import History

        self.app.push_screen(History(self._chosen_name()))

    def action_gc(self) -> None:
        from tui.screens.models_forms import GcForm

        self.app.push_screen(GcForm())

    def action_jobs(self) -> None:
        from tui.screens.models_jobs import Jobs

        self.app.push_screen(Jobs())

    def action_verify(self) -> None:
        from tui.screens.models_jobs import verify

        offer = self.table().offer()
        verify(self, offer.name if offer is not None and offer.model is not None else "")

    def action_remove(self) -> None:
        self._remove(self._chosen_name())

    def _remove(self, name: str, why: str = "") -> None:
        """Ask with what is there now; `why` it is asked anew."""

        def asked(found: Sequence[Model]) -> None:
            async def remove(client: Any) -> str:
                try:
                    await client.remove_model(name, [each.reference for each in found])
                except Changed as error:
                    return error.why
                return ""

            self.confirmed(
                f"{why}Remove {removal(name, found)} for good?", remove, typed=name,
                then=lambda changed: self._remove(name, f"Not done: {changed}. ") if changed else None,
            )  # fmt: skip

        self.corral.act(lambda client: client.catalog.versions(name), asked)


async def _verified(client: Any) -> Verified | None:
    try:
        found: Verified = await client.catalog.verified()
    except NotFound:
        return None
    return found
