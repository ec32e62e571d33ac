"""A server of somebody else as a replica: watched and routed to, never started or stopped."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from core.deployments import tables
from core.deployments.picture import Picture
from core.deployments.yard import Yard
from core.engines.base import Endpoint, Health
from core.engines.keys import key_file, read_key
from core.errors import Invalid

NEVER = 3600.0
"""Seconds to the next look when only an event can change anything."""
LOOK_S = 2.0


class Attached:
    """The way to one such server. A runner calls `look` for as long as the deployment names an engine that starts
    nothing."""

    def __init__(self, yard: Yard, picture: Picture) -> None:
        self._yard = yard
        self._picture = picture
        self.endpoint: Endpoint | None = None
        """Where requests go; None while it takes none."""

    async def look(self, wanted: tables.Wanted) -> float:
        """Ask for its health and show it; seconds until the next look."""
        picture = self._picture
        if wanted.wanted == "stopped":
            self.endpoint = None
            if picture.view.state != "stopped":
                picture.state("stopped", "no longer routed to")
            return NEVER
        endpoint = _endpoint(wanted.spec.url)
        picture.set(port=endpoint.port)
        health, endpoint = await self._health(wanted, endpoint)
        was, self.endpoint = self.endpoint, endpoint if health.state == "ready" else None
        if self.endpoint not in (was, None):
            self._yard.changed(picture.view)
        if self.endpoint is not None and picture.view.state != "ready":
            if not await self._yard.link.acknowledged(self._yard.link.status().snapshot, 5):
                picture.state("loading", "it answers; waits for the gateway")
                return 0.2
            picture.state("ready", "")
        elif self.endpoint is None:
            reason = health.reason or f"{wanted.spec.url} does not answer"
            if was is not None or picture.view.state != "backoff" or picture.view.reason != reason:
                picture.state("backoff", reason)
        return LOOK_S

    async def _health(self, wanted: tables.Wanted, endpoint: Endpoint) -> tuple[Health, Endpoint]:
        """Its health, asked with its key, which is read each time: a new one is in force at the next look."""
        file = key_file(self._yard.keys, endpoint.host, endpoint.port, endpoint.tls)
        try:
            endpoint = msgspec.structs.replace(endpoint, secret=read_key(file))
        except Invalid as error:
            return Health(state="lost", reason=error.what), endpoint
        health = await self._yard.engines.get(wanted.spec.engine).health(endpoint)
        if health.wants_key:
            todo = f"it refuses the key in {file}" if endpoint.secret else f"put its key in {file} (mode 600)"
            health = msgspec.structs.replace(health, reason=f"{health.reason}: {todo}")
        return health, endpoint


def _endpoint(url: str) -> Endpoint:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Endpoint(
        host=parts.hostname or "", port=parts.port or (443 if tls else 80), prefix=parts.path.rstrip("/"), tls=tls
    )
