"""What somebody tried whom the interface turned away: names of things and people, for the record of the refusal. What
he said, or sent as a secret, stands in none: each route's fields are named here, and no others are read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from core.access.secrets import PREFIX as SECRET

FIELDS: dict[str, tuple[str, ...]] = {
    "/access/grants": ("what", "subject", "scope", "deny"),
    "/access/break-glass": ("what", "scope"),
    "/access/explain": ("user", "permission", "object"),
    "/access/simulate": ("what", "subject", "scope", "deny", "revoke"),
    "/accounts": ("name", "owner"),
    "/chats": ("deployment",),
    "/deployments": ("spec.name", "spec.model", "spec.tier"),
    "/keys": ("name", "owner"),
    "/keys/one": ("name",),
    "/keys/rotate": ("name",),
    "/keys/revoke": ("name",),
    "/limits": ("subject",),
    "/limits/one": ("subject",),
    "/models": ("name",),
    "/models/sample": ("name",),
    "/models/upload": ("name",),
    "/models/{name}/aliases/{alias}": ("to",),
    "/models/{name}/move": ("to",),
    "/privacy/holds": ("what",),
    "/privacy/others": ("user", "chat"),
    "/privacy/retention": ("subject", "days"),
    "/pulls": ("name",),
    "/tiers": ("name",),
}
"""By route (what stands in its path is in the record anyway), the fields of its query or body that name something."""
LONGEST = 200
"""Characters of a name that is recorded."""
BODY = 1 << 16
"""Bytes of a body that is read for it."""
WAIT_S = 5.0
"""A body that does not come is waited for so long."""


async def tried(request: web.Request, route: str) -> dict[str, Any]:
    """By field, what a request to `route` names, as far as it is well formed."""
    fields = FIELDS.get(route, ())
    sources: list[Any] = [dict(request.query)]
    if fields and request.can_read_body and (request.content_length or 0) <= BODY:
        sources.append(await _body(request))
    return {field: value for field in fields for value in _values(sources, field)}


async def _body(request: web.Request) -> Any:
    try:
        async with asyncio.timeout(WAIT_S):
            return msgspec.json.decode(await request.read())
    except (TimeoutError, msgspec.MsgspecError, web.HTTPException, OSError):
        return None


def _values(sources: list[Any], field: str) -> Iterator[str | int | bool]:
    for found in sources:
        for part in field.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, bool | int) or (isinstance(found, str) and _is_name(found)):
            yield found


def _is_name(text: str) -> bool:
    """Something that is called so: no text, and no secret where a name belongs."""
    return 0 < len(text) <= LONGEST and text.isprintable() and " " not in text and SECRET not in text
