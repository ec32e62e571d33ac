"""The calls about proof of the audit trail: its keys."""

from __future__ import annotations

from core.client.access import Caller
from core.nouns import AuditKeys


class ProofCalls:
    """`client.proof`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def keys(self) -> AuditKeys:
        return await self._client.call("GET", "/audit/keys", AuditKeys)

    async def rotate(self, reason: str = "", *, lost: bool = False) -> AuditKeys:
        """Go over to another key. Raises `Failed` if the one before cannot sign it, and with `lost` `Conflict` if it
        can."""
        return await self._client.call("POST", "/audit/keys/rotate", AuditKeys, {"reason": reason, "lost": lost})
