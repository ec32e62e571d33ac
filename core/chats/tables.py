"""The SQL of chats and turns; each function runs inside a transaction or a read. What was said is sealed on its way in
and opened on its way out; whose it is, with which deployment, when, and how many tokens it took is not."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

import msgspec

from core.chats.sealed import Box, Ring
from core.errors import Failed, Locked, NotFound
from core.nouns import Actor, Chat, ChatDetail, ChatOptions, Turn

_CHAT = (
    "SELECT c.id, c.title, c.deployment, c.options, c.owner, c.created_at, c.updated_at, c.on_full,"
    " (SELECT count(*) FROM turns t WHERE t.chat = c.id),"
    " (SELECT t.figures FROM turns t WHERE t.chat = c.id AND t.state != 'waiting' ORDER BY t.n DESC LIMIT 1),"
    " (SELECT max(t.asked_at) FROM turns t WHERE t.chat = c.id), c.key, c.sealed, c.owner_uid,"
    " EXISTS (SELECT 1 FROM chat_holds h WHERE h.kind = 'chat' AND h.name = c.id"
    " OR h.kind = 'user' AND h.name = c.owner AND h.uid = c.owner_uid)"
    " FROM chats c"
)
_TURN = (
    "SELECT t.id, t.chat, t.n, t.question, t.answer, t.state, t.reason, t.asked_at, t.figures, t.asked, t.answered,"
    " c.key FROM turns t JOIN chats c ON c.id = t.chat"
)
_FIGURES = (
    "ttft_ms", "total_ms", "tokens_per_second", "prompt_tokens", "cached_tokens", "answer_tokens", "context_tokens",
)  # fmt: skip


class _Head(msgspec.Struct):
    """Of a chat, what is sealed."""

    title: str
    options: ChatOptions


class _Answer(msgspec.Struct):
    """Of a turn, what is sealed beside the question. Engines may say anything in their own words too."""

    answer: str
    reason: str
    finish: str


class Owner(NamedTuple):
    """Whose a chat is."""

    uid: int
    name: str


def _chat(db: sqlite3.Connection, ring: Ring, row: tuple[Any, ...]) -> Chat:
    figures = msgspec.json.decode(row[9]) if row[9] else {}
    if row[11] is None:
        head = _Head(row[1], msgspec.json.decode(row[3], type=ChatOptions))
    else:
        head = msgspec.json.decode(ring.of_chat(db, row[11]).open(row[12], "chat", row[0]), type=_Head)
    return Chat(
        id=row[0],
        title=head.title,
        deployment=row[2],
        options=head.options,
        owner=row[4],
        owner_uid=row[13],
        created_at=row[5],
        updated_at=row[6],
        on_full=row[7],
        turns=row[8],
        context_tokens=figures.get("context_tokens") or 0,
        last_turn_at=row[10],
        held=bool(row[14]),
    )


def _listed(db: sqlite3.Connection, ring: Ring, row: tuple[Any, ...]) -> Chat:
    """One that somebody has changed must not hide the others. Raises `Locked`."""
    try:
        return _chat(db, ring, row)
    except Locked:
        raise
    except Failed:
        empty = msgspec.json.encode(ChatOptions()).decode()
        return _chat(db, ring, (row[0], "(cannot be opened)", row[2], empty, *row[4:11], None, None, *row[13:]))


def _turn(db: sqlite3.Connection, ring: Ring, row: tuple[Any, ...]) -> Turn:
    id, chat, n, question, answer, state, reason, asked_at, figures, asked, answered, key = row
    said = {"answer": answer, "reason": reason}
    if key is not None:
        box = ring.of_chat(db, key)
        question = box.open(asked, "question", chat, id).decode()
        said = msgspec.json.decode(box.open(answered, "answer", chat, id))
    fields = {"id": id, "chat": chat, "n": n, "question": question, "state": state, "asked_at": asked_at}
    return msgspec.convert({**fields, **msgspec.json.decode(figures), **said}, Turn)


_MINE = " WHERE c.owner_uid = :uid AND c.owner = :name"
"""Uid and name: a uid that was given to somebody else brings him no chats."""


def _whose(actor: Actor | Owner) -> dict[str, Any]:
    return {"uid": actor.uid, "name": actor.name}


def chats_of(db: sqlite3.Connection, ring: Ring, actor: Actor | Owner) -> list[Chat]:
    """Newest first."""
    rows = db.execute(_CHAT + _MINE + " ORDER BY c.updated_at DESC", _whose(actor)).fetchall()
    return [_listed(db, ring, row) for row in rows]


def one_chat(db: sqlite3.Connection, ring: Ring, actor: Actor | Owner | None, id: str) -> Chat | None:
    """A chat of this owner, None for anybody's; an id's unique beginning of 4 characters or more will do."""
    whose, values = (_MINE, _whose(actor)) if actor is not None else (" WHERE 1", {})
    rows = db.execute(
        _CHAT + whose + " AND (c.id = :id OR (length(:id) >= 4 AND substr(c.id, 1, length(:id)) = :id)) LIMIT 2",
        {**values, "id": id},
    ).fetchall()
    return _chat(db, ring, rows[0]) if len(rows) == 1 else None


def search(db: sqlite3.Connection, ring: Ring, actor: Actor, text: str) -> list[Chat]:
    """Chats whose title, question or answer holds `text`, in any case of any script. All of them are opened for it: an
    index would be a second copy of what was said."""
    text = text.casefold()

    def holds(chat: Chat) -> bool:
        if text in chat.title.casefold():
            return True
        rows = db.execute(_TURN + " WHERE t.chat = ?", (chat.id,))
        turns = (_turn(db, ring, row) for row in rows.fetchall())
        try:
            return any(text in turn.question.casefold() or text in turn.answer.casefold() for turn in turns)
        except Locked:
            raise
        except Failed:
            return False

    return [chat for chat in chats_of(db, ring, actor) if holds(chat)]


def _head(box: Box, chat: Chat) -> bytes:
    return box.seal(msgspec.json.encode(_Head(chat.title, chat.options)), "chat", chat.id)


def put_chat(db: sqlite3.Connection, ring: Ring, chat: Chat, uid: int) -> None:
    box = ring.of_user(db, uid, chat.owner)
    db.execute(
        "INSERT INTO chats (id, owner_uid, owner, title, deployment, options, on_full, created_at, updated_at, key,"
        " sealed) VALUES (?, ?, ?, '', ?, '', ?, ?, ?, ?, ?)",
        (
            chat.id,
            uid,
            chat.owner,
            chat.deployment,
            chat.on_full,
            chat.created_at,
            chat.updated_at,
            box.id,
            _head(box, chat),
        ),
    )


def change_chat(db: sqlite3.Connection, ring: Ring, chat: Chat) -> None:
    """Its title, deployment, options, on_full and updated_at; nothing, if it was removed."""
    key = _key(db, ring, chat.id)
    if key is not None:
        db.execute(
            "UPDATE chats SET sealed = ?, deployment = ?, on_full = ?, updated_at = ? WHERE id = ?",
            (_head(ring.of_chat(db, key), chat), chat.deployment, chat.on_full, chat.updated_at, chat.id),
        )


def _key(db: sqlite3.Connection, ring: Ring, chat: str) -> str | None:
    """The id of the key of a chat, which is sealed first where it is not; None if there is no such chat."""
    row = db.execute("SELECT key FROM chats WHERE id = ?", (chat,)).fetchone()
    if row is None:
        return None
    return str(row[0]) if row[0] is not None else seal_chat(db, ring, chat)


def plain_chats(db: sqlite3.Connection, limit: int) -> list[str]:
    """Ids of chats from before they were sealed."""
    return [row[0] for row in db.execute("SELECT id FROM chats WHERE key IS NULL LIMIT ?", (limit,))]


def seal_chat(db: sqlite3.Connection, ring: Ring, id: str) -> str:
    """Seal what is plain of a chat and of its turns; the id of the key."""
    row = db.execute(_CHAT + " WHERE c.id = ?", (id,)).fetchone()
    chat, turns = _chat(db, ring, row), turns_of(db, ring, id)
    box = ring.of_user(db, chat.owner_uid, chat.owner)
    db.execute(
        "UPDATE chats SET title = '', options = '', key = ?, sealed = ? WHERE id = ?", (box.id, _head(box, chat), id)
    )
    for turn in turns:
        db.execute(
            "UPDATE turns SET question = '', answer = '', reason = '', figures = ?, asked = ?, answered = ?"
            " WHERE id = ?",
            (_figures(turn), *_said(box, turn), turn.id),
        )
    return box.id


def delete_chat(db: sqlite3.Connection, id: str) -> None:
    db.execute("DELETE FROM turns WHERE chat = ?", (id,))
    db.execute("DELETE FROM chats WHERE id = ?", (id,))


def delete_plain(db: sqlite3.Connection) -> None:
    """From a copy of before a migration: chats that are not sealed there."""
    sealed = "key" in {row[1] for row in db.execute("PRAGMA table_info(chats)")}
    where = "WHERE key IS NULL" if sealed else ""
    db.execute(f"DELETE FROM turns WHERE chat IN (SELECT id FROM chats {where})")  # noqa: S608 - constants only
    db.execute(f"DELETE FROM chats {where}")  # noqa: S608


def ids(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT id FROM chats")]


def owner(db: sqlite3.Connection, chat: str) -> Owner | None:
    """Whose it is; None if it is not there."""
    row = db.execute("SELECT owner_uid, owner FROM chats WHERE id = ?", (chat,)).fetchone()
    return Owner(*row) if row else None


def count_turns(db: sqlite3.Connection, chat: str) -> int:
    return int(db.execute("SELECT count(*) FROM turns WHERE chat = ?", (chat,)).fetchone()[0])


def turns_of(db: sqlite3.Connection, ring: Ring, chat: str) -> list[Turn]:
    rows = db.execute(_TURN + " WHERE t.chat = ? ORDER BY t.n", (chat,)).fetchall()
    return [_turn(db, ring, row) for row in rows]


def one_turn(db: sqlite3.Connection, ring: Ring, id: str) -> Turn | None:
    row = db.execute(_TURN + " WHERE t.id = ?", (id,)).fetchone()
    return None if row is None else _turn(db, ring, row)


def _said(box: Box, turn: Turn) -> tuple[bytes, bytes]:
    """Question and answer, sealed."""
    return box.seal(turn.question.encode(), "question", turn.chat, turn.id), _answer(box, turn)


def _answer(box: Box, turn: Turn) -> bytes:
    said = _Answer(turn.answer, turn.reason, turn.finish)
    return box.seal(msgspec.json.encode(said), "answer", turn.chat, turn.id)


def _figures(turn: Turn) -> str:
    found = {key: value for key in _FIGURES if (value := getattr(turn, key)) is not None}
    return msgspec.json.encode(found).decode()


def put_turn(db: sqlite3.Connection, ring: Ring, turn: Turn, *, raw_offset: int = 0, first: int = 1) -> None:
    """Insert or update; a turn whose chat was removed meanwhile is dropped. `first`, the oldest turn that was sent
    along, is only taken when the turn is new."""
    key = _key(db, ring, turn.chat)
    if key is None:
        return
    box = ring.of_chat(db, key)
    changed = db.execute(
        "UPDATE turns SET answered = ?, state = ?, raw_offset = ?, figures = ? WHERE id = ?",
        (_answer(box, turn), turn.state, raw_offset, _figures(turn), turn.id),
    ).rowcount
    if not changed:
        asked, answered = _said(box, turn)
        db.execute(
            "INSERT INTO turns (id, chat, n, question, answer, state, asked_at, raw_offset, forget, figures, asked,"
            " answered) VALUES (?, ?, ?, '', '', ?, ?, ?, ?, ?, ?, ?)",
            (
                turn.id,
                turn.chat,
                turn.n,
                turn.state,
                turn.asked_at,
                raw_offset,
                first,
                _figures(turn),
                asked,
                answered,
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


def named(db: sqlite3.Connection, id: str, actor: Actor | None = None) -> tuple[str, str]:
    """(id, owner's name) of a chat of the actor's, or of anybody's, by its id or a unique beginning of 4 characters or
    more. Nothing is opened for it. Raises `NotFound`."""
    whose, values = (_MINE, _whose(actor)) if actor is not None else (" WHERE 1", {})
    rows = db.execute(
        "SELECT c.id, c.owner FROM chats c"  # noqa: S608 - constants only
        + whose
        + " AND (c.id = :id OR (length(:id) >= 4 AND substr(c.id, 1, length(:id)) = :id)) LIMIT 2",
        {**values, "id": id},
    ).fetchall()
    if len(rows) != 1:
        raise NotFound(f"no chat {id[:40]!r}", todo="see `corral chats ls --user NAME`")
    return rows[0][0], rows[0][1]


def owners(db: sqlite3.Connection, name: str) -> list[Owner]:
    """Who of this name has chats or a key here: a name may have had several uids."""
    rows = db.execute(
        "SELECT owner_uid, owner FROM chats WHERE owner = ?"
        " UNION SELECT owner_uid, owner FROM chat_keys WHERE owner = ?",
        (name, name),
    )
    return [Owner(*row) for row in rows]


def of_owner(db: sqlite3.Connection, owner: Owner) -> list[str]:
    """Ids of his chats."""
    rows = db.execute("SELECT id FROM chats WHERE owner_uid = ? AND owner = ?", (owner.uid, owner.name))
    return [row[0] for row in rows]


def held(db: sqlite3.Connection, chat: str) -> bool:
    """Whether a chat is under legal hold, by itself or with all of its owner's."""
    sql = (
        "SELECT 1 FROM chats c JOIN chat_holds h ON h.kind = 'chat' AND h.name = c.id"
        " OR h.kind = 'user' AND h.name = c.owner AND h.uid = c.owner_uid WHERE c.id = ? LIMIT 1"
    )
    return db.execute(sql, (chat,)).fetchone() is not None


def held_user(db: sqlite3.Connection, owner: Actor | Owner) -> bool:
    """Whether all that this user says is to be kept."""
    sql = "SELECT 1 FROM chat_holds WHERE kind = 'user' AND name = ? AND uid = ?"
    return db.execute(sql, (owner.name, owner.uid)).fetchone() is not None


def ages(db: sqlite3.Connection) -> list[tuple[str, Owner, str, float, bool]]:
    """(id, owner, deployment, when its last turn was asked or it was made, whether it is being answered)."""
    rows = db.execute(
        "SELECT c.id, c.owner_uid, c.owner, c.deployment, coalesce((SELECT max(t.asked_at) FROM turns t"
        " WHERE t.chat = c.id), c.created_at), EXISTS (SELECT 1 FROM turns t WHERE t.chat = c.id"
        " AND t.state IN ('waiting', 'streaming')) FROM chats c"
    )
    return [(id, Owner(uid, name), deployment, at, bool(busy)) for id, uid, name, deployment, at, busy in rows]


def destroy_key(db: sqlite3.Connection, owner: Owner) -> tuple[str, bytes] | None:
    """Take the key of a user away, whose chats are gone: (id, how it was wrapped); None if he had none."""
    row = db.execute(
        "DELETE FROM chat_keys WHERE owner_uid = ? AND owner = ? RETURNING id, wrapped", (owner.uid, owner.name)
    ).fetchone()
    return None if row is None else (row[0], row[1])


def details(db: sqlite3.Connection, ring: Ring, actor: Actor | Owner) -> list[ChatDetail]:
    """All that a user has said, newest first."""
    return [
        ChatDetail(chat=chat, messages=tuple(turns_of(db, ring, chat.id))) for chat in chats_of(db, ring, actor)
    ]  # fmt: skip
