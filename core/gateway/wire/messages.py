"""The lines of the control socket; see the package."""

from __future__ import annotations

import msgspec

from core.gateway.wire.limits import Held, Limited, Spent, Use
from core.gateway.wire.live import DoorLive, RouteLive
from core.gateway.wire.routes import Route
from core.gateway.wire.settings import GatewayLimits
from core.gateway.wire.usage import Denied, UsageLine
from core.gateway.wire.who import Allowed, Ended, Key
from core.listen import Listen

WIRE_VERSION = 1


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """Base of the lines on the control socket."""


class Hello(Message, frozen=True, kw_only=True):
    """The daemon's first line."""

    version: int
    daemon_uid: int
    daemon_pid: int
    program: str


class Welcome(Message, frozen=True, kw_only=True):
    """The gateway's answer: who it is, which snapshot it has, which usage it still holds."""

    version: int
    launch: str
    pid: int
    program: str
    database: str
    epoch: int
    n: int
    usage_from: int
    """Number of the first batch that is not acknowledged."""
    usage_to: int
    """Number of the last one spooled; `usage_from - 1` if there is none."""
    swapped: str | None = None
    """Why its memory may be written to swap, "" if it is not; None from a gateway of the release before."""
    compiled: bool | None = None
    """Its request path is machine code; None from a gateway of the release before."""


class Snapshot(Message, frozen=True, kw_only=True):
    """The whole picture: routes, who may, limits. A higher (epoch, n) of the same database wins; another
    database wins always."""

    database: str
    epoch: int
    n: int
    routes: tuple[Route, ...]
    allowed: Allowed
    limits: GatewayLimits
    keys: tuple[Key, ...] = ()
    limited: tuple[Limited, ...] = ()
    needs: tuple[str, ...] = ()
    """Features that a gateway must have to obey this snapshot; it refuses what it lacks (fails closed)."""
    ended: tuple[Ended, ...] = ()


class SnapshotAck(Message, frozen=True, kw_only=True):
    """The snapshot is in force."""

    database: str
    epoch: int
    n: int


class UsageBatch(Message, frozen=True, kw_only=True):
    """Numbered by (launch of the gateway, n); sent again until acknowledged."""

    launch: str
    n: int
    lines: tuple[UsageLine, ...]
    denied: tuple[Denied, ...] = ()
    """For the audit trail, in the transaction that commits the batch; a daemon of the release before leaves it out."""


class UsageAck(Message, frozen=True, kw_only=True):
    """All batches of `launch` up to `n` are committed."""

    launch: str
    n: int


class Live(Message, frozen=True, kw_only=True):
    """Each second while requests run or something changes, once when it becomes idle, and before each `SnapshotAck`:
    a replica that was withdrawn is told of until its last request has ended."""

    requests: int
    in_flight: int
    queued: dict[str, int]
    replicas: tuple[RouteLive, ...]
    connections: int
    spooled: int
    waiting: tuple[str, ...] | None = None
    """The turns among those that are queued, for a daemon of the release before."""
    places: dict[str, tuple[int, float]] | None = None
    """The same turns, each with its place in its queue, from 1, and the seconds expected there (0: nobody knows yet);
    None from a gateway of the release before."""
    listens: str = ""
    """The base URL (without /v1) of the listener for programs; "" while there is none."""
    trouble: str = ""
    """Why there is none though there should be."""
    used: dict[str, float] = {}
    """Of keys that were used since the last time: id to when."""
    sources: dict[str, str] = {}
    """Where these came from last."""
    evicted: int = 0
    """Idle connections that were closed for new ones of their place."""
    refused: int = 0
    """Connections that found no room: all others of their place were busy."""
    crowded: str = ""
    """The place where that was last: an address, or `uid:1000`."""
    doors: tuple[DoorLive, ...] | None = None
    """Each listener for programs; None from a gateway of the release before, and from one that has handed them over."""


class HandOver(Message, frozen=True, kw_only=True):
    """Give the listener to the gateway that waits at `socket` (SCM_RIGHTS), stop accepting, end what runs, exit.
    Answered with `Report` once the other one serves."""

    socket: str


class Handed(Message, frozen=True, kw_only=True):
    """The first line from a gateway to its successor; beside it come descriptors: the listener and the lock of the one
    that serves, then its listeners for programs."""

    version: int
    launch: str
    turns: str
    """Path of a socket where the turns that it still holds can be followed."""
    listens: str = ""
    """What the third descriptor listens on, from a gateway of the release before; it had one at most."""
    doors: tuple[Listen, ...] = ()
    """What the descriptors from the third on listen on, as the settings name it."""
    keys: dict[str, Use] = {}
    """What keys have used of their day, for a gateway of one release back; as many as the line has room for."""
    kept: bool = False
    """What all subjects have used stands in `counts.json`, but for what is in flight."""


class Busy(Message, frozen=True, kw_only=True):
    """What a gateway that was replaced still has in flight: slots by `replica launch`; each second while it lives."""

    in_flight: dict[str, int]
    keys: dict[str, int] = {}
    """Requests in flight by key."""
    settled: dict[str, int] = {}
    """From a gateway of one release back: by key, the tokens of today by which what ended since the last time differs
    from what was reserved for it."""
    held: dict[str, Held] = {}
    """By subject; all of it each time."""


class Ask(Message, frozen=True, kw_only=True):
    """Answered with `Report`. `what` = `ping`; or `spent`: what `subjects` have used of their limits (for a key, a
    deployment and a model that of all who count with it), and whoever has this uid and groups."""

    what: str
    request: str
    subjects: tuple[str, ...] = ()
    uid: int | None = None
    groups: tuple[int, ...] = ()


class Report(Message, frozen=True, kw_only=True):
    """The answer to HandOver and Ask."""

    what: str
    request: str = ""
    ok: bool = True
    reason: str = ""
    spent: tuple[Spent, ...] = ()


class Refused(Message, frozen=True, kw_only=True):
    """The line before could not be obeyed; nothing changed."""

    reason: str


FromDaemon = Hello | Snapshot | UsageAck | HandOver | Ask
ToSuccessor = Handed | Busy
FromGateway = Welcome | SnapshotAck | UsageBatch | Live | Report | Refused
