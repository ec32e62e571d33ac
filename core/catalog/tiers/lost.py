"""A tier whose marker is gone though its files lie there: whether it may be put back, and why not."""

from __future__ import annotations

import asyncio

from core.catalog.objects import Objects
from core.catalog.tiers import checking, tables
from core.catalog.tiers.inthread import in_a_thread
from core.catalog.tiers.ledger import Away
from core.errors import Conflict
from core.store import Store


async def look(
    store: Store, objects: Objects, row: tables.Row, why: str, *, take_over: bool, answer_s: float
) -> None:  # fmt: skip
    """Raises `Conflict` for a tier whose marker cannot be put back, or only with `take_over`, and `Away` for a folder
    that has not answered for `answer_s` seconds. `why` it is away."""
    sizes = await store.read(lambda db: tables.objects(db, row.name))
    parts = await store.read(lambda db: tables.parts(db, set(sizes)))
    looked = in_a_thread(lambda: checking.lacking(objects, row.name, sizes, parts))
    await asyncio.wait({looked}, timeout=answer_s)
    if not looked.done():
        raise Away(f"the tier {row.name} is not there", f"{row.path} has not answered for {answer_s:.0f} s")
    if gone := looked.result():
        raise Conflict(
            f"the marker of {row.name} cannot be put back", f"{why}; what should lie there does not: {gone[0]}",
            "mount it; that is all that it needs if its files are on another disk",
        )  # fmt: skip
    if not sizes:
        raise Conflict(
            f"the marker of {row.name} cannot be put back", f"{why}; it held nothing by which it could be known",
            f"forget it and add it anew: corral tiers rm {row.name}",
        )  # fmt: skip
    if not take_over:
        raise Conflict(
            f"{row.name} has lost its marker", f"{why}; all {len(sizes)} that it holds lie there",
            "say --take-over: its marker is put back", take_over="lost",
        )  # fmt: skip
