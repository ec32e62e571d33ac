"""The open chat of screen 5: its turns are drawn, the answer in the making streamed, questions asked."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from textual.binding import Binding
from textual.widgets import Static

from core.errors import Conflict
from core.nouns import Chat, ChatDetail, ChatOptions, Turn
from tui.keymap import ASK
from tui.screens.room import Room
from tui.screens.talk import stream
from tui.widgets.question import Question
from tui.widgets.scroll import Scroll
from tui.widgets.turn import IN_FLIGHT, TurnView, crowded

TURNS_SHOWN = 40
"""Answers are drawn as Markdown, some 10 ms each; older ones are a key away."""


class Ask(Question):
    """The field of a conversation; its keys call what the letters call outside it."""

    BINDINGS: ClassVar = [Binding(key.keys, f"screen.do('{key.action}')", key.words, show=False) for key in ASK]


class Conversation(Room):
    """What is said in one chat. Which one, and how it is left, is for whoever derives from it."""

    def __init__(self) -> None:
        super().__init__()
        self.chat: Chat | None = None
        self.turns: list[Turn] = []
        self._growing = ""
        """What has come of the answer in the making."""
        self._editing: int | None = None

    # ------------------------------------------------------------------ around it

    def _to(self, id: str) -> None:
        """Put the focus on the list, the talk or the field."""
        raise NotImplementedError

    def _list(self) -> None:
        """Draw the list of chats."""
        raise NotImplementedError

    def _about(self) -> None:
        """Draw what is said of the open chat."""
        raise NotImplementedError

    def _usual(self) -> str:
        """The deployment of a new chat; "" where it isn't plain."""
        raise NotImplementedError

    def _ready(self) -> list[str]:
        """Deployments that answer."""
        raise NotImplementedError

    def _new(self, deployment: str, options: ChatOptions, private: bool = False) -> Chat:
        raise NotImplementedError

    def begin(self, deployment: str, options: ChatOptions | None = None, *, private: bool = False) -> None:
        """A new chat."""
        raise NotImplementedError

    # ------------------------------------------------------------------ drawing it

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
        self._list()
        self._about()
        self._follow()
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
        self._follow()
        await self._stream(turn)

    def _follow(self) -> None:
        """Keep the end in view while the answer grows and the terminal changes its size; who scrolls up to read is left
        there until he is at the end again."""
        talk = self.query_one("#talk", Scroll)
        self.call_after_refresh(talk.anchor)

    async def _stream(self, turn: Turn) -> None:
        """Draw what comes, and the figures at the end."""

        def grown(text: str) -> None:
            self._growing = text
            self._about()

        view = self.query(TurnView).last()
        done = await stream(self.corral, view, turn, grown, self.say)
        if done is None:
            return
        self._growing = ""
        self.turns = [done if each.id == done.id else each for each in self.turns]
        await view.end(done)
        self._about()

    # ------------------------------------------------------------------ asking

    def _send(self, question: str, **how: Any) -> None:
        chat = self.chat
        if chat is None:
            self._send_first(question)
            return

        async def ask(client: Any) -> Any:
            to = chat
            if not to.id:
                to = await client.create_chat(chat.deployment, chat.options, question=question, private=chat.private)
                if self.chat is chat:
                    self.chat = to
            try:
                return await client.ask(to.id, question, **how)
            except Conflict as conflict:
                if not conflict.details.get("context_full"):
                    raise
                return conflict

        def asked(answer: Any) -> None:
            if isinstance(answer, Conflict):
                self._ask_to_forget(answer, question, how)
                return
            if self.chat is None or self.chat.id != answer.chat:
                return  # another chat was opened meanwhile
            field = self.query_one("#ask", Ask)
            if field.value == question:  # a refused question stays to be sent again
                field.value = ""
            self._editing = None
            self.say("")
            self.turns = [*(each for each in self.turns if each.n < answer.n), answer]
            self.run_worker(self._begin(answer), group="talk", exclusive=True)

        self.corral.act(ask, asked)

    def _send_first(self, question: str) -> None:
        """A question where no chat is open begins one, if it is plain with which deployment."""
        if name := self._usual():
            self.chat, self.turns = self._new(name, ChatOptions()), []
            self._send(question)
        else:
            ready = ", ".join(self._ready())
            self.say(f"Ready are {ready}: ctrl+n asks which one" if ready else self.hindered("new"))

    def _ask_to_forget(self, full: Conflict, question: str, how: dict[str, Any]) -> None:
        """The context is full: the choice is the person's."""
        from tui.screens.chatforms import Full

        chat = self.chat

        def send(changed: Chat) -> None:
            self._changed(changed)
            self._send(question, **how)

        def chosen(key: str | None) -> None:
            if key == "a" and chat is not None:
                self.corral.act(lambda client: client.update_chat(chat.id, on_full="forget-oldest"), send)
            elif key == "f":
                self._send(question, **{**how, "forget_oldest": True})
            elif key == "n" and chat is not None:
                self.begin(chat.deployment, chat.options, private=chat.private)
                if question:
                    self._send(question)
            else:
                self.say("Not sent: the context is full. enter asks again what to do about it")

        self.app.push_screen(Full(full.why or full.what, question), chosen)

    def action_stop_turn(self) -> None:
        last = self.turns[-1]
        self.corral.act(lambda client: client.stop_turn(last.chat, last.id))

    def action_regenerate(self) -> None:
        last = self.turns[-1]
        self._send(last.question, replace_turn=last.n)

    def action_edit(self) -> None:
        last = self.turns[-1]
        self._editing = last.n
        self.query_one("#ask", Ask).value = last.question
        self._to("ask")
        self.say("enter sends it in place of the last question, esc leaves that")

    def action_go_on(self) -> None:
        self._send("", cont=True)

    # ------------------------------------------------------------------ how it is asked

    def _goes_on(self) -> bool:
        """Forgetting the oldest turns makes room for the rest of the last answer."""
        return len(self.turns) > 1 and self.turns[-1].finish == "length"

    def action_full(self) -> None:
        chat = self.chat
        if chat is not None:
            choice = "ask" if chat.on_full == "forget-oldest" else "forget-oldest"
            goes_on = bool(crowded(chat, self.turns, "")) and self._goes_on()

            def changed(new: Chat | None) -> None:
                self._changed(new)
                if goes_on:
                    self._send("", cont=True)

            self.corral.act(lambda client: client.update_chat(chat.id, on_full=choice), changed)

    def _changed(self, chat: Chat | None) -> None:
        if chat is not None and self.chat is not None and chat.id == self.chat.id:
            self.chat = chat
        self._about()

    def action_options(self) -> None:
        from tui.screens.chatforms import Options

        def changed(options: ChatOptions | None) -> None:
            if options is not None and self.chat is not None:
                self.chat = msgspec.structs.replace(self.chat, options=options)
            self._about()

        if self.chat is not None:
            self.app.push_screen(Options(self.chat), changed)

    def copied(self) -> str:
        return self.turns[-1].answer if self.turns else ""

    def whole(self) -> str:
        """What the screen says, and the last question with its answer."""
        last = self.turns[-1:]
        return "\n\n".join([super().whole(), *(f"> {turn.question}\n\n{turn.answer}" for turn in last)])
