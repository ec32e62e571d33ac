"""Which replicas a request had better wait for."""

from typing import Any

import msgspec
import pytest
from doubles import PLAN

from core.deployments import tables
from core.deployments.derived import expected
from core.deployments.ending import ENDED
from core.nouns import DeploymentSpec, Replica

NOW = 1_700_000_000.0


def wanted(state: str = "running", engine: str = "xllamacpp") -> tables.Wanted:
    spec = DeploymentSpec(name="d", model="m", engine=engine, replicas=2)
    return tables.Wanted(spec=spec, wanted=state, generation=1, plan=PLAN, created_at=0, created_by="a")


def replica(state: str, **fields: Any) -> Replica:
    return Replica(
        id="d/0",
        deployment="d",
        model="m",
        version=1,
        engine="e",
        node="local",
        state=state,
        since=0,
        reason="",
        **fields,
    )


@pytest.mark.parametrize("state", ["starting", "loading", "draining", "stopping", "stopped"])
def test_one_that_starts_or_is_restarted(state: str) -> None:
    assert expected(wanted(), [replica("failed"), replica(state)], NOW)
    assert not expected(wanted("stopped"), [replica(state)], NOW)


@pytest.mark.parametrize(("in_s", "wait"), [(4, True), (29, True), (-1, True), (31, False), (600, False)])
def test_one_that_died_and_is_started_again_soon(in_s: float, wait: bool) -> None:
    assert expected(wanted(), [replica("backoff", next_try=NOW + in_s)], NOW) == wait


@pytest.mark.parametrize("state", ["backoff", "failed", "unknown", "ready"])
def test_none_that_waits_for_room_or_is_given_up(state: str) -> None:
    assert not expected(wanted(), [replica(state)], NOW)
    assert not expected(wanted(), [], NOW)


def test_one_that_has_died_this_moment() -> None:
    """Until its keeper has said how, which takes milliseconds, a question was refused that would have been answered."""
    died = msgspec.structs.replace(replica("unknown"), reason=ENDED)
    assert expected(wanted(), [died], NOW) and not expected(wanted("stopped"), [died], NOW)
    held = msgspec.structs.replace(died, reason=f"{ENDED}, and something that it has started runs on")
    assert not expected(wanted(), [held], NOW)


def test_no_attached_server() -> None:
    assert not expected(wanted(engine="attach"), [replica("loading")], NOW)
