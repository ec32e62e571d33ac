"""The calls about API keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from core.client.access import Caller
from core.nouns import FoundKey, Key, NewKey


class KeyCalls:
    """`client.keys`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def ls(self) -> list[Key]:
        return await self._client.call("GET", "/keys", list[Key])

    async def get(self, name: str) -> Key:
        """By id, name or OWNER/NAME."""
        return await self._client.call("GET", f"/keys/one?{urlencode({'name': name})}", Key)

    async def whose(self, hash: str) -> FoundKey:
        """`hash`: SHA-256 of the secret, which stays here."""
        return await self._client.call("POST", "/keys/whose", FoundKey, {"hash": hash})

    async def create(self, **fields: Any) -> NewKey:
        """`name`, and of `owner`, `deployments`, `endpoints`, `sources`, `limits`, `until` what is meant."""
        return await self._client.call("POST", "/keys", NewKey, fields)

    async def limit(self, name: str, **changes: Any) -> Key:
        return await self._client.call("PATCH", f"/keys/one?{urlencode({'name': name})}", Key, changes)

    async def rotate(self, name: str, grace: float = 0.0) -> NewKey:
        return await self._client.call("POST", "/keys/rotate", NewKey, {"name": name, "grace": grace})

    async def revoke(self, name: str, reason: str = "") -> Key:
        return await self._client.call("POST", "/keys/revoke", Key, {"name": name, "reason": reason})
