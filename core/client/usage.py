"""The calls about usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from core.client.access import Caller
from core.nouns import UsageReport

SLOW_S = 120.0
"""By hour over years is a lot to read."""


class UsageCalls:
    """`client.usage`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def report(
        self, *, all: bool, by: Sequence[str] = (), since: float | None = None, until: float | None = None,
        only: Mapping[str, Sequence[str]] | None = None,
    ) -> UsageReport:  # fmt: skip
        """Sums `by` words (user, model, day, ...) from `since` on, before `until` (epoch seconds). `all`: everybody's,
        else the caller's own. `only` chooses, for example {"model": ["phi-*"]}. Raises `NotAllowed`, `Invalid`."""
        query: list[tuple[str, str]] = [("by", ",".join(by))]
        query += [(name, repr(at)) for name, at in (("since", since), ("until", until)) if at is not None]
        query += [(word, text) for word, texts in (only or {}).items() for text in texts]
        path = f"/usage{'/all' if all else ''}?{urlencode(query)}"
        return await self._client.call("GET", path, UsageReport, timeout=SLOW_S)
