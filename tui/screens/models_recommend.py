"""The form that says which model to take: its answer changes while one types, and one key pulls and deploys it."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from core.amounts import size_of
from core.nouns import USES, Choice, DeploymentSpec, Pull, Recommendation, Wishes
from tui.plain import line
from tui.rights import lacks
from tui.screens import FOLDER
from tui.screens.room import Note, Room
from tui.screens.whole import Whole
from tui.speed import reads
from tui.widgets.asking import Asking
from tui.widgets.entry import Entry
from tui.widgets.form import Field, Form
from tui.widgets.table import Column, Row, Table
from tui.words import lasting, size


class Steps(NamedTuple):
    """What makes a choice run. `source` "": it is stored."""

    source: str
    spec: DeploymentSpec


def steps(choice: Choice) -> Steps | None:
    """By the commands that the answer itself names, so that the key does what they do; None if there are none."""
    argv = [shlex.split(each) for each in choice.commands]
    deploys = [each for each in argv if each[:2] == ["corral", "deploy"] and len(each) > 2]
    pulls = [each for each in argv if each[:3] == ["corral", "models", "pull"] and "--deploy" in each]
    if not (deploys if choice.stored else pulls):
        return None
    words = deploys[-1] if choice.stored else pulls[-1]

    def number(option: str) -> int:
        value = words[words.index(option) + 1] if option in words[:-1] else ""
        return int(value) if value.isdecimal() else 0

    spec = DeploymentSpec(
        name=choice.name, model=words[2] if choice.stored else choice.name, ctx=number("--ctx"),
        parallel=number("--parallel") or 1, embedding="--embedding" in words, rerank="--rerank" in words,
    )  # fmt: skip
    return Steps("" if choice.stored else words[3], spec)


class Recommend(Asking):
    """Wishes above, the answer below, the best first; tab goes from one to the other."""

    ROOM = "recommend"
    ASKS = frozenset({"take"})
    HEADLINE = "Which model to take: change a wish, and the answer changes"
    SENDS = "Pull and deploy"
    REPLACED = True
    CSS_PATH: ClassVar = [*Form.CSS_PATH, FOLDER / "models.tcss"]

    def __init__(self) -> None:
        super().__init__()
        self._choices: dict[str, Choice] = {}

    def fields(self) -> list[Field]:
        return [
            Field("use", "for", "general", ", ".join(USES)),
            Field("users", "users at once", "1"),
            Field("ctx", "context", "4096", "tokens of each conversation; 8k is 8192"),
            Field("min_speed", "at least", "", "tokens a second for each of them"),
            Field("memory", "memory", "", "default: what is free here; 16G"),
            Field("licence", "licence", "", "default: any; apache-2.0 mit llama*"),
        ]

    def fill(self) -> ComposeResult:
        with Vertical(id="wishes"):
            yield Static(self.HEADLINE, markup=False)
            for field in self.fields():
                with Horizontal():
                    yield Static(field.label, classes="label", markup=False)
                    yield Entry(field.value, hint=field.hint, id=f"field-{field.key}", replaced=self.REPLACED)
        yield Note(id="plainly")
        yield Table(
            [
                Column("", 2), Column("model", 14, fit=True), Column("quant", 8, 3), Column("size", 9, 4, True),
                Column("takes", 9, 2, True), Column("tok/s", 6, 1, True), Column("quality", 7, 1, True),
                Column("loads", 6, 5, True), Column("licence", 10, 4), Column("here", 4, 3),
                Column("why", 20, 2, flex=True),
            ],
            id="choices",
        )  # fmt: skip
        yield Note(id="reasons")
        yield Static("", id="consequence", markup=False)

    # ------------------------------------------------------------------ asking

    def wishes(self) -> Wishes:
        """What is typed. Raises ValueError with the field that is wrong."""
        use = self.value("use") or "general"
        if use not in USES:
            near = [each for each in USES if each.startswith(use)]
            if len(near) != 1:
                raise ValueError(f"for is one of {', '.join(USES)}")
            use = near[0]
        speed = self.value("min_speed")
        try:
            least = float(speed) if speed else 0.0
        except ValueError:
            raise ValueError(f"at least is a number of tokens a second, not {speed!r}") from None
        return Wishes(
            use=use, users=_whole(self.value("users") or "1", "users"), min_speed=least,
            ctx=_whole(self.value("ctx") or "4096", "context"),
            memory=size_of(self.value("memory")) if self.value("memory") else 0,
            licences=tuple(self.value("licence").replace(",", " ").split()),
        )  # fmt: skip

    def question(self) -> Callable[[Any], Awaitable[str]]:
        wishes = self.wishes()

        async def ask(client: Any) -> str:
            found: Recommendation = await client.choosing.recommend(wishes)
            if self.stands:
                self._take(found)
            return ""

        return ask

    def show(self, words: str) -> None:
        if words:  # what is wrong with a wish is no answer, and the one before was to other wishes
            self._answer_none()
        box = self.query_one("#consequence", Static)
        box.update(words)
        box.display = bool(words)

    def _take(self, found: Recommendation) -> None:
        shown = found.choices or found.nearest
        self._choices = {f"{c.name} {c.quantization}": c for c in shown}
        said = [found.overruled or found.plain, *found.notes]
        lead = f"{found.weighed} weighed against {size(found.room_bytes)}"
        if not found.choices:
            lead += f": NOTHING MEETS EVERY WISH, the nearest {len(shown)} and what they need" if shown else ": none"
        self.query_one("#plainly", Note).set(". ".join([lead, *(each for each in said if each)]))
        table = self.query_one("#choices", Table)
        table.none("Nothing is known that is for this")
        table.set_rows([_row(key, each, nearest=not found.choices) for key, each in self._choices.items()])
        table.move(0)
        self._tell()
        self.mind_keys()

    def _answer_none(self) -> None:
        self._choices = {}
        self.query_one("#plainly", Note).set("")
        table = self.query_one("#choices", Table)
        table.none("")
        table.set_rows([])
        self._tell()
        self.mind_keys()

    def _tell(self) -> None:
        choice = self.choice()
        words = "; ".join(_why(choice)) if choice is not None else ""
        self.query_one("#reasons", Note).set(f"-- {words}" if words else "")

    def choice(self) -> Choice | None:
        """The one under the cursor."""
        return self._choices.get(self.query_one("#choices", Table).key)

    # ------------------------------------------------------------------ keys

    def keys(self) -> list[tuple[str, bool]]:
        if self.field() is None:
            return [*((w, f) for w, f in Room.keys(self) if w != "esc Back"), ("tab Wishes", True), ("esc Close", True)]
        return [("enter Next", True), (f"ctrl+s {self.SENDS}", not self.hindered("take")), ("esc To the answer", True)]

    def hindered(self, action: str) -> str:
        choice = self.choice()
        if choice is None:
            return "Nothing is recommended yet"
        made = steps(choice)
        if action == "take" and made is None:
            return f"Where to pull {choice.name} from is not known: ! tells what is"
        if action == "copy" and not choice.commands:
            return "There is nothing here to copy"
        if action == "take" and made is not None and self.corral.client is not None:
            why = lacks(self.corral.state.me, "models.import", f"model:{choice.name}") if made.source else ""
            if why:
                return why
        return super().hindered(action)

    def about(self, action: str) -> str:
        choice = self.choice()
        return f"deployment:{choice.name}" if action == "take" and choice is not None else ""

    def on_input_submitted(self, event: Any) -> None:
        if event.input is self._last():
            self.query_one("#choices", Table).focus()
        else:
            self.focus_next(Input)

    def action_back(self) -> None:
        if isinstance(self.focused, Input):
            self.query_one("#choices", Table).focus()
        else:
            self.app.pop_screen()

    def on_table_moved(self, event: Table.Moved) -> None:
        self._tell()
        self.mind_keys()

    async def on_table_opened(self, event: Table.Opened) -> None:
        await self.action_do("reasons")

    async def action_send(self) -> None:  # type: ignore[override]
        await self.action_do("take")

    def copied(self) -> str:
        choice = self.choice()
        return "\n".join(choice.commands) if choice is not None else ""

    def action_reasons(self) -> None:
        choice = self.choice()
        if choice is not None:
            self.app.push_screen(Whole("\n".join(_story(choice))))

    def action_take(self) -> None:
        """What is stored is deployed by its form, with what is wished; the rest is pulled first, after asking."""
        from tui.screens.deploy import DeployForm

        choice = self.choice()
        made = steps(choice) if choice is not None else None
        if choice is None or made is None:
            return
        spec = made.spec
        if not made.source:
            self.app.push_screen(DeployForm(spec.model, spec))
            return
        how = f"ctx {spec.ctx or 'by default'}, {spec.parallel} at once"
        self.confirmed(
            f"Pull {made.source} ({size(choice.bytes)}) as {spec.model}, and deploy it ({how}) when it is here?",
            lambda client: client.pulls.begin(made.source, name=spec.model, deploy={"spec": spec, "replace": False}),
            then=self._begun,
        )

    def _begun(self, pull: Pull) -> None:
        self.corral.state.pulls[pull.id] = pull
        self.app.pop_screen()
        told = "the daemon deploys it when it is here; t shows how far, x there cancels it, d leaves it undeployed"
        self.corral.go("models", say=line(f"Pulling {pull.name}: {told}"))


def _row(key: str, choice: Choice, *, nearest: bool) -> Row:
    speed = choice.speed
    why = "; ".join(choice.needs) if nearest else (choice.reasons[0] if choice.reasons else "")
    cells = (
        str(choice.rank), choice.name, choice.quantization, size(choice.bytes) if choice.bytes else "?",
        f"{'<' if choice.bound else ''}{size(choice.plan_bytes)}" if choice.plan_bytes else "?",
        f"{speed.each:.1f}" if speed.known else "?", "?" if choice.quality is None else f"{choice.quality:.2f}",
        lasting(choice.load_s) if choice.load_s is not None else "?", choice.licence or "?",
        "yes" if choice.stored else "no", why,
    )  # fmt: skip
    return Row(key, cells, dim=nearest)


def _why(choice: Choice) -> list[str]:
    return [*(f"NEEDS {each}" for each in choice.needs), *choice.reasons]


def _story(choice: Choice) -> Iterator[str]:
    """Everything that is said of one."""
    yield line(f"{choice.rank}. {choice.title or choice.name}, {choice.quantization}")
    yield ""
    yield from (f"- {line(each)}" for each in _why(choice))
    if choice.speed.known:
        speed = choice.speed
        yield ""
        writes = (
            f"reads {speed.prefill:.0f} and makes {speed.decode:.1f} tokens a second for one, give or take"
            f" {speed.error:.0%}, and {speed.each:.1f} for each of {speed.users}, give or take {speed.error_each:.0%}"
        )
        yield f"Speed: {writes if speed.writes else reads(speed)}"
        yield from (f"  {line(each)}" for each in speed.basis)
    if choice.commands:
        yield ""
        yield "p does what these do:"
        yield from (f"  {line(each)}" for each in choice.commands)


def _whole(text: str, what: str) -> int:
    """A number as it is typed; `8k` is 8192. Raises ValueError."""
    number, times = (text[:-1], 1024) if text[-1:].casefold() == "k" else (text, 1)
    if not (number.isascii() and number.isdecimal() and len(number) < 9 and int(number)):
        raise ValueError(f"{what} must be a whole number above 0, not {text!r}")
    return int(number) * times
