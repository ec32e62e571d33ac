"""Before and after, side by side: what a record says of the object that it is about, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import wrap
from typing import Any, NamedTuple

from core.nouns import CORRAL, STRANGER, AuditRecord
from tui.plain import line, plain
from tui.words import clock, moment

FIELDS_SHOWN = 500
"""Of a change; the record itself has all."""
NAME = 26
"""Cells of the longest name of a field; narrower terminals give it a third."""


class Change(NamedTuple):
    """One field; None where it is not there."""

    name: str
    before: str | None
    after: str | None


def changes(before: Any, after: Any) -> list[Change]:
    """Each field of either, in their order: `limits.rpm`, `members.0`. A value that is no object has no name."""
    one, other = dict(_flat(before)), dict(_flat(after))
    return [Change(name, one.get(name), other.get(name)) for name in dict.fromkeys((*one, *other))]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value:
        for n, each in enumerate(value):
            yield from _flat(each, f"{name}.{n}" if name else str(n))
    elif value is not None or name:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def told(record: AuditRecord, width: int) -> str:
    """The whole record for a person, `width` cells wide: nothing in it does anything to the terminal."""
    fields = {
        "record": str(record.seq), "time": f"{clock(record.time)}  ({record.time})",
        "who": who(record), "what": record.verb,
        "object": record.object, "outcome": record.outcome, "reason": record.reason, "request": record.request,
        "effect": record.effect,
        "archive": f"{record.archive} (`corral audit archives` says which file)" if record.archive else "",
    }  # fmt: skip
    out = [each for name, value in fields.items() if value for each in _labelled(name, value, width)]
    found = changes(record.before, _timed(record.after))
    out += ["", *(_beside(found, width) if found else ["Nothing of the object was recorded"]), ""]
    out += [each for name in ("prev", "hash") for each in _labelled(name, getattr(record, name), width)]
    return "\n".join(out)


def who(record: AuditRecord) -> str:
    """The actor in full. Where nobody is known, what is: a door of the gateway and an address."""
    if record.uid >= 0:
        return f"{record.actor} (uid {record.uid}) through {record.through}"
    if record.actor in (CORRAL.name, "several"):
        return f"{record.actor}, through {record.through}"
    return f"{actor(record)}: nobody who is known, through {record.through} (the reason says from where)"


def actor(record: AuditRecord) -> str:
    """Who it was, as people say it: older records call a stranger `uid:-1`."""
    return STRANGER if record.actor == "uid:-1" else record.actor


def _timed(change: Any) -> Any:
    """What was folded has the times of its first and last one as seconds."""
    if not isinstance(change, dict) or "times" not in change:
        return change
    at = {key: moment(value) for key in ("first", "last") if isinstance(value := change.get(key), float)}
    return change | at


def _labelled(name: str, value: str, width: int) -> list[str]:
    """The value beside its name, on as many lines as it takes."""
    lines = _wrapped(value, max(10, width - 11))
    return [f"{name:9} {lines[0]}", *(" " * 10 + each for each in lines[1:])]


def _beside(found: list[Change], width: int) -> list[str]:
    """Three columns; `*` marks what changed."""
    shown = found[:FIELDS_SHOWN]
    names = [line(each.name) or "value" for each in shown]
    first = max(5, min(NAME, width // 3, max(map(len, names))))
    rest = max(8, (width - first - 7) // 2)
    out = [f"  {'field':{first}}  {'before':{rest}}  after".rstrip(), f"  {'-' * first}  {'-' * rest}  {'-' * rest}"]
    for name, each in zip(names, shown, strict=True):
        mark = " " if each.before == each.after else "*"
        cells = [_wrapped(name, first), _wrapped(_cell(each.before), rest), _wrapped(_cell(each.after), rest)]
        for n in range(max(map(len, cells))):
            one, two, three = (cell[n] if n < len(cell) else "" for cell in cells)
            out.append(f"{mark if n == 0 else ' '} {one:{first}}  {two:{rest}}  {three}".rstrip())
    if len(found) > len(shown):
        out.append(f"and {len(found) - len(shown)} more fields: `corral audit ls --json` has all of them")
    return out


def _cell(value: str | None) -> str:
    return "-" if value is None else value if value.strip() else '""'


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` letters."""
    parts = [wrap(each, width, break_on_hyphens=False) or [""] for each in plain(text).split("\n")]
    return [each for part in parts for each in part]
