"""The vocabulary: frozen Structs that daemon, gateway, terminal and scripts share.

Sizes are bytes, times are UTC seconds since the epoch (float) unless a name says otherwise, `ctx` is the total
number of context cells of a replica and `ctx_per_slot` the share of one conversation. Readers accept words that
they don't know (a newer daemon may have more states), so states are strings and not enums.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from core.errors import ErrorBody

API_VERSION = 1
"""Of the control interface; its routes lie under /api/v1. A terminal refuses a daemon with another one."""


class Noun(msgspec.Struct, frozen=True):
    """Base of the nouns: immutable, built by keyword, compared by value."""


# ------------------------------------------------------------------------------------------------ who asks


class Actor(Noun, frozen=True, kw_only=True):
    """Who asks. `uid` is the kernel's word (SO_PEERCRED); -1 is Corral itself."""

    uid: int
    name: str
    through: str = "api"
    """`console`, `cli`, `api`, `gateway`, `daemon`: said by the client, for the record only, never for rights."""
    groups: tuple[int, ...] = ()


CORRAL = Actor(uid=-1, name="corral", through="daemon")
"""The actor of what Corral does by itself: restarts, the watchdog, a reconcile."""


# ------------------------------------------------------------------------------------------------ models


class ModelShape(Noun, frozen=True, kw_only=True):
    """What sizing needs to know of a model, read from its header (bytes and counts).

    `n_head_kv` has one entry a layer. `swa_layers` says for each layer whether it sees only a sliding window.
    """

    arch: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: tuple[int, ...]
    key_length: int
    value_length: int
    n_vocab: int
    ctx_train: int
    n_swa: int = 0
    swa_layers: tuple[bool, ...] = ()
    n_params: int = 0
    tensor_bytes: int = 0
    repack_bytes: int = 0
    """Bytes of the 2-D matrices the CPU backend copies into its own order (Q4_0, Q2_K, Q4_K, IQ4_NL)."""
    n_expert: int = 0
    quantization: str = ""
    """As people say it: Q4_1, Q4_K_M, F16."""
    chat_template: bool = False
    open_questions: tuple[str, ...] = ()
    """Why the plan is less certain for this model (mixture of experts, unknown architecture, …)."""


class ModelFile(Noun, frozen=True, kw_only=True):
    name: str
    bytes: int
    sha256: str


class Model(Noun, frozen=True, kw_only=True):
    """One version of a named model: an immutable set of files. At this stage each name has version 1."""

    name: str
    version: int
    sha256: str
    """Of the one file, or of the list of the parts' hashes for a split model."""
    files: tuple[ModelFile, ...]
    bytes: int
    shape: ModelShape
    licence: str
    origin: str
    """Where it came from: a path as the importer named it, or `sample`."""
    imported_at: float
    imported_by: str


class ImportJob(Noun, frozen=True, kw_only=True):
    """An import that the daemon carries out; it lives on when the terminal closes. States: waiting (for an upload),
    reading, hashing, storing, done, failed, cancelled."""

    id: str
    name: str
    origin: str
    state: str
    bytes_done: int = 0
    bytes_total: int = 0
    model: Model | None = None
    error: ErrorBody | None = None


class PlanParts(Noun, frozen=True, kw_only=True):
    """Host memory by use, bytes (engines.md's formula)."""

    weights: int
    kv_cache: int
    compute: int
    repack: int
    output: int
    base: int


class Plan(Noun, frozen=True, kw_only=True):
    """What a replica will need and whether that fits now."""

    model: str
    ctx: int
    ctx_per_slot: int
    parallel: int
    cache_type: str
    rss_bytes: int
    """Predicted resident set."""
    plan_bytes: int
    """What admission reserves: rss with 5 %, 32 MiB and the engine's prompt cache."""
    parts: PlanParts
    free_bytes: int
    reserve_bytes: int
    """Kept for the host."""
    reserved_bytes: int
    """Reserved by other replicas and not yet touched by them."""
    fits: bool
    reason: str
    nearest: DeploymentSpec | None = None
    """The nearest thing that would fit."""
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------ deployments

