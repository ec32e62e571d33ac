"""What a deployment is by its replicas: its state and the reason, and its way for the gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.deployments import tables
from core.deployments.ending import ENDED
from core.engines.base import Abilities, serves
from core.events import Bus
from core.gateway import wire
from core.nouns import Deployment, Mark, Replica

SOON_S = 30.0
"""A pause before the next try that a request waits through."""
ON_ITS_WAY = ("starting", "loading", "draining", "stopping", "stopped")
"""States of a replica that should run and will be ready without anybody's doing, `stopped` before its start."""


class Derived:
    """The deployments as they were last derived; publishes those that have changed."""

    def __init__(self, bus: Bus, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._clock = clock
        self._shown: dict[str, Deployment] = {}

    def get(self, name: str) -> Deployment | None:
        return self._shown.get(name)

    def forget(self, name: str) -> None:
        """It was removed."""
        self._shown.pop(name, None)

    def derive(
        self, wanted: tables.Wanted, views: Sequence[Replica], mark: Mark | None, *, newer: int = 0,
        remark: str = "",
    ) -> Deployment:  # fmt: skip
        """The deployment out of the views of its replicas; `since` moves only when the state does. `newer`: the version
        that it would get now, if that is another one; `remark`: what to say though it is ready."""
        name = wanted.spec.name
        was = self._shown.get(name)
        state, reason = state_of(wanted, views)
        shown = Deployment(
            spec=wanted.spec,
            wanted="stopped" if wanted.wanted == "stopped" else "running",
            state=state,
            reason=reason or (remark if state == "ready" else ""),
            since=was.since if was is not None and was.state == state else self._since(state, views),
            created_at=wanted.created_at,
            created_by=wanted.created_by,
            ready=sum(view.state == "ready" for view in views),
            generation=wanted.generation,
            plan_bytes=wanted.plan.plan_bytes,
            queued=max((view.queued for view in views), default=0),
            mark=mark,
            version=wanted.version,
            newer=newer,
        )
        if shown != was:
            self._shown[name] = shown
            self._bus.publish("deployment", f"deployment:{name}", shown)
        return shown

    def _since(self, state: str, views: Sequence[Replica]) -> float:
        """When a state began that was not there at the last look: that of its replicas, which outlives the daemon."""
        began = [view.since for view in views if view.state == state]
        return max(began) if began and state in ("ready", "stopped", "failed") else self._clock()


def state_of(wanted: tables.Wanted, views: Sequence[Replica]) -> tuple[str, str]:
    """pending, ready, degraded, stopped, failed, and the reason of the worst replica."""
    states = [view.state for view in views]
    if wanted.wanted == "stopped":
        going = [s for s in states if s not in ("stopped", "failed")]
        return ("degraded", "its replicas are ending") if going else ("stopped", "")
    if not wanted.spec.replicas:
        return "stopped", "scaled to 0 replicas"
    if len(states) == wanted.spec.replicas and all(state == "ready" for state in states):
        return "ready", ""
    worst = next((v for s in ("failed", "backoff") for v in views if v.state == s), None)
    words = {"stopped": "about to start"}
    going = [f"{v.id} is {words.get(v.state, v.state)}" for v in views if v.state != "ready"]
    reason = f"{worst.id}: {worst.reason}" if worst else "; ".join(going[:3])
    if "ready" in states:
        return "degraded", reason
    if states and all(state == "failed" for state in states):
        return "failed", reason
    return "pending", reason


def settled(deployment: Deployment) -> bool:
    """Nothing is under way that a person would wait for."""
    return deployment.state in ("ready", "failed", "stopped")


def expected(wanted: tables.Wanted, views: Sequence[Replica], now: float) -> bool:
    """Whether a replica will be ready so soon that a request had better wait: one that starts, is restarted, has died
    this moment, or is in a short pause after its death. Nobody knows when an attached server comes back."""
    if wanted.wanted == "stopped" or wanted.spec.engine == "attach":
        return False
    return any(
        view.state in ON_ITS_WAY
        or (view.state == "unknown" and view.reason == ENDED)
        or (view.state == "backoff" and 0 < (view.next_try or 0) < now + SOON_S)
        for view in views
    )


def route_of(
    wanted: tables.Wanted, state: str, replicas: Sequence[wire.ReplicaRoute], abilities: Abilities, *, expected: bool
) -> wire.Route:
    """What the gateway is told of a deployment; `abilities` of its engine; `expected`: a replica is on its way."""
    return wire.Route(
        name=wanted.spec.name,
        model=wanted.spec.model_name,
        state=state,
        replicas=tuple(replicas),
        embedding=wanted.spec.embedding,
        stream_usage=abilities.stream_usage,
        prompt_progress=abilities.prompt_progress,
        created_at=wanted.created_at,
        expected=expected,
        ctx_per_slot=wanted.spec.ctx // max(1, wanted.spec.parallel),
        asks_for="" if abilities.alias else wanted.spec.model,
        serves=serves(abilities, wanted.spec),
        pictures=wanted.plan.parts.projector > 0,
    )
