"""What the trail says of a span of time: who acted, what changed in the rights, refusals, and gaps in service."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from urllib.parse import quote

import msgspec

from core.audit.chain import SELECT
from core.audit.log import to_record
from core.audit.seals import archives_in
from core.errors import StoreError
from core.nouns import AuditHistory, ReportGap, ReportPerson, ReportRefusal
from core.paths import Paths

MOST = 500
"""Lines of each list; how many there are in all is told."""
RIGHTS = (
    "(verb LIKE 'access.%' OR verb LIKE 'keys.%' OR verb LIKE 'accounts.%' OR verb LIKE 'limits.%' OR verb IN"
    " ('audit.accept', 'audit.key-made', 'audit.keys-known', 'audit.key-rotate', 'audit.archive', 'daemon.reload',"
    " 'deployments.mark'))"
)
"""What changes who may do what, or what is believed."""
BREAK_GLASS = "verb IN ('access.break-glass', 'access.glass-whole')"
"""Root took what nobody had given him, and when that was over."""
BACK = {
    "daemon.stop": "daemon.start", "gateway.died": "gateway.start", "replica.died": "replica.start",
    "audit.sink-full": "audit.sink-back",
}  # fmt: skip
"""What says, of the same object, that it is there again."""
DEATHS = "verb IN ('daemon.died', 'daemon.stop', 'gateway.died', 'replica.died', 'audit.sink-full')"


def gather(paths: Paths, since: str) -> AuditHistory:
    """All of it, on a connection of its own, in the caller's thread. `since`: UTC as the trail writes it. Raises
    `StoreError`."""
    try:
        place = f"file:{quote(str(paths.database))}?mode=ro"
        with closing(sqlite3.connect(place, uri=True, timeout=10)) as db:
            db.text_factory = lambda raw: raw.decode("utf-8", "replace")
            db.execute("BEGIN")
            return _gather(db, since)
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise StoreError("the trail cannot be read", str(error), "see `corral status`") from error


def _gather(db: sqlite3.Connection, since: str) -> AuditHistory:
    first, last, records = db.execute(
        "SELECT coalesce(min(seq), 0), coalesce(max(seq), 0), count(*) FROM audit WHERE time >= ?", (since,)
    ).fetchone()
    people = [ReportPerson(*row) for row in db.execute(
        "SELECT actor, uid, sum(outcome = 'done'), sum(outcome = 'refused'), sum(outcome IN ('failed', 'interrupted')),"
        " min(time), max(time) FROM audit WHERE time >= ? GROUP BY actor, uid ORDER BY count(*) DESC", (since,)
    )]  # fmt: skip
    refusals = [ReportRefusal(*row) for row in db.execute(
        "SELECT actor, uid, verb, object, reason, sum(CASE WHEN json_valid(after) THEN coalesce(json_extract(after,"
        " '$.times'), 1) ELSE 1 END) AS often, min(time), max(time) FROM audit"
        " WHERE time >= ? AND outcome = 'refused' GROUP BY actor, uid, verb, object, reason ORDER BY often DESC",
        (since,),
    )]  # fmt: skip
    changes = [to_record(row) for row in _rows(db, f"{RIGHTS} AND outcome = 'done'", since)]
    gaps = [_gap(db, row) for row in _rows(db, DEATHS, since)]
    rings = [to_record(row) for row in _rows(db, BREAK_GLASS, since)]
    return AuditHistory(
        first=first, last=last, records=records, people=tuple(people[:MOST]), people_all=len(people),
        changes=tuple(changes[-MOST:]), changes_all=len(changes),
        break_glass=tuple(rings[-MOST:]), break_glass_all=len(rings), refusals=tuple(refusals[:MOST]),
        refusals_all=len(refusals), gaps=tuple(gaps[-MOST:]), gaps_all=len(gaps), archives=tuple(archives_in(db)),
    )  # fmt: skip


def _rows(db: sqlite3.Connection, where: str, since: str) -> list[tuple[object, ...]]:
    return db.execute(f"{SELECT} WHERE time >= ? AND {where} ORDER BY seq", (since,)).fetchall()


def _gap(db: sqlite3.Connection, row: tuple[object, ...]) -> ReportGap:
    """From the last sign of life to when it was there again, as far as the trail says."""
    seq, time, verb, object, reason = row[0], str(row[1]), str(row[5]), str(row[6]), str(row[12])
    began, ended = time, ""
    if verb == "daemon.died":  # recorded by the next start, after what it found interrupted
        before = db.execute(
            "SELECT time FROM audit WHERE seq < ? AND outcome != 'interrupted' ORDER BY seq DESC LIMIT 1", (seq,)
        ).fetchone()
        began, ended = (before[0] if before else time), time
    elif verb in BACK:
        after = db.execute(
            "SELECT time FROM audit WHERE object = ? AND seq > ? AND verb = ? AND outcome = 'done'"
            " ORDER BY seq LIMIT 1",
            (object, seq, BACK[verb]),
        ).fetchone()
        ended = after[0] if after else ""
    return ReportGap(what=verb, object=object, began=began, ended=ended, reason=reason)
