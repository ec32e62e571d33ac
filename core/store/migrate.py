"""Numbered .sql migrations, each in one transaction; a database newer than the program is refused."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from core.errors import StoreError
from core.store.faults import is_full

Migration = tuple[int, str, str]
"""Its number, name and SQL."""


def find(packages: Sequence[str]) -> list[Migration]:
    """All migrations of `packages`, in order. A number used twice is a ValueError."""
    found: dict[int, tuple[str, str]] = {}
    for package in packages:
        module = import_module(package)
        for file in sorted((Path(str(module.__file__)).parent / "migrations").glob("*.sql")):
            match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
            if match is None or int(match[1]) in found:
                raise ValueError(f"migration {file.name} of {package} is misnamed or its number is taken")
            found[int(match[1])] = (match[2], file.read_text(encoding="utf-8"))
    return [(number, *found[number]) for number in sorted(found)]


def applied(db: sqlite3.Connection) -> set[int]:
    """Numbers of the migrations that this database has had."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchone() is None:
        return set()
    return {row[0] for row in db.execute("SELECT number FROM migrations")}


def check_not_newer(db: sqlite3.Connection, known: Sequence[Migration]) -> None:
    """Raises `StoreError` if the database has had a migration that this program doesn't know."""
    newer = applied(db) - {number for number, _, _ in known}
    if newer:
        raise StoreError(
            "the database is newer than this program",
            f"it has had migration {max(newer)}, which this program does not know",
            "run the newer program, or restore the copy in the folder `backups`",
        )


def migrate(db: sqlite3.Connection, known: Sequence[Migration], now: float) -> None:
    """Apply what is missing, one transaction each. `db` is in autocommit mode."""
    db.execute(
        "CREATE TABLE IF NOT EXISTS migrations"
        " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, at REAL NOT NULL) STRICT"
    )
    had = applied(db)
    for number, name, sql in known:
        if number in had:
            continue
        try:
            db.execute("BEGIN IMMEDIATE")
            for statement in _statements(sql):
                db.execute(statement)
            db.execute("INSERT INTO migrations (number, name, at) VALUES (?, ?, ?)", (number, name, now))
            db.execute("COMMIT")
        except sqlite3.Error as error:
            roll_back(db)
            why = "the disk with the database is full" if is_full(error) else str(error)
            todo = "nothing of it was kept: make room, or mend the disk, and start again"
            raise StoreError(f"migration {number} ({name}) failed", why, todo) from error


def roll_back(db: sqlite3.Connection) -> None:
    """End what is begun. A disk that fails here too must not hide the first error: the file is whole without it."""
    if db.in_transaction:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")


def _statements(sql: str) -> list[str]:
    """Single statements; a trigger's inner semicolons don't end it."""
    out, part = [], ""
    for line in sql.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            out.append(part)
            part = ""
    if part.strip():
        out.append(part)
    return out
