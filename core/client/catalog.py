"""The calls about versions of models: what they are called, in what they differ, what is kept of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from core.client.access import Caller
from core.errors import Invalid
from core.nouns import AliasMoved, Collected, Fits, Model, ModelChange, Verified, VersionDifference


def part(text: str) -> str:
    """A name as a part of a path. Raises `Invalid` for an empty one."""
    if not text:
        raise Invalid("a name is empty", todo="`corral ps`, `corral models ls` and `corral chats ls` show the names")
    return quote(text, safe="", errors="surrogateescape")  # an argument of the shell may be any bytes


def parted(wanted: str) -> tuple[str, str]:
    """A name and what follows it: `chat@3` is `chat` and `@3`."""
    name = re.split("[:@]", wanted, maxsplit=1)[0]
    return name, wanted[len(name) :]


def model_path(wanted: str, below: str = "", **query: str) -> str:
    """The path of a version, whose alias or number goes into the query: rights go by the name alone."""
    name, of = parted(wanted)
    asked = {key: value for key, value in {"of": of, **query}.items() if value}
    tail = f"?{urlencode(asked, errors='surrogateescape')}" if asked else ""
    return f"/models/{part(name)}{below}{tail}"


class CatalogCalls:
    """`client.catalog`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def all(self) -> list[Model]:
        """Every version of every name."""
        return await self._client.call("GET", "/models?versions=1", list[Model])

    async def fits(self) -> Fits:
        """Whether each stored model and each entry of the curated list fits this host now."""
        return await self._client.call("GET", "/fits", Fits)

    async def versions(self, name: str) -> list[Model]:
        return await self._client.call("GET", model_path(name, "/versions"), list[Model])

    async def history(self, name: str, limit: int = 200) -> list[ModelChange]:
        """Newest first."""
        return await self._client.call("GET", model_path(name, "/history", limit=str(limit)), list[ModelChange])

    async def template(self, wanted: str) -> dict[str, Any]:
        """`template`, with model, version, sha256 and flags."""
        return await self._client.call("GET", model_path(wanted, "/template"), dict[str, Any])

    async def diff(self, old: str, new: str) -> list[VersionDifference]:
        """Of two versions of one name: `chat@1` and `chat:live`."""
        path = model_path(parted(old)[0], "/diff", old=parted(old)[1], new=parted(new)[1])
        return await self._client.call("GET", path, list[VersionDifference])

    async def alias(
        self, name: str, alias: str, to: str, *, move: bool = True, seen: int | None = None
    ) -> AliasMoved:  # fmt: skip
        """`move` False: only what moving it would touch. `seen`: what it meant then (0: nothing); raises `Changed`
        where it means something else by now."""
        path = model_path(name, f"/aliases/{part(alias)}")
        return await self._client.call("PUT", path, AliasMoved, {"to": to, "move": move, "seen": seen})

    async def drop_alias(self, name: str, alias: str) -> None:
        path = model_path(name, f"/aliases/{part(alias)}")
        await self._client.call("DELETE", path, dict[str, str])

    async def note(self, wanted: str, *, label: str | None = None, notes: str | None = None) -> Model:
        return await self._client.call("PATCH", model_path(wanted), Model, {"label": label, "notes": notes})

    async def gc(
        self, *, dry_run: bool, older_than_days: float = 0, seen: Sequence[str] | None = None
    ) -> Collected:  # fmt: skip
        """`seen`: what was shown to go; raises `Changed` where it is something else by now."""
        body = {"dry_run": dry_run, "older_than_days": older_than_days, "seen": seen}
        return await self._client.call("POST", "/gc", Collected, body, timeout=600)

    async def verify(self, models: list[str]) -> Verified:
        """Begin; none: all."""
        return await self._client.call("POST", "/verify", Verified, {"models": models})

    async def verified(self) -> Verified:
        """The run on its way, or the last one."""
        return await self._client.call("GET", "/verify", Verified)

    async def cancel_verify(self) -> Verified:
        return await self._client.call("DELETE", "/verify", Verified, timeout=60)
