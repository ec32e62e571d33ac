"""The chain's arithmetic: the canonical encoding, the hash of a record, and what is wrong with a sequence of rows.

Encoding, version 1: the SHA-256 over the UTF-8 text of a JSON array without spaces,
["corral-audit-1", seq, time, actor, uid, through, verb, object, request, effect, before, after, outcome, reason, prev],
in which `before` and `after` are strings that hold JSON themselves. docs/audit.md says the same for people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

GENESIS = "0" * 64
"""`prev` of the first record of a chain that follows none."""
COLUMNS = (
    "seq", "time", "actor", "uid", "through", "verb", "object", "request", "effect", "before", "after", "outcome",
    "reason", "prev", "hash",
)  # fmt: skip
SELECT = f"SELECT {', '.join(COLUMNS)} FROM audit"  # noqa: S608 - constants only

_to_json = msgspec.json.Encoder().encode
_sha256 = hashlib.sha256


def encode(row: tuple[Any, ...]) -> bytes:
    """The canonical bytes of a row (its columns in order, without `hash`)."""
    return _to_json(("corral-audit-1", *row[:14]))


def digest(row: tuple[Any, ...]) -> str:
    """The hash of a row (`hash` itself is left out), 64 hex digits."""
    return _sha256(encode(row)).hexdigest()


class Verdict(msgspec.Struct, frozen=True):
    """The first thing that is wrong, or `how` empty; `head` and `records` say how far the chain holds."""

    records: int
    head: str
    last: int
    wrong: int | None = None
    how: str = ""


def inspect(rows: Iterable[tuple[Any, ...]]) -> Verdict:
    """Walk rows in the order of seq and name the first record that is wrong.

    changed: its content does not give its hash. removed: records are missing before it. inserted: it gives its hash
    and does not follow the one before, and the next one follows the one before it. swapped: it and the next one
    follow each other the wrong way round.
    """
    expected, head, count, last = 1, "", 0, 0
    iterator = iter(rows)
    for row in iterator:
        seq = row[0]
        if not count:
            head = row[13]  # a new database follows the head of the one before it
        if seq != expected:
            return Verdict(count, head, last, expected, "removed")
        if digest(row) != row[14]:
            return Verdict(count, head, last, seq, _changed_or_swapped(row, iterator))
        if row[13] != head:
            return Verdict(count, head, last, seq, _inserted_or_removed(iterator, head))
        head, last, count, expected = row[14], seq, count + 1, seq + 1
    return Verdict(count, head or GENESIS, last)


def _changed_or_swapped(row: tuple[Any, ...], rest: Iterable[tuple[Any, ...]]) -> str:
    """A row whose seq was exchanged with the next one's hashes rightly under the next seq."""
    following = next(iter(rest), None)
    if following is None:
        return "changed"
    mine = digest((following[0], *row[1:]))
    theirs = digest((row[0], *following[1:]))
    return "swapped" if mine == row[14] and theirs == following[14] else "changed"


def _inserted_or_removed(rest: Iterable[tuple[Any, ...]], head: str) -> str:
    """A row that hashes rightly but follows something else."""
    return "inserted" if any(row[13] == head for row in rest) else "removed"
