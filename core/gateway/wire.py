"""What daemon and gateway say to each other: JSON lines on the gateway's control socket.

The gateway listens on `control.sock` (0600) in its folder; the daemon connects, checks the peer's uid and sends
`Hello`. A line is one tagged Struct and a newline, 16 MiB at most. Unknown tags are answered with `Refused`.
The formats carry `WIRE_VERSION`; a gateway of one release back is understood.

daemon -> gateway: Hello, Snapshot, UsageAck, HandOver, Ask
gateway -> daemon: Welcome, SnapshotAck, UsageBatch, Live, Refused, Report
gateway -> its successor: Handed, Busy (on a socket of their own); back: Report
"""

from __future__ import annotations

import msgspec

from core.gateway.apis import FIRST
from core.listen import Listen

WIRE_VERSION = 1


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """Base of the lines on the control socket."""


class ReplicaRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that takes requests. `endpoint` is `unix:/path` or `tcp:host:port` or `tls:host:port`."""

    id: str
    launch: str
    endpoint: str
    secret: str = ""
    """Sent to the engine as `Authorization: Bearer`; never logged."""
    slots: int = 1
    """Requests it serves at once; more wait in the deployment's queue."""
    draining: bool = False
    """It ends what it answers and gets nothing new."""
    prefix: str = ""
    version: int = 0
    """Of its model; 0 where nobody says."""
    node: str = ""
    cores: int = 0
    """That it computes with; 0 for a server of somebody else."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment. A route without replicas is known but not ready: 503 with the state as reason, or the queue where
    one is `expected`."""

    name: str
    model: str
    state: str
    replicas: tuple[ReplicaRoute, ...]
    embedding: bool = False
    stream_usage: bool = True
    """The engine understands stream_options.include_usage; else events are counted, marked `estimated`."""
    created_at: float = 0.0
    ctx_per_slot: int = 0
    expected: bool = False
    """A replica is on its way: who asks meanwhile waits for it as for a slot."""
    prompt_progress: bool = False
    """The engine understands return_progress in a stream: how much of the prompt it has read, before its answer."""
    asks_for: str = ""
    """The name that its servers know the model by, where it is not the deployment's."""
    serves: tuple[str, ...] = FIRST
    """The routes (core.gateway.apis) that its engine has."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Who may, or with `deny` may not, use the deployments that `scope` matches: `*`, `deployment:chat`,
    `deployment:team-a-*`. A denial wins."""

    user: bool
    """`id` is a uid, else a gid."""
    id: int
    scope: str
    deny: bool = False
    until: float | None = None
    """Epoch seconds at which it ends."""


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """Who may use the socket without a key: peers with one of these uids or groups use everything, the others what the
    rules give them. (A gateway of one release back knows no rules and refuses these.)"""

    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    rules: tuple[Rule, ...] = ()


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a subject may use. 0: not said; -1: no limit, whatever a default for each says. A minute slides; a day and a
    month are those of UTC. (A gateway of one release back knows the first four, of keys.)"""

    rpm: int = 0
    tpm: int = 0
    concurrency: int = 0
    daily_tokens: int = 0
    tpm_in: int = 0
    tpm_out: int = 0
    daily_in: int = 0
    daily_out: int = 0
    monthly_tokens: int = 0
    monthly_in: int = 0
    monthly_out: int = 0
    longest_prompt: int = 0
    longest_answer: int = 0
    hours: str = ""
    """As core.hours reads them; `always`: at any time, whatever a default for each says."""


class Limited(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of a subject: `user:1000`, `group:100`, `team:ml`, `key:k1a2b3c4d`, `model:tiny`, `deployment:chat`. All
    that it means count together; of `each:user`, `each:group:100`, `each:team:ml` and `each:key` every one by itself.
    """

    subject: str
    name: str
    """Of the user, group or team."""
    limits: Limits
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    """Whom it means, for users, groups and teams."""


