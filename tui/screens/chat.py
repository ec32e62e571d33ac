"""Talk to a deployment: the turn is the daemon's, the screen streams it and says how fast it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from core.errors import Conflict, CorralError, NoDaemon
from core.nouns import Chat, ChatDetail, ChatOptions, Turn
from tui.plain import line, plain
from tui.screens.room import FOLDER, Line, Room
from tui.widgets.answer import Answer
from tui.widgets.entry import Entry
from tui.widgets.scroll import Scroll
from tui.widgets.table import Column, Row, Table

if TYPE_CHECKING:
    from textual.widget import Widget

NARROW = 100
"""Columns under which the list of chats and the conversation take turns."""
TURNS_SHOWN = 40
"""Answers are drawn as Markdown, some 10 ms each; older ones are a key away."""
DRAW_S = 0.1
"""Seconds between two looks of a streaming answer: faster is not read better and costs bytes."""
TRIES = 60
"""How often a stream that lost its daemon is taken up again, a second apart."""
IN_FLIGHT = ("waiting", "streaming")


def figures(turn: Turn) -> str:
    """One answer's figures on a line, and which key goes on from here."""
    if turn.state in IN_FLIGHT:
        return "answering; s stops it (in the field: esc, then s)"
    cut = turn.finish == "length"  # the engine's word for a limit that was reached
    words = [
        turn.state + (": cut off, max tokens or context reached" if cut else f" ({turn.finish})" if turn.finish else "")
    ]
    if turn.ttft_ms is not None:
        words.append(f"first token {turn.ttft_ms:.0f} ms")
    if turn.tokens_per_second is not None:
        words.append(f"{turn.tokens_per_second:.1f} tok/s")
    if turn.prompt_tokens is not None or turn.answer_tokens is not None:
        words.append(f"{turn.prompt_tokens or 0} tok in, {turn.answer_tokens or 0} out")
    if turn.reason:
        words.append(turn.reason)
    if can_go_on(turn):
        words.append("o goes on")
    return line(", ".join(words))


def can_go_on(turn: Turn) -> bool:
    """The answer is there in part."""
    return turn.state in ("cut", "stopped", "failed") or (turn.state == "done" and turn.finish == "length")


