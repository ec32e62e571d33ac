"""A server of somebody else as a replica: watched and routed to, never started or stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from core.addresses import look_up, public
from core.deployments import tables
from core.deployments.picture import Picture
from core.deployments.yard import Yard
from core.engines.base import Endpoint, Health
from core.engines.keys import key_file, read_key
from core.errors import Invalid, NotAllowed

NEVER = 3600.0
"""Seconds to the next look when only an event can change anything."""
LOOK_S = 2.0
TRIED = 3
"""Addresses of a name that are asked, one after the other."""
NAME_S = 2.0
"""What the host's resolver may take."""


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
        health, endpoint = await self._guarded(wanted, endpoint)
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

    async def _guarded(self, wanted: tables.Wanted, endpoint: Endpoint) -> tuple[Health, Endpoint]:
        """Its health. One that may be at an address of the internet alone is asked there, by daemon and gateway: a name
        that means something else a moment later gains nothing."""
        if not wanted.public:
            return await self._health(wanted, endpoint)
        try:
            found = await addresses_of(wanted.spec.url, public_only=True)
        except NotAllowed as error:
            return Health(state="lost", reason=f"{error.what}: {error.why}"), endpoint
        except (OSError, TimeoutError) as error:
            return Health(state="lost", reason=f"{endpoint.host} has no address now: {error}"), endpoint
        last = self.endpoint.at if self.endpoint is not None else ""
        health, at = Health(state="lost"), endpoint
        for address in sorted(found, key=lambda each: each != last)[:TRIED]:
            health, at = await self._health(wanted, msgspec.structs.replace(endpoint, at=address))
            if health.state == "ready":
                break
        return health, at

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


async def addresses_of(url: str, *, public_only: bool) -> Sequence[str]:
    """Where its server is now. Raises `NotAllowed` where any of that is no address of the internet's own and only such
    are meant, OSError and TimeoutError where nobody knows."""
    endpoint = _endpoint(url)
    async with asyncio.timeout(NAME_S):
        found = await look_up(endpoint.host, endpoint.port)
    for address in found:
        if public_only and not public(address):
            where = address if address == endpoint.host else f"{endpoint.host} is at {address}, which"
            raise NotAllowed(
                f"{where} is no address of the internet",
                "a server at a private, loopback or link-local address needs deployments.attach-private",
                "ask somebody who holds that to deploy it (with --replace, if it is there)",
            )
    return found


def _endpoint(url: str) -> Endpoint:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Endpoint(
        host=parts.hostname or "", port=parts.port or (443 if tls else 80), prefix=parts.path.rstrip("/"), tls=tls
    )
