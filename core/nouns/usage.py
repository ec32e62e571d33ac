"""Usage as it is asked for: sums by what the caller names."""

from __future__ import annotations

from core.nouns.base import Noun


class UsageSums(Noun, frozen=True, kw_only=True):
    """What requests that are alike come to. Medians and the like are of buckets: right within 5 %."""

    requests: int
    errors: int
    """Of them: neither done nor given up by the client."""
    prompt_tokens: int
    """All that were read, the cached ones too."""
    cached_tokens: int
    answer_tokens: int
    estimated: int
    """Of the requests: those whose tokens no engine told, or not all of them."""
    queue_s: float
    """Seconds in the queue, all together."""
    first_token_p50_s: float | None
    """Of streams; None without one."""
    first_token_p95_s: float | None
    total_p50_s: float | None
    """Of answers that are complete; None without one."""
    total_p95_s: float | None
    core_hours: float
    """Of the replicas' cores, by the share that the requests' slots are of them."""
    cost: float | None
    """By the prices of now; None where nothing in it has a price."""
    unpriced: int
    """Of the requests with tokens: those whose model has no price. They are not in `cost`."""


class UsageRow(Noun, frozen=True, kw_only=True):
    """One group: `group` has a value for each word of `by`, in its order."""

    group: dict[str, str | int]
    sums: UsageSums


class UsageReport(Noun, frozen=True, kw_only=True):
    """The answer. `since` and `until` as they were used: on a whole hour where the lines of that hour are gone."""

    since: float | None
    until: float | None
    by: tuple[str, ...]
    currency: str
    """Of `cost`; empty where corral.toml names none."""
    mine: bool
    """The caller's own usage alone."""
    rows: tuple[UsageRow, ...]
    total: UsageSums
    left_out: int = 0
    """Rows beyond the limit; `total` has them."""
