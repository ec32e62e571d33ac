"""The calls about what sizing has learned from launches."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from core.client.access import Caller
from core.nouns import SizeCorrection


class SizeCalls:
    """`client.sizes`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def ls(self) -> list[SizeCorrection]:
        return await self._client.call("GET", "/sizes", list[SizeCorrection])

    async def revoke(self, found: SizeCorrection) -> SizeCorrection:
        """Plan by the formula alone."""
        return await self._client.call("DELETE", _path(found), SizeCorrection)

    async def restore(self, found: SizeCorrection) -> SizeCorrection:
        """Learn again."""
        return await self._client.call("POST", _path(found, "/restore"), SizeCorrection)


def _path(found: SizeCorrection, verb: str = "") -> str:
    asked = urlencode({"engine": found.engine, "build": found.build})
    return f"/sizes/{quote(found.arch, safe='')}{verb}?{asked}"
