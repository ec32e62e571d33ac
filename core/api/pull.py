"""The routes about pulls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from core.access import Gate
from core.api.server import Call, Server
from core.api.sight import Sight
from core.catalog.pull import Pulls
from core.errors import NotFound
from core.nouns import NO_OPTIONS, DeploymentSpec, ImportOptions, Pull, PulledDeploy

Rate = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
Ctx = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]


class PlanBody(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    token: str = ""
    """Of the hub, read by the caller's program; it is in no record and goes to the hub alone."""
    hub: str = ""
    """Its address, as the caller's environment has it (HF_ENDPOINT)."""
    ctx: Ctx = 0


class DeployedBody(msgspec.Struct, forbid_unknown_fields=True):
    spec: DeploymentSpec
    replace: bool = False


class PullBody(PlanBody, forbid_unknown_fields=True):
    name: str | None = None
    limit: Rate = 0
    sha256: str = ""
    options: ImportOptions = NO_OPTIONS
    projector: str = ""
    """`auto`, or the name of the one to take along."""
    deploy: DeployedBody | None = None
    """What it is deployed as when it is here."""


class ResumeBody(msgspec.Struct, forbid_unknown_fields=True):
    token: str = ""
    source: str = ""
    limit: Rate | None = None


def add_pulls(server: Server, pulls: Pulls, gate: Gate, sight: Callable[[Call], Sight]) -> None:
    """What a pull is about is the model that it becomes."""

    async def ls(call: Call) -> Any:
        return sight(call).pulls(pulls.ls())

    async def plan(call: Call) -> Any:
        body = await call.body(PlanBody)
        return await pulls.plan(
            call.actor, call.request, body.source, secret=body.token, endpoint=body.hub, ctx=body.ctx
        )

    async def begin(call: Call) -> Any:
        body = await call.body(PullBody)
        return await pulls.begin(
            call.actor, call.request, body.source, name=body.name, secret=body.token, endpoint=body.hub, ctx=body.ctx,
            limit=body.limit, sha256=body.sha256, options=body.options, projector=body.projector,
            deploy=PulledDeploy(spec=body.deploy.spec, replace=body.deploy.replace) if body.deploy else None,
        )  # fmt: skip

    def seen(call: Call, found: Pull | None = None) -> Pull:
        """What the caller may see of a pull, the one that he names unless another is said."""
        shown = sight(call).pulls([found or pulls.get(call.path("id"))])
        if not shown:
            raise NotFound(f"no pull {call.path('id')!r}", todo="see `corral models pulls`")
        return shown[0]

    async def get(call: Call) -> Any:
        return seen(call)

    async def pause(call: Call) -> Any:
        return seen(call, await pulls.pause(call.actor, call.request, seen(call).id))

    async def resume(call: Call) -> Any:
        body = await call.body(ResumeBody)
        gone_on = await pulls.resume(
            call.actor, call.request, seen(call).id, secret=body.token, source=body.source, limit=body.limit
        )
        return seen(call, gone_on)

    async def cancel(call: Call) -> Any:
        return seen(call, await pulls.cancel(call.actor, call.request, seen(call).id))

    async def undeploy(call: Call) -> Any:
        return seen(call, await pulls.undeploy(call.actor, call.request, seen(call).id))

    server.add("GET", "/pulls", "models.read", ls, or_else="models.import")
    server.add("POST", "/pulls", "models.import", begin)
    server.add("POST", "/pulls/plan", "models.import", plan)
    server.add("GET", "/pulls/{id}", "models.read", get, or_else="models.import")
    server.add("POST", "/pulls/{id}/pause", "models.import", pause)
    server.add("POST", "/pulls/{id}/resume", "models.import", resume)
    server.add("DELETE", "/pulls/{id}", "models.import", cancel)
    server.add("DELETE", "/pulls/{id}/deploy", "models.import", undeploy)
