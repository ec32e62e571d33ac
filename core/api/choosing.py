"""The routes about speed and choice: what to expect, measurements of hosts and models, and which model to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from core.access import Gate
from core.api.server import Call, Server
from core.api.sight import Sight
from core.catalog import Catalog
from core.catalog.advising import MOST_USERS, Advisor
from core.catalog.bench import Benches, Grid
from core.catalog.speed import Seat, reading
from core.catalog.speeds import Speeds
from core.deployments.service import Deployments
from core.errors import Invalid, NotFound
from core.nouns import BenchJob, DeploymentSpec, Speed, Wishes

PROMPT = 512
MOST_TOKENS = 1 << 24


class SpeedBody(msgspec.Struct, forbid_unknown_fields=True):
    """`users` 0: as many as the deployment has slots."""

    spec: DeploymentSpec
    users: int = 0
    prompt: int = PROMPT


def add_choosing(
    server: Server, catalog: Catalog, deployments: Deployments, speeds: Speeds, benches: Benches, advisor: Advisor,
    gate: Gate, sight: Callable[[Call], Sight],
) -> None:  # fmt: skip
    async def speed(call: Call) -> Speed:
        body = await call.body(SpeedBody)
        gate.require(call.actor, "models.read", f"model:{body.spec.model_name}")
        if not 0 <= body.users <= MOST_USERS:
            raise Invalid(f"users is {body.users}", f"it may be 1 to {MOST_USERS}", "change --users")
        if not 1 <= body.prompt <= MOST_TOKENS:
            raise Invalid(f"a prompt has {body.prompt} tokens", f"it may have 1 to {MOST_TOKENS}", "change --prompt")
        spec, model, threads = await deployments.seat(body.spec)
        if model is None:
            raise Invalid("a server of somebody else is as fast as it is", "it is not reckoned")
        await speeds.look()
        seat = Seat(threads=threads, parallel=spec.parallel, cache_type=spec.cache_type)
        each = spec.ctx // spec.parallel
        found = await speeds.expect(
            model, spec.engine, seat, users=body.users or spec.parallel, ctx=max(1, each // 2),
            prompt=min(body.prompt, each),
        )  # fmt: skip
        return reading(found) if spec.embedding or spec.rerank else found

    async def recommend(call: Call) -> Any:
        wishes = await call.body(Wishes)
        gate.require_somewhere(call.actor, "models.read")
        return await advisor.recommend(wishes, sight(call).models(await catalog.ls()))

    def version(call: Call) -> str:
        """What the route's name and its query mean: `chat@3`."""
        return call.path("name") + (call.text("of") or "")

    async def measure_model(call: Call) -> BenchJob:
        return await benches.measure_model(call.actor, call.request, version(call), await call.body(Grid))

    async def curves(call: Call) -> Any:
        return await speeds.benches((await catalog.get(version(call))).sha256)

    async def measure_node(call: Call) -> BenchJob:
        await node(call)
        return await benches.measure_host(call.actor, call.request, force=bool(call.whole("force", 0)))

    async def node(call: Call) -> Any:
        if call.path("name") != speeds.node:
            raise NotFound(f"no node {call.path('name')!r}", f"there is {speeds.node}", "see `corral nodes ls`")
        return {"host": speeds.host, "seen": speeds.all_seen()}

    async def job(call: Call) -> BenchJob:
        found = benches.job(call.path("id"))
        kind = found.object.partition(":")[0]
        if not gate.may(call.actor, f"{kind}s.read", found.object):
            raise NotFound(f"no measurement {call.path('id')!r}")
        return found

    async def cancel(call: Call) -> BenchJob:
        found = await job(call)
        gate.require(call.actor, f"{found.kind}s.bench", found.object)
        return await benches.cancel(call.actor, found.id)

    async def jobs(call: Call) -> Any:
        return sight(call).benches(benches.ls())

    server.add("POST", "/speed", "models.read", speed)
    server.add("POST", "/recommend", "models.read", recommend)
    server.add("POST", "/models/{name}/bench", "models.bench", measure_model, on="model:{name}", status=202)
    server.add("GET", "/models/{name}/bench", "models.read", curves, on="model:{name}")
    server.add("POST", "/nodes/{name}/bench", "nodes.bench", measure_node, on="node:{name}", status=202)
    server.add("GET", "/nodes/{name}/bench", "nodes.read", node, on="node:{name}")
    server.add("GET", "/measurements", "models.read", jobs, or_else="nodes.read")
    server.add("GET", "/measurements/{id}", "models.read", job, or_else="nodes.read")
    server.add("DELETE", "/measurements/{id}", "models.bench", cancel, or_else="nodes.bench")
