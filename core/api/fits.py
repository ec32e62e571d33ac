"""The route that says which models fit this host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from core.api.server import Call, Server
from core.api.sight import Sight
from core.catalog import Catalog, curated, fitting
from core.deployments.service import Deployments
from core.errors import NotFound
from core.nouns import Fits


def add_fits(
    server: Server, catalog: Catalog, deployments: Deployments, own: Path, sight: Callable[[Call], Sight]
) -> None:
    """Declare it; `own` is the folder of the user's own entries."""

    async def fits(call: Call) -> Fits:
        seen = sight(call).models(await catalog.ls())
        room = await deployments.left()

        def work() -> Fits:
            return fitting.fits(seen, curated.read(own).entries, room)

        return await asyncio.to_thread(work)

    server.add("GET", "/fits", "models.read", fits)


async def point_to_catalogue(error: NotFound, name: str, deployments: Deployments, own: Path) -> None:
    """Say in `error` what the catalogue has, if it is a model `name` that was not found. Who may not see a stored model
    of that name is told the same as if there were none."""
    if error.details.get("kind") != "model":
        return
    room = await deployments.left()
    error.todo = await asyncio.to_thread(lambda: fitting.listed_as(name, curated.read(own).entries, room)) or error.todo
