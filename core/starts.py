"""What the trail says of the daemons before, and the records that a start adds to it: called once, before serving."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import msgspec

from core import program_version
from core.access import Gate
from core.audit import Audit
from core.catalog import tables
from core.nouns import CORRAL
from core.paths import Paths
from core.store import Store

log = logging.getLogger("corral")

OFTEN = 3
"""So many deaths within `WITHIN_S` are no accident."""
WITHIN_S = 600.0
CRASH_CHARACTERS = 300
SAID_S = 3600.0
"""A daemon that has lived for so long since then does not say it any more."""


class _Before(NamedTuple):
    died: bool
    """The daemon before left no record of its stop."""
    deaths: int
    """Those recorded within `WITHIN_S`."""
    left: list[tuple[str, str, str, str]]
    """Effects of its life that have no outcome: id, verb, object, request."""


async def record_start(store: Store, gate: Gate, audit: Audit, paths: Paths) -> str:
    """Say that we start, that the daemon before died if it did not stop, and which effects it left open. The sentence
    that must be seen if daemons die often; else empty."""
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - WITHIN_S))
    before = await store.read(lambda db: _before(db, since))

    def settle(db: sqlite3.Connection) -> None:
        for effect, verb, subject, request in before.left:
            audit.append(
                db, actor=CORRAL, verb=verb, object=subject, request=request, effect=effect,
                outcome="interrupted", reason="the daemon ended before the outcome was known",
            )  # fmt: skip
            if verb == "models.move":
                _note_move(db, effect, subject.partition(":")[2])

    # Before `daemon.start`: who is killed between the two leaves them to be found by the next one.
    if before.left:
        await store.transact(settle)
    request, deaths = f"d-{os.getpid()}", before.deaths + before.died
    crash = read_crash(paths) if before.died else ""
    if before.died:
        reason = f"it ended by an error of its own: {crash}" if crash else "it left no record of its stop"
        await gate.record(CORRAL, "daemon.died", "daemon:local", request, "done", reason=reason)
    await gate.record(
        CORRAL, "daemon.start", "daemon:local", request, "done",
        after={"pid": os.getpid(), "version": program_version()}, reason="; ".join(store.warnings),
    )  # fmt: skip
    paths.daemon_crash.unlink(missing_ok=True)  # only now: who is killed before leaves it to be found by the next one
    if crash:
        told = f"the daemon before ended by an error of its own ({crash}): the whole of it is in {_log_of(paths)}"
        log.error(told)
    if deaths < OFTEN:
        return told if crash else ""
    told = (
        f"the daemon died {deaths} times within {WITHIN_S / 60:.0f} minutes: see `corral audit ls --verb daemon.died`,"
        f" the kernel's log (out of memory?) and {_log_of(paths)}"
    )
    log.error(told)
    return told


def _log_of(paths: Paths) -> str:
    """Where a daemon's log is found: one in the foreground writes it to its standard error."""
    return str(paths.daemon_log) if paths.daemon_log.exists() else "its standard error (`journalctl -u corral`)"


def _note_move(db: sqlite3.Connection, effect: str, name: str) -> None:
    """Have a model's history tell of a move that broke off; one that had switched over stands there as moved."""
    sql = "SELECT actor, before, after FROM audit WHERE effect = ? AND outcome = 'intent'"
    intent = db.execute(sql, (effect,)).fetchone()
    if intent is None:
        return  # archived since
    actor, (old, new) = intent[0], (msgspec.json.decode(each) for each in intent[1:])
    there = [each for each in tables.versions(db) if (each.name, each.version) == (name, new["version"])]
    if there and there[0].tier != new["tier"]:  # it may have been removed since: the outcome alone was not recorded
        words = f"the move from {old['tier']} to {new['tier']}: the daemon ended; it stays where it was"
        tables.note(db, name, time.time(), actor, "interrupted", new["version"], words)


def leave_crash(paths: Paths, error: BaseException) -> None:
    """Leave word of the error that ends this daemon: its kind and where. Its words may hold what nobody shall see."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(trace[-1].filename).name}:{trace[-1].lineno} {trace[-1].name}" if trace else ""
    with contextlib.suppress(OSError):
        paths.daemon_crash.write_text(f"{type(error).__name__}{where}\n")


def read_crash(paths: Paths) -> str:
    """What `leave_crash` has left; empty if nothing."""
    try:
        with paths.daemon_crash.open(errors="replace") as file:
            return "".join(each for each in file.read(CRASH_CHARACTERS) if each.isprintable())
    except OSError:
        return ""


def _before(db: sqlite3.Connection, since: str) -> _Before:
    """`since`: UTC as the trail writes it; a death is recorded by the start that follows it."""
    last = db.execute(
        "SELECT verb FROM audit WHERE object = 'daemon:local' AND verb IN ('daemon.start', 'daemon.stop')"
        " ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    if last is None:
        # None of either: a daemon that ran for so long that its start was archived meanwhile, and has not stopped.
        if db.execute("SELECT 1 FROM audit_seals LIMIT 1").fetchone() is None:
            return _Before(False, 0, [])
        last = ("daemon.start",)
    start = db.execute("SELECT max(seq) FROM audit WHERE verb = 'daemon.start'").fetchone()[0] or 0
    left = db.execute(
        "SELECT a.effect, a.verb, a.object, a.request FROM audit a WHERE a.seq > ? AND a.outcome = 'intent'"
        " AND NOT EXISTS (SELECT 1 FROM audit b WHERE b.seq > a.seq AND b.effect = a.effect)",
        (start,),
    ).fetchall()
    (deaths,) = db.execute(
        "SELECT count(*) FROM audit WHERE object = 'daemon:local' AND verb = 'daemon.died' AND time >= ?", (since,)
    ).fetchone()
    return _Before(last[0] == "daemon.start", deaths, left)
