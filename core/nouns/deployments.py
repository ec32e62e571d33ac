"""Deployments and their replicas: what should run, what it would take, what runs and how it ended."""

from __future__ import annotations

import re
from typing import Any, Literal

from core.nouns.access import Mark
from core.nouns.audit import AuditRecord
from core.nouns.base import Noun

EngineName = str


class DeploymentSpec(Noun, frozen=True, kw_only=True):
    """What should run. `memory` and `threads` of 0 mean: planned, by default."""

    name: str
    model: str
    """What is wanted: `chat` (its live version), `chat:canary`, `chat@3`; of an attached server its name for it."""
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
    """Serves /v1/embeddings."""
    rerank: bool = False
    """Serves /v1/rerank, and makes no answers: MODEL is a reranker."""
    tier: str = ""
    """Where its version must lie: it is moved there before it is started. Empty: wherever it lies."""

    @property
    def model_name(self) -> str:
        """The name alone, without alias and version: what rights, limits and usage go by."""
        return self.model if self.engine == "attach" else re.split("[:@]", self.model, maxsplit=1)[0]


class PlanParts(Noun, frozen=True, kw_only=True):
    """Host memory by use, bytes: their sum is the plan's `rss_bytes`."""

    weights: int
    kv_cache: int
    compute: int
    repack: int
    output: int
    base: int
    checkpoints: int = 0
    """What a conversation keeps of what it could not go back in: windows and states."""
    state: int = 0
    """States of state-space and linear-attention layers, of all slots."""
    projector: int = 0
    pictures: int = 0
    """What a projector takes once it was asked a picture; just ready it does not."""
    adapters: int = 0
    learned: int = 0
    """By how much launches of this architecture were seen to differ; below 0: they take less."""


class DevicePlan(Noun, frozen=True, kw_only=True):
    """What a plan takes of one device, bytes; their sum is `total`."""

    device: str
    """`host`, `gpu0`, …"""
    layers: int
    """Of the model's, the output counted as one."""
    weights: int
    kv_cache: int
    compute: int
    other: int
    """On the host the program itself, scores, copies; on a GPU its driver's context."""
    total: int
    free_bytes: int
    fits: bool


class Split(Noun, frozen=True, kw_only=True):
    """A model over the host and its GPUs, by llama.cpp's own rules. `measured`: such a split was measured on a real
    GPU; False over several, which are reckoned, and for an architecture that sizing does not know."""

    gpu_layers: int
    """As --n-gpu-layers: the last so many, the output counted as one."""
    cpu_moe: int
    """As --n-cpu-moe: the experts of the first so many layers stay in the host."""
    devices: tuple[DevicePlan, ...]
    fits: bool
    measured: bool = False


class Plan(Noun, frozen=True, kw_only=True):
    """What a replica will need and whether that fits now."""

    model: str
    ctx: int
    ctx_per_slot: int
    parallel: int
    cache_type: str
    rss_bytes: int
    """Expected resident set in use: after a prompt of a whole batch."""
    plan_bytes: int
    """What admission reserves: `full_bytes` with 5 %, 32 MiB and the engine's prompt cache."""
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
    ready_bytes: int = 0
    """Expected resident set just ready: compute buffers are untouched until a prompt is read."""
    full_bytes: int = 0
    """The most that it takes beside the prompt cache: every slot busy and each context full."""
    margin: float = 0.0
    """Above 0: the architecture is unknown, and all but the weights is a bound, so much above what is expected."""
    correction: float = 0.0
    """By how much launches of this architecture were seen to differ, which is in the figures: -0.03 is 3 % less."""
    split: Split | None = None
    """Over GPUs, where asked."""


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
    queued: int = 0
    """Requests that wait for a slot of any of its replicas."""
    mark: Mark | None = None
    """It is sensitive."""
    version: int = 0
    """The version of its model that it got; 0: a server of somebody else."""
    newer: int = 0
    """The version that what it wants means now, where that is another one: it gets it when it is restarted."""


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
    """Requests that wait for a slot of its deployment: each of its replicas says the same."""
    ttft_ms: float | None = None
    plan_bytes: int = 0
    rss_planned: int = 0
    next_try: float | None = None
    """When a replica in backoff is started again."""

    @property
    def place(self) -> tuple[str, int]:
        """By which replicas are sorted: `chat/2` comes before `chat/10`."""
        name, _, index = self.id.rpartition("/")
        return name, int(index) if index.isdecimal() else 0


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
