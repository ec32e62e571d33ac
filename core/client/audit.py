"""The calls about proof of the audit trail: its keys, and files that are verified elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

import msgspec

from core.errors import Failed
from core.nouns import (
    AuditArchive,
    AuditArchives,
    AuditKeys,
    AuditPage,
    AuditPlan,
    AuditReport,
    ChainProgress,
    ChainReport,
)

T = TypeVar("T")
ARCHIVE_TIMEOUT_S = 7200.0


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

    async def find(
        self, text: str = "", *, before_seq: int | None = None, after_seq: int | None = None, limit: int = 100,
        **filters: Any,
    ) -> AuditPage:  # fmt: skip
        """Records that fit `text` (docs/audit.md, Filter): the newest below `before_seq`, or the oldest above
        `after_seq`, also out of archives. `filters`: actor, verb, object and outcome, whole or ending in `*`; since and
        until (epoch seconds)."""
        asked = {**filters, "q": text or None, "before_seq": before_seq, "after_seq": after_seq, "limit": limit}
        query = urlencode({name: value for name, value in asked.items() if value is not None}, errors="replace")
        return await self._client.call("GET", f"/audit/find?{query}", AuditPage)

    async def verify(self, watch: Callable[[int, int], object], *, archives: bool = False) -> ChainReport:
        """Walk the whole chain, and with `archives` the files of older records; `watch` is told how many records of how
        many. Cancelled, it ends in the daemon too."""
        rest = b""
        async with aclosing(self._client.stream(f"/audit/verify?archives={int(archives)}")) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    told = msgspec.json.decode(line, type=ChainProgress)
                    if told.report is not None:
                        return told.report
                    watch(told.done, told.of)
        raise Failed("the verification ended early", "the daemon could not read the chain to its end", "see its log")

    async def archives(self) -> AuditArchives:
        """The files that older records lie in."""
        return await self._client.call("GET", "/audit/archives", AuditArchives)

    async def archive_plan(self, before: float, folder: str = "", *, recent: bool = False) -> AuditPlan:
        """What `archive` would do. Raises `Conflict` with why that is nothing."""
        query = urlencode({"before": before, "folder": folder, "recent": int(recent)}, errors="replace")
        return await self._client.call("GET", f"/audit/archive?{query}", AuditPlan)

    async def archive(self, before: float, folder: str = "", reason: str = "", *, recent: bool = False) -> AuditArchive:
        """Move the records from before `before` (epoch seconds) into a signed file in `folder` (a full path; "": where
        corral.toml says). `recent`: also those of the last day. Raises `Conflict` with why there is nothing to do."""
        body = {"before": before, "folder": folder, "reason": reason, "recent": recent}
        return await self._client.call("POST", "/audit/archive", AuditArchive, body, timeout=ARCHIVE_TIMEOUT_S)

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
