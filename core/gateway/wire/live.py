"""How the gateway is: of its replicas and of its listeners."""

from __future__ import annotations

import msgspec


class RouteLive(msgspec.Struct, frozen=True, kw_only=True):
    replica: str
    in_flight: int
    requests: int
    errors: int
    ttft_ms: float | None = None
    """Of the last answer that began."""
    tokens: int = 0
    """Of all answers so far: the events of streams as they pass, the counts of others at their end."""


class DoorLive(msgspec.Struct, frozen=True, kw_only=True):
    """One listener for programs."""

    address: str
    """As the settings name it."""
    url: str = ""
    """The base URL, without /v1; "" while it is closed."""
    tls: bool = False
    fingerprint: str = ""
    """SHA-256 of its certificate, 64 hex digits."""
    until: float | None = None
    """Epoch seconds at which the certificate ends."""
    trouble: str = ""
    """Why it is closed, or what is wrong with the certificate that it goes on with."""
    failed: int = 0
    """Clients whose TLS handshake failed."""
