"""The SQL of chats and turns; each function runs inside a transaction or a read."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from core.nouns import Actor, Chat, ChatOptions, Turn

_CHAT = (
    "SELECT c.id, c.title, c.deployment, c.options, c.owner, c.created_at, c.updated_at, c.on_full,"
    " (SELECT count(*) FROM turns t WHERE t.chat = c.id),"
    " (SELECT t.figures FROM turns t WHERE t.chat = c.id AND t.state != 'waiting' ORDER BY t.n DESC LIMIT 1),"
    " (SELECT max(t.asked_at) FROM turns t WHERE t.chat = c.id)"
    " FROM chats c"
)
_TURN = "SELECT id, chat, n, question, answer, state, reason, asked_at, figures FROM turns"


def _chat(row: tuple[Any, ...]) -> Chat:
    figures = msgspec.json.decode(row[9]) if row[9] else {}
    return Chat(
        id=row[0],
        title=row[1],
        deployment=row[2],
        options=msgspec.json.decode(row[3], type=ChatOptions),
        owner=row[4],
        created_at=row[5],
        updated_at=row[6],
        on_full=row[7],
        turns=row[8],
        context_tokens=figures.get("context_tokens") or 0,
        last_turn_at=row[10],
    )


def _turn(row: tuple[Any, ...]) -> Turn:
    fields = dict(zip(("id", "chat", "n", "question", "answer", "state", "reason", "asked_at"), row[:8], strict=True))
    return msgspec.convert({**fields, **msgspec.json.decode(row[8])}, Turn)


_MINE = " WHERE c.owner_uid = :uid AND c.owner = :name"
"""Uid and name: a uid that was given to somebody else brings him no chats."""


def _whose(actor: Actor) -> dict[str, Any]:
    return {"uid": actor.uid, "name": actor.name}


def chats_of(db: sqlite3.Connection, actor: Actor) -> list[Chat]:
    """Newest first."""
    rows = db.execute(_CHAT + _MINE + " ORDER BY c.updated_at DESC", _whose(actor))
    return [_chat(row) for row in rows]


def one_chat(db: sqlite3.Connection, actor: Actor, id: str) -> Chat | None:
    """A chat of this owner; an id's unique beginning of 4 characters or more will do."""
    rows = db.execute(
        _CHAT + _MINE + " AND (c.id = :id OR (length(:id) >= 4 AND substr(c.id, 1, length(:id)) = :id)) LIMIT 2",
        {**_whose(actor), "id": id},
    ).fetchall()
    return _chat(rows[0]) if len(rows) == 1 else None


def whose(db: sqlite3.Connection, id: str) -> str:
    """Whose the chat with this id is, for the trail; "" if there is none."""
    row = db.execute("SELECT owner FROM chats WHERE id = ?", (id,)).fetchone()
    return str(row[0]) if row else ""


def search(db: sqlite3.Connection, actor: Actor, text: str) -> list[Chat]:
    """Chats whose title, question or answer holds `text`, in any case of any script (LIKE folds ASCII alone)."""
    db.create_function("folded", 1, str.casefold, deterministic=True)
    rows = db.execute(
        _CHAT + _MINE + " AND (instr(folded(c.title), :text) OR EXISTS (SELECT 1 FROM turns t"  # noqa: S608 - constants only
        " WHERE t.chat = c.id AND (instr(folded(t.question), :text) OR instr(folded(t.answer), :text))))"
        " ORDER BY c.updated_at DESC",
        {**_whose(actor), "text": text.casefold()},
    )
    return [_chat(row) for row in rows]


def put_chat(db: sqlite3.Connection, chat: Chat, uid: int) -> None:
    db.execute(
        "INSERT INTO chats (id, owner_uid, owner, title, deployment, options, on_full, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            chat.id,
            uid,
            chat.owner,
            chat.title,
            chat.deployment,
            msgspec.json.encode(chat.options).decode(),
            chat.on_full,
            chat.created_at,
            chat.updated_at,
        ),
    )


def change_chat(db: sqlite3.Connection, chat: Chat) -> None:
    """Its title, deployment, options, on_full and updated_at; nothing, if it was removed."""
    options = msgspec.json.encode(chat.options).decode()
    db.execute(
        "UPDATE chats SET title = ?, deployment = ?, options = ?, on_full = ?, updated_at = ? WHERE id = ?",
        (chat.title, chat.deployment, options, chat.on_full, chat.updated_at, chat.id),
    )


