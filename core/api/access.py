"""The routes about access: roles, grants, teams, and questions about them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from core.access import Access, Glass, Inquiry, Limiter
from core.access.permissions import PERMISSIONS
from core.api.server import ANYBODY, Call, Server
from core.deployments.gatewaylink import GatewayLink
from core.errors import Invalid
from core.nouns import Role

ALL = "access:all"


class RoleBody(msgspec.Struct, forbid_unknown_fields=True):
    allows: list[str]
    words: str = ""


class TeamBody(msgspec.Struct, forbid_unknown_fields=True):
    members: list[str]


class GrantBody(msgspec.Struct, forbid_unknown_fields=True):
    what: str
    subject: str
    scope: str = "*"
    deny: bool = False
    reason: str = ""
    until: float | None = None


class NamedRole(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    allows: list[str]
    words: str = ""


class GlassBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    what: str = "admin"
    scope: str = "*"
    seconds: float = 3600.0


class SimulateBody(msgspec.Struct, forbid_unknown_fields=True):
    what: str = ""
    subject: str = ""
    scope: str = "*"
    deny: bool = False
    until: float | None = None
    revoke: str = ""
    role: NamedRole | None = None


def add_access(
    server: Server, access: Access, inquiry: Inquiry, glass: Glass, limiter: Limiter, link: GatewayLink,
    objects: Callable[[], Awaitable[list[str]]],
) -> None:  # fmt: skip
    """`objects` tells everything that there is, as `kind:name`."""

    async def permissions(call: Call) -> Any:
        return [list(each) for each in PERMISSIONS.values()]

    async def roles(call: Call) -> Any:
        return list(access.rights.roles.values())

    async def put_role(call: Call) -> Any:
        body = await call.body(RoleBody)
        role = Role(name=call.path("name"), allows=tuple(body.allows), words=body.words[:200])
        return (await access.put_roles(call.actor, call.request, [role]))[0]

    async def put_roles(call: Call) -> Any:
        body = await call.body(list[NamedRole])
        if not body:
            raise Invalid("no role is named")
        wanted = [Role(name=each.name, allows=tuple(each.allows), words=each.words[:200]) for each in body]
        return await access.put_roles(call.actor, call.request, wanted)

    async def rm_role(call: Call) -> Any:
        await access.rm_role(call.actor, call.request, call.path("name"))
        return {"removed": call.path("name")}

    async def teams(call: Call) -> Any:
        return list(access.rights.teams.values())

    async def put_team(call: Call) -> Any:
        body = await call.body(TeamBody)
        return await access.put_team(call.actor, call.request, call.path("name"), body.members)

    async def rm_team(call: Call) -> Any:
        await access.rm_team(call.actor, call.request, call.path("name"))
        return {"removed": call.path("name")}

    async def grants(call: Call) -> Any:
        return inquiry.grants()

    async def grant(call: Call) -> Any:
        body = await call.body(GrantBody)
        return inquiry.shown(await access.grant(call.actor, call.request, **msgspec.structs.asdict(body)))

    async def revoke(call: Call) -> Any:
        why = call.text("reason", "") or ""
        return inquiry.shown(await access.revoke(call.actor, call.request, call.path("id"), reason=why))

    async def break_glass(call: Call) -> Any:
        body = await call.body(GlassBody)
        return inquiry.shown(await glass.take(call.actor, call.request, **msgspec.structs.asdict(body)))

    async def matrix(call: Call) -> Any:
        return inquiry.matrix()

    async def explain(call: Call) -> Any:
        asked = (call.text(name, "") or "" for name in ("user", "permission", "object"))
        return await inquiry.explain(*asked)

    async def simulate(call: Call) -> Any:
        fields = msgspec.structs.asdict(await call.body(SimulateBody))
        role = fields.pop("role")
        if role is not None:
            fields["role"] = Role(name=role.name, allows=tuple(role.allows))
        return await inquiry.simulate(await objects(), **fields)

    async def whoami(call: Call) -> Any:
        me = await inquiry.whoami(call.actor)
        return msgspec.structs.replace(me, limits=await limiter.left_of(call.actor), gateway=link.url)

    server.add("GET", "/whoami", ANYBODY, whoami)
    server.add("GET", "/access/permissions", ANYBODY, permissions)
    server.add("GET", "/access/roles", "access.read", roles, on=ALL)
    server.add("PUT", "/access/roles", "access.roles", put_roles, on=ALL)
    server.add("PUT", "/access/roles/{name}", "access.roles", put_role, on="access:role:{name}")
    server.add("DELETE", "/access/roles/{name}", "access.roles", rm_role, on="access:role:{name}")
    server.add("GET", "/access/teams", "access.read", teams, on=ALL)
    server.add("PUT", "/access/teams/{name}", "access.teams", put_team, on="access:team:{name}")
    server.add("DELETE", "/access/teams/{name}", "access.teams", rm_team, on="access:team:{name}")
    server.add("GET", "/access/grants", "access.read", grants, on=ALL)
    server.add("POST", "/access/grants", "access.grant", grant, status=201, or_else="accounts.own")
    server.add("DELETE", "/access/grants/{id}", "access.grant", revoke, or_else="accounts.own")
    server.add("POST", "/access/break-glass", "access.break-glass", break_glass, on=ALL, status=201)
    server.add("GET", "/access/matrix", "access.read", matrix, on=ALL)
    server.add("GET", "/access/explain", "access.read", explain, on=ALL)
    server.add("POST", "/access/simulate", "access.read", simulate, on=ALL)
