"""The SQL of names, versions, aliases and objects; each function runs inside a transaction or a read."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from core.catalog.references import LIVE, PREVIOUS, Reference
from core.errors import Conflict, NotFound, missing
from core.nouns import HOME, Model, ModelChange, ModelFile


def joint(hashes: Iterable[str]) -> str:
    """The hash that several files have together."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def object_of(files: Sequence[ModelFile]) -> str:
    """The object that a model's own files are: one file, or the folder of a split model."""
    return files[0].sha256 if len(files) == 1 else joint(part.sha256 for part in files)


def objects_of(model: Model) -> dict[str, int]:
    """All objects that a version is made of, with their bytes."""
    found = {object_of(model.files): sum(part.bytes for part in model.files)}
    for beside in (*((model.projector,) if model.projector else ()), *model.adapters):
        found[beside.sha256] = beside.bytes
    return found


def meaning(model: Model) -> str:
    """Which aliases mean a version, in words."""
    names = [f"{model.name}:{alias}" for alias in model.aliases]
    return f"{' and '.join(names)} mean{'s' * (len(names) == 1)} it"


# ------------------------------------------------------------------------------------------------ read


def _models(db: sqlite3.Connection, where: str = "", values: Sequence[Any] = ()) -> list[Model]:
    """The versions that `where` (of `v`, the version) leaves, by name and number."""
    counts = dict(db.execute("SELECT model, count(*) FROM model_versions GROUP BY model"))
    aliases: dict[tuple[str, int], list[str]] = {}
    for model, alias, version in db.execute("SELECT model, alias, version FROM model_aliases ORDER BY alias"):
        aliases.setdefault((model, version), []).append(alias)
    lie: dict[tuple[str, int], dict[str, tuple[str, str]]] = {}
    for model, version, sha256, state, tier in db.execute(_LIE):
        lie.setdefault((model, version), {})[sha256] = (state, tier)
    # `where` is one of the constants below.
    sql = f"SELECT v.model, v.version, v.data FROM model_versions v {where} ORDER BY v.model, v.version"  # noqa: S608
    rows = db.execute(sql, values)
    found = []
    for model, version, data in rows:
        plain = msgspec.json.decode(data, type=Model)
        mine = lie.get((model, version), {})
        state, tier = mine.get(object_of(plain.files), ("stored", HOME))
        if state == "stored":
            state = next((each for each, _ in mine.values() if each != "stored"), state)
        found.append(
            msgspec.structs.replace(
                plain,
                aliases=tuple(sorted(aliases.get((model, version), ()), key=lambda each: (each != LIVE, each))),
                versions=counts[model], state=state, tier=tier,
            )
        )  # fmt: skip
    return found


_LIE = (
    "SELECT b.model, b.version, o.sha256, CASE WHEN o.state = 'stored' AND t.away != '' THEN 'away' ELSE o.state END,"
    " o.tier FROM version_objects b JOIN objects o ON o.sha256 = b.sha256 JOIN tiers t ON t.name = o.tier"
)
"""What each version is made of: its state, where it lies."""
_LIVE = "JOIN model_aliases a ON a.model = v.model AND a.version = v.version AND a.alias = 'live'"


def live(db: sqlite3.Connection) -> list[Model]:
    """What each name means, by name."""
    return _models(db, _LIVE)


def versions(db: sqlite3.Connection, name: str | None = None) -> list[Model]:
    """All versions of a name, or of all. Raises `NotFound` for a name that is not there."""
    found = _models(db, "WHERE v.model = ?", (name,)) if name is not None else _models(db)
    if name is not None and not found:
        raise missing("model", name)
    return found


def find(db: sqlite3.Connection, wanted: Reference) -> Model:
    """The version that is meant. Raises `NotFound`; `Conflict` for the beginning of two hashes."""
    found = versions(db, wanted.name)
    if wanted.version:
        chosen = [each for each in found if each.version == wanted.version]
    elif wanted.sha256:
        chosen = [each for each in found if each.sha256.startswith(wanted.sha256)]
    else:
        chosen = [each for each in found if wanted.alias in each.aliases]
    if not chosen:
        there = ", ".join(", ".join([f"@{each.version}", *(f":{alias}" for alias in each.aliases)]) for each in found)
        raise NotFound(
            f"no version {wanted}", f"{wanted.name} has {there}", f"see `corral models versions {wanted.name}`"
        )
    if len(chosen) > 1:
        raise Conflict(f"{wanted} means {len(chosen)} versions", todo="give more digits of the hash")
    return chosen[0]


def aliases(db: sqlite3.Connection, name: str) -> dict[str, int]:
    return dict(db.execute("SELECT alias, version FROM model_aliases WHERE model = ?", (name,)))


