"""Where requests go: deployments and their replicas."""

from __future__ import annotations

import msgspec

from core.gateway.apis import FIRST


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
    at: str = ""
    """The address to connect to in place of what the host of `endpoint` means by then: it was looked at, as one of the
    internet's own."""


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
    """The name that its servers know the model by, where they are somebody else's. Such may read JSON otherwise than we
    do: they get each name once, as it was read here."""
    serves: tuple[str, ...] = FIRST
    """The routes (core.gateway.apis) that its engine has."""
    pictures: bool = False
    """It takes pictures or sound, which `pictures` looks at."""
