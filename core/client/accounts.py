"""The calls about service accounts."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from core.client.access import Caller
from core.nouns import AccountDetail, ServiceAccount


class AccountCalls:
    """`client.accounts`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def ls(self) -> list[ServiceAccount]:
        return await self._client.call("GET", "/accounts", list[ServiceAccount])

    async def get(self, name: str) -> AccountDetail:
        return await self._client.call("GET", f"/accounts/{quote(name, safe='')}", AccountDetail)

    async def create(self, name: str, **fields: Any) -> ServiceAccount:
        """`owner` (`user:alice`, `team:ml`; default: who asks) and `words`."""
        return await self._client.call("POST", "/accounts", ServiceAccount, {"name": name, **fields})

    async def disable(self, name: str, reason: str = "") -> ServiceAccount:
        path = f"/accounts/{quote(name, safe='')}/disable"
        return await self._client.call("POST", path, ServiceAccount, {"reason": reason})

    async def enable(self, name: str, reason: str = "") -> ServiceAccount:
        path = f"/accounts/{quote(name, safe='')}/enable"
        return await self._client.call("POST", path, ServiceAccount, {"reason": reason})

    async def rm(self, name: str, reason: str = "") -> None:
        query = f"?{urlencode({'reason': reason})}" if reason else ""
        await self._client.call("DELETE", f"/accounts/{quote(name, safe='')}{query}", dict[str, str])
