"""The SQL of tiers, of what is reserved in them, and of loads; each function runs inside a transaction or a read."""

from __future__ import annotations

import sqlite3
from typing import Any

from core.catalog import tables as versions
from core.errors import NotFound
from core.nouns import HOME, Noun


class Row(Noun, frozen=True, kw_only=True):
    """A row of `tiers`."""

    name: str
    id: str
    path: str
    """Of `home`: empty, it is computed."""
    capacity: int = 0
    away: str = ""
    landing: bool = False
    spill: str = ""
    demote_days: float = 0.0
    demote_to: str = ""
    demoted_at: float | None = None
    cold: float | None = None
    warm: float | None = None
    measured_at: float | None = None
    added_at: float = 0.0
    added_by: str = ""


class Load(Noun, frozen=True, kw_only=True):
    """A row of `loads`."""

    tier: str
    at: float
    seconds: float
    bytes: int
    cached: float | None


_COLUMNS = ", ".join(Row.__struct_fields__)


def _row(found: tuple[Any, ...]) -> Row:
    fields = dict(zip(Row.__struct_fields__, found, strict=True))
    return Row(**{**fields, "landing": bool(fields["landing"])})


def rows(db: sqlite3.Connection) -> list[Row]:
    """All, `home` first."""
    found = [_row(each) for each in db.execute(f"SELECT {_COLUMNS} FROM tiers ORDER BY name")]  # noqa: S608
    return sorted(found, key=lambda row: (row.name != HOME, row.name))


def one(db: sqlite3.Connection, name: str) -> Row:
    """Raises `NotFound`."""
    found = db.execute(f"SELECT {_COLUMNS} FROM tiers WHERE name = ?", (name,)).fetchone()  # noqa: S608
    if found is None:
        raise NotFound(f"no tier {name!r}", todo="see `corral tiers ls`", kind="tier")
    return _row(found)


def put(db: sqlite3.Connection, row: Row) -> None:
    """Insert or replace one. New models land in one tier alone."""
    if row.landing:
        db.execute("UPDATE tiers SET landing = 0")
    marks = ", ".join("?" for _ in Row.__struct_fields__)
    sets = ", ".join(f"{each} = excluded.{each}" for each in Row.__struct_fields__[1:])
    db.execute(
        f"INSERT INTO tiers ({_COLUMNS}) VALUES ({marks}) ON CONFLICT (name) DO UPDATE SET {sets}",  # noqa: S608
        [getattr(row, each) for each in Row.__struct_fields__],
    )


def drop(db: sqlite3.Connection, name: str) -> None:
    """Forget a tier that holds nothing. What named it does no more."""
    db.execute("DELETE FROM tiers WHERE name = ?", (name,))
    db.execute("DELETE FROM loads WHERE tier = ?", (name,))
    db.execute("UPDATE tiers SET spill = '' WHERE spill = ?", (name,))
    db.execute("UPDATE tiers SET demote_to = '', demote_days = 0 WHERE demote_to = ?", (name,))
    if db.execute("SELECT 1 FROM tiers WHERE landing").fetchone() is None:
        db.execute("UPDATE tiers SET landing = 1 WHERE name = ?", (HOME,))


def away(db: sqlite3.Connection, name: str, why: str) -> None:
    db.execute("UPDATE tiers SET away = ? WHERE name = ?", (why, name))


def landing(db: sqlite3.Connection) -> str:
    """Where new models land."""
    return str(db.execute("SELECT name FROM tiers WHERE landing").fetchone()[0])


# ------------------------------------------------------------------------------------------------ objects


def objects(db: sqlite3.Connection, tier: str) -> dict[str, int]:
    """What is stored there: hash and bytes."""
    return dict(db.execute("SELECT sha256, bytes FROM objects WHERE tier = ? AND state = 'stored'", (tier,)))


def rotten(db: sqlite3.Connection) -> list[str]:
    """What was found not to be what it was."""
    return [sha256 for (sha256,) in db.execute("SELECT sha256 FROM objects WHERE state = 'quarantined'")]


