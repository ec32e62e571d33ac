"""The daemon's own socket: made, given its mode, and made again if somebody removes it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from aiohttp import web

from core.paths import Paths

log = logging.getLogger("corral")

LOOK_S = 2.0
"""Between two looks whether it is still there."""


class Socket:
    """Where `runner` is served; in system mode everybody may connect, and the peer credential decides."""

    def __init__(self, runner: web.AppRunner, paths: Paths) -> None:
        self._runner = runner
        self._path = paths.socket
        self._mode = 0o666 if paths.mode == "system" else 0o600

    async def listen(self) -> None:
        """Raises `OSError`."""
        self._site = web.UnixSite(self._runner, str(self._path))
        await self._site.start()
        self._path.chmod(self._mode)

    async def guard(self) -> None:
        """Make it again if somebody removed it: nobody could reach the daemon any more, not even to end it."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if not self._path.exists():
                    log.warning("%s was removed; it is made again", self._path)
                    with contextlib.suppress(OSError, RuntimeError):
                        await self._site.stop()
                    await self.listen()
            except OSError as error:
                log.error("%s could not be made again: %s", self._path, error)
