"""The daemon: its status, the whole picture for a console, and the events that follow it."""

from __future__ import annotations

from typing import Any, Literal

from core.nouns.access import Whoami
from core.nouns.audit import AuditRecord, SinkStatus
from core.nouns.base import Noun
from core.nouns.choosing import BenchJob
from core.nouns.deployments import Deployment, Replica
from core.nouns.models import Model
from core.nouns.nodes import NodeFacts, NodeSample
from core.nouns.pull import Pull
from core.nouns.tiers import MoveJob, Tier


class DaemonStatus(Noun, frozen=True, kw_only=True):
    pid: int
    version: str
    api: int
    uid: int
    mode: Literal["user", "system"]
    started_at: float
    home: str
    socket: str
    database: str
    database_id: str
    warnings: tuple[str, ...] = ()
    """Sentences that must be seen: a broken chain, a set-aside database, KillUserProcesses, a nearly full disk."""
    config: str = ""
    """Path of corral.toml."""
    defaults: bool = False
    """The defaults are in force: no corral.toml was there when it was last read."""
    swapped: str | None = None
    """Why its memory (keys, chats in flight) may be written to swap, "" if it is not; None where nobody says."""


class DoorStatus(Noun, frozen=True, kw_only=True):
    """One listener of the gateway for programs."""

    address: str
    """As corral.toml names it."""
    url: str
    """The base URL, without /v1; "" while it is closed."""
    tls: bool
    fingerprint: str
    """SHA-256 of its certificate, 64 hex digits; "" without TLS."""
    until: float | None
    """When the certificate ends."""
    trouble: str
    """Why it is closed, or what is wrong with its certificate."""
    failed: int
    """TLS handshakes that failed."""


class GatewayCertificate(Noun, frozen=True, kw_only=True):
    """What `corral gateway certificate` made."""

    certificate: str
    """Path of the file that clients need."""
    key: str
    """Path of the private key, which stays where it is."""
    fingerprint: str
    """SHA-256, 64 hex digits."""
    names: tuple[str, ...]
    """Host names and addresses under which clients may reach it."""
    until: float


class GatewayStatus(Noun, frozen=True, kw_only=True):
    state: str
    pid: int | None
    version: str
    snapshot: int
    acknowledged: int
    requests: int = 0
    in_flight: int = 0
    queued: int = 0
    spooled: int = 0
    doors: tuple[DoorStatus, ...] = ()
    swapped: str | None = None
    """Why what passes through may be written to swap, "" if it is not; None where nobody says."""
    compiled: bool | None = None
    """What each request goes through is machine code; None where nobody says."""
    connections_evicted: int = 0
    """Idle ones that were closed for new ones of the same address (or user of the Unix socket), since it runs."""
    connections_refused: int = 0
    """Those for which there was no room, since all others of their address were busy."""


class Status(Noun, frozen=True, kw_only=True):
    """`corral status --json`."""

    daemon: DaemonStatus
    gateway_socket: str
    gateway_status: GatewayStatus
    nodes: tuple[NodeSample, ...]
    deployments: dict[str, int]
    """Count by state."""
    replicas: dict[str, int]
    models: int
    audit_ok: bool
    audit_message: str
    audit_records: int
    gateway: str = ""
    """The base URL for programs, without /v1; "" while nothing listens there."""
    audit_sinks: tuple[SinkStatus, ...] = ()


class Picture(Noun, frozen=True, kw_only=True):
    """All that a console draws, at one event: then it follows `events` from there."""

    event: str
    """Id of the last event that is in the picture."""
    status: Status
    deployments: tuple[Deployment, ...]
    replicas: tuple[Replica, ...]
    models: tuple[Model, ...]
    facts: tuple[NodeFacts, ...]
    audit: tuple[AuditRecord, ...]
    """The last few, newest last."""
    me: Whoami | None = None
    """Who asked, and what he may do."""
    pulls: tuple[Pull, ...] = ()
    tiers: tuple[Tier, ...] = ()
    moves: tuple[MoveJob, ...] = ()
    """Between tiers, the oldest first."""
    benches: tuple[BenchJob, ...] = ()
    """Measurements, the oldest first."""


class Event(Noun, frozen=True, kw_only=True):
    """What happened. `type` is one of: daemon, deployment, deployment.gone, replica, replica.gone, model,
    model.gone, sample, node, audit, access, chat, chat.gone, turn, import, pull, tier, tier.gone, move, bench, verify,
    warning, resync.

    `data` is the noun concerned in its JSON form. `resync` means: events were lost to you, read the picture anew.
    """

    id: str
    type: str
    object: str
    time: float
    data: Any = None
    to: str = ""
    """The one user who gets it (chats); "": all who may see the object."""
