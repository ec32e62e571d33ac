"""The routes about limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from core.access import Limiter
from core.api.server import ANYBODY, Call, Server

Maybe = int | msgspec.UnsetType


class Amounts(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Limits by name. What is not named stays; 0, and hours of "", take one away."""

    rpm: Maybe = msgspec.UNSET
    tpm: Maybe = msgspec.UNSET
    concurrency: Maybe = msgspec.UNSET
    daily_tokens: Maybe = msgspec.UNSET
    tpm_in: Maybe = msgspec.UNSET
    tpm_out: Maybe = msgspec.UNSET
    daily_in: Maybe = msgspec.UNSET
    daily_out: Maybe = msgspec.UNSET
    monthly_tokens: Maybe = msgspec.UNSET
    monthly_in: Maybe = msgspec.UNSET
    monthly_out: Maybe = msgspec.UNSET
    longest_prompt: Maybe = msgspec.UNSET
    longest_answer: Maybe = msgspec.UNSET
    hours: str | msgspec.UnsetType = msgspec.UNSET

    def said(self) -> dict[str, Any]:
        """Those that are named."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not msgspec.UNSET}


class SetBody(msgspec.Struct, forbid_unknown_fields=True):
    subject: str
    limits: Amounts
    reason: str = ""


def add_limits(server: Server, limiter: Limiter, objects: Callable[[], Awaitable[list[str]]]) -> None:
    """A subject may hold a slash (key:OWNER/NAME), so it stands in bodies and queries. Who may not read limits sees
    those that concern him. `objects`: all models and deployments, as `kind:name`."""

    def subject(call: Call) -> str:
        return call.text("subject", "") or ""

    async def ls(call: Call) -> Any:
        return await limiter.ls(call.actor)

    async def get(call: Call) -> Any:
        return await limiter.get(call.actor, subject(call))

    async def put(call: Call) -> Any:
        body = await call.body(SetBody)
        return await limiter.set(
            call.actor, call.request, body.subject, body.limits.said(), reason=body.reason, there=await objects()
        )

    async def rm(call: Call) -> Any:
        return await limiter.rm(call.actor, call.request, subject(call), reason=call.text("reason", "") or "")

    server.add("GET", "/limits", ANYBODY, ls)
    server.add("GET", "/limits/one", ANYBODY, get)
    server.add("PUT", "/limits", "limits.set", put)
    server.add("DELETE", "/limits/one", "limits.set", rm)
