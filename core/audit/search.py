"""Finds records by what somebody types: by keyset, in ranges of seq, within a time that nobody notices.

A word without a field is looked for in actor, verb, object, outcome and reason, whatever the case; `actor:ann` asks how
the field begins. Where an index knows few values that
begin as asked, it is used; else ranges are read, and who asked goes on from where the search stopped.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from core.audit.chain import SELECT
from core.errors import Invalid
from core.nouns import Outcome

BUDGET_S = 0.03
"""A search stops after about this long, and says how far it came: the connection is everybody's, and who types sees
each letter answered within 50 ms."""
FIRST, WIDEST = 4096, 8192
"""Records of the first range and of the widest: 10 ms on one core of 2026 where each of them is read."""
VALUES = 64
"""Up to so many values are asked of an index one by one."""
TERMS = 16
"""Words of one search at most: each costs time for each record."""
TEXT_LIMIT = 500

_TERM = re.compile(r'(-?)(?:([a-z]+):)?(?:"([^"]*)"?|(\S+))')
_WORDS = ("actor", "verb", "object", "outcome", "reason")
_FIELDS = {
    "actor": "actor", "verb": "verb", "object": "object", "outcome": "outcome", "through": "through",
    "request": "request", "effect": "effect",
}  # fmt: skip
"""Those that are asked by how they begin."""
FIELDS = (*_FIELDS, "reason", "change", "since", "until", "seq")
_INDEXED = ("actor", "verb", "object")
_TROUBLE = ("refused", "failed", "interrupted")


class Found(NamedTuple):
    """`rows` in the order of seq; all from `searched` to where the search began were looked at. `more`: there are
    records beyond. `first` and `last` are the ends of the trail."""

    rows: list[tuple[Any, ...]]
    searched: int
    more: bool
    first: int
    last: int


class Wanted:
    """A search: conditions in SQL with their values, and columns of which an index may be asked."""

    def __init__(self) -> None:
        self.where: list[str] = []
        self.values: list[Any] = []
        self.begins: list[tuple[str, str]] = []
        """(column, how it begins) for those that have an index."""
        self.since = self.until = ""
        self.seq: int | None = None
        """The one record that is asked for."""
        self.exact = False
        """A column that has an index is asked for by its whole value."""
        self.trouble = ""
        """The one outcome that is asked for, if it is one that has an index."""

    def within(self, low: int, high: int) -> tuple[int, int]:
        """The seqs from `low` to `high` among which it can be."""
        return (low, high) if self.seq is None else (max(low, self.seq), min(high, self.seq))


def wanted(text: str, moment: Callable[[str], str]) -> Wanted:
    """What `text` asks for; `moment` makes a time of the trail of one that was typed. Raises `Invalid`."""
    if len(text) > TEXT_LIMIT:
        raise Invalid("the filter is too long", f"it may have {TEXT_LIMIT} letters")
    found = Wanted()
    terms = list(_TERM.finditer(text))
    if len(terms) > TERMS:
        raise Invalid("the filter has too many words", f"it may have {TERMS}")
    for term in terms:
        minus, field, quoted, bare = term.groups()
        value = quoted if quoted is not None else bare
        if field is None and value.endswith(":") and value[:-1] in FIELDS:
            continue  # the rest of it is being typed
        if field is not None and field not in FIELDS:
            _refuse_slip(field, term[0])
            field, value = None, f"{field}:{value}"  # an object, as it is written
        _take(found, minus, field, value, moment)
    return found


def _refuse_slip(field: str, term: str) -> None:
    """Raises `Invalid` for what is nearly a field: who meant one would take what he is shown for all that there is."""
    near = get_close_matches(field, FIELDS, 1, 0.75)
    if near:
        term = term.removeprefix("-").replace('"', "")
        raise Invalid(f"there is no field {field}:", f"there are: {', '.join(FIELDS)}",
                      f'say {near[0]}: if you meant that; "{term}" in quotation marks is a text')  # fmt: skip


def exactly(fields: dict[str, str], moment: Callable[[str], str], found: Wanted | None = None) -> Wanted:
    """What `fields` ask for, besides what is asked already: actor, verb, object and outcome by their whole value or,
    with a `*` at its end, by how it begins; since and until. Raises `Invalid`."""
    found = found or Wanted()
    for name, value in fields.items():
        if name in ("since", "until"):
            setattr(found, name, moment(value))
        elif value.endswith("*"):
            _take(found, "", name, value, moment)
        else:
            found.where.append(f"{_FIELDS[name]} = ?")
            found.values.append(value)
            found.exact = found.exact or name in _INDEXED
            if name == "outcome" and value in _TROUBLE:
                found.trouble = value
    return found


def conditions(asked: Wanted) -> tuple[list[str], list[Any]]:
    """The same in SQL, where no index is to be asked, with its values."""
    where, values = list(asked.where), list(asked.values)
    for name, op in (("since", ">="), ("until", "<=")):
        if getattr(asked, name):
            where.append(f"time {op} ?")
            values.append(getattr(asked, name))
    return where, values


def _take(found: Wanted, minus: str, field: str | None, value: str, moment: Callable[[str], str]) -> None:
    if field in ("since", "until"):
        if minus:
            raise Invalid(f"-{field}: is no word of a filter", "a time is not turned round", "leave the minus out")
        setattr(found, field, moment(value))
        return
    values: list[Any]
    if field == "seq":
        if not re.fullmatch("[0-9]{1,18}", value):
            raise Invalid(f"seq:{value} is no number of a record")
        condition, values = "seq = ?", [int(value)]
        if not minus:
            found.seq = int(value)
    elif field == "change":
        condition, values = "(before LIKE ? ESCAPE '\\' OR after LIKE ? ESCAPE '\\')", [_within(value)] * 2
    elif field == "reason":
        condition, values = "reason LIKE ? ESCAPE '\\'", [_within(value)]
    elif field is not None:
        value = value.removesuffix("*")
        if not minus and field in _INDEXED and value:
            found.begins.append((_FIELDS[field], value))
        if field == "outcome":  # as constants: the index of troubles is asked only so
            outcomes = [each for each in get_args(Outcome) if each.startswith(value)]
            condition, values = f"outcome IN ({', '.join(map(repr, outcomes))})", []
            if not minus and len(outcomes) == 1 and outcomes[0] in _TROUBLE:
                found.trouble = outcomes[0]
        else:
            condition, values = f"substr({_FIELDS[field]}, 1, ?) = ?", [len(value), value]
    else:
        condition = "(" + " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for column in _WORDS) + ")"
        values = [_within(value)] * len(_WORDS)
    found.where.append(f"NOT {condition}" if minus else condition)
    found.values += values


def _escaped(value: str) -> str:
    return re.sub(r"([%_\\])", r"\\\1", value)


def _within(value: str) -> str:
    return f"%{_escaped(value)}%"


def find(
    db: sqlite3.Connection, asked: Wanted, *, before: int | None = None, after: int | None = None, limit: int = 100,
    clock: Callable[[], float] = time.monotonic,
) -> Found:  # fmt: skip
    """The `limit` newest that fit below seq `before` (None: at the end), or with `after` the oldest above it."""
    ends = db.execute("SELECT (SELECT min(seq) FROM audit), (SELECT max(seq) FROM audit)").fetchone()
    if ends[0] is None:
        return Found([], 0, False, 0, 0)
    low, high = _bounds(db, asked, *ends)
    if after is not None:
        low = max(low, after + 1)
    elif before is not None:
        high = min(high, before - 1)
    upwards = after is not None
    where, values, quick = _narrowed(db, asked)
    began, width = clock(), FIRST
    rows: list[tuple[Any, ...]] = []
    start, end = (low, high) if upwards else (high, low)
    if where is None:  # an index knows of none
        return Found([], end, False, *ends)
    at = start
    while low <= at <= high and len(rows) < limit:
        first, last = (at, min(high, at + width - 1)) if upwards else (max(low, at - width + 1), at)
        clause, order = " AND ".join(["seq BETWEEN ? AND ?", *where]), "ASC" if upwards else "DESC"
        sql = f"{SELECT} WHERE {clause} ORDER BY seq {order} LIMIT ?"
        rows += db.execute(sql, (first, last, *values, limit - len(rows))).fetchall()
        at = last + 1 if upwards else first - 1
        width = width * 4 if quick else min(WIDEST, width * 2)
        if clock() - began > BUDGET_S:
            break
    reached = at - 1 if upwards else at + 1
    searched = rows[-1][0] if len(rows) >= limit else reached
    more = searched < high if upwards else searched > low
    return Found(rows if upwards else rows[::-1], searched, more, *ends)


def _bounds(db: sqlite3.Connection, asked: Wanted, low: int, high: int) -> tuple[int, int]:
    """The lowest and the highest seq that the times leave; a clock that jumped may leave others between them."""
    # +seq: the index of times is read from there on; without it SQLite walks all records until one fits.
    for name, sql in (
        ("since", "SELECT min(+seq) FROM audit WHERE time >= ?"),
        ("until", "SELECT max(+seq) FROM audit WHERE time <= ?"),
    ):
        text = getattr(asked, name)
        if not text:
            continue
        (found,) = db.execute(sql, (text,)).fetchone()
        if found is None:
            return 1, 0
        low, high = (found, high) if name == "since" else (low, found)
    return asked.within(low, high)


def _narrowed(db: sqlite3.Connection, asked: Wanted) -> tuple[list[str] | None, list[Any], bool]:
    """Conditions with their values (None where an index knows of no record), and whether an index gives the records."""
    where, values = conditions(asked)
    quick = asked.exact
    for column, begin in asked.begins:
        known = _known(db, column, begin)
        if known is None:
            continue
        if not known:
            return None, [], quick
        where.append(f"{column} IN ({', '.join('?' * len(known))})")
        values += known
        quick = True
    if not quick and asked.trouble:  # in the words of the index, or SQLite does not see that it may be used
        where += [f"outcome = {asked.trouble!r}", "outcome NOT IN ('done', 'intent')"]
        quick = True
    return where, values, quick


def _known(db: sqlite3.Connection, column: str, begin: str) -> list[str] | None:
    """The values of `column` that begin so; None if they are many. One seek in its index for each."""
    known: list[str] = []
    at, op = begin, ">="
    while len(known) <= VALUES:
        sql = f"SELECT {column} FROM audit WHERE {column} {op} ? ORDER BY {column} LIMIT 1"  # noqa: S608
        row = db.execute(sql, (at,)).fetchone()
        if row is None or not row[0].startswith(begin):
            return known
        known.append(row[0])
        at, op = row[0], ">"
    return None
