"""Admission of deployments: never more than is left, and the refusal says the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.budgets import Room
from core.deployments.capacity import admit, waits
from core.errors import NoRoom
from core.nouns import DeploymentSpec, Plan, PlanParts

MIB = 1 << 20
NOTHING = PlanParts(weights=0, kv_cache=0, compute=0, repack=0, output=0, base=0)


def plan_of(size: int) -> Plan:
    return Plan(
        model="m", ctx=1024, ctx_per_slot=1024, parallel=1, cache_type="f16", rss_bytes=size, plan_bytes=size,
        parts=NOTHING, free_bytes=0, reserve_bytes=0, reserved_bytes=0, fits=True, reason="",
    )  # fmt: skip


def room_of(left: int) -> Room:
    return Room(free_bytes=left + 30 * MIB, reserve_bytes=20 * MIB, reserved_bytes=10 * MIB)


@given(st.integers(1, 1 << 34), st.integers(0, 64), st.integers(-(1 << 30), 1 << 36), st.integers(0, 1 << 32))
def test_what_is_admitted_fits_and_what_fits_is_admitted(size: int, replicas: int, left: int, freed: int) -> None:
    spec = DeploymentSpec(name="d", model="m")
    fits = size * replicas <= left + freed
    try:
        admit(spec, plan_of(size), room_of(left), replicas=replicas, freed=freed)
    except NoRoom as error:
        assert not fits and replicas
        assert error.details["plan_bytes"] == size * replicas
    else:
        assert fits or not replicas


def test_the_refusal_says_what_is_needed_and_left() -> None:
    with pytest.raises(NoRoom) as caught:
        admit(DeploymentSpec(name="d", model="m"), plan_of(400 * MIB), room_of(500 * MIB), replicas=2)
    assert "2 x 400 MiB is needed and 500 MiB is left" in str(caught.value)
    assert "20 MiB for the host and 10 MiB held by others" in str(caught.value)


def test_a_limit_below_the_plan_is_refused_whatever_is_free() -> None:
    spec = DeploymentSpec(name="d", model="m", memory=100 * MIB)
    with pytest.raises(NoRoom, match="less than the plan"):
        admit(spec, plan_of(400 * MIB), room_of(1 << 40), replicas=1)


def test_the_last_look_says_why_a_replica_waits() -> None:
    assert waits(plan_of(10 * MIB), room_of(10 * MIB)) == ""
    assert waits(plan_of(10 * MIB), room_of(5 * MIB)) == "waits for room: 10 MiB needed, 5 MiB left"