def changes(db: sqlite3.Connection, name: str, limit: int) -> list[ModelChange]:
    """What happened to a name, newest first, also to one that is gone."""
    sql = "SELECT at, by, what, version, detail FROM model_changes WHERE model = ? ORDER BY id DESC LIMIT ?"
    return [
        ModelChange(at=row[0], by=row[1], what=row[2], version=row[3], detail=row[4])
        for row in db.execute(sql, (name, limit))
    ]


def lost(db: sqlite3.Connection, model: Model) -> tuple[float, str]:
    """When the bytes of a version were last found rotten or gone, and which (`quarantined`, `missing`), or 0, ""."""
    sql = (
        "SELECT at, what FROM model_changes WHERE model = ? AND version = ? AND what IN ('quarantined', 'missing')"
        " ORDER BY id DESC LIMIT 1"
    )
    row = db.execute(sql, (model.name, model.version)).fetchone()
    return (row[0], row[1]) if row else (0.0, "")


def said(db: sqlite3.Connection, model: Model) -> tuple[dict[str, Any], str]:
    """The header of a version's file, without what is long, and its chat template."""
    row = db.execute(
        "SELECT header, template FROM model_versions WHERE model = ? AND version = ?", (model.name, model.version)
    ).fetchone()
    return (msgspec.json.decode(row[0]), row[1]) if row else ({}, "")


def made_of(db: sqlite3.Connection, sha256: str) -> list[tuple[str, int]]:
    """The versions that an object belongs to."""
    sql = "SELECT model, version FROM version_objects WHERE sha256 = ? ORDER BY model, version"
    return [(row[0], row[1]) for row in db.execute(sql, (sha256,))]


def tier_of(db: sqlite3.Connection, sha256: str) -> str:
    """Where an object lies; `home` for one that nobody knows."""
    row = db.execute("SELECT tier FROM objects WHERE sha256 = ?", (sha256,)).fetchone()
    return str(row[0]) if row else HOME


def lying(db: sqlite3.Connection, objects: Iterable[str]) -> dict[str, str]:
    """The tiers in which these objects lie that are stored and within reach."""
    sql = (
        "SELECT o.tier FROM objects o JOIN tiers t ON t.name = o.tier"
        " WHERE o.sha256 = ? AND o.state = 'stored' AND t.away = ''"
    )
    rows = ((sha256, db.execute(sql, (sha256,)).fetchone()) for sha256 in objects)
    return {sha256: row[0] for sha256, row in rows if row is not None}


def of_size(db: sqlite3.Connection, size: int, sha256: str = "") -> dict[str, str]:
    """The objects of so many bytes (or the one of this hash, if it has them) that are stored and within reach, with
    their tiers."""
    sql = (
        "SELECT o.sha256, o.tier FROM objects o JOIN tiers t ON t.name = o.tier"
        " WHERE o.bytes = ? AND ? IN ('', o.sha256) AND o.state = 'stored' AND t.away = ''"
    )
    return dict(db.execute(sql, (size, sha256)))


