"""The log of one launch of a replica, for a person: which launch, from where on, and waiting for more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.deployments import tables
from core.errors import NotFound
from core.nodes.base import Node
from core.nouns import LogText
from core.store import Store

PIECE = 1 << 20
"""Bytes of an answer at most."""
WAIT_S = 30.0


async def read_log(
    store: Store, node: Node, replica: str, start: int, limit: int, *, previous: bool, wait: float,
    since: float | None, lives: Callable[[str], bool],
) -> LogText:  # fmt: skip
    """A range of a replica's log, from byte `start` or from the time `since` on, up to `limit` bytes; `wait` seconds
    for more if there is none yet. Raises `NotFound` if there was no such launch."""
    ids = await store.read(lambda db: tables.launches_of(db, replica))
    if len(ids) <= previous:
        which = "an earlier" if previous else "a"
        raise NotFound(f"{replica} has no log", f"there was not {which} launch of it")
    launch = ids[1 if previous else 0]
    if since is not None:
        start = await node.log_since(launch, since)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(wait, WAIT_S)
    while True:
        piece = await node.read_log(launch, start, min(limit, PIECE))
        living = lives(launch)
        if piece.data or not living or loop.time() >= deadline:
            break
        await asyncio.sleep(0.2)
    return LogText(
        launch=launch, start=piece.start, end=piece.end, text=piece.data.decode("utf-8", "replace"),
        lost=piece.lost, ended=not living,
    )  # fmt: skip
