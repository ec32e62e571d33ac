"""What an auditor files: an `AuditReport` as the sections of a page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby

import msgspec

from core.nouns import AuditReport
from tui.page import Section
from tui.words import whom

LONG = 400
"""Characters of what changed that a page shows; the record has all."""


def title(report: AuditReport) -> str:
    return f"Audit report of {report.host}"


def sections(report: AuditReport) -> list[Section]:
    """All of it, the verdict first."""
    return [
        _summary(report), _proof(report), _rights(report), _matrix(report), _teams(report), _people(report),
        _use(report), _changes(report), _break_glass(report), _refusals(report), _gaps(report), _archives(report),
    ]  # fmt: skip


def _summary(r: AuditReport) -> Section:
    span = f"since {_time(r.since)}" if r.since else "since the first record"
    named = f"records {r.first} to {r.last} ({r.records})" if r.records else "no records"
    return Section(
        "What this is about",
        (
            f"The trail of Corral {r.version} on {r.host} ({r.mode} mode) {span}, made by {r.made_by} at"
            f" {_time(r.made_at)}: {named}. All times are UTC.",
        ),
    )


def _proof(r: AuditReport) -> Section:
    chain, keys = r.chain, r.keys
    bad = [] if chain.ok else [f"The chain does not verify: {fault.message} ({fault.how})." for fault in chain.faults]
    bad += [] if keys.usable else [f"The trail is not signed: {keys.reason}"]
    bad += [f"Accepted fault: {each.message} ({each.how}), by {each.by} at {_time(each.time)}: {each.reason}"
            for each in chain.accepted]  # fmt: skip
    bad += [f"The sink {each.name} is {each.state}: {each.waiting} records wait. {each.reason}"
            for each in r.sinks if each.state != "ok"]  # fmt: skip
    told = [f"{chain.records} records verified in {chain.seconds} s: {chain.message}.", f"Head: {chain.head}"]
    if keys.checkpoints:
        told.append(f"Checkpoint {keys.checkpoints} of {_time(keys.last_time)} vouches for {keys.last_seq} records;"
                    f" {keys.unvouched} after it are not vouched for yet.")  # fmt: skip
    told += [f"Sink {each.name}: {each.state}, has records up to {each.sent}." for each in r.sinks]
    told.append("This page proves nothing by itself: corral audit export and corral audit verify FILE do.")
    return Section(
        "Verification", tuple(told), tuple(bad), ("key", "id", "state", "since", "signed by", "public key"),
        [(k.number, k.id, k.state, _time(k.time), k.signed_by or "nobody", k.key) for k in keys.keys], "no key",
    )  # fmt: skip


def _rights(r: AuditReport) -> Section:
    return Section(
        "Who was given what",
        (f"Without a grant: {', '.join(r.almighty)}. Everybody else may do nothing until a grant says so.",),
        head=("subject", "effect", "what", "on", "by", "at", "until", "reason", "grant"),
        rows=[
            (whom(g), g.effect, g.what, g.scope, g.by, _epoch(g.at), _epoch(g.until) if g.until else "it is revoked",
             g.reason, g.id)
            for g in r.grants
        ],
        empty="no grants",
    )  # fmt: skip


def _matrix(r: AuditReport) -> Section:
    rows = []
    for (subject, effect, scope), each in groupby(
        sorted(r.matrix, key=lambda h: (h.subject, h.effect, h.scope)), key=lambda h: (h.subject, h.effect, h.scope)
    ):
        rows.append((subject, effect, scope, ", ".join(dict.fromkeys(held.permission for held in each))))
    return Section("Who may do what", head=("subject", "effect", "on", "permissions"), rows=rows, empty="nobody")


def _teams(r: AuditReport) -> Section:
    rows = [(f"team:{t.name}", ", ".join(map(str, t.members)) or "nobody") for t in r.teams]
    rows += [(f"role {each.name}", ", ".join(each.allows)) for each in r.roles if not each.builtin]
    return Section("Teams, and roles of this shop's own", head=("name", "has"), rows=rows)


def _people(r: AuditReport) -> Section:
    return Section(
        "Who acted", _more(r.people, r.people_all),
        head=("actor", "uid", "done", "refused", "failed", "first", "last"),
        rows=[(p.actor, _uid(p.uid), p.done, p.refused, p.failed, _time(p.first), _time(p.last)) for p in r.people],
        empty="nobody",
    )  # fmt: skip


def _use(r: AuditReport) -> Section:
    return Section(
        "Who used which deployment", _more(r.use, r.use_all),
        head=("actor", "deployment", "requests", "tokens in", "tokens out"),
        rows=[(u.actor, u.deployment, u.requests, u.prompt_tokens, u.answer_tokens) for u in r.use], empty="nobody",
    )  # fmt: skip


def _changes(r: AuditReport) -> Section:
    return Section(
        "Changes of rights, keys and settings", _more(r.changes, r.changes_all, "the last"),
        head=("record", "time", "actor", "what", "object", "before", "after", "reason"),
        rows=[(c.seq, _time(c.time), c.actor, c.verb, c.object, _json(c.before), _json(c.after), c.reason)
              for c in r.changes],
    )  # fmt: skip


def _break_glass(r: AuditReport) -> Section:
    return Section(
        "Break-glass: what no grant gave", _more(r.break_glass, r.break_glass_all, "the last"),
        head=("record", "time", "actor", "uid", "what", "object", "outcome", "reason"),
        rows=[(c.seq, _time(c.time), c.actor, _uid(c.uid), c.verb, c.object, c.outcome, c.reason)
              for c in r.break_glass],
    )  # fmt: skip


def _refusals(r: AuditReport) -> Section:
    return Section(
        "Refusals", _more(r.refusals, r.refusals_all),
        head=("actor", "uid", "what", "object", "times", "first", "last", "reason"),
        rows=[(f.actor, _uid(f.uid), f.verb, f.object, f.count, _time(f.first), _time(f.last), f.reason)
              for f in r.refusals],
    )  # fmt: skip


def _gaps(r: AuditReport) -> Section:
    return Section(
        "Gaps in service", _more(r.gaps, r.gaps_all, "the last"),
        head=("what", "object", "last sign of life", "there again", "reason"),
        rows=[(g.what, g.object, _time(g.began), _time(g.ended) if g.ended else "not known", g.reason)
              for g in r.gaps],
    )  # fmt: skip


def _archives(r: AuditReport) -> Section:
    older = [each for each in r.archives if each.ended >= r.since]
    left_out = (
        f"Records {older[0].first} to {older[-1].last} are of the time of this page, lie in archives, and are not"
        " counted on it: corral audit verify FILE reads them.",
    ) if older else ()  # fmt: skip
    gone = tuple(f"The archive of records {a.first} to {a.last} is not where it was put." for a in r.archives
                 if not a.there)  # fmt: skip
    return Section(
        "Where older records lie", left_out, gone,
        ("records", "from", "to", "file", "bytes", "SHA-256", "sealed at", "by key"),
        [(f"{a.first} to {a.last}", _time(a.began), _time(a.ended), a.file, a.bytes, a.digest, _time(a.time), a.key)
         for a in r.archives], "all records are in the database",
    )  # fmt: skip


def _more(shown: Sequence[object], all: int, which: str = "the first") -> tuple[str, ...]:
    return (f"{all} lines; {which} {len(shown)} are shown.",) if all > len(shown) else ()


def _json(value: object) -> str:
    """A change's before or after; nothing for null."""
    if value is None:
        return ""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= LONG else text[:LONG] + f"… ({len(text)} characters; see the record)"


def _time(text: str) -> str:
    """A time of the trail to the second; what is none as it is."""
    return text[:19].replace("T", " ") if text[10:11] == "T" else text


def _epoch(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "?"


def _uid(uid: int) -> str:
    """Corral itself, and a stranger at the gateway's door, have none."""
    return str(uid) if uid >= 0 else "none"
