"""The routes about service accounts."""

from __future__ import annotations

from typing import Any

import msgspec

from core.access import ServiceAccounts
from core.api.server import Call, Server

OWN, READ, MANAGE = "accounts.own", "accounts.read", "accounts.manage"


class AccountBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    owner: str = ""
    words: str = ""


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = ""


def add_accounts(server: Server, accounts: ServiceAccounts) -> None:
    async def ls(call: Call) -> Any:
        return accounts.ls(call.actor)

    async def get(call: Call) -> Any:
        return accounts.get(call.actor, call.path("name"))

    async def create(call: Call) -> Any:
        body = await call.body(AccountBody)
        return await accounts.create(call.actor, call.request, body.name, owner=body.owner, words=body.words)

    async def disable(call: Call) -> Any:
        reason = (await call.body(ReasonBody)).reason
        return await accounts.disable(call.actor, call.request, call.path("name"), reason)

    async def enable(call: Call) -> Any:
        reason = (await call.body(ReasonBody)).reason
        return await accounts.enable(call.actor, call.request, call.path("name"), reason)

    async def rm(call: Call) -> dict[str, str]:
        await accounts.rm(call.actor, call.request, call.path("name"), call.text("reason", "") or "")
        return {"removed": call.path("name")}

    async def names(call: Call) -> list[str]:
        return [each.name for each in accounts.ls(call.actor)]

    server.names["account"] = names
    server.add("GET", "/accounts", OWN, ls, or_else=READ)
    server.add("POST", "/accounts", OWN, create, status=201, or_else=MANAGE)
    server.add("GET", "/accounts/{name}", OWN, get, or_else=READ)
    server.add("POST", "/accounts/{name}/disable", OWN, disable, or_else=MANAGE)
    server.add("POST", "/accounts/{name}/enable", OWN, enable, or_else=MANAGE)
    server.add("DELETE", "/accounts/{name}", OWN, rm, or_else=MANAGE)
