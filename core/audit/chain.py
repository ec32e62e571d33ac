"""The chain's arithmetic: what is wrong with a sequence of rows. core.proof has the encoding that is hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec

from core.proof.encoding import COLUMNS, GENESIS, RECORD, digest, encode

__all__ = ["COLUMNS", "GENESIS", "SELECT", "Row", "Rows", "Verdict", "digest", "encode", "further", "inspect"]

SEARCH = 100_000
"""How far to both sides the true seq of a moved record is looked for at most. A swap over any distance, a copy of an
earlier one and a gap that audit.head tells the width of are found without; the rest is then named `changed`."""
NEAR = 50
"""How many records, and how far to both sides, are looked at beside the first one that is wrong."""
SELECT = f"SELECT {', '.join(COLUMNS)} FROM audit"  # noqa: S608 - constants only

_sha256 = hashlib.sha256
_BEGIN = f'["{RECORD}",'.encode()


Row = tuple[Any, ...]
"""The columns of one record, in the order of COLUMNS."""
Rows = Callable[[int], Iterable[Row]]
"""Gives the rows from a seq on, in the order of seq, anew at each call."""
LOWEST = -(1 << 63)


class Verdict(msgspec.Struct, frozen=True):
    """The first thing that is wrong, or `how` empty; `head` and `records` say how far the chain holds.

    `other` is the seq of the record that a swapped one was exchanged with, that a gap ends at (removed), or that stands
    before a gap (inserted). `stopped` is the seq of the row that did not fit.
    """

    records: int
    head: str
    last: int
    wrong: int | None = None
    how: str = ""
    other: int | None = None
    stopped: int = 0


class Sealed(NamedTuple):
    """The records up to `last`, whose hash is `hash`, lie in an archive. Some of them may not be removed yet."""

    last: int = 0
    hash: str = ""
    aside: bool = False
    """What is left of them is not looked at: it has a fault that was accepted."""


NOTHING_SEALED = Sealed()


def inspect(rows: Rows, outside: str = "", ends: int = 0, begins: int = 0, sealed: Sealed = NOTHING_SEALED) -> Verdict:
    """Walk all records and name the first one that is wrong. `outside` and `ends` are the hash and seq that audit.head
    knows. A chain that is broken takes about the time of a whole one: what happened is looked for within bounds.
    `begins`: the seq of a record that is right, from which on is walked; 0 = all. With `sealed` the first record may be
    any up to the one after it, and the chain has to pass through its hash.

    changed: its content does not give its hash, or the next one does not follow it. removed: it is not there.
    inserted: it stands between two that follow each other. swapped: it and another one stand in each other's place.
    """
    first = begins or 1
    expected, head, before, last = first, "", "", 0
    for row in rows(begins or (sealed.last + 1 if sealed.aside else LOWEST)):
        if expected == first:
            head = row[13]  # a new database follows the head of the one before it
            if sealed.last and not begins and row[0] >= 1:
                first = expected = min(row[0], sealed.last + 1)
                head = row[13] if row[0] <= sealed.last else sealed.hash
        right = row[0] != sealed.last or row[14] == sealed.hash
        if row[0] == expected and row[13] == head and right and digest(row) == row[14]:
            before, head, last, expected = head, row[14], row[0], expected + 1
            continue
        if row[0] == expected and not right:  # nor is it what was sealed
            return Verdict(expected - 1, head, last, row[0], "changed", None, row[0])
        if sealed.last and not last and row[0] == expected and digest(row) == row[14]:  # it follows another record
            return Verdict(expected - 1, head, last, row[0], "changed", None, row[0])
        wrong, how, other = _name(rows, row, expected, head, before, outside, ends)
        return Verdict(expected - 1, head, last, wrong, how, other, row[0])
    return Verdict(expected - 1, head or GENESIS, last)


def further(rows: Rows, first: Verdict, outside: str = "", ends: int = 0) -> Iterator[Verdict]:
    """What else is wrong after `first`: the walk goes on at the next record that gives its own hash; those before it
    that were not just moved along are named `changed`."""
    found = first
    while found.how:
        begins = None
        for passed, row in enumerate(rows(max(found.stopped, 1))):
            if digest(row) == row[14]:
                begins = row[0]
                break
            if 0 < passed <= NEAR and _true_seq(row, range(max(1, row[0] - NEAR), row[0] + NEAR)) is None:
                yield Verdict(found.records, found.head, found.last, row[0], "changed")
        if begins is None:
            return
        found = inspect(rows, outside, ends, begins)
        if found.how:
            yield found


def _name(
    rows: Rows, row: Row, at: int, head: str, before: str, outside: str, ends: int
) -> tuple[int, str, int | None]:
    """What happened to the first row that does not fit: (seq, how, the other one of a swap).

    `at` is the seq where it was expected, `head` the hash of the record before and `before` that one's `prev`.
    """
    if row[0] < at:
        return row[0], "inserted", None
    if row[0] > at:
        return _gap(rows, row, at, head, outside, ends)
    mine, last = _standing(rows, at, head if at > 1 else None)
    if digest(row) == row[14]:  # it follows something else
        if mine is not None:
            return at, "inserted", None
        following = next((each for each in rows(at + 1) if each[0] == at + 1), None)
        if following is None and row[14] != outside:
            return at, "inserted", None
        genuine = following is None or following[13] == row[14]
        return (at - 1 if genuine else at), "changed", None
    if mine == at + 1 and _true_seq(row, [at + 1]) is None:
        return at, "inserted", None
    truly = _true_seq(row, [mine or at, at + max(0, ends - last)]) or _true_seq(row, _around(at, last))
    if truly is None:  # moved further than that: it is a copy of one before it, or nobody's
        earlier = takewhile(lambda each: each[0] < at, rows(LOWEST))
        truly = _true_seq(row, (each[0] for each in earlier if each[14] == row[14]))
    if truly is None:
        return at, "changed", None
    if truly > at:
        return (at, "swapped", mine) if mine is not None else (at, "removed", None)
    if truly == at - 1 and row[13] == before:
        return truly, "inserted", None
    return _earlier(rows, row, at, truly, mine)


def _gap(rows: Rows, row: Row, at: int, head: str, outside: str, ends: int) -> tuple[int, str, int | None]:
    """A row beyond the seq that was expected: those between are gone, or it was put there. It was, if it says itself
    that it follows the record before the gap, or if audit.head knows of none after that one."""
    after = next(iter(rows(row[0] + 1)), None)
    followed = after is None or after[13] == row[14]
    follows = row[13] == head and digest(row) == row[14] and followed
    if at > 1 and (follows or (ends == at - 1 and outside == head)):
        return row[0], "inserted", at - 1
    return at, "removed", row[0]


def _earlier(rows: Rows, row: Row, at: int, truly: int, mine: int | None) -> tuple[int, str, int | None]:
    """A row that was `truly` an earlier one: pushed up by what was inserted there, or a copy of it put here."""
    there = next(iter(rows(truly)))
    if there[14] != row[14]:
        return truly, "inserted", None
    return at, "inserted" if mine is not None else "changed", None


def _around(at: int, last: int) -> Iterable[int]:
    """Seqs above zero around `at`, the nearest first."""
    for far in range(1, min(SEARCH, last + 1000) + 1):
        yield at + far
        if far < at:
            yield at - far


def _true_seq(row: Row, candidates: Iterable[int]) -> int | None:
    """The seq under which a row gives its hash: it stays in the hash when a row is moved. 1 microsecond each."""
    rest = encode((0, *row[1:])).removeprefix(_BEGIN + b"0")
    return next((seq for seq in candidates if _sha256(b"%b%d%b" % (_BEGIN, seq, rest)).hexdigest() == row[14]), None)


def _standing(rows: Rows, seq: int, head: str | None) -> tuple[int | None, int]:
    """(where the record that was `seq` and follows `head` (None: any) stands now, None if it is nowhere after `seq`;
    the last seq that was looked at)."""
    last = seq
    for row in rows(seq + 1):
        last = row[0]
        if head in (None, row[13]) and _true_seq(row, [seq]) is not None:
            return last, last
    return None, last
