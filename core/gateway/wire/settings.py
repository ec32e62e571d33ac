"""corral.toml's [gateway], as the gateway reads it."""

from __future__ import annotations

import msgspec

from core.listen import Listen


class Files(msgspec.Struct, frozen=True):
    """Paths of a certificate and of its private key, which stay where they are: no snapshot holds a key."""

    certificate: str
    key: str


class GatewayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """corral.toml's [gateway], as numbers (seconds, bytes)."""

    queue: int = 64
    queue_timeout_s: float = 60
    first_byte_timeout_s: float = 600
    idle_timeout_s: float = 120
    body_bytes: int = 16 << 20
    serve_uncounted: bool = False
    alone_s: float = 86400
    """Without a daemon for so long, requests are refused, or served all the same (`serve_alone`)."""
    serve_alone: bool = False
    listen: str = ""
    """host:port on loopback on which programs with a key are served, for a gateway of one release back; "": none."""
    doors: tuple[Listen, ...] = ()
    """All on which they are served; empty: `listen` alone."""
    files: Files | None = None
    """Of the certificate of those that speak TLS."""
    request_timeout_s: float = 30
    """A connection that has asked nothing yet is closed after so long, and a request must be whole within it and the
    idle time-out."""
    connections_per_address: int = 512
    connections_per_key: int = 512
    bodies_bytes: int = 256 << 20
    """Of all bodies that have begun and are not whole."""