def states(db: sqlite3.Connection, objects: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Of those of these objects that are known: their state (`away` too) and tier."""
    sql = (
        "SELECT CASE WHEN o.state = 'stored' AND t.away != '' THEN 'away' ELSE o.state END, o.tier"
        " FROM objects o JOIN tiers t ON t.name = o.tier WHERE o.sha256 = ?"
    )
    rows = ((sha256, db.execute(sql, (sha256,)).fetchone()) for sha256 in objects)
    return {sha256: (row[0], row[1]) for sha256, row in rows if row is not None}


# ------------------------------------------------------------------------------------------------ write


def add(
    db: sqlite3.Connection, model: Model, header: dict[str, Any], template: str, now: float, *, live: bool = False,
    tier: str = HOME, placed: Collection[str] | None = None,
) -> Model:  # fmt: skip
    """A new version of `model.name`, which may be new itself; with its number. `live`: the name means it from now on,
    as it does of a first version. `placed`: those of its objects that were stored in `tier` just now (None: all), the
    others were there. Raises `Conflict` if the name has these bytes already."""
    new_there = set(objects_of(model) if placed is None else placed)
    _note_rehoused(db, new_there, tier, now, model.imported_by)
    row = db.execute(
        "SELECT version FROM model_versions WHERE model = ? AND sha256 = ?", (model.name, model.sha256)
    ).fetchone()
    if row and (same := find(db, Reference(model.name, version=row[0]))).state != "stored":
        restore(db, new_there, tier, now)
        note(db, model.name, now, model.imported_by, "restored", same.version, model.origin)
        return find(db, Reference(model.name, version=same.version))
    if row:
        raise Conflict(
            f"{model.name}@{row[0]} is the same already", f"SHA-256 {model.sha256[:16]}…",
            "nothing was stored; give it another --name to have it twice", same=f"{model.name}@{row[0]}",
        )  # fmt: skip
    (number,) = db.execute(
        "INSERT INTO model_names (name, last) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET last = last + 1"
        " RETURNING last",
        (model.name,),
    ).fetchone()
    new = msgspec.structs.replace(model, version=number)
    db.execute(
        "INSERT INTO model_versions (model, version, sha256, data, header, template) VALUES (?, ?, ?, ?, ?, ?)",
        (new.name, number, new.sha256, _encoded(new), msgspec.json.encode(header).decode(), template),
    )
    for sha256, size in objects_of(new).items():
        if sha256 in new_there:
            db.execute(
                "INSERT INTO objects (sha256, bytes, tier, added_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (sha256) DO UPDATE SET state = 'stored', tier = excluded.tier",
                (sha256, size, tier, now),
            )
        db.execute("INSERT INTO version_objects (model, version, sha256) VALUES (?, ?, ?)", (new.name, number, sha256))
    note(db, new.name, now, new.imported_by, "added", number, new.origin)
    if live or LIVE not in aliases(db, new.name):
        move(db, new.name, LIVE, number, now, new.imported_by)
    return find(db, Reference(new.name, version=number))


def change(db: sqlite3.Connection, model: Model) -> None:
    """Another label, notes or flags of a version: its files are what they are."""
    db.execute(
        "UPDATE model_versions SET data = ? WHERE model = ? AND version = ?",
        (_encoded(model), model.name, model.version),
    )


def complete(db: sqlite3.Connection, model: Model, header: dict[str, Any], template: str) -> None:
    """What an older program did not keep of a version."""
    change(db, model)
    db.execute(
        "UPDATE model_versions SET header = ?, template = ? WHERE model = ? AND version = ?",
        (msgspec.json.encode(header).decode(), template, model.name, model.version),
    )


def move(db: sqlite3.Connection, name: str, alias: str, version: int, now: float, by: str) -> int | None:
    """Have an alias mean a version, and `previous` what `live` meant; what it meant before."""
    before = aliases(db, name).get(alias)
    if before == version:
        return before
    sql = (
        "INSERT INTO model_aliases (model, alias, version) VALUES (?, ?, ?)"
        " ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version"
    )
    if alias == LIVE and before is not None:
        db.execute(sql, (name, PREVIOUS, before))
    db.execute(sql, (name, alias, version))
    note(db, name, now, by, "alias", version, alias + (f" from @{before}" if before else ""))
    return before


def drop_alias(db: sqlite3.Connection, name: str, alias: str, now: float, by: str) -> None:
    """Raises `NotFound`."""
    version = aliases(db, name).get(alias)
    if version is None:
        raise NotFound(f"{name} has no alias {alias!r}", todo=f"see `corral models versions {name}`")
    db.execute("DELETE FROM model_aliases WHERE model = ? AND alias = ?", (name, alias))
    note(db, name, now, by, "alias-removed", version, alias)


def drop(db: sqlite3.Connection, model: Model, now: float, by: str) -> list[tuple[str, str]]:
    """Take a version away with its aliases; the objects that nothing is made of any more, each with its tier."""
    mine = (model.name, model.version)
    db.execute("DELETE FROM model_aliases WHERE model = ? AND version = ?", mine)
    db.execute("DELETE FROM loads WHERE model = ? AND version = ?", mine)
    db.execute("DELETE FROM version_objects WHERE model = ? AND version = ?", mine)
    db.execute("DELETE FROM model_versions WHERE model = ? AND version = ?", mine)
    note(db, model.name, now, by, "removed", model.version, model.sha256)
    free = [sha256 for sha256 in objects_of(model) if not made_of(db, sha256)]
    sql = "DELETE FROM objects WHERE sha256 = ? RETURNING tier"
    return [(sha256, row[0]) for sha256 in free for row in db.execute(sql, (sha256,)).fetchall()]


def restore(db: sqlite3.Connection, objects: Iterable[str], tier: str, now: float) -> None:
    """These objects have their bytes again, in `tier`."""
    for sha256 in objects:
        db.execute(
            "UPDATE objects SET state = 'stored', tier = ?, verified_at = ? WHERE sha256 = ?", (tier, now, sha256)
        )


def _note_rehoused(db: sqlite3.Connection, objects: Iterable[str], tier: str, now: float, by: str) -> None:
    """The versions of these objects that lay in another tier, which may be away, have them in `tier` from now on."""
    came = {pair: old for each in objects if (old := tier_of(db, each)) != tier for pair in made_of(db, each)}
    for (name, version), old in sorted(came.items()):
        note(db, name, now, by, "moved", version, f"from {old} to {tier}: the same bytes came again")


def note(db: sqlite3.Connection, name: str, at: float, by: str, what: str, version: int, detail: str) -> None:
    """One thing that happened to a name."""
    db.execute(
        "INSERT INTO model_changes (model, at, by, what, version, detail) VALUES (?, ?, ?, ?, ?, ?)",
        (name, at, by, what, version, detail),
    )


def _encoded(model: Model) -> str:
    """A version as it is kept: what other tables know of it is left out."""
    plain = msgspec.structs.replace(model, aliases=(), versions=1, state="stored", tier=HOME)
    return msgspec.json.encode(plain).decode()
