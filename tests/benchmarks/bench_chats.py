"""What sealing costs: a box made and opened, a turn stored, a list and a search over 1,000 chats."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from pathlib import Path

from core.chats import tables
from core.chats.master import Salted
from core.chats.sealed import Box, Master, Ring
from core.chats.tables import Owner
from core.nouns import Actor, Chat, ChatOptions, Turn
from core.store import migrate

CHATS, TURNS, SAID = 1000, 10, "What is a llama, and why? " * 40


def main() -> None:
    box = Box("k", os.urandom(32))
    for size in (200, 2_000, 200_000):
        plain = os.urandom(size)
        began, rounds = time.perf_counter(), 2_000_000_000 // (size + 100_000) // 10
        sealed = [box.seal(plain, "question", "c", "t") for _ in range(rounds)]
        middle = time.perf_counter()
        for each in sealed:
            box.open(each, "question", "c", "t")
        ended = time.perf_counter()
        print(f"a box of {size:,} bytes: sealed in {(middle - began) / rounds * 1e6:.1f} us,"
              f" opened in {(ended - middle) / rounds * 1e6:.1f} us")  # fmt: skip
    began = time.perf_counter()
    Salted.new().master("correct horse battery")
    print(f"a passphrase tried: {time.perf_counter() - began:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        _table(Path(folder) / "corral.db")


def _table(path: Path) -> None:
    db, ring = sqlite3.connect(path, isolation_level=None), Ring(Master(os.urandom(32)))
    migrate.migrate(db, migrate.find(("core.store", "core.chats")), 0)
    began = time.perf_counter()
    db.execute("BEGIN")
    for n in range(CHATS):
        chat = Chat(id=f"{n:010x}", title=SAID[:60], deployment="chat", options=ChatOptions(), owner="a", created_at=n,
                    updated_at=n)  # fmt: skip
        tables.put_chat(db, ring, chat, 1)
        for k in range(TURNS):
            turn = Turn(id=f"{n}-{k}", chat=chat.id, n=k + 1, question=SAID, answer=SAID, state="done", asked_at=n)
            tables.put_turn(db, ring, turn)
    db.execute("COMMIT")
    print(f"a turn of 2 x {len(SAID):,} bytes stored: {(time.perf_counter() - began) / CHATS / TURNS * 1e6:.0f} us"
          " (without the flush)")  # fmt: skip
    began = time.perf_counter()
    assert len(tables.chats_of(db, ring, Owner(1, "a"))) == CHATS
    middle = time.perf_counter()
    assert tables.search(db, ring, Actor(uid=1, name="a"), "no such word") == []
    print(f"{CHATS:,} chats listed: {middle - began:.3f} s")
    size = 2 * CHATS * TURNS * len(SAID) / 1e6
    print(f"{size:.0f} MB in them searched: {time.perf_counter() - middle:.2f} s")


if __name__ == "__main__":
    main()