class TurnView(Vertical):
    """A question, its answer and its figures."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self.turn = turn

    def compose(self) -> ComposeResult:
        yield Static("> " + plain(self.turn.question), classes="question", markup=False)
        yield Answer(self.turn.answer, whole=self.turn.state not in IN_FLIGHT)
        yield Static(figures(self.turn), classes="figures", markup=False)

    async def grow(self, text: str) -> None:
        """The answer so far."""
        await self.query_one(Answer).show(text, whole=False)

    async def end(self, turn: Turn) -> None:
        """The answer is over."""
        self.turn = turn
        await self.query_one(Answer).show(turn.answer, whole=True)
        self.foot(figures(turn))

    def foot(self, words: str) -> None:
        """Put words where the figures will be."""
        self.query_one(".figures", Static).update(words)


def filled(turns: Sequence[Turn], growing: str) -> tuple[int, bool]:
    """Tokens of the context that the conversation takes, and whether they are guessed in part: the engine counts at the
    end of an answer, so what came after its last count (a stopped answer, `growing`) is taken as three bytes each."""
    used, since = 0, ""
    for turn in turns:
        if turn.context_tokens:
            used, since = turn.context_tokens, ""
        else:
            since += turn.question + turn.answer
    since += growing.removeprefix(turns[-1].answer) if turns else ""
    return used + len(since.encode()) // 3, bool(since)


class ChatRoom(Room):
    """Screen 5: the conversations at the left, one of them beside, and a line to write in. Under 100 columns the list
    and the conversation take turns: enter opens, esc goes back."""

    ROOM = "chat"
    ASKS = frozenset({"new", "stop_turn", "regenerate", "go_on", "full", "options", "rename", "export", "remove"})
    CSS_PATH: ClassVar = [*Room.CSS_PATH, FOLDER / "chat.tcss"]

    def __init__(self) -> None:
        super().__init__()
        self.chats: dict[str, Chat] = {}
        self.chat: Chat | None = None
        self.turns: list[Turn] = []
        self._growing = ""
        """What has come of the answer in the making."""
        self._editing: int | None = None
        self._asked = False
        self._sought = ""

    def fill(self) -> ComposeResult:
        with Horizontal():
            yield Table(
                [Column("chat", 16, flex=True), Column("with", 8, 1, fit=True), Column("turns", 5, 2, True)],
                empty="No chat yet: n begins one", id="chats",
            )  # fmt: skip
            with Vertical(id="conversation"):
                yield Line(id="about")
                yield Scroll(id="talk")
                yield Entry(hint="write, enter sends, esc leaves the field", id="ask")

    def on_mount(self) -> None:
        super().on_mount()
        self._to("chats")

    def on_resize(self) -> None:
        self._fold(self.focused is not None and self.focused.id in ("ask", "talk"))

    def _to(self, id: str) -> None:
        """Put the focus on the list, the talk or the field."""
        self._fold(id != "chats")
        self.query_one(f"#{id}").focus()

    def _fold(self, talking: bool) -> None:
        """Where there is no room for both: the list, or the conversation."""
        narrow = self.app.size.width < NARROW
        self.set_class(narrow, "narrow")
        self.query_one("#chats").display = not (narrow and talking)
        self.query_one("#conversation").display = talking or not narrow

    def draw(self, kinds: set[str]) -> None:
        if self.corral.client is not None and (not self._asked or kinds & {"all", "chat"}):
            self._asked = True
            sought = self._sought
            self.corral.act(lambda client: client.search_chats(sought) if sought else client.chats(), self._listed)

    def _listed(self, chats: list[Chat]) -> None:
        self.chats = {chat.id: chat for chat in chats}
        if self.chat is not None:
            new = self.chats.get(self.chat.id, self.chat)  # a list leaves out the context's size
            self.chat = msgspec.structs.replace(new, ctx_per_slot=new.ctx_per_slot or self.chat.ctx_per_slot)
        self.table().set_rows([Row(c.id, (c.title or "untitled", c.deployment, str(c.turns))) for c in chats])
        self._about()

    def _about(self) -> None:
        chat = self.chat
        if self._sought and isinstance(self.focused, Table):
            words = f"{len(self.chats)} chats hold {self._sought!r}; esc shows all"
        elif chat is None:
            words = "enter opens a chat, n begins one"
        else:
            (used, guessed), room = filled(self.turns, self._growing), chat.ctx_per_slot
            told = f"{'~' if guessed else ''}{used}"
            share = f"context {told}/{room} ({100 * used // room} %)" if room else f"context {told}"
            full = "forgets the oldest" if chat.on_full == "forget-oldest" else "asks"
            words = f"{share}, when full {full} | {chat.deployment} | {chat.title or 'untitled'}"
        self.query_one("#about", Line).set(f"-- {words}")
        self.mind_keys()

    # ------------------------------------------------------------------ what may be done now

    def target(self) -> Chat | None:
        """The chat that a key means: the one under the cursor of the list, or the open one."""
        if isinstance(self.focused, Table):
            return self.chats.get(self.table().key)
        return self.chat or self.chats.get(self.table().key)

    def hindered(self, action: str) -> str:
        last = self.turns[-1] if self.turns else None
        busy = last is not None and last.state in IN_FLIGHT
        if action == "new" and not self._ready():
            return "No deployment is ready. Screen 2 shows why; d there deploys a model"
        if action in ("rename", "export", "remove") and self.target() is None:
            return "No chat is selected: n begins one"
        if action in ("full", "options", "stop_turn", "regenerate", "edit", "go_on", "copy"):
            if self.chat is None:
                return "Open a chat first: enter opens one, n begins one"
            if action == "stop_turn" and not busy:
                return "No answer is being made"
            if action in ("regenerate", "edit", "go_on", "copy") and last is None:
                return "There is no answer yet: i lets you write a question"
            if action in ("regenerate", "edit", "go_on") and busy:
                return "An answer is being made: s stops it"
            if action == "go_on" and last is not None and not can_go_on(last):
                return "The last answer is complete: there is nothing to go on with"
        return super().hindered(action)

    def field_keys(self, field: Widget) -> list[str]:
        if field.id == "needle":
            return ["enter Search in questions and answers", "esc Show all"]
        return ["enter Send", "esc Leave the field", "alt+1 to alt+9 Screens"]

    def _ready(self) -> list[str]:
        return sorted(n for n, d in self.corral.state.deployments.items() if d.ready)

    # ------------------------------------------------------------------ searching and opening

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "ask" and event.value.strip():
            self._send(event.value, replace_turn=self._editing)
        elif event.input.id == "needle" and event.value.strip():
            self._sought = event.value.strip()
            self.table().filter("")  # the daemon looks into questions and answers too
            self.draw({"chat"})

    def on_table_opened(self, event: Table.Opened) -> None:
        self._open(event.key)

    def _open(self, chat: str) -> None:
        self.corral.act(lambda client: client.chat(chat), self._opened)

    def _opened(self, detail: ChatDetail) -> None:
        self.chat, self.turns, self._editing = detail.chat, list(detail.messages), None
        self.run_worker(self._show(), group="talk", exclusive=True)

    async def _show(self) -> None:
        """Draw the newest turns, then stream the one in flight, if any."""
        talk = self.query_one("#talk", Scroll)
        await talk.remove_children()
        older = len(self.turns) - TURNS_SHOWN
        if older > 0:
            await talk.mount(Static(f"{older} older turns are not drawn; w writes the whole chat to a file"))
        await talk.mount(*(TurnView(turn) for turn in self.turns[-TURNS_SHOWN:]))
        self._to("ask")
        self._about()
        self.call_after_refresh(talk.scroll_end, animate=False)
        if self.turns and self.turns[-1].state in IN_FLIGHT:
            await self._stream(self.turns[-1])

    async def _begin(self, turn: Turn) -> None:
        """Show a turn that has just begun, in place of those that it replaces, and stream it."""
        talk = self.query_one("#talk", Scroll)
        for view in talk.query(TurnView):
            if view.turn.n >= turn.n:
                await view.remove()
        await talk.mount(TurnView(turn))
        self._about()
        self.call_after_refresh(talk.scroll_end, animate=False)
        await self._stream(turn)

    async def _stream(self, turn: Turn) -> None:
        """Draw what comes, and the figures at the end. A daemon that goes is waited for."""
        view = self.query(TurnView).last()
        text, done, failures, failed, drawn = turn.answer, turn, 0, 0, 0.0
        clock = asyncio.get_running_loop().time
        while True:
            client = self.corral.client
            try:
                if client is None:
                    raise ConnectionError("the daemon does not answer")
                async for piece in client.stream_turn(turn.chat, turn.id, len(text)):
                    if "turn" in piece:
                        done = piece["turn"]
                        break
                    text = text[: piece["offset"]] + piece["text"]
                    if failed != failures:
                        failed = failures
                        view.foot(figures(turn))  # instead of the words about the lost connection
                    if clock() - drawn >= DRAW_S:
                        drawn, self._growing = clock(), text
                        await self._keep_end(view.grow(text))
                        self._about()
                break
            except (NoDaemon, OSError, EOFError, TimeoutError) as error:
                failures += 1
                view.foot(f"connection lost ({line(error)}), the answer goes on in the daemon; trying again")
                if failures > TRIES:
                    return
                await asyncio.sleep(1)
            except CorralError as error:
                self.say(str(error))
                return
        self._growing = ""
        self.turns = [done if each.id == done.id else each for each in self.turns]
        await self._keep_end(view.end(done))
        self._about()

    async def _keep_end(self, change: Any) -> None:
        """Carry out `change` and keep the end in view; who has scrolled up to read is left there."""
        talk = self.query_one("#talk", Scroll)
        at_end = talk.at_end
        await change
        if at_end:
            self.call_after_refresh(talk.scroll_end, animate=False)

    # ------------------------------------------------------------------ asking

    def _send(self, question: str, **how: Any) -> None:
        chat = self.chat
        if chat is None:
            self._send_first(question)
            return

        async def ask(client: Any) -> Any:
            try:
                return await client.ask(chat.id, question, **how)
            except Conflict as conflict:
                if not conflict.details.get("context_full"):
                    raise
                return conflict

        def asked(answer: Any) -> None:
            if isinstance(answer, Conflict):
                self._ask_to_forget(answer, question, how)
                return
            self.query_one("#ask", Input).value = ""  # a refused question stays to be sent again
            self._editing = None
            self.say("")
            self.turns = [*(each for each in self.turns if each.n < answer.n), answer]
            self.run_worker(self._begin(answer), group="talk", exclusive=True)

        self.corral.act(ask, asked)

    def _send_first(self, question: str) -> None:
        """A question where no chat is open begins one, if it is plain with which deployment."""
        ready = self._ready()
        if len(ready) != 1:
            self.say(f"Ready are {', '.join(ready)}: esc, then n begins a chat" if ready else self.hindered("new"))
            return

        def made(chat: Chat) -> None:
            self.chat, self.turns = chat, []
            self._send(question)

        self.corral.act(lambda client: client.create_chat(ready[0], ChatOptions()), made)

    def _ask_to_forget(self, full: Conflict, question: str, how: dict[str, Any]) -> None:
        """The context is full: the choice is the person's."""
        from tui.screens.confirm import Confirm

        def chosen(yes: bool | None) -> None:
            if yes:
                self._send(question, **{**how, "forget_oldest": True})
            else:
                self.say("Not sent: the context is full. f lets this chat forget its oldest turns, n begins a new one")

        words = f"The context is full: {full.why or full.what}. Forget the oldest turns and send?"
        self.app.push_screen(Confirm(words), chosen)

    def action_write(self) -> None:
        self._to("ask")

    def action_back(self) -> None:
        where = self.focused.id if self.focused is not None else ""
        if where == "ask":
            self._editing = None
            self._to("talk")
        elif where == "talk":
            self.say("")
            self._to("chats")
        else:
            if self._sought:
                self._sought = ""
                self.draw({"chat"})
            super().action_back()

    def action_new(self) -> None:
        from tui.screens.chatforms import NewChat

        def made(chat: Chat | None) -> None:
            if chat is not None:
                self._open(chat.id)

        self.app.push_screen(NewChat(self._ready()), made)

    def action_stop_turn(self) -> None:
        last = self.turns[-1]
        self.corral.act(lambda client: client.stop_turn(last.chat, last.id))

    def action_regenerate(self) -> None:
        last = self.turns[-1]
        self._send(last.question, replace_turn=last.n)

    def action_edit(self) -> None:
        last = self.turns[-1]
        self._editing = last.n
        box = self.query_one("#ask", Input)
        box.value = line(last.question)
        box.cursor_position = len(box.value)
        self._to("ask")
        joined = "; its lines are joined here" if "\n" in last.question else ""
        self.say(f"enter sends it in place of the last question{joined}")

    def action_go_on(self) -> None:
        self._send("", cont=True)

    def action_full(self) -> None:
        chat = self.chat
        if chat is not None:
            choice = "ask" if chat.on_full == "forget-oldest" else "forget-oldest"
            self.corral.act(lambda client: client.update_chat(chat.id, on_full=choice), self._changed)

    def _changed(self, chat: Chat | None) -> None:
        if chat is not None and self.chat is not None and chat.id == self.chat.id:
            self.chat = chat
        self._about()

    def action_options(self) -> None:
        from tui.screens.chatforms import Options

        if self.chat is not None:
            self.app.push_screen(Options(self.chat), lambda _: self.draw({"chat"}))

    def action_rename(self) -> None:
        from tui.screens.chatforms import Rename

        chat = self.target()
        if chat is not None:
            self.app.push_screen(Rename(chat), lambda _: self.draw({"chat"}))

    def action_export(self) -> None:
        from tui.screens.chatforms import Export

        def written(path: Any) -> None:
            if path is not None:
                self.say(f"Written: {path}")

        chat = self.target()
        if chat is not None:
            self.app.push_screen(Export(chat), written)

    def action_remove(self) -> None:
        chat = self.target()
        if chat is None:
            return

        def gone(_: Any) -> None:
            if self.chat is not None and self.chat.id == chat.id:
                self.chat, self.turns = None, []
                self.workers.cancel_group(self, "talk")
                self.query_one("#talk", Scroll).remove_children()
                self._to("chats")
            self.draw({"chat"})

        self.confirmed(
            f"Delete the chat {chat.title!r} for good?",
            lambda client: client.remove_chat(chat.id),
            typed="delete",
            then=gone,
        )

    def copied(self) -> str:
        return self.turns[-1].answer if self.turns else ""

    def whole(self) -> str:
        """What the screen says, and the last question with its answer."""
        last = self.turns[-1:]
        return "\n\n".join([super().whole(), *(f"> {turn.question}\n\n{turn.answer}" for turn in last)])
