"""Which route calls which service, with which permission: the whole control interface on one page."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from core.access import Access, Gate, Glass, Inquiry, Keys, Limiter, ServiceAccounts
from core.api.access import add_access
from core.api.accounts import add_accounts
from core.api.audit import add_audit
from core.api.catalogue import add_catalogue
from core.api.chats import add_chats
from core.api.choosing import add_choosing
from core.api.fits import add_fits
from core.api.keys import add_keys
from core.api.limits import add_limits
from core.api.models import add_models
from core.api.nodes import MarkBody, add_nodes
from core.api.privacy import add_privacy
from core.api.pull import add_pulls
from core.api.server import LARGEST, PING_S, Call, Server, event_stream
from core.api.sight import Sight
from core.api.sizes import add_sizes
from core.api.tiers import add_tiers
from core.api.usage import UsageReader, add_usage
from core.audit import Archiver, Audit, Exporter, Reader, Signer
from core.catalog import Catalog
from core.catalog.advising import Advisor
from core.catalog.bench import Benches
from core.catalog.pull import Pulls
from core.catalog.speeds import Speeds
from core.chats import Chats, Forgetting, Holds, Others, Rules, Vault
from core.deployments.certificates import Certificates
from core.deployments.service import Deployments
from core.engines.base import EngineRegistry
from core.events import Bus
from core.nouns import DeploymentSpec, Event, NodeFacts, Picture, Replica, Status
from core.store import Store
from core.telemetry.sampler import Sampler

DAEMON, DEPLOYMENT = "daemon:local", "deployment:{name}"
"""What a route is about."""


class DeployBody(msgspec.Struct, forbid_unknown_fields=True):
    spec: DeploymentSpec
    replace: bool = False
    mark: MarkBody | None = None
    """It is sensitive: the mark comes first, and stays if the rest is refused."""


class ScaleBody(msgspec.Struct, forbid_unknown_fields=True):
    replicas: int


class ShutdownBody(msgspec.Struct, forbid_unknown_fields=True):
    models: bool = False


class CertificateBody(msgspec.Struct, forbid_unknown_fields=True):
    names: tuple[str, ...] = ()
    days: int = 365
    replace: bool = False


class Services:
    """What the routes call; built by the daemon."""

    def __init__(
        self,
        *,
        bus: Bus,
        gate: Gate,
        access: Access,
        glass: Glass,
        keys: Keys,
        service_accounts: ServiceAccounts,
        limiter: Limiter,
        store: Store,
        audit: Audit,
        signer: Signer,
        exporter: Exporter,
        reader: Reader,
        archiver: Archiver,
        catalog: Catalog,
        pulls: Pulls,
        speeds: Speeds,
        benches: Benches,
        advisor: Advisor,
        deployments: Deployments,
        engines: EngineRegistry,
        chats: Chats,
        vault: Vault,
        rules: Rules,
        holds: Holds,
        forgetting: Forgetting,
        others: Others,
        sampler: Sampler,
        usage: UsageReader,
        facts: Callable[[], Awaitable[NodeFacts]],
        status: Callable[[], Awaitable[Status]],
        shutdown: Callable[[Call, bool], Awaitable[list[Replica]]],
        reload: Callable[[Call], Awaitable[None]],
        certificates: Certificates,
        owner_uid: int,
        own_entries: Path,
    ) -> None:
        self.bus, self.gate, self.access, self.keys, self.store = bus, gate, access, keys, store
        self.service_accounts, self.glass = service_accounts, glass
        self.inquiry, self.limiter = Inquiry(gate, access.gone), limiter
        self.audit, self.signer, self.exporter, self.archiver, self.catalog = audit, signer, exporter, archiver, catalog
        self.reader, self.pulls = reader, pulls
        self.speeds, self.benches, self.advisor = speeds, benches, advisor
        self.deployments, self.engines, self.chats, self.sampler = deployments, engines, chats, sampler
        self.usage = usage
        self.vault, self.rules, self.holds, self.forgetting, self.others = vault, rules, holds, forgetting, others
        self.facts, self.status, self.shutdown, self.reload = facts, status, shutdown, reload
        self.certificates = certificates
        self.owner_uid, self.own_entries = owner_uid, own_entries

    def sight(self, call: Call) -> Sight:
        """What this caller sees."""
        return Sight(self.gate, call.actor, self.catalog.verifying.concerns)


def add_routes(server: Server, s: Services) -> None:
    """Declare every route."""
    _daemon(server, s)
    add_audit(server, s.audit, s.reader, s.signer, s.exporter, s.archiver, s.gate, s.bus, s.inquiry, s.usage, s.status)
    add_sizes(server, s.catalog.corrections, s.gate)
    add_models(server, s.catalog, s.deployments, s.engines, s.gate, s.sight, s.owner_uid, s.own_entries)
    add_catalogue(server, s.own_entries)
    add_tiers(server, s.catalog, s.sight)
    add_fits(server, s.catalog, s.deployments, s.own_entries, s.sight)
    _deployments(server, s)
    add_chats(server, s.chats)
    add_privacy(server, s.vault, s.rules, s.holds, s.forgetting, s.others)

    async def objects() -> list[str]:
        deployments = [f"deployment:{each.spec.name}" for each in s.deployments.ls()]
        models = [f"model:{each.name}" for each in await s.catalog.ls()]
        tiers = [f"tier:{name}" for name in await s.catalog.tiers.names()]
        return ["daemon:local", "node:local", "audit:chain", "access:all", "usage:all", *deployments, *models, *tiers]

    add_access(server, s.access, s.inquiry, s.glass, s.limiter, s.deployments.link, objects)
    add_nodes(server, s.deployments.labels, s.deployments.sensitive, s.sight)
    add_choosing(server, s.catalog, s.deployments, s.speeds, s.benches, s.advisor, s.gate, s.sight)
    add_accounts(server, s.service_accounts)
    add_keys(server, s.keys)
    add_limits(server, s.limiter, objects)
    add_pulls(server, s.pulls, s.gate, s.sight)
    add_usage(server, s.usage, s.gate, s.keys)


def _daemon(server: Server, s: Services) -> None:
    async def picture(call: Call) -> Picture:
        event = s.bus.last
        whole = Picture(
            event=event,
            status=await s.status(),
            deployments=tuple(s.deployments.ls()),
            replicas=tuple(s.deployments.replicas()),
            models=tuple(await s.catalog.ls()),
            facts=(await s.facts(),),
            audit=tuple(await s.audit.ls(limit=20)),
            me=await s.inquiry.whoami(call.actor),
            pulls=tuple(s.pulls.ls()),
            tiers=tuple(await s.catalog.tiers.ls()),
            moves=tuple(s.catalog.moves.ls()),
            benches=tuple(s.benches.ls()),
        )
        return s.sight(call).picture(whole)

    async def status(call: Call) -> Status:
        await s.deployments.link.heard()
        return s.sight(call).status(await s.status())

    async def events(call: Call) -> web.StreamResponse:
        return await follow(call, s.bus, s.sight(call).event, s.sight(call).told)

    async def shutdown(call: Call) -> list[Replica]:
        body = await call.body(ShutdownBody)
        return await s.shutdown(call, body.models)

    async def reload(call: Call) -> dict[str, bool]:
        await s.reload(call)
        return {"reloaded": True}

    async def certificate(call: Call) -> Any:
        body = await call.body(CertificateBody)
        return await s.certificates.make(call.actor, call.request, body.names, body.days, replace=body.replace)

    async def samples(call: Call) -> Any:
        return s.sampler.since(call.number("seconds", 60))

    server.add("GET", "/status", "daemon.read", status)
    server.add("GET", "/picture", "daemon.read", picture)
    server.add("GET", "/events", "daemon.read", events)
    server.add("POST", "/shutdown", "daemon.shutdown", shutdown, on=DAEMON)
    server.add("POST", "/reload", "daemon.reload", reload, on=DAEMON)
    server.add("POST", "/gateway/certificate", "gateway.certificate", certificate, on=DAEMON)
    server.add("GET", "/samples", "nodes.read", samples, on="node:local")


def _deployments(server: Server, s: Services) -> None:
    async def ls(call: Call) -> Any:
        return s.sight(call).deployments(s.deployments.ls())

    async def get(call: Call) -> Any:
        return s.deployments.get(call.path("name"))

    async def deploy(call: Call) -> Any:
        body = await call.body(DeployBody)
        if body.spec.model:  # a server of somebody else has none
            s.gate.require(call.actor, "models.read", f"model:{body.spec.model_name}")
        if body.mark is not None:
            await s.deployments.sensitive.mark(
                call.actor, call.request, body.spec.name, labels=body.mark.labels, groups=body.mark.groups,
                reason=body.mark.reason,
            )  # fmt: skip
        found, changed = await s.deployments.deploy(call.actor, call.request, body.spec, replace=body.replace)
        return web.Response(
            body=msgspec.json.encode(found), content_type="application/json", status=201 if changed else 200
        )

    async def remove(call: Call) -> dict[str, str]:
        await s.deployments.rm(call.actor, call.request, call.path("name"))
        return {"removed": call.path("name")}

    async def turn(verb: str, call: Call) -> Any:
        return await s.deployments.turn(call.actor, call.request, call.path("name"), verb)

    async def scale(call: Call) -> Any:
        body = await call.body(ScaleBody)
        return await s.deployments.scale(call.actor, call.request, call.path("name"), body.replicas)

    async def wait(call: Call) -> Any:
        return await s.deployments.wait(call.path("name"), call.number("timeout", 30, 0, 60))

    async def replicas(call: Call) -> Any:
        if call.number("pss", 0) > 0:
            await s.sampler.measure()
        return s.sight(call).replicas(s.deployments.replicas())

    async def explain(call: Call) -> Any:
        found = await s.deployments.explain(call.path("name"))
        return msgspec.structs.replace(found, audit=tuple(s.sight(call).records(found.audit)))

    async def logs(call: Call) -> Any:
        return await s.deployments.logs(
            call.path("name"),
            call.whole("replica", 0),
            call.whole("start", -65536, -LARGEST),
            call.whole("limit", 65536, 1),
            previous=call.whole("previous", 0) > 0,
            wait=call.number("wait", 0),
            since=call.number("since", 0) if call.text("since") else None,
        )

    async def names(call: Call) -> list[str]:
        return [each.spec.name for each in s.sight(call).deployments(s.deployments.ls())]

    server.names["deployment"] = names
    server.add("GET", "/deployments", "deployments.read", ls)
    server.add("POST", "/deployments", "deployments.create", deploy)
    server.add("GET", "/deployments/{name}", "deployments.read", get, on=DEPLOYMENT)
    server.add("DELETE", "/deployments/{name}", "deployments.rm", remove, on=DEPLOYMENT)
    for verb in ("start", "stop", "restart"):
        server.add("POST", f"/deployments/{{name}}/{verb}", f"deployments.{verb}", partial(turn, verb), on=DEPLOYMENT)
    server.add("POST", "/deployments/{name}/scale", "deployments.scale", scale, on=DEPLOYMENT)
    server.add("GET", "/deployments/{name}/wait", "deployments.read", wait, on=DEPLOYMENT)
    server.add("GET", "/deployments/{name}/explain", "deployments.read", explain, on=DEPLOYMENT)
    server.add("GET", "/deployments/{name}/logs", "deployments.logs", logs, on=DEPLOYMENT)
    server.add("GET", "/replicas", "deployments.read", replicas)


async def follow(
    call: Call, bus: Bus, sees: Callable[[Event], bool], told: Callable[[Event], Event] = lambda event: event
) -> web.StreamResponse:
    """Events after `since` (or Last-Event-ID) that the caller `sees` when they are sent, as they are `told` to him,
    with a comment each 15 s so that a dead client is noticed. A bare id tells how far he was served where the last ones
    are not for him. It ends when the caller has left the host, or his uid is somebody else's."""
    since = call.text("since") or call.http.headers.get("Last-Event-ID") or None
    response = await event_stream(call.http)
    async with contextlib.aclosing(bus.follow(since, idle_s=PING_S)) as batches:
        with contextlib.suppress(ConnectionResetError):
            async for batch in batches:
                if not await call.still():
                    break
                for event in map(told, filter(sees, batch)):
                    await response.write(
                        b"id: " + event.id.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"
                    )
                if not batch:
                    await response.write(b": ping\n\n")
                elif not sees(batch[-1]):
                    await response.write(b"id: " + batch[-1].id.encode() + b"\n\n")
    return response
