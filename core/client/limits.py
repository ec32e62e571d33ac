"""The calls about limits."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from core.client.access import Caller
from core.nouns import Limit, LimitView


class LimitCalls:
    """`client.limits`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def ls(self) -> list[LimitView]:
        return await self._client.call("GET", "/limits", list[LimitView])

    async def get(self, subject: str) -> LimitView:
        """What is set for it, and what is left of all that applies to it."""
        return await self._client.call("GET", f"/limits/one?{urlencode({'subject': subject})}", LimitView)

    async def set(self, subject: str, limits: dict[str, Any], reason: str = "") -> Limit:
        """`limits` by name; what is not named stays, 0 takes one away, -1 lifts a default for each."""
        body = {"subject": subject, "limits": limits, "reason": reason}
        return await self._client.call("PUT", "/limits", Limit, body)

    async def rm(self, subject: str, reason: str = "") -> Limit:
        query = urlencode({"subject": subject, "reason": reason})
        return await self._client.call("DELETE", f"/limits/one?{query}", Limit)
