"""What hinders a chat or a question: each raises what is said of it."""

from __future__ import annotations

import sqlite3

import msgspec

from core.access import Gate
from core.chats import tables
from core.chats.context import too_long
from core.chats.shelf import Shelf
from core.errors import Conflict, Invalid, NotFound
from core.nouns import Actor, Chat, ChatOptions, Deployment, Turn

QUESTION_LIMIT = 1 << 20


def may_use(gate: Gate, actor: Actor, deployment: str) -> None:
    """Raises `NotAllowed`, or `NotFound` for one that the actor may not see."""
    gate.require(actor, "deployments.use", f"deployment:{deployment}")


def may_keep(gate: Gate, deployment: str) -> None:
    """Raises `Conflict` for a deployment that is sensitive: nothing that is said to it is written down."""
    if deployment in gate.rights.marks:
        raise Conflict(
            f"{deployment} is sensitive: no chat with it is kept", "its mark says so",
            "begin a private one (--private), or ask it through the gateway: neither keeps what is said",
        )  # fmt: skip


def there(db: sqlite3.Connection, shelf: Shelf, actor: Actor, id: str) -> Chat:
    """The chat as it is in this transaction: raises `NotFound` for one that was removed meanwhile."""
    found = tables.one_chat(db, shelf.ring, actor, id)
    if found is None:
        raise NotFound(f"no chat {id!r}", "it was removed", "see `corral chats ls`")
    return msgspec.structs.replace(found, private=shelf.private)


def idle(db: sqlite3.Connection, chat: str) -> tuple[str, str] | None:
    """(id, state) of the last turn. Raises `Conflict` while it is being answered."""
    found = tables.newest(db, chat)
    if found is not None and found[1] in ("waiting", "streaming"):
        raise Conflict("an answer is being made in this chat", todo="wait for it, or stop it")
    return found


def unchanged(db: sqlite3.Connection, chat: Chat, newest: Turn | None) -> None:
    """Two terminals may ask at once: raises `Conflict` for the second."""
    found = idle(db, chat.id)
    if (found[0] if found else None) != (newest.id if newest else None):
        raise Conflict("the chat has changed meanwhile", todo="look at it again")


def admit(chat: Chat, question: str) -> None:
    """Raises `Invalid` for a question that no turn of `chat` can hold."""
    if not question.strip() or len(question.encode()) > QUESTION_LIMIT:
        raise Invalid("the question is empty or over 1 MiB")
    if alone := too_long(chat, question):
        raise Invalid(
            "the question alone is too long for this deployment", alone, "shorten it, or deploy with more --ctx"
        )


def mended(deployment: Deployment) -> str:
    """What to do about one that is down."""
    name = deployment.spec.name
    return f"corral start {name}" if deployment.state == "stopped" else f"corral explain {name}"


def in_range(options: ChatOptions) -> None:
    """Raises `Invalid` for a parameter that no engine takes."""
    for field, low, high in (
        ("temperature", 0, 5),
        ("top_p", 0, 1),
        ("max_tokens", 1, 1 << 20),
        ("seed", 0, 2**32 - 1),
    ):
        value = getattr(options, field)
        if value is not None and not low <= value <= high:
            raise Invalid(f"{field} is {value}", f"it may be {low} to {high}")
