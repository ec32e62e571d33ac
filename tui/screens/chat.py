"""Talk to a deployment: the turn is the daemon's, the screen streams it and says how fast it was."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from core.errors import CorralError, NoDaemon
from core.nouns import Chat, ChatDetail, ChatOptions, Turn
from tui.plain import line, plain
from tui.screens.room import FOLDER, Line, Room
from tui.widgets.form import Field, Form
from tui.widgets.table import Column, Row, Table


def figures(turn: Turn) -> str:
    """One answer's figures on a line."""
    words = [turn.state + (f" ({turn.finish})" if turn.finish else "")]
    if turn.ttft_ms is not None:
        words.append(f"first token {turn.ttft_ms:.0f} ms")
    if turn.tokens_per_second is not None:
        words.append(f"{turn.tokens_per_second:.1f} tok/s")
    if turn.prompt_tokens is not None or turn.answer_tokens is not None:
        words.append(f"tokens in {turn.prompt_tokens or 0}, out {turn.answer_tokens or 0}")
    if turn.reason:
        words.append(turn.reason)
    if turn.state == "cut":
        words.append("o goes on from here")
    return line(" | ".join(words))


class ChatRoom(Room):
    """Screen 5: the conversations at the left (folded under 100 columns), one of them, and a line to write in."""

    ROOM = "chat"
    CSS_PATH: ClassVar = [*Room.CSS_PATH, FOLDER / "chat.tcss"]

    BINDINGS: ClassVar = [Binding("escape", "back", "Back", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self.chats: dict[str, Chat] = {}
        self.chat: Chat | None = None
        self.turns: list[Turn] = []
        self._editing: int | None = None
        self._asked = False

    def fill(self) -> ComposeResult:
        yield Table(
            [Column("chat", 20, flex=True), Column("deployment", 14, 1), Column("turns", 6, 2, True)],
            empty="No chat yet: n begins one with a deployment", id="chats",
        )  # fmt: skip
        yield Line(id="about")
        yield VerticalScroll(id="talk", can_focus=False)
        yield Input(placeholder="write, enter sends, esc leaves the field", id="ask")

    def on_mount(self) -> None:
        super().on_mount()
        self.table().focus()

    def draw(self, kinds: set[str]) -> None:
        if self.corral.client is not None and (not self._asked or kinds & {"all", "chat"}):
            self._asked = True
            self.corral.act(lambda client: client.chats(), self._listed)

    def _listed(self, chats: list[Chat]) -> None:
        self.chats = {chat.id: chat for chat in chats}
        if self.chat is not None:
            self.chat = self.chats.get(self.chat.id, self.chat)
        self.table().set_rows([Row(c.id, (c.title, c.deployment, str(c.turns))) for c in chats])
        self._about()

    def _about(self) -> None:
        chat = self.chat
        if chat is None:
            self.query_one("#about", Line).set("-- enter opens a chat, n begins one")
            return
        last = self.turns[-1].context_tokens if self.turns else None
        used, room = (last if last is not None else chat.context_tokens), chat.ctx_per_slot
        share = f"context {used}/{room} ({100 * used // room} %)" if room else f"context {used}"
        full = "when full: the oldest is forgotten" if chat.on_full == "forget-oldest" else "when full: asks"
        self.query_one("#about", Line).set(f"-- {chat.title} with {chat.deployment} | {share} | {full} (f changes)")

    # ------------------------------------------------------------------ opening

    def on_table_opened(self, event: Table.Opened) -> None:
        self._open(event.key)

    def _open(self, chat: str) -> None:
        self.corral.act(lambda client: client.chat(chat), self._opened)

    def _opened(self, detail: ChatDetail) -> None:
        self.chat, self.turns = detail.chat, list(detail.messages)
        self.run_worker(self._show(), group="talk", exclusive=True)

    async def _show(self) -> None:
        """Draw all turns, then stream the one in flight, if any."""
        talk = self.query_one("#talk", VerticalScroll)
        await talk.remove_children()
        for turn in self.turns:
            await self._mount_turn(turn)
        talk.scroll_end(animate=False)
        self._about()
        self.query_one("#ask", Input).focus()
        if self.turns and self.turns[-1].state in ("waiting", "streaming"):
            await self._stream(self.turns[-1])

    async def _mount_turn(self, turn: Turn) -> None:
        await self.query_one("#talk", VerticalScroll).mount(
            Static("> " + plain(turn.question), classes="question", markup=False),
            self._block(turn.answer) if turn.state == "done" else Static(plain(turn.answer), classes="answer",
                                                                         markup=False),
            Static(figures(turn), classes="figures", markup=False),
        )  # fmt: skip

    def _block(self, answer: str) -> Any:
        from textual.widgets import Markdown

        return Markdown(plain(answer), classes="answer", open_links=False)

    async def _stream(self, turn: Turn) -> None:
        """A growing Static while it streams (183 bytes a word), Markdown (1,360) when it is whole."""
        talk = self.query_one("#talk", VerticalScroll)
        answer, foot = talk.query(".answer").last(), talk.query(".figures").last(Static)
        text, done, failures = turn.answer, turn, 0
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
                    if isinstance(answer, Static):
                        answer.update(plain(text))
                    talk.scroll_end(animate=False)
                break
            except (NoDaemon, OSError, EOFError, TimeoutError) as error:
                failures += 1
                foot.update(f"connection lost ({line(error)}), the answer goes on in the daemon; trying again")
                if failures > 60:
                    return
                await asyncio.sleep(1)
            except CorralError as error:
                self.say(str(error))
                return
        self.turns = [done if each.id == done.id else each for each in self.turns]
        if done.state == "done":
            await answer.remove()
            await talk.mount(self._block(done.answer), before=foot)
        elif isinstance(answer, Static):
            answer.update(plain(done.answer))
        foot.update(figures(done))
        talk.scroll_end(animate=False)
        self._about()

    # ------------------------------------------------------------------ asking

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "ask" and event.value.strip():
            question, replace = event.value, self._editing
            self._send(question, replace_turn=replace)

    def _send(self, question: str, **how: Any) -> None:
        chat = self.chat
        if chat is None:
            self.say("Open a chat first: esc, then n begins one")
            return

        def asked(turn: Turn) -> None:
            self.query_one("#ask", Input).value = ""  # a refused question stays to be sent again
            self._editing = None
            self.say("")
            self.corral.act(lambda client: client.chat(chat.id), self._opened)

        self.corral.act(lambda client: client.ask(chat.id, question, **how), asked)

    def action_write(self) -> None:
        self.query_one("#ask", Input).focus()

    def action_back(self) -> None:
        if isinstance(self.focused, Input):
            self.table().focus()
        else:
            super().action_back()

    def action_new(self) -> None:
        ready = sorted(n for n, d in self.corral.state.deployments.items() if d.ready)
        if not ready:
            self.say("No deployment is ready. Screen 2 shows why; d there deploys a model")
            return

        def made(chat: Chat | None) -> None:
            if chat is not None:
                self._open(chat.id)

        self.app.push_screen(NewChat(ready), lambda chat: made(chat))

    def _last(self) -> Turn | None:
        if not self.turns:
            self.say("There is no answer yet")
            return None
        return self.turns[-1]

    def action_stop_turn(self) -> None:
        last = self._last()
        if last is not None:
            self.corral.act(lambda client: client.stop_turn(last.chat, last.id))

    def action_regenerate(self) -> None:
        last = self._last()
        if last is not None:
            self._send(last.question, replace_turn=last.n)

    def action_edit(self) -> None:
        last = self._last()
        if last is not None:
            self._editing = last.n
            box = self.query_one("#ask", Input)
            box.value = line(last.question)
            box.focus()

    def action_go_on(self) -> None:
        last = self._last()
        if last is not None:
            self._send("", cont=True)

    def action_full(self) -> None:
        chat = self.chat
        if chat is not None:
            choice = "ask" if chat.on_full == "forget-oldest" else "forget-oldest"
            self.corral.act(lambda client: client.update_chat(chat.id, on_full=choice), lambda _: self._open(chat.id))

    def action_options(self) -> None:
        if self.chat is not None:
            self.app.push_screen(Options(self.chat), lambda _: self.draw({"chat"}))

    def action_remove(self) -> None:
        chat = self.chats.get(self.table().key)
        if chat is None:
            return

        def gone(_: Any) -> None:
            self.chat, self.turns = None, []
            self.query_one("#talk", VerticalScroll).remove_children()
            self.draw({"chat"})

        self.confirmed(
            f"Delete the chat {chat.title!r} for good?",
            lambda client: client.remove_chat(chat.id),
            typed="delete",
            then=gone,
        )

    def copied(self) -> str:
        return self.turns[-1].answer if self.turns else ""


class NewChat(Form):
    """Begins a chat; the answer is the chat."""

    HEADLINE = "A new chat"

    def __init__(self, ready: list[str]) -> None:
        super().__init__()
        self.ready = ready

    def fields(self) -> list[Field]:
        return [Field("deployment", "deployment", self.ready[0]), *_parameters(ChatOptions())]

    def weigh(self) -> None:
        self.show(line("Ready: " + ", ".join(self.ready)))

    def action_send(self) -> None:
        try:
            options = _typed(self)
        except ValueError as error:
            self.say(str(error))
            return
        name = self.value("deployment")
        self.corral.act(lambda client: client.create_chat(name, options), lambda chat: self.dismiss(chat))


class Options(Form):
    """System prompt, temperature, top-p, longest answer and seed of a chat."""

    HEADLINE = "Parameters of this chat; an empty field leaves it to the engine"

    def __init__(self, chat: Chat) -> None:
        super().__init__()
        self.chat = chat

    def fields(self) -> list[Field]:
        return _parameters(self.chat.options)

    def action_send(self) -> None:
        try:
            options = _typed(self)
        except ValueError as error:
            self.say(str(error))
            return
        self.corral.act(lambda client: client.update_chat(self.chat.id, options=options), lambda _: self.dismiss(None))


def _parameters(now: ChatOptions) -> list[Field]:
    def text(value: object) -> str:
        return "" if value is None else str(value)

    return [
        Field("system", "system prompt", line(now.system)), Field("temperature", "temperature", text(now.temperature)),
        Field("top_p", "top-p", text(now.top_p)), Field("max_tokens", "max tokens", text(now.max_tokens)),
        Field("seed", "seed", text(now.seed)),
    ]  # fmt: skip


def _typed(form: Form) -> ChatOptions:
    numbers: dict[str, Any] = {}
    for key, kind in (("temperature", float), ("top_p", float), ("max_tokens", int), ("seed", int)):
        text = form.value(key)
        try:
            numbers[key] = kind(text) if text else None
        except ValueError:
            raise ValueError(f"{key} must be a number, not {text!r}") from None
    return ChatOptions(system=form.value("system"), **numbers)
