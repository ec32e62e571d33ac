"""By which rules a tier is used: what it takes, what lands there, where the rest goes."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from core.amounts import size_said
from core.catalog.tiers import tables
from core.errors import Conflict, Invalid

DAYS = 3650
"""That a model may have to be unused for, at most; at least one: it is looked for once a day."""


class Rules(NamedTuple):
    """What is said of a tier; None leaves it as it is."""

    capacity: int | None = None
    landing: bool | None = None
    spill: str | None = None
    demote_days: float | None = None
    demote_to: str | None = None


def ruled(db: sqlite3.Connection, old: tables.Row, rules: Rules) -> tables.Row:
    """Put a tier's rules. Raises `Invalid`, `Conflict`, `NotFound`."""
    given = {key: value for key, value in rules._asdict().items() if value is not None}
    if given.get("landing") is False and old.landing:
        raise Conflict(f"new models land in {old.name}", todo="have them land in another tier: --default there")
    new = msgspec.structs.replace(old, **given)
    if not 0 <= new.capacity <= 1 << 60:
        raise Invalid(f"a capacity of {new.capacity} is none")
    days = rules.demote_days
    if days is not None and not (0 <= days <= DAYS and days % 1 == 0):
        raise Invalid(
            f"{days:g} is no number of days", f"it is a whole one from 1 to {DAYS}; 0: nothing is demoted",
            "--demote-after 30",
        )  # fmt: skip
    held = tables.stored(db, new.name)[1] + tables.reserved(db, new.name)
    if rules.capacity and rules.capacity < held:
        raise Conflict(
            f"{new.name} holds more than that", f"{size_said(held)} are stored or promised", "move a model first"
        )
    for each, does in ((new.spill, "spill"), (new.demote_to, "demote")):
        if each:
            tables.one(db, each)
        if each == new.name:
            raise Invalid(f"{new.name} cannot {does} to itself", todo="name another tier")
    if bool(new.demote_days) != bool(new.demote_to):
        raise Invalid(
            "say after how many days a model is moved, and to which tier", todo="--demote-after and --demote-to"
        )
    tables.put(db, new)
    rows = {row.name: row for row in tables.rows(db)}
    for field in ("spill", "demote_to"):
        seen, at = [new.name], getattr(new, field)
        while at:
            if at == new.name:
                raise Invalid(
                    f"{' to '.join([*seen, at])} would go round", todo="leave one of them without a next tier"
                )
            if at in seen:
                break
            seen.append(at)
            at = getattr(rows[at], field)
    return new


def said(rules: Rules) -> dict[str, object]:
    return {key: value for key, value in rules._asdict().items() if value is not None}


def told(row: tables.Row, rules: Rules) -> dict[str, object]:
    return {key: getattr(row, key) for key in said(rules)}
