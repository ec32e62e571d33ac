"""The calls about access: roles, grants, teams, and questions about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from core.nouns import Decision, Difference, GrantShown, Held, Role, Team, Whoami

T = TypeVar("T")


class Caller(Protocol):
    """What the calls need of a client."""

    async def call(self, method: str, path: str, type: type[T], body: Any = None, *, timeout: float = 30.0) -> T: ...


class AccessCalls:
    """`client.access`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def whoami(self) -> Whoami:
        return await self._client.call("GET", "/whoami", Whoami)

    async def permissions(self) -> list[list[str]]:
        """[name, kind of object, words] of each."""
        return await self._client.call("GET", "/access/permissions", list[list[str]])

    async def roles(self) -> list[Role]:
        return await self._client.call("GET", "/access/roles", list[Role])

    async def put_role(self, name: str, allows: Sequence[str], words: str = "") -> Role:
        body = {"allows": list(allows), "words": words}
        return await self._client.call("PUT", f"/access/roles/{quote(name, safe='')}", Role, body)

    async def put_roles(self, roles: Sequence[Role]) -> list[Role]:
        """All of them or none."""
        body = [{"name": role.name, "allows": role.allows, "words": role.words} for role in roles]
        return await self._client.call("PUT", "/access/roles", list[Role], body)

    async def rm_role(self, name: str) -> None:
        await self._client.call("DELETE", f"/access/roles/{quote(name, safe='')}", dict[str, str])

    async def teams(self) -> list[Team]:
        return await self._client.call("GET", "/access/teams", list[Team])

    async def put_team(self, name: str, members: Sequence[str]) -> Team:
        return await self._client.call("PUT", f"/access/teams/{quote(name, safe='')}", Team, {"members": list(members)})

    async def rm_team(self, name: str) -> None:
        await self._client.call("DELETE", f"/access/teams/{quote(name, safe='')}", dict[str, str])

    async def grants(self) -> list[GrantShown]:
        return await self._client.call("GET", "/access/grants", list[GrantShown])

    async def grant(self, **fields: Any) -> GrantShown:
        """`what`, `subject`, and of `scope`, `deny`, `reason`, `until` what is meant."""
        return await self._client.call("POST", "/access/grants", GrantShown, fields)

    async def revoke(self, id: str, reason: str = "") -> GrantShown:
        query = f"?{urlencode({'reason': reason})}" if reason else ""
        return await self._client.call("DELETE", f"/access/grants/{quote(id, safe='')}{query}", GrantShown)

    async def break_glass(self, **fields: Any) -> GrantShown:
        """`reason`, and of `what`, `scope`, `seconds` what is meant."""
        return await self._client.call("POST", "/access/break-glass", GrantShown, fields)

    async def matrix(self) -> list[Held]:
        return await self._client.call("GET", "/access/matrix", list[Held])

    async def explain(self, user: str, permission: str, object: str) -> Decision:
        query = urlencode({"user": user, "permission": permission, "object": object})
        return await self._client.call("GET", f"/access/explain?{query}", Decision)

    async def simulate(self, **fields: Any) -> list[Difference]:
        """As `grant`; or `revoke`, a grant's id; or `role`, {"name", "allows"}."""
        return await self._client.call("POST", "/access/simulate", list[Difference], fields)