class Use(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a subject has used, for the gateway that starts next; without what is reserved. `tokens` are those of the
    `day`, in and out. (A gateway of one release back knows these two alone, of keys.)"""

    day: str = ""
    tokens: int = 0
    daily_in: int = 0
    daily_out: int = 0
    month: str = ""
    monthly_tokens: int = 0
    monthly_in: int = 0
    monthly_out: int = 0
    minutes: dict[str, dict[int, int]] = {}
    """By kind of limit: how much in which second since the boot."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """`counts.json`: what all subjects have used, and the clock by which they did."""

    version: int = 1
    boot: str
    offset: float
    """From seconds since the boot to unix time."""
    at: float
    """Unix time by this clock."""
    uses: dict[str, Use]


Four = tuple[int, int, int, int]
"""Tokens that are reserved beyond what was used, in and out; and used since the hand-over, in and out."""


class Held(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a gateway that was replaced still does for one subject: requests in flight, those let in since the hand-over
    that count in a minute, and tokens of the last minute, of the day and of the month that it is now."""

    requests: int = 0
    asked: int = 0
    minute: Four = (0, 0, 0, 0)
    day: Four = (0, 0, 0, 0)
    month: Four = (0, 0, 0, 0)


class Spent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a subject has used of one limit (`kind`: a field of `Limits`). `seconds`: until all of it is free, for hours
    until they begin, 0 while they are. Hours have `words` and no number."""

    subject: str
    whose: str
    kind: str
    most: int
    used: int
    seconds: float = 0.0
    words: str = ""


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key. What its owner may not use, it may not: `rules` are the owner's (None: he may use everything)."""

    id: str
    name: str
    hash: str
    """SHA-256 of the secret, 64 hex digits; the secret itself is nowhere."""
    owner: str
    uid: int
    rules: tuple[Rule, ...] | None = None
    deployments: tuple[str, ...] = ("*",)
    """Names, a star at the end only."""
    endpoints: tuple[str, ...] = ()
    """Routes like `chat/completions`; empty: all."""
    sources: tuple[str, ...] = ()
    """CIDR networks that it may come from; empty: from everywhere. The Unix socket is no network."""
    until: float | None = None
    limits: Limits = Limits()
    """Its owner's word; what `Limited` says of the key holds beside it."""
    behind: int = -1
    """The uid of the user whose limits apply too, as its owner or as that of the service account that owns it."""
    groups: tuple[int, ...] = ()
    """Of this user, as numbers."""
    team: str = ""
    """The team whose limits apply too, in his place."""


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


class SnapshotAck(Message, frozen=True, kw_only=True):
    """The snapshot is in force."""

    database: str
    epoch: int
    n: int


class UsageLine(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One request: no content. Times in seconds; tokens None where nobody could say. New fields come last."""

    id: str
    time: float
    uid: int
    deployment: str
    model: str
    replica: str
    launch: str
    path: str
    status: int
    outcome: str
    """ok, client-gone, replica-died, timeout, refused, error"""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    answer_tokens: int | None = None
    estimated: bool = False
    queue_s: float = 0.0
    first_byte_s: float | None = None
    total_s: float = 0.0
    actor: str = ""
    turn: str = ""
    first_token_s: float | None = None
    """Of a stream: from the request to the first event of its answer."""
    version: int = 0
    node: str = ""
    core_s: float = 0.0
    """Its share of the replica's cores: seconds in a slot, times the cores, by the slots."""
    requests: int = 1
    """More than one where refusals of a second that are alike are folded."""
    key: str = ""
    """Id of the API key that the request came with."""


SEVERAL = -2
"""Stands for the uid where several are counted together."""


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that were turned away because of who asked. `first` and `last` are unix times."""

    uid: int
    reason: str
    times: int
    first: float
    last: float


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
    """The turns among those that are queued; None from a gateway of the release before."""
    listens: str = ""
    """The base URL (without /v1) of the listener for programs; "" while there is none."""
    trouble: str = ""
    """Why there is none though there should be."""
    used: dict[str, float] = {}
    """Of keys that were used since the last time: id to when."""
    sources: dict[str, str] = {}
    """Where these came from last."""
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
