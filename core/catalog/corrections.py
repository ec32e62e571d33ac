"""What sizing learns: launches' resident sets beside what the formula had said, by architecture and engine build.

From three launches on that agree, the formula's figures are changed by their median, by at most `MOST`. A launch far
from the others is kept out and shown, and one too small to say anything of larger ones says nothing. A person may
revoke what was learned; then nothing is learned there until it is allowed again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from core.access import Gate
from core.errors import Conflict, NotFound
from core.nouns import Actor, SizeCorrection, SizeSeen
from core.store import Store

LEAST = 3
"""Launches that it takes."""
KEPT = 50
"""The newest launches of each kind; older ones are forgotten."""
MOST = 0.15
SMALLEST = 0.01
"""Less is within what one launch differs from the next."""
APART = 0.05
"""So far from the median a launch may always be …"""
PROMISED = 24 << 20
"""So many bytes the formula may always be off: of a small model a large share, of a large one none."""
SPREADS = 4
"""… and so many times as far as half of the others are."""


class Kind(NamedTuple):
    """What is learned together."""

    arch: str
    engine: str
    build: str


class Learned(NamedTuple):
    """From the ratios of measured to planned: the change, whether it was held at `MOST`, which were kept out."""

    correction: float
    bounded: bool
    outliers: tuple[int, ...]


def says_nothing(said: int, took: int) -> bool:
    """Whether a launch of `said` bytes is as small as that: what is nothing in it would be gigabytes of a large one."""
    return said * APART < PROMISED and abs(took - said) <= PROMISED


def learn(ratios: Sequence[float]) -> Learned:
    """What so many launches teach; a correction of 0 where they are too few, disagree, or the formula is right."""
    if len(ratios) < LEAST:
        return Learned(0.0, False, ())
    middle = median(ratios)
    allowed = max(APART, SPREADS * median(abs(ratio - middle) for ratio in ratios))
    outliers = tuple(n for n, ratio in enumerate(ratios) if abs(ratio - middle) > allowed)
    used = [ratio for n, ratio in enumerate(ratios) if n not in outliers]
    if len(used) < LEAST:
        return Learned(0.0, False, outliers)
    change = median(used) - 1
    if abs(change) < SMALLEST:
        return Learned(0.0, False, outliers)
    return Learned(max(-MOST, min(MOST, change)), abs(change) > MOST, outliers)


def planned(db: sqlite3.Connection, launch: str, kind: Kind, model: str, size: int, at: float) -> None:
    """Remember, in a launch's own transaction, what the formula alone says that it will take (bytes)."""
    db.execute(
        "INSERT INTO size_seen (launch, arch, engine, build, model, planned, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (launch, *kind, model, size, at),
    )


def measured(db: sqlite3.Connection, launch: str, size: int, at: float) -> bool:
    """Write what it took when it was ready, once; whether it was written."""
    if size <= 0:
        return False
    done = db.execute("UPDATE size_seen SET measured = ?, at = ? WHERE launch = ? AND measured = 0", (size, at, launch))
    # What never came to be ready teaches nothing, and of each kind the newest are enough.
    db.execute("DELETE FROM size_seen WHERE measured = 0 AND at < ?", (at - 86400,))
    db.execute(
        "DELETE FROM size_seen WHERE launch IN (SELECT s.launch FROM size_seen s JOIN size_seen me USING (arch, engine,"
        " build) WHERE me.launch = ? ORDER BY s.at DESC LIMIT -1 OFFSET ?)",
        (launch, KEPT),
    )
    return done.rowcount > 0


