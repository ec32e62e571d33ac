"""What was said, sealed: AES-256-GCM with a key per user, which is wrapped with the master key.

A box begins with a byte for its format and 12 random bytes (the nonce); the ciphertext and its tag follow. The identity
of the row and of the field is authenticated with it, so that no box opens in another place. Random nonces are good for
2^32 boxes a key: an answer is sealed once a second while it grows, which makes that 136 years.

`cryptography` is imported where it is used: 20 ms and 10 MiB that a start without chats need not pay.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
import time
from typing import TYPE_CHECKING

from core.errors import Failed, Locked

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = b"\x01"
NONCE = 12
KEY = 32
"""Bytes."""
FORGOTTEN = "its key was destroyed"


def _aead(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


class Box:
    """Seals and opens with one key. Its `repr` tells no secret."""

    def __init__(self, id: str, key: bytes) -> None:
        self.id = id
        self._aead = _aead(key)

    def __repr__(self) -> str:
        return f"Box({self.id})"

    def seal(self, plain: bytes, *where: str) -> bytes:
        """`where` is the place that it belongs to: what kind of thing, and the ids of its row."""
        nonce = os.urandom(NONCE)
        return FORMAT + nonce + self._aead.encrypt(nonce, plain, self._bound(where))

    def open(self, box: bytes, *where: str) -> bytes:
        """Raises `Failed` for what was changed, or belongs elsewhere."""
        from cryptography.exceptions import InvalidTag

        try:
            if box[:1] != FORMAT:
                raise InvalidTag
            return self._aead.decrypt(box[1 : 1 + NONCE], box[1 + NONCE :], self._bound(where))
        except (InvalidTag, ValueError):
            raise Failed(
                f"the sealed {' '.join(where)} cannot be opened", "it was changed, or put there from another place",
                "put back a copy of the database (docs/privacy.md)",
            ) from None  # fmt: skip

    def _bound(self, where: tuple[str, ...]) -> bytes:
        return b"corral chats 1\0" + "\0".join((self.id, *where)).encode()


class Master(Box):
    """The master key. Its id names it and tells nothing of it."""

    def __init__(self, key: bytes) -> None:
        super().__init__(hashlib.sha256(b"corral chats master\0" + key).hexdigest()[:16], key)

    def wrap(self, key: bytes, id: str, uid: int, name: str) -> bytes:
        """A user's key, as it is stored."""
        return self.seal(key, "key", id, str(uid), name)

    def unwrap(self, wrapped: bytes, id: str, uid: int, name: str) -> bytes:
        """Raises `Failed`."""
        return self.open(wrapped, "key", id, str(uid), name)


class Ring:
    """The keys of the users, while the master key is there. `why`, and what to do, where it is not.

    Looked at from the writer's thread and the reader's: each step is one that a dict does whole.
    """

    def __init__(self, master: Master | None = None) -> None:
        self._master = master
        self._boxes: dict[str, Box] = {}
        self.why = "the daemon has not looked for the master key yet"
        self.todo = "try again"

    @property
    def master(self) -> Master:
        """Raises `Locked`."""
        master = self._master
        if master is None:
            raise Locked("the chats are locked", self.why, self.todo)
        return master

    @property
    def open(self) -> bool:
        return self._master is not None

    def unlock(self, master: Master) -> None:
        self._master = master

    def lock(self, why: str, todo: str) -> None:
        """Forget all keys."""
        self._master, self.why, self.todo = None, why, todo
        self._boxes = {}

    def forget(self, id: str) -> None:
        self._boxes.pop(id, None)

    def of_chat(self, db: sqlite3.Connection, id: str) -> Box:
        """The box of the key `id`. Raises `Locked`; `Failed` if it was destroyed."""
        master, box = self.master, self._boxes.get(id)
        if box is None:
            row = db.execute("SELECT wrapped, owner_uid, owner FROM chat_keys WHERE id = ?", (id,)).fetchone()
            if row is None:
                raise Failed("a chat cannot be read", FORGOTTEN)
            box = self._boxes[id] = Box(id, master.unwrap(row[0], id, row[1], row[2]))
        return box

    def of_user(self, db: sqlite3.Connection, uid: int, name: str) -> Box:
        """In a transaction: the box that new chats of this user go into; his key is made if he has none."""
        row = db.execute("SELECT id FROM chat_keys WHERE owner_uid = ? AND owner = ?", (uid, name)).fetchone()
        if row is not None:
            return self.of_chat(db, row[0])
        id, key = secrets.token_hex(8), os.urandom(KEY)
        wrapped = self.master.wrap(key, id, uid, name)
        db.execute(
            "INSERT INTO chat_keys (id, owner_uid, owner, master, wrapped, made_at) VALUES (?, ?, ?, ?, ?, ?)",
            (id, uid, name, self.master.id, wrapped, time.time()),
        )  # fmt: skip
        return Box(id, key)  # remembered when it is read: this transaction may still be rolled back


def rewrap(db: sqlite3.Connection, old: Master, new: Master) -> int:
    """In a transaction: wrap every key that `old` wraps with `new`; how many. What is sealed with them stays."""
    rows = db.execute("SELECT id, owner_uid, owner, wrapped FROM chat_keys WHERE master = ?", (old.id,)).fetchall()
    for id, uid, name, wrapped in rows:
        again = new.wrap(old.unwrap(wrapped, id, uid, name), id, uid, name)
        db.execute("UPDATE chat_keys SET wrapped = ?, master = ? WHERE id = ?", (again, new.id, id))
    return len(rows)
