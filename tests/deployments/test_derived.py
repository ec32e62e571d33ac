"""Since when a deployment is in its state: as its replicas are, also for a daemon that has just started."""

from __future__ import annotations

from typing import Any

from core.deployments import tables
from core.deployments.derived import Derived
from core.events import Bus
from core.nouns import DeploymentSpec, Plan, PlanParts, Replica

PARTS = PlanParts(weights=0, kv_cache=0, compute=0, repack=0, output=0, base=0)


def wanted(state: str = "running", replicas: int = 1) -> tables.Wanted:
    plan = Plan(
        model="m", ctx=1, ctx_per_slot=1, parallel=1, cache_type="f16", rss_bytes=0, plan_bytes=0, parts=PARTS,
        free_bytes=0, reserve_bytes=0, reserved_bytes=0, fits=True, reason="",
    )  # fmt: skip
    spec = DeploymentSpec(name="d", model="m", replicas=replicas)
    return tables.Wanted(spec=spec, wanted=state, generation=1, plan=plan, created_at=5.0, created_by="a")


def replica(n: int, state: str, since: float) -> Replica:
    return Replica(
        id=f"d/{n}", deployment="d", model="m", version=1, engine="e", node="local", state=state, since=since, reason=""
    )


async def test_it_is_ready_since_its_last_replica_is_whichever_daemon_looks() -> None:
    now = [100.0]
    for _ in range(2):  # a second daemon knows nothing of the first
        derived = Derived(Bus(), lambda: now[0])
        derived.derive(wanted(replicas=2), [replica(0, "loading", now[0]), replica(1, "ready", 30.0)], None)
        now[0] += 50
        shown = derived.derive(wanted(replicas=2), [replica(0, "ready", 40.0), replica(1, "ready", 30.0)], None)
        assert (shown.state, shown.since) == ("ready", 40.0)


async def test_a_state_of_its_own_begins_when_it_is_seen() -> None:
    now = [100.0]
    derived = Derived(Bus(), lambda: now[0])
    views: list[Any] = [replica(0, "loading", 10.0)]
    assert derived.derive(wanted(), views, None).since == 100.0
    now[0] = 150.0
    assert derived.derive(wanted(), views, None).since == 100.0
    failed = derived.derive(wanted(), [replica(0, "failed", 120.0)], None)
    assert (failed.state, failed.since) == ("failed", 120.0)