def delete_chat(db: sqlite3.Connection, id: str) -> None:
    db.execute("DELETE FROM turns WHERE chat = ?", (id,))
    db.execute("DELETE FROM chats WHERE id = ?", (id,))


def over(db: sqlite3.Connection, before: float, *, running: bool = False) -> list[str]:
    """Ids of the chats whose last turn was asked before `before`; one without turns counts from when it was made. One
    that is being answered is left out, unless `running`."""
    rows = db.execute(
        "SELECT c.id FROM chats c WHERE coalesce((SELECT max(t.asked_at) FROM turns t WHERE t.chat = c.id),"
        " c.created_at) < ? AND (? OR NOT EXISTS (SELECT 1 FROM turns t WHERE t.chat = c.id"
        " AND t.state IN ('waiting', 'streaming')))",
        (before, running),
    )
    return [row[0] for row in rows]


def ids(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT id FROM chats")]


def owner(db: sqlite3.Connection, chat: str) -> str:
    """The name of its owner, "" if it is not there."""
    row = db.execute("SELECT owner FROM chats WHERE id = ?", (chat,)).fetchone()
    return str(row[0]) if row else ""


def count_turns(db: sqlite3.Connection, chat: str) -> int:
    return int(db.execute("SELECT count(*) FROM turns WHERE chat = ?", (chat,)).fetchone()[0])


def turns_of(db: sqlite3.Connection, chat: str) -> list[Turn]:
    return [_turn(row) for row in db.execute(_TURN + " WHERE chat = ? ORDER BY n", (chat,))]


def one_turn(db: sqlite3.Connection, id: str) -> Turn | None:
    row = db.execute(_TURN + " WHERE id = ?", (id,)).fetchone()
    return None if row is None else _turn(row)


def put_turn(db: sqlite3.Connection, turn: Turn, *, raw_offset: int = 0, first: int = 1) -> None:
    """Insert or update; a turn whose chat was removed meanwhile is dropped. `first`, the oldest turn that was sent
    along, is only taken when the turn is new."""
    if db.execute("SELECT 1 FROM chats WHERE id = ?", (turn.chat,)).fetchone() is None:
        return
    figures = {
        key: value
        for key in ("ttft_ms", "total_ms", "tokens_per_second", "prompt_tokens", "cached_tokens", "answer_tokens",
                    "finish", "context_tokens")
        if (value := getattr(turn, key)) is not None
    }  # fmt: skip
    db.execute(
        "INSERT INTO turns (id, chat, n, question, answer, state, reason, asked_at, raw_offset, forget, figures)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET answer = excluded.answer,"
        " state = excluded.state, reason = excluded.reason, raw_offset = excluded.raw_offset,"
        " figures = excluded.figures",
        (
            turn.id,
            turn.chat,
            turn.n,
            turn.question,
            turn.answer,
            turn.state,
            turn.reason,
            turn.asked_at,
            raw_offset,
            first,
            msgspec.json.encode(figures).decode(),
        ),
    )


def newest(db: sqlite3.Connection, chat: str) -> tuple[str, str] | None:
    """(id, state) of a chat's last turn."""
    row = db.execute("SELECT id, state FROM turns WHERE chat = ? ORDER BY n DESC LIMIT 1", (chat,)).fetchone()
    return None if row is None else (row[0], row[1])


def first_kept(db: sqlite3.Connection, turn: str) -> int:
    """The oldest turn that went along with this one; those before it are forgotten."""
    row = db.execute("SELECT forget FROM turns WHERE id = ?", (turn,)).fetchone()
    return 1 if row is None else int(row[0])


def drop_from(db: sqlite3.Connection, chat: str, n: int) -> None:
    """Forget turn `n` and what followed it (edit and resend, regenerate)."""
    db.execute("DELETE FROM turns WHERE chat = ? AND n >= ?", (chat, n))


def unfinished(db: sqlite3.Connection) -> list[tuple[Turn, int, int, str, str]]:
    """(turn, raw offset, owner's uid and name, deployment) of turns that were in flight when the daemon ended."""
    rows = db.execute(
        "SELECT t.id, t.raw_offset, c.owner_uid, c.owner, c.deployment FROM turns t JOIN chats c ON c.id = t.chat"
        " WHERE t.state IN ('waiting', 'streaming')"
    ).fetchall()
    return [(turn, row[1], row[2], row[3], row[4]) for row in rows if (turn := one_turn(db, row[0])) is not None]
