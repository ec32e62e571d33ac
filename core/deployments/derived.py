"""What a deployment is by its replicas: its state and the reason, and its way for the gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.deployments import tables
from core.engines.base import Abilities
from core.events import Bus
from core.gateway import wire
from core.nouns import Deployment, Replica


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

    def derive(self, wanted: tables.Wanted, views: Sequence[Replica]) -> Deployment:
        """The deployment out of the views of its replicas; `since` moves only when the state does."""
        name = wanted.spec.name
        was = self._shown.get(name)
        state, reason = state_of(wanted, views)
        shown = Deployment(
            spec=wanted.spec,
            wanted="stopped" if wanted.wanted == "stopped" else "running",
            state=state,
            reason=reason,
            since=was.since if was is not None and was.state == state else self._clock(),
            created_at=wanted.created_at,
            created_by=wanted.created_by,
            ready=sum(view.state == "ready" for view in views),
            generation=wanted.generation,
            plan_bytes=wanted.plan.plan_bytes,
        )
        if shown != was:
            self._shown[name] = shown
            self._bus.publish("deployment", f"deployment:{name}", shown)
        return shown


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


def route_of(
    wanted: tables.Wanted, state: str, replicas: Sequence[wire.ReplicaRoute], abilities: Abilities
) -> wire.Route:
    """What the gateway is told of a deployment; `abilities` of its engine."""
    return wire.Route(
        name=wanted.spec.name,
        model=wanted.spec.model,
        state=state,
        replicas=tuple(replicas),
        embedding=wanted.spec.embedding,
        stream_usage=abilities.stream_usage,
        prompt_progress=abilities.prompt_progress,
        created_at=wanted.created_at,
        ctx_per_slot=wanted.spec.ctx // max(1, wanted.spec.parallel),
        asks_for="" if abilities.alias else wanted.spec.model,
    )
