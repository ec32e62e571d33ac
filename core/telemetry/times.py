"""Durations as counts by bucket: they can be added up, and tell medians within 5 %."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import msgspec

STEPS = 8
"""Buckets in which a duration doubles: the middle of one is at most 2**(1/16), 4.4 %, away from what lies in it."""

Buckets = Mapping[int, int]
"""Bucket to how many."""


def bucket_of(seconds: float) -> int:
    """The bucket of a duration; what is below a microsecond (or a clock's mistake) counts as one."""
    return math.floor(math.log2(seconds * 1e6) * STEPS) if seconds > 1e-6 else 0


def middle_of(bucket: int) -> float:
    """Seconds that stand for a bucket."""
    return float(2 ** ((bucket + 0.5) / STEPS) / 1e6)


def quantile(buckets: Buckets, q: float) -> float | None:
    """The duration below which the share `q` lies, in seconds; None of nothing."""
    count = sum(buckets.values())
    if not count:
        return None
    rank, seen = max(1, math.ceil(q * count)), 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= rank:
            break
    return middle_of(bucket)


def write(buckets: Buckets) -> str:
    """As JSON."""
    return msgspec.json.encode(dict(sorted(buckets.items()))).decode()


def read(text: str) -> Counter[int]:
    """What `write` wrote."""
    return Counter(_DECODE(text))


_DECODE = msgspec.json.Decoder(dict[int, int]).decode
