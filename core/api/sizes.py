"""The routes about what sizing has learned from launches."""

from __future__ import annotations

from typing import Any

import msgspec

from core.access import Gate
from core.api.server import Call, Server
from core.catalog.corrections import Corrections, Kind
from core.errors import Invalid

DAEMON = "daemon:local"


def add_sizes(server: Server, corrections: Corrections, gate: Gate) -> None:
    """Declare them. Who may not see a model does not see its launches either."""

    async def ls(call: Call) -> Any:
        return [
            msgspec.structs.replace(
                each,
                seen=tuple(seen for seen in each.seen if gate.may(call.actor, "models.read", f"model:{seen.model}")),
            )
            for each in corrections.ls()
        ]

    async def revoke(call: Call) -> Any:
        return await corrections.revoke(call.actor, call.request, _kind(call))

    async def restore(call: Call) -> Any:
        return await corrections.restore(call.actor, call.request, _kind(call))

    server.add("GET", "/sizes", "models.read", ls)
    server.add("DELETE", "/sizes/{arch}", "models.corrections", revoke, on=DAEMON)
    server.add("POST", "/sizes/{arch}/restore", "models.corrections", restore, on=DAEMON)


def _kind(call: Call) -> Kind:
    engine, build = call.text("engine"), call.text("build")
    if engine is None or build is None:
        raise Invalid("engine and build must be named", "what is learned is learned of one build of one engine")
    return Kind(call.path("arch"), engine, build)
