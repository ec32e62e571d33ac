"""The forms of Chat: begin one, its parameters, its title, a file for it."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

from core.errors import Conflict, Failed
from core.nouns import Chat, ChatOptions
from tui.plain import line
from tui.screens.confirm import Choice
from tui.widgets.form import Field, Form


class NewChat(Form):
    """With which deployment, and how; the answer is both."""

    HEADLINE = "A new chat"
    SENDS = "Begin it"

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
        if name in self.ready:
            self.dismiss((name, options))
        else:
            self.say(f"{name or 'Nothing'} is not ready; ready: {', '.join(self.ready)}")


class Full(Choice):
    """What to do with `question`, "" for going on with an answer, when the context is full: f, a, n or ""."""

    def __init__(self, why: str, question: str) -> None:
        on = "send" if question else "go on"
        choices = {
            "f": f"forget the oldest turns this once, and {on}",
            "a": f"forget the oldest turns whenever it is full, and {on}",
            "n": "send it in a new chat" if question else "begin a new chat",
        }
        super().__init__(f"The context is full: {why}", choices, "leave it")


class _OfChat(Form):
    """A form about one chat."""

    def __init__(self, chat: Chat) -> None:
        super().__init__()
        self.chat = chat


class Options(_OfChat):
    """System prompt, temperature, top-p, longest answer and seed of a chat; the answer is what they are then."""

    HEADLINE = "Parameters of this chat; an empty field leaves it to the engine"

    def fields(self) -> list[Field]:
        return _parameters(self.chat.options)

    def action_send(self) -> None:
        try:
            options = _typed(self)
        except ValueError as error:
            self.say(str(error))
            return
        if not self.chat.id:
            self.dismiss(options)
            return
        self.corral.act(
            lambda client: client.update_chat(self.chat.id, options=options), lambda _: self.dismiss(options)
        )


class Rename(_OfChat):
    """Another title."""

    HEADLINE = "The title of this chat"

    def fields(self) -> list[Field]:
        return [Field("title", "title", line(self.chat.title))]

    def action_send(self) -> None:
        title = self.value("title")
        if not title:
            self.say("A title needs a letter at least")
            return
        self.corral.act(lambda client: client.update_chat(self.chat.id, title=title), lambda _: self.dismiss(None))


class Export(_OfChat):
    """Writes the chat to a new file of who runs the console; the answer is the file's path."""

    HEADLINE = "Write this chat to a file: .md for reading, .json for programs"
    SENDS = "Write"

    def fields(self) -> list[Field]:
        name = re.sub(r"[^a-z0-9]+", "-", self.chat.title.casefold()).strip("-")[:40] or self.chat.id
        return [Field("path", "file", f"~/{name}.md")]

    def path(self) -> Path:
        """What is typed; `~` is the home folder."""
        return Path(os.path.expanduser(self.value("path"))).absolute()  # noqa: PTH111 - Path.expanduser raises

    def weigh(self) -> None:
        turns = f"{self.chat.turns} question" + ("s" if self.chat.turns != 1 else "")
        self.show(line(f"Writes {turns} with the answers to {self.path()}; a file that is there is left alone"))

    def action_send(self) -> None:
        path = self.path()

        async def export(client: Any) -> Path:
            text = await client.export_chat(self.chat.id, "json" if path.suffix == ".json" else "md")
            await asyncio.to_thread(_write, path, text)
            return path

        self.corral.act(export, self.dismiss)


def _write(path: Path, text: str) -> None:
    """Raises `Conflict` if the file exists, `Failed` if it can't be written."""
    try:
        there = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(there, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Conflict(f"{path} exists", todo="name another file") from error
    except (OSError, ValueError) as error:
        raise Failed(f"{path} was not written", getattr(error, "strerror", "") or str(error), "name another") from error


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
