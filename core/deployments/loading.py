"""How long one launch takes to load its model: from the engine's start until it says that it is ready."""

from __future__ import annotations

import asyncio
import logging

from core.catalog.tiers import Loading
from core.deployments.yard import Yard
from core.errors import CorralError

log = logging.getLogger(__name__)


class Load:
    """Of a launch that this daemon starts: of one that it adopted nobody knows how long it took. What cannot be
    written is left out: a launch does not wait for its figures."""

    def __init__(self, yard: Yard, reference: str) -> None:
        self._yard, self._reference = yard, reference
        self._loading: Loading | None = None
        self._began = 0.0
        self._seconds: float | None = None

    async def begin(self) -> None:
        """The engine is about to be started."""
        try:
            self._loading = await self._yard.catalog.loads.begin(self._reference)
        except CorralError as error:
            log.warning("the load of %s is not measured: %s", self._reference, error)
        self._began = asyncio.get_running_loop().time()

    def ready(self) -> None:
        """It says that it is ready, for the first time."""
        if self._seconds is None:
            self._seconds = asyncio.get_running_loop().time() - self._began

    async def record(self, engine: str) -> None:
        """Keep how long it took."""
        loading, self._loading = self._loading, None
        if loading is not None and self._seconds is not None:
            try:
                await self._yard.catalog.loads.ready(loading, self._seconds, engine)
            except CorralError as error:
                log.warning("the load of %s is not kept: %s", self._reference, error)
