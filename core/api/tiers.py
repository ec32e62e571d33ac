"""Routes of tiers: the folders that models are stored in, moves between them, and how long models take to load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from core.api.server import Call, Server
from core.api.sight import Sight
from core.catalog import Catalog
from core.catalog.tiers import Rules
from core.errors import NotFound

TIER, MODEL = "tier:{name}", "model:{name}"


class RulesBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is said of a tier; null leaves it as it is."""

    capacity: int | None = None
    landing: bool | None = None
    spill: str | None = None
    demote_days: float | None = None
    demote_to: str | None = None

    def rules(self) -> Rules:
        return Rules(self.capacity, self.landing, self.spill, self.demote_days, self.demote_to)


class AddBody(RulesBody, forbid_unknown_fields=True):
    name: str = ""
    path: str = ""
    take_over: bool = False
    """It was a tier of a database that is gone."""


class MoveBody(msgspec.Struct, forbid_unknown_fields=True):
    to: str
    move: bool = True
    """False: only tell what the move would be."""


class DemoteBody(msgspec.Struct, forbid_unknown_fields=True):
    dry_run: bool = False


def add_tiers(server: Server, catalog: Catalog, sight: Callable[[Call], Sight]) -> None:
    """Declare them."""
    _tiers(server, catalog, sight)
    _moves(server, catalog, sight)


def _tiers(server: Server, catalog: Catalog, sight: Callable[[Call], Sight]) -> None:
    tiers = catalog.tiers

    async def ls(call: Call) -> Any:
        await tiers.look()
        return sight(call).tiers(await tiers.ls())

    async def names(call: Call) -> list[str]:
        return [name for name in await tiers.names() if sight(call).tier(name)]

    async def get(call: Call) -> Any:
        sees = sight(call)
        return await catalog.tier_detail(call.path("name"), lambda model: sees.models([model]) != [])

    async def add(call: Call) -> Any:
        body = await call.body(AddBody)
        return await tiers.add(
            call.actor, call.request, body.name, body.path, body.rules(), take_over=body.take_over
        )  # fmt: skip

    async def change(call: Call) -> Any:
        body = await call.body(RulesBody)
        return await tiers.change(call.actor, call.request, call.path("name"), body.rules())

    async def remove(call: Call) -> dict[str, Any]:
        left = await tiers.rm(call.actor, call.request, call.path("name"))
        return {"removed": call.path("name"), "left_bytes": left}

    async def check(call: Call) -> Any:
        return await tiers.check(call.path("name"))

    async def measure(call: Call) -> Any:
        return await tiers.measure(call.actor, call.request, call.path("name"))

    async def demote(call: Call) -> Any:
        body = await call.body(DemoteBody)
        return await catalog.demoting.demote(call.actor, call.request, call.path("name"), dry_run=body.dry_run)

    server.names["tier"] = names
    server.add("GET", "/tiers", "tiers.read", ls)
    server.add("POST", "/tiers", "tiers.manage", add)
    server.add("GET", "/tiers/{name}", "tiers.read", get, on=TIER)
    server.add("PATCH", "/tiers/{name}", "tiers.manage", change, on=TIER)
    server.add("DELETE", "/tiers/{name}", "tiers.manage", remove, on=TIER)
    server.add("GET", "/tiers/{name}/check", "tiers.read", check, on=TIER)
    server.add("POST", "/tiers/{name}/speed", "tiers.manage", measure, on=TIER)
    server.add("POST", "/tiers/{name}/demote", "tiers.manage", demote, on=TIER)


def _moves(server: Server, catalog: Catalog, sight: Callable[[Call], Sight]) -> None:
    moves = catalog.moves

    async def start(call: Call) -> Any:
        body = await call.body(MoveBody)
        wanted = call.path("name") + (call.text("of") or "")
        if not body.move:
            return await moves.plan(call.actor, call.request, wanted, body.to)
        return await moves.start(call.actor, call.request, wanted, body.to)

    async def ls(call: Call) -> Any:
        return sight(call).moves(moves.ls())

    def job(call: Call) -> Any:
        found = moves.job(call.path("id"))
        if not sight(call).moves([found]):
            raise NotFound(f"no move {call.path('id')!r}")
        return found

    async def one(call: Call) -> Any:
        return job(call)

    async def cancel(call: Call) -> Any:
        return await moves.cancel(call.actor, job(call).id)

    async def loads(call: Call) -> Any:
        wanted = call.path("name") + (call.text("of") or "")
        return await catalog.loads.times(wanted, sight(call).tier)

    server.add("POST", "/models/{name}/move", "models.move", start, on=MODEL)
    server.add("GET", "/models/{name}/loads", "models.read", loads, on=MODEL)
    server.add("GET", "/moves", "models.read", ls)
    server.add("GET", "/moves/{id}", "models.read", one)
    server.add("DELETE", "/moves/{id}", "models.move", cancel)
