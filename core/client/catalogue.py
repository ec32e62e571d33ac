"""The calls about the curated list."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from core.client.access import Caller
from core.nouns import Catalogue, CatalogueEntry


class CuratedCalls:
    """`client.curated`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def read(self, use: str = "") -> Catalogue:
        """The whole list, or what of it is for one use."""
        return await self._client.call("GET", "/catalogue" + (f"?{urlencode({'for': use})}" if use else ""), Catalogue)

    async def entry(self, name: str) -> CatalogueEntry:
        return await self._client.call("GET", f"/catalogue/{quote(name, safe='')}", CatalogueEntry)
