"""What the gateway is told of the settings, and what it has to understand to be told."""

from __future__ import annotations

from collections.abc import Sequence

from core.deployments.doors import files_of, for_the_one_before
from core.gateway import wire
from core.paths import Paths
from core.settings import GatewayTable


def limits_of(table: GatewayTable, paths: Paths) -> wire.GatewayLimits:
    """The table [gateway] of the settings, as the gateway reads it."""
    return wire.GatewayLimits(
        queue=table.queue,
        queue_timeout_s=table.queue_timeout_s,
        first_byte_timeout_s=table.first_byte_timeout_s,
        idle_timeout_s=table.idle_timeout_s,
        request_timeout_s=table.request_timeout_s,
        body_bytes=table.body_bytes,
        bodies_bytes=table.bodies_bytes,
        serve_uncounted=table.when_spool_full == "serve-uncounted",
        alone_s=table.alone_hours * 3600,
        serve_alone=table.when_alone == "serve",
        listen=for_the_one_before(table),
        doors=table.listens(),
        files=files_of(table, paths),
        connections_per_address=table.connections_per_address,
        connections_per_key=table.connections_per_key,
    )


def needs(keys: Sequence[wire.Key], limited: Sequence[wire.Limited]) -> tuple[str, ...]:
    """What only a gateway that knows it may put in force: else it would serve without it."""
    return ("limits",) if limited or any(map(_beyond, keys)) else ()


def _beyond(key: wire.Key) -> bool:
    """Has it limits that a gateway of one release back does not know?"""
    limits = key.limits
    known = wire.Limits(
        rpm=limits.rpm, tpm=limits.tpm, concurrency=limits.concurrency, daily_tokens=limits.daily_tokens
    )
    return limits != known
