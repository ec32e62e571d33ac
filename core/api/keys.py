"""The routes about API keys."""

from __future__ import annotations

from typing import Any

import msgspec

from core.access import Keys
from core.api.limits import Amounts
from core.api.server import Call, Server
from core.nouns import Limits


class KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    owner: str = ""
    deployments: tuple[str, ...] = ("*",)
    endpoints: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    limits: Limits = Limits()
    until: float | None = None


class LimitBody(Amounts, forbid_unknown_fields=True, omit_defaults=True):
    """What is not named stays."""

    deployments: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    endpoints: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    sources: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    until: float | msgspec.UnsetType | None = msgspec.UNSET


class RotateBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    grace: float = 0.0


class NamedBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    reason: str = ""


class WhoseBody(msgspec.Struct, forbid_unknown_fields=True):
    hash: str
    """SHA-256 of the secret: the secret itself stays with whoever asks."""


def add_keys(server: Server, keys: Keys) -> None:
    """A key's name may hold a slash (OWNER/NAME), so it stands in bodies and queries and not in paths."""

    async def ls(call: Call) -> Any:
        return keys.ls(call.actor)

    async def get(call: Call) -> Any:
        return keys.get(call.actor, call.text("name", "") or "")

    async def whose(call: Call) -> Any:
        return await keys.whose(call.actor, (await call.body(WhoseBody)).hash)

    async def create(call: Call) -> Any:
        body = await call.body(KeyBody)
        return await keys.create(call.actor, call.request, **msgspec.structs.asdict(body))

    async def limit(call: Call) -> Any:
        changes = (await call.body(LimitBody)).said()
        return await keys.limit(call.actor, call.request, call.text("name", "") or "", changes)

    async def rotate(call: Call) -> Any:
        body = await call.body(RotateBody)
        return await keys.rotate(call.actor, call.request, body.name, body.grace)

    async def revoke(call: Call) -> Any:
        body = await call.body(NamedBody)
        return await keys.revoke(call.actor, call.request, body.name, body.reason)

    server.add("GET", "/keys", "keys.own", ls, or_else="keys.read")
    server.add("GET", "/keys/one", "keys.own", get, or_else="keys.read")
    server.add("POST", "/keys/whose", "keys.own", whose, or_else="keys.read")
    server.add("POST", "/keys", "keys.own", create, status=201, or_else="keys.manage")
    server.add("PATCH", "/keys/one", "keys.own", limit, or_else="keys.manage")
    server.add("POST", "/keys/rotate", "keys.own", rotate, or_else="keys.manage")
    server.add("POST", "/keys/revoke", "keys.own", revoke, or_else="keys.manage")