EngineName = str


class DeploymentSpec(Noun, frozen=True, kw_only=True):
    """What should run. `memory` and `threads` of 0 mean: planned, by default."""

    name: str
    model: str
    ctx: int = 0
    """Total cells of a replica; 0 = the default for the model (min of trained context and 4096 a slot)."""
    parallel: int = 1
    engine: EngineName = "xllamacpp"
    threads: int = 0
    memory: int = 0
    """Hard limit in bytes of the replica's private memory; 0 = its plan."""
    cache_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    replicas: int = 1
    url: str = ""
    """Engine `attach` only: base URL of the server, without /v1."""
    embedding: bool = False


class Deployment(Noun, frozen=True, kw_only=True):
    """What should run, with the derived state: pending, ready, degraded, asleep, stopped, failed."""

    spec: DeploymentSpec
    wanted: Literal["running", "stopped"]
    state: str
    reason: str
    since: float
    created_at: float
    created_by: str
    ready: int
    """How many replicas are ready."""
    generation: int = 1
    """Grows with each change of the spec."""
    plan_bytes: int = 0
    """A replica's reservation."""


class Replica(Noun, frozen=True, kw_only=True):
    """One running process of a deployment; states: starting, loading, ready, draining, stopping, stopped,
    backoff, failed, unknown."""

    id: str
    """deployment/index: `chat/0`."""
    deployment: str
    model: str
    version: int
    engine: EngineName
    node: str
    state: str
    since: float
    reason: str
    launch: str = ""
    pid: int | None = None
    """The engine's own."""
    port: int | None = None
    socket: str | None = None
    ctx: int = 0
    ctx_per_slot: int = 0
    parallel: int = 1
    threads: int = 0
    restarts: int = 0
    rss_bytes: int = 0
    pss_bytes: int = 0
    anon_bytes: int = 0
    cpu_percent: float = 0.0
    tokens_per_second: float = 0.0
    prompt_tokens_per_second: float = 0.0
    slots_busy: int = 0
    queued: int = 0
    ttft_ms: float | None = None
    plan_bytes: int = 0
    rss_planned: int = 0
    next_try: float | None = None
    """When a replica in backoff is started again."""


class Change(Noun, frozen=True, kw_only=True):
    """One field in which a new spec differs from the one that is there."""

    field: str
    old: Any
    new: Any


class LaunchStory(Noun, frozen=True, kw_only=True):
    """One launch of a replica, told afterwards."""

    launch: str
    started_at: float
    ended_at: float | None = None
    code: int | None = None
    signal: int | None = None
    reason: str = ""
    lines: tuple[str, ...] = ()
    """The engine's own."""
    peak_rss_bytes: int = 0
    plan_bytes: int = 0
    rss_planned: int = 0
    rss_measured: int = 0


class Explanation(Noun, frozen=True, kw_only=True):
    """Why a deployment is in its state: sentences first, evidence after."""

    deployment: Deployment
    sentences: tuple[str, ...]
    replicas: tuple[Replica, ...]
    launches: tuple[LaunchStory, ...]
    """Newest first."""
    audit: tuple[AuditRecord, ...]


class LogText(Noun, frozen=True, kw_only=True):
    """A range of a replica's log, bytes `start:end` of the launch's whole log, decoded with replacement. Hostile
    until drawn through `tui`'s filter."""

    launch: str
    start: int
    end: int
    text: str
    lost: int = 0
    ended: bool = False


# ------------------------------------------------------------------------------------------------ nodes, samples


class NodeFacts(Noun, frozen=True, kw_only=True):
    """What a host is; -1 or "" where it cannot be known."""

    name: str
    boot_id: str
    machine: str
    """x86_64, aarch64"""
    system: str
    cores: int
    """Usable: the affinity mask and the cgroup's quota, whichever is smaller, rounded down, at least 1."""
    memory_bytes: int
    python: str = ""
    cpu_model: str = ""
    avx2: bool = True
    gpus: tuple[str, ...] = ()


