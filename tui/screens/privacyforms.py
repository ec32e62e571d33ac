"""Two forms of Chat: unlock the chats, and look at what another one said, for a reason that is recorded."""

from __future__ import annotations

from typing import Any

from textual.widgets import Input

from core.nouns import ChatKey, OthersChats
from core.nouns.written import as_markdown
from tui.plain import line
from tui.screens.whole import Whole
from tui.widgets.form import Field, Form


class Unlock(Form):
    """The passphrase of the chats: the daemon keeps it in memory alone."""

    HEADLINE = "Unlock the chats: without their passphrase nobody can read them"
    SENDS = "Unlock"

    def __init__(self, key: ChatKey) -> None:
        super().__init__()
        self.key = key

    def fields(self) -> list[Field]:
        new = [Field("again", "once more")] if self.key.state == "new" else []
        return [Field("passphrase", "passphrase"), *new]

    def on_mount(self) -> None:
        super().on_mount()
        for box in self.query(Input):
            box.password = True

    def weigh(self) -> None:
        words = "It is the first one: from now on the chats open with it alone" if self.key.state == "new" else ""
        self.show(words or line(self.key.why))

    def action_send(self) -> None:
        text = self.query_one("#field-passphrase", Input).value
        if not text:
            self.say("Type the passphrase")
        elif self.key.state == "new" and text != self.query_one("#field-again", Input).value:
            self.say("The two are not the same")
        else:
            self.corral.act(lambda client: client.privacy.unlock(text), self.dismiss)


class Others(Form):
    """Whose chats, and why; the answer is shown whole."""

    HEADLINE = "Read what another user said: each look is recorded with its reason"
    SENDS = "Read"

    def fields(self) -> list[Field]:
        return [Field("user", "user"), Field("reason", "reason", "", "stands in the audit trail")]

    def weigh(self) -> None:
        if not self.value("user") or not self.value("reason"):
            self.show("Say whose, and why: without a reason nothing is shown")
        else:
            self.show(line(f"Shows all that {self.value('user')} said and kept; the audit trail gets your reason"))

    def action_send(self) -> None:
        user, reason = self.value("user"), self.value("reason")
        if not user or not reason:
            self.say("Say whose, and why")
            return

        async def look(client: Any) -> OthersChats:
            return await client.privacy.others(reason, user=user)  # type: ignore[no-any-return]

        def show(found: OthersChats) -> None:
            self.app.pop_screen()
            said = as_markdown(found.chats) or "Nothing"
            self.app.push_screen(Whole(f"{found.user}, looked at because: {found.reason}\n\n{said}"))

        self.corral.act(look, show)
