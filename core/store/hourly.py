"""What is swept at the daemon's start and then each hour: whatever is kept for a time only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from core.errors import CorralError

log = logging.getLogger(__name__)

EVERY_S = 3600.0


async def hourly(
    sweep: Callable[[], Awaitable[object]], what: str, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Until cancelled. A store that cannot be written is tried again with the next hour; the log says that `what`
    could not be removed."""
    while True:
        try:
            await sweep()
        except CorralError as error:
            log.error("%s could not be removed: %s", what, error)
        await pause(EVERY_S)