class NodeSample(Noun, frozen=True, kw_only=True):
    """One look at a host."""

    time: float
    node: str
    cpu_percent: float
    """Of all cores together, 0-100."""
    load1: float
    memory_bytes: int
    free_bytes: int
    """The smallest of MemAvailable and of what every cgroup above us leaves."""
    pressure: float
    """PSI memory some avg10, -1 where the kernel has none."""
    disk_free_bytes: int
    disk_bytes: int


class ProcessSample(Noun, frozen=True, kw_only=True):
    """One look at one launch; `pss_bytes` is the last one measured (every 30 s and on demand)."""

    time: float
    launch: str
    cpu_percent: float
    """Of one core: 150 is one and a half cores."""
    rss_bytes: int
    anon_bytes: int
    pss_bytes: int = 0


class Counters(Noun, frozen=True, kw_only=True):
    """What an engine counted since it started; None where it does not say."""

    time: float
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    generated_tokens: int | None = None
    slots_busy: int | None = None
    queued: int | None = None


# ------------------------------------------------------------------------------------------------ audit

Outcome = Literal["intent", "done", "refused", "failed", "interrupted"]


class AuditRecord(Noun, frozen=True, kw_only=True):
    """One link of the chain (docs/audit.md has the canonical encoding that `hash` is taken over)."""

    seq: int
    time: str
    """UTC with microseconds: 2026-11-24T03:07:12.000153Z."""
    actor: str
    uid: int
    through: str
    verb: str
    """noun.verb: deployments.create, models.import, replica.died, daemon.start."""
    object: str
    """kind:name: deployment:chat, model:smollm2, replica:chat/0."""
    request: str
    effect: str = ""
    """Id of one effect outside the database; its intent and its outcome carry the same one."""
    before: Any = None
    after: Any = None
    outcome: str
    reason: str = ""
    prev: str
    hash: str


class ChainReport(Noun, frozen=True, kw_only=True):
    """The result of a verification. `wrong` is the first bad seq, `how` one of changed, removed, inserted,
    swapped, cut, head (the head file itself is wrong)."""

    ok: bool
    records: int
    head: str
    wrong: int | None = None
    how: str = ""
    message: str = ""
    seconds: float = 0.0


# ------------------------------------------------------------------------------------------------ chats


class ChatOptions(Noun, frozen=True, kw_only=True):
    system: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


class Turn(Noun, frozen=True, kw_only=True):
    """One question and its answer. States: waiting, streaming, done, stopped, cut (the replica died), failed."""

    id: str
    chat: str
    n: int
    question: str
    answer: str
    state: str
    reason: str = ""
    asked_at: float
    ttft_ms: float | None = None
    total_ms: float | None = None
    tokens_per_second: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    answer_tokens: int | None = None
    finish: str = ""
    """As the engine said: stop, length."""
    context_tokens: int | None = None
    """How many cells of the slot this conversation fills after the answer."""


class Chat(Noun, frozen=True, kw_only=True):
    id: str
    title: str
    deployment: str
    options: ChatOptions
    owner: str
    created_at: float
    updated_at: float
    turns: int = 0
    ctx_per_slot: int = 0
    context_tokens: int = 0
    on_full: Literal["ask", "forget-oldest"] = "ask"


class ChatDetail(Noun, frozen=True, kw_only=True):
    chat: Chat
    messages: tuple[Turn, ...]


# ------------------------------------------------------------------------------------------------ the daemon


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


class GatewayStatus(Noun, frozen=True, kw_only=True):
    state: str
    pid: int | None
    version: str
    snapshot: int
    acknowledged: int
    requests: int = 0
    in_flight: int = 0
    spooled: int = 0


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


class Event(Noun, frozen=True, kw_only=True):
    """What happened. `type` is one of: daemon, deployment, deployment.gone, replica, replica.gone, model,
    model.gone, sample, node, audit, chat, chat.gone, turn, piece, import, warning, resync.

    `data` is the noun concerned in its JSON form. `resync` means: events were lost to you, read the picture anew.
    """

    id: str
    type: str
    object: str
    time: float
    data: Any = None
