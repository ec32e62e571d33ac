"""What is hashed: a record's canonical encoding, version 1 (docs/audit.md says the same for people).

The SHA-256 over the UTF-8 text of a JSON array without spaces,
["corral-audit-1", seq, time, actor, uid, through, verb, object, request, effect, before, after, outcome, reason, prev],
in which `before` and `after` are strings that hold JSON themselves.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

GENESIS = "0" * 64
"""`prev` of the first record of a chain that follows none."""
COLUMNS = (
    "seq", "time", "actor", "uid", "through", "verb", "object", "request", "effect", "before", "after", "outcome",
    "reason", "prev", "hash",
)  # fmt: skip
RECORD = "corral-audit-1"

to_json = msgspec.json.Encoder().encode
_sha256 = hashlib.sha256


def encode(row: tuple[Any, ...]) -> bytes:
    """The canonical bytes of a row (its columns in order, without `hash`)."""
    return to_json((RECORD, *row[:14]))


def digest(row: tuple[Any, ...]) -> str:
    """The hash of a row (`hash` itself is left out), 64 hex digits."""
    return _sha256(encode(row)).hexdigest()
