"""A measurement that the daemon carries out, followed to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from core.client import Client
from core.errors import Failed, from_body
from core.nouns import BenchJob
from tui.lines import Passing

ENDED = ("done", "failed", "cancelled")
LOOK_S = 0.25


async def follow(client: Client, begun: Coroutine[Any, Any, BenchJob]) -> BenchJob:
    """Show a measurement until it ends; ctrl+c cancels it."""
    job = await begun
    with Passing() as passing:
        try:
            while job.state not in ENDED:
                passing.show(f"measure {job.object}: {job.done}/{job.total} {job.step}")
                await asyncio.sleep(LOOK_S)
                job = await client.choosing.job(job.id)
        except asyncio.CancelledError:
            await client.choosing.cancel(job.id)
            raise
    if job.error is not None:
        raise from_body(job.error)
    if job.state != "done":
        raise Failed(f"the measurement was {job.state}")
    return job
