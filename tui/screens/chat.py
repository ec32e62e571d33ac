"""Talk to a deployment: the turn is the daemon's, the screen streams it and says how fast it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import TextArea

from core.nouns import Chat, ChatDetail, ChatKey, ChatOptions
from tui.rights import none, unseen
from tui.screens import FOLDER
from tui.screens.conversation import Ask, Conversation
from tui.screens.room import LOW, Line, Note
from tui.screens.talk import ASKING, about, barred, hindered, marked
from tui.widgets.question import Question
from tui.widgets.scroll import Scroll
from tui.widgets.table import Column, Row, Table
from tui.widgets.turn import crowded

if TYPE_CHECKING:
    from textual.widget import Widget
    from textual.widgets import Input

NARROW = 100
"""Columns under which the list of chats and the conversation take turns."""
FIELD_KEYS = "enter Send; esc Leave; ctrl+j Line; ctrl+n New chat; ctrl+o Params; up Earlier; alt+1-9 Screens"
NEW = "new"
"""Key in the list of a chat that is not the daemon's yet; an id is longer."""


class ChatRoom(Conversation):
    """Screen 5: the conversations at the left, one of them beside, and a field to write in. Under 100 columns the list
    and the conversation take turns: enter opens, esc goes back. A new chat is the daemon's from its first question on;
    until then its id is empty."""

    ROOM = "chat"
    ASKS = frozenset({
        "new", "private", "send", "stop_turn", "regenerate", "go_on", "full", "options", "rename", "export", "remove",
        "unlock", "others", "hold", "keep",
    })  # fmt: skip
    CSS_PATH: ClassVar = [*Conversation.CSS_PATH, FOLDER / "chat.tcss"]

    def __init__(self) -> None:
        super().__init__()
        self.chats: dict[str, Chat] = {}
        self._asked = False
        self._sought = ""

    def fill(self) -> ComposeResult:
        with Horizontal():
            yield Table(
                [Column("chat", 16, flex=True), Column("with", 8, 1, fit=True), Column("turns", 5, 2, True)],
                id="chats",
            )  # fmt: skip
            with Vertical(id="conversation"):
                yield Line(id="about")
                yield Scroll(id="talk")
                yield Note(id="full")
                yield Ask(hint="write, enter sends, esc leaves the field", id="ask")

    def on_mount(self) -> None:
        super().on_mount()
        if self.stands:
            self._to("chats")

    def fold(self) -> None:
        self.set_class(self.app.size.height < LOW, "low")
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
        me = self.corral.state.me
        barred = unseen(me, "chats.own", "chats")
        self.query_one("#chats", Table).none(barred or none(me, "No chat yet", "n begins one", "chats.own"))
        if barred:  # a refusal would stand in the trail
            return
        if self.corral.client is not None and (not self._asked or kinds & {"all", "chat"}):
            self._asked = True
            sought = self._sought
            self.corral.act(lambda client: client.search_chats(sought) if sought else client.chats(), self._listed)

    def _listed(self, chats: list[Chat]) -> None:
        self.chats = {chat.id: chat for chat in chats}
        if self.chat is not None:
            new = self.chats.get(self.chat.id, self.chat)  # a list leaves out the context's size
            self.chat = msgspec.structs.replace(new, ctx_per_slot=new.ctx_per_slot or self.chat.ctx_per_slot)
        self._list()
        self._about()

    def _list(self) -> None:
        """Draw the list; its cursor is on the open chat unless a person moves it."""
        rows = [Row(c.id, (marked(c), c.deployment, str(c.turns))) for c in self.chats.values()]
        if self.chat is not None and not self.chat.id:
            new = "new private chat" if self.chat.private else "new chat"
            rows.insert(0, Row(NEW, (new, self.chat.deployment, "0")))
        self.table().set_rows(rows)
        if self.chat is not None and not isinstance(self.focused, Table):
            self.table().seek(self.chat.id or NEW)

    def _about(self) -> None:
        chat = self.chat
        if self._sought and isinstance(self.focused, Table):
            words = f"{len(self.chats)} chats hold {self._sought!r}; esc shows all"
        else:
            words = about(chat, self.turns, self._growing)
        self.query_one("#about", Line).set(f"-- {words}")
        self.query_one("#ask", Ask).asked = [turn.question for turn in self.turns]
        self._mind_full()
        self.mind_keys()

    def _mind_full(self) -> None:
        """Put the choice where one writes as soon as the context asks for one."""
        why = "" if self.chat is None else crowded(self.chat, self.turns, self.query_one("#ask", Ask).value)
        f = "forgets the oldest turns and goes on" if why and self._goes_on() else "lets it forget the oldest turns"
        words = f"! {why}. f {f}, n begins a new chat (in the field ctrl+f, ctrl+n)" if why else ""
        self.query_one("#full", Note).set(words)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        self._mind_full()

    # ------------------------------------------------------------------ what may be done now

    def target(self) -> Chat | None:
        """The chat that a key means: the one under the cursor of the list, or the open one."""
        if isinstance(self.focused, Table) and self.table().key != NEW:
            return self.chats.get(self.table().key)
        return self.chat or self.chats.get(self.table().key)

    def hindered(self, action: str) -> str:
        if action in ("new", "private") and not self._ready():
            return "No deployment is ready. Screen 2 shows why; d there deploys a model"
        if action == "new" and all(self._marked(name) for name in self._ready()):
            return f"{', '.join(self._ready())}: sensitive, no chat is kept. v begins a private one"
        if action in ("rename", "export", "remove") and self.target() is None:
            return "No chat is selected: n begins one"
        meant = self.chat if action == "full" else self.target()
        if action in ("rename", "export", "remove", "full") and meant is not None and not meant.id:
            return "This chat begins with its first question: write one and press enter"
        why = hindered(action, self.chat, self.turns) or super().hindered(action)
        asks = self.chat if action in ASKING else meant
        return why or (barred(action, asks, self.corral.state) if asks is not None else "")

    def needs(self, action: str) -> str:
        return "chats.own" if action == "send" else super().needs(action)

    def about(self, action: str) -> str:
        meant = self.target()
        if action == "hold":
            return f"user:{meant.owner}" if meant is not None and meant.owner else ""
        return "chat:retention" if action == "keep" else ""

    def field_keys(self, field: Widget) -> list[str]:
        if field.id == "needle":
            return ["enter Search in questions and answers", "esc Show all"]
        return FIELD_KEYS.split("; ")

    def field(self) -> Widget | None:
        return self.focused if isinstance(self.focused, Ask) else super().field()

    def _marked(self, deployment: str) -> bool:
        """It is sensitive."""
        return self.corral.state.deployments[deployment].mark is not None

    def _ready(self) -> list[str]:
        return sorted(n for n, d in self.corral.state.deployments.items() if d.ready)

    # ------------------------------------------------------------------ searching and opening

    def on_question_sent(self, event: Question.Sent) -> None:
        if not event.text.strip():
            self.say("There is no question yet: write one, then enter sends it")
            return
        why = self.hindered("send")
        if why:
            self.say(why)
        else:
            self._send(event.text, replace_turn=self._editing)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "needle" and event.value.strip():
            self._sought = event.value.strip()
            self.table().filter("")  # the daemon looks into questions and answers too
            self.draw({"chat"})

    async def visit(self, row: str, action: str) -> None:
        if action == "open":
            self._open(row)
        elif action == "talk":
            self.begin(row)
        else:
            await super().visit(row, action)

    def on_table_opened(self, event: Table.Opened) -> None:
        if event.key == NEW:
            self._to("ask")
        else:
            self._open(event.key)

    def _open(self, chat: str) -> None:
        self.corral.act(lambda client: client.chat(chat), self._opened)

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

    def _usual(self) -> str:
        """The deployment of a new chat: that of the open or chosen one, or the only one; "" where it isn't plain."""
        ready, meant = self._ready(), self.target()
        if meant is not None and meant.deployment in ready:
            return meant.deployment
        return ready[0] if len(ready) == 1 else ""

    def _new(self, deployment: str, options: ChatOptions, private: bool = False) -> Chat:
        known = self.corral.state.deployments.get(deployment)
        room = known.spec.ctx // max(1, known.spec.parallel) if known else 0
        return Chat(id="", title="", deployment=deployment, options=options, owner="", created_at=0, updated_at=0,
                    ctx_per_slot=room, private=private)  # fmt: skip

    def begin(self, deployment: str, options: ChatOptions | None = None, *, private: bool = False) -> None:
        """A new chat with `deployment`, at once; what is typed stays in the field."""
        self._to("ask")
        self._opened(ChatDetail(chat=self._new(deployment, options or ChatOptions(), private), messages=()))

    def action_new(self, private: bool = False) -> None:
        from tui.screens.chatforms import NewChat

        def chosen(new: tuple[str, ChatOptions] | None) -> None:
            if new is not None:
                self.begin(*new, private=private)

        if name := self._usual():
            self.begin(name, private=private)
        else:
            self.app.push_screen(NewChat(self._ready()), chosen)

    def action_private(self) -> None:
        self.action_new(private=True)

    def action_unlock(self) -> None:
        from tui.screens.privacyforms import Unlock

        def asked(key: ChatKey) -> None:
            if key.state == "open":
                self.say("The chats are open")
            elif not key.passphrase:
                self.say(f"The chats are locked: {key.why}. {key.todo}")
            else:
                self.app.push_screen(Unlock(key), lambda _: self.draw({"chat"}))

        self.corral.act(lambda client: client.privacy.key(), asked)

    def action_hold(self) -> None:
        from tui.screens.keepforms import HoldForm

        chat = self.target()
        self.app.push_screen(HoldForm(chat.id if chat is not None else ""), lambda _: self.draw({"chat"}))

    def action_keep(self) -> None:
        from tui.screens.keepforms import Keep

        chat = self.target()
        self.app.push_screen(Keep(f"deployment:{chat.deployment}" if chat is not None else ""))

    def action_others(self) -> None:
        from tui.screens.privacyforms import Others

        self.app.push_screen(Others())

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