def held(db: sqlite3.Connection, tier: str) -> list[str]:
    """The versions of which something lies there, in whichever state."""
    sql = (
        "SELECT DISTINCT v.model, v.version FROM version_objects v JOIN objects o ON o.sha256 = v.sha256"
        " WHERE o.tier = ? ORDER BY v.model, v.version"
    )
    return [f"{model}@{version}" for model, version in db.execute(sql, (tier,))]


def places(db: sqlite3.Connection) -> dict[str, str]:
    """Each object's tier."""
    return dict(db.execute("SELECT sha256, tier FROM objects"))


def parts(db: sqlite3.Connection, wanted: set[str]) -> dict[str, dict[str, int]]:
    """The files of split models among these objects: name and bytes."""
    return {
        versions.object_of(model.files): {part.name: part.bytes for part in model.files}
        for model in versions.versions(db)
        if len(model.files) > 1 and versions.object_of(model.files) in wanted
    }


def rehouse(db: sqlite3.Connection, sha256: str, old: str, new: str) -> bool:
    """Have an object lie in another tier; whether it was stored in the old one."""
    sql = "UPDATE objects SET tier = ? WHERE sha256 = ? AND tier = ? AND state = 'stored'"
    return db.execute(sql, (new, sha256, old)).rowcount == 1


def used(db: sqlite3.Connection, hashes: list[str], now: float) -> None:
    db.executemany("UPDATE objects SET used_at = ? WHERE sha256 = ?", [(now, each) for each in hashes])


def last_used(db: sqlite3.Connection, sha256: str) -> tuple[float | None, float]:
    """When an object was last launched, and when it was stored."""
    row = db.execute("SELECT used_at, added_at FROM objects WHERE sha256 = ?", (sha256,)).fetchone()
    return (row[0], row[1]) if row else (None, 0.0)


# ------------------------------------------------------------------------------------------------ space


def stored(db: sqlite3.Connection, tier: str) -> tuple[int, int]:
    """How many objects are stored there, and their bytes."""
    sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM objects WHERE tier = ? AND state = 'stored'"
    row = db.execute(sql, (tier,)).fetchone()
    return row[0], row[1]


def reserved(db: sqlite3.Connection, tier: str) -> int:
    """Bytes that are promised there."""
    sql = "SELECT coalesce(sum(bytes), 0) FROM tier_reservations WHERE tier = ?"
    return int(db.execute(sql, (tier,)).fetchone()[0])


def awaited(db: sqlite3.Connection, tier: str) -> list[str]:
    """To what bytes are promised there."""
    return [row[0] for row in db.execute("SELECT DISTINCT what FROM tier_reservations WHERE tier = ? LIMIT 5", (tier,))]


def reserve(db: sqlite3.Connection, id: str, tier: str, size: int, what: str, now: float) -> None:
    db.execute(
        "INSERT INTO tier_reservations (id, tier, bytes, what, at) VALUES (?, ?, ?, ?, ?)", (id, tier, size, what, now)
    )


def release(db: sqlite3.Connection, id: str) -> None:
    """In the transaction that stores what it was for, or when that was given up."""
    db.execute("DELETE FROM tier_reservations WHERE id = ?", (id,))


def release_all(db: sqlite3.Connection) -> None:
    """Of a daemon that has ended: what it was doing is done anew, if at all."""
    db.execute("DELETE FROM tier_reservations")


# ------------------------------------------------------------------------------------------------ loads


def loaded(db: sqlite3.Connection, model: str, version: int, load: Load, engine: str) -> None:
    db.execute(
        "INSERT INTO loads (model, version, tier, at, seconds, bytes, cached, engine) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (model, version, tier) DO UPDATE SET at = excluded.at, seconds = excluded.seconds,"
        " bytes = excluded.bytes, cached = excluded.cached, engine = excluded.engine",
        (model, version, load.tier, load.at, load.seconds, load.bytes, load.cached, engine),
    )


def loads(db: sqlite3.Connection, model: str, version: int) -> dict[str, Load]:
    """By tier."""
    sql = "SELECT tier, at, seconds, bytes, cached FROM loads WHERE model = ? AND version = ?"
    found = (
        Load(tier=row[0], at=row[1], seconds=row[2], bytes=row[3], cached=row[4])
        for row in db.execute(sql, (model, version))
    )
    return {each.tier: each for each in found}
