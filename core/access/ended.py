"""Secrets of API keys that worked once and do not now: the gateway is told of them, to say why it refuses one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from core.access.keytables import KeyRow
from core.nouns import Key

MOST = 1024
"""Secrets that are told, those that ended last: the gateway keeps them in memory, and none of them opens anything."""
SINCE_S = 30 * 86400.0
"""For how long one is told."""


class Ended(NamedTuple):
    """`why`: `rotated`, or the state of its key (expired, revoked, owner gone, owner disabled)."""

    key: Key
    hash: str
    why: str


def ended(
    rows: Iterable[KeyRow], away: Mapping[str, tuple[str, float]], state: Callable[[Key], str], now: float
) -> list[Ended]:
    """Of these keys and of what was rotated away (by hash: the key's id, and when)."""
    known = {row.key.id: row for row in rows}
    found: list[tuple[float, Ended]] = []
    for row in known.values():
        why = state(row.key)
        if why != "active":
            found.append((row.key.revoked_at or row.key.until or now, Ended(row.key, row.hash, why)))
    for hash, (id, at) in away.items():
        if id not in known or hash == known[id].hash:
            continue
        row = known[id]
        why = state(row.key)
        if why == "active":
            if hash == row.old_hash and row.key.old_until is not None:
                at = row.key.old_until
                if now < at:
                    continue
            why = "rotated"
        found.append((at, Ended(row.key, hash, why)))
    recent = [each for each in found if each[0] > now - SINCE_S]
    recent.sort(key=lambda each: each[0])
    return [each for _, each in recent[-MOST:]]
