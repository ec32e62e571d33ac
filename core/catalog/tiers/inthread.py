"""What a thread of its own finds out: one that a dead file server holds up for ever holds up nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_a_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """What `work` gives. Nobody waits for the thread when the daemon ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(found: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found)  # type: ignore[arg-type]

    def whole() -> None:
        try:
            found, error = work(), None
        except BaseException as raised:  # whatever it is belongs to who waits
            found, error = None, raised
        try:
            loop.call_soon_threadsafe(settle, found, error)
        except RuntimeError:
            return  # the daemon has ended meanwhile

    threading.Thread(target=whole, name="tier", daemon=True).start()
    return future
