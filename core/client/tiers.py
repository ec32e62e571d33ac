"""The calls about tiers: the folders that models are stored in, moves between them, and load times."""

from __future__ import annotations

from typing import Any

from core.client.access import Caller
from core.client.catalog import model_path, part
from core.nouns import Demoted, LoadTime, MoveJob, Tier, TierChecked, TierDetail

SLOW_S = 600.0
"""A tier with many objects, or a slow disk, takes its time."""


def _path(name: str, below: str = "") -> str:
    return f"/tiers/{part(name)}{below}"


class TierCalls:
    """`client.tiers`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def ls(self) -> list[Tier]:
        """`home` first."""
        return await self._client.call("GET", "/tiers", list[Tier])

    async def get(self, name: str) -> TierDetail:
        """With the versions that lie there."""
        return await self._client.call("GET", _path(name), TierDetail)

    async def add(self, name: str, path: str, *, take_over: bool = False, **rules: Any) -> Tier:
        """`rules`: capacity (bytes), landing, spill, demote_days, demote_to."""
        body = {"name": name, "path": path, "take_over": take_over, **rules}
        return await self._client.call("POST", "/tiers", Tier, body, timeout=SLOW_S)

    async def set(self, name: str, **rules: Any) -> Tier:
        """The same rules; those that are None stay."""
        return await self._client.call("PATCH", _path(name), Tier, rules)

    async def rm(self, name: str) -> int:
        """The bytes of models that stay in its folder."""
        return int((await self._client.call("DELETE", _path(name), dict[str, Any]))["left_bytes"])

    async def check(self, name: str) -> TierChecked:
        return await self._client.call("GET", _path(name, "/check"), TierChecked, timeout=SLOW_S)

    async def measure(self, name: str) -> Tier:
        """How fast it is read; seconds."""
        return await self._client.call("POST", _path(name, "/speed"), Tier, timeout=SLOW_S)

    async def demote(self, name: str, *, dry_run: bool) -> Demoted:
        """What its rule moves out of it, now; each move is waited for."""
        return await self._client.call("POST", _path(name, "/demote"), Demoted, {"dry_run": dry_run}, timeout=86400)

    async def move(self, wanted: str, to: str, *, move: bool = True) -> MoveJob:
        """Begin to move a version: `chat`, `chat@3`; without `move` only tell what that would be, and touch."""
        body = {"to": to, "move": move}
        return await self._client.call("POST", model_path(wanted, "/move"), MoveJob, body, timeout=SLOW_S)

    async def moves(self) -> list[MoveJob]:
        """Those that this daemon knows of, oldest first."""
        return await self._client.call("GET", "/moves", list[MoveJob])

    async def move_job(self, id: str) -> MoveJob:
        return await self._client.call("GET", f"/moves/{part(id)}", MoveJob)

    async def cancel_move(self, id: str) -> MoveJob:
        return await self._client.call("DELETE", f"/moves/{part(id)}", MoveJob, timeout=60)

    async def loads(self, wanted: str) -> list[LoadTime]:
        """How long a version takes to load from each tier."""
        return await self._client.call("GET", model_path(wanted, "/loads"), list[LoadTime])
