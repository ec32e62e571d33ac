"""The routes of the curated list. What it says is public, so whoever may see models sees all of it."""

from __future__ import annotations

import asyncio
from difflib import get_close_matches
from pathlib import Path

import msgspec

from core.api.server import Call, Server
from core.catalog.curated import read
from core.errors import Invalid, NotFound
from core.nouns import USES, Catalogue, CatalogueEntry


def add_catalogue(server: Server, own: Path) -> None:
    """Declare them; `own` is the folder of the user's own entries."""

    async def ls(call: Call) -> Catalogue:
        use = call.text("for")
        if use is not None and use not in USES:
            raise Invalid(f"{use!r:.40} is no use", todo=f"uses are {', '.join(USES)}")
        found = await asyncio.to_thread(read, own)
        if use is None:
            return found
        return msgspec.structs.replace(found, entries=tuple(each for each in found.entries if use in each.uses))

    async def one(call: Call) -> CatalogueEntry:
        name = call.path("name")
        there = {each.name: each for each in (await asyncio.to_thread(read, own)).entries}
        if name not in there:
            near = get_close_matches(name, there, n=3, cutoff=0.4)
            raise NotFound(
                f"there is no {name!r:.80} in the catalogue",
                f"near are {', '.join(near)}" if near else "",
                "`corral models catalogue` lists what there is",
            )
        return there[name]

    server.add("GET", "/catalogue", "models.read", ls)
    server.add("GET", "/catalogue/{name}", "models.read", one)