class Corrections:
    """The service that owns them; `of` answers from memory."""

    def __init__(self, store: Store, gate: Gate, *, clock: Callable[[], float] = time.time) -> None:
        self._store, self._gate, self._clock = store, gate, clock
        self._all: dict[Kind, SizeCorrection] = {}

    async def refresh(self) -> None:
        """Read them anew: at the start, and when a launch was measured."""
        self._all = await self._store.read(_all)

    def of(self, arch: str, engine: str, build: str) -> float:
        """By how much the formula's figures are changed: -0.03 is 3 % less; 0.0 where nothing is learned."""
        found = self._all.get(Kind(arch, engine, build))
        return found.correction if found is not None and not found.revoked_by else 0.0

    def told(self, launch: str) -> str:
        """A sentence about a launch for `explain`; "" where there is nothing to say."""
        for each in self._all.values():
            seen = next((seen for seen in each.seen if seen.launch == launch), None)
            if seen is None:
                continue
            if seen.outlier:
                return (
                    f"Its memory is far from that of other launches of {each.arch}: sizing does not learn from it"
                    f" ({seen.measured / seen.planned - 1:+.1%} of the formula)."
                )
            if each.correction and not each.revoked_by:
                return (
                    f"Plans of {each.arch} on {each.engine} {each.build} are changed by {each.correction:+.1%}, as"
                    f" {sum(not (one.outlier or one.small) for one in each.seen)} launches were seen to take"
                    f" (`corral models corrections`)."
                )
        return ""

    def ls(self) -> list[SizeCorrection]:
        """All that was seen, by architecture, engine and build."""
        return [self._all[kind] for kind in sorted(self._all)]

    async def revoke(self, actor: Actor, request: str, kind: Kind) -> SizeCorrection:
        """Use the formula alone from now on. Raises `NotFound`, `Conflict`."""
        return await self._turn(actor, request, kind, revoke=True)

    async def restore(self, actor: Actor, request: str, kind: Kind) -> SizeCorrection:
        """Learn again, from what was seen since, too. Raises `NotFound`, `Conflict`."""
        return await self._turn(actor, request, kind, revoke=False)

    async def _turn(self, actor: Actor, request: str, kind: Kind, *, revoke: bool) -> SizeCorrection:
        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            found = _all(db).get(kind)
            if found is None:
                raise NotFound(
                    f"nothing was learned of {kind.arch[:60]!r} on {kind.engine[:60]} {kind.build[:60]}",
                    todo="see `corral models corrections`",
                )
            if bool(found.revoked_by) == revoke:
                raise Conflict(
                    f"the correction of {kind.arch} was revoked by {found.revoked_by}" if revoke
                    else f"the correction of {kind.arch} is not revoked",
                )  # fmt: skip
            if revoke:
                db.execute("INSERT INTO size_revoked VALUES (?, ?, ?, ?, ?)", (*kind, self._clock(), actor.name))
            else:
                db.execute("DELETE FROM size_revoked WHERE arch = ? AND engine = ? AND build = ?", kind)
            change = {**kind._asdict(), "correction": found.correction}
            return None, change | {"used": revoke}, change | {"used": not revoke}

        await self._gate.act(actor, "models.corrections", "daemon:local", request, work)
        await self.refresh()
        return self._all[kind]


def _all(db: sqlite3.Connection) -> dict[Kind, SizeCorrection]:
    revoked = {
        Kind(*row[:3]): (row[3], row[4]) for row in db.execute("SELECT arch, engine, build, at, by FROM size_revoked")
    }
    rows: dict[Kind, list[tuple[str, str, int, int, float]]] = {}
    for row in db.execute(
        "SELECT arch, engine, build, launch, model, planned, measured, at FROM size_seen WHERE measured > 0 AND"
        " planned > 0 ORDER BY at DESC"
    ):
        rows.setdefault(Kind(*row[:3]), []).append(row[3:])
    found = {}
    for kind, launches in rows.items():
        small = {n for n, (_, _, said, took, _) in enumerate(launches) if says_nothing(said, took)}
        told = [n for n in range(len(launches)) if n not in small]
        learned = learn([launches[n][3] / launches[n][2] for n in told])
        outliers = {told[n] for n in learned.outliers}
        at, by = revoked.get(kind, (0.0, ""))
        found[kind] = SizeCorrection(
            arch=kind.arch, engine=kind.engine, build=kind.build, correction=learned.correction,
            bounded=learned.bounded, revoked_at=at, revoked_by=by,
            seen=tuple(
                SizeSeen(
                    launch=launch, model=model, planned=said, measured=took, at=when, outlier=n in outliers,
                    small=n in small,
                )
                for n, (launch, model, said, took, when) in enumerate(launches)
            ),
        )  # fmt: skip
    return found
