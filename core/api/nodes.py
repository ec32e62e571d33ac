"""The routes about labels of nodes, and about deployments that are sensitive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from core.api.server import Call, Server
from core.api.sight import Sight
from core.deployments.sensitive import Sensitive
from core.nodes.labels import Labels


class LabelsBody(msgspec.Struct, forbid_unknown_fields=True):
    labels: dict[str, str | None]
    """None removes one."""


class MarkBody(msgspec.Struct, forbid_unknown_fields=True):
    labels: tuple[str, ...]
    groups: tuple[str, ...] = ()
    reason: str = ""


def add_nodes(server: Server, labels: Labels, sensitive: Sensitive, sight: Callable[[Call], Sight]) -> None:
    async def ls(call: Call) -> Any:
        return sight(call).labels(labels.ls())

    async def label(call: Call) -> Any:
        body = await call.body(LabelsBody)
        return await labels.change(call.actor, call.request, call.path("name"), body.labels)

    async def marks(call: Call) -> Any:
        return sight(call).marks(sensitive.ls())

    async def mark(call: Call) -> Any:
        body = await call.body(MarkBody)
        return await sensitive.mark(
            call.actor, call.request, call.path("name"), labels=body.labels, groups=body.groups, reason=body.reason
        )

    async def unmark(call: Call) -> dict[str, str]:
        await sensitive.unmark(call.actor, call.request, call.path("name"), call.text("reason", "") or "")
        return {"unmarked": call.path("name")}

    on = "deployment:{name}"
    server.add("GET", "/nodes", "nodes.read", ls)
    server.add("PATCH", "/nodes/{name}/labels", "nodes.label", label, on="node:{name}")
    server.add("GET", "/marks", "deployments.read", marks)
    server.add("PUT", "/deployments/{name}/mark", "deployments.mark", mark, on=on)
    server.add("DELETE", "/deployments/{name}/mark", "deployments.mark", unmark, on=on)
