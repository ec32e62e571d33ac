"""The calls about proof of the audit trail: its keys, and files that are verified elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

from core.nouns import AuditKeys, AuditReport

T = TypeVar("T")


class Caller(Protocol):
    """What the calls need of a client."""

    async def call(self, method: str, path: str, type: type[T], body: Any = None, *, timeout: float = 30.0) -> T: ...

    def stream(self, path: str, *, timeout: float = 60.0) -> AsyncIterator[bytes]: ...


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

    def export(self, since: float | None = None) -> AsyncIterator[bytes]:
        """The trail as a file, in pieces; from the first record at or after `since` (epoch seconds) on."""
        return self._client.stream("/audit/export" + (f"?since={since}" if since is not None else ""))

    async def report(self, since: float | None = None) -> AuditReport:
        """What an auditor files, of the time since `since` (epoch seconds)."""
        query = f"?since={since}" if since is not None else ""
        return await self._client.call("GET", f"/audit/report{query}", AuditReport, timeout=600)
