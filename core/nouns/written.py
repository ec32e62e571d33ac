"""Chats as files: Markdown to read, JSON to go on with."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from core.nouns.chats import ChatDetail


def as_json(found: ChatDetail | list[ChatDetail]) -> str:
    """One document."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def as_markdown(found: Iterable[ChatDetail]) -> str:
    """One after the other."""
    return "\n\n".join(map(_one, found))


def _one(detail: ChatDetail) -> str:
    lines = [f"# {detail.chat.title or detail.chat.id}", "", f"Deployment: {detail.chat.deployment}", ""]
    if detail.chat.options.system:
        lines += ["> " + line for line in detail.chat.options.system.splitlines()] + [""]
    for turn in detail.messages:
        lines += ["## Question", "", turn.question, "", "## Answer", "", turn.answer, ""]
        if turn.state != "done":
            lines += [f"*({turn.state}{': ' + turn.reason if turn.reason else ''})*", ""]
    return "\n".join(lines)
