"""Sentences for somebody who was woken up: one unit for one time, nothing said twice."""

import pytest

from core.deployments.ending import verdict
from core.deployments.explain import sentences, span
from core.engines.base import ADAPTER, PROJECTOR
from core.nouns import Deployment, DeploymentSpec, LaunchStory, Replica
from tui.words import age


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (108, "1 min"), (3599, "59 min"), (3600, "1 h 0 min"),
     (7300, "2 h 1 min"), (86400, "1 d 0 h"), (190000, "2 d 4 h")],
)  # fmt: skip
def test_a_span_changes_its_unit_where_tables_do(seconds: int, said: str) -> None:
    """`108 s` stood above a table that said `1m` of the same moment."""
    assert span(seconds) == said
    if seconds >= 60:
        number, unit = said.split()[:2]
        assert age(1e9 - seconds, 1e9) == number + unit[0]


@pytest.mark.parametrize(("why", "option"), [(ADAPTER, "--adapter"), (PROJECTOR, "--projector")])
def test_what_no_engine_starts_with_is_to_be_imported_otherwise(why: str, option: str) -> None:
    spec = DeploymentSpec(name="d", model="m")
    deployment = Deployment(
        spec=spec, wanted="running", state="failed", reason=f"d/0: {why}: tensor 'x' has incorrect shape", since=0,
        created_at=0, created_by="a", ready=0, generation=1, plan_bytes=0, version=2,
    )  # fmt: skip
    said = " ".join(sentences(deployment, [], [], 5.0))
    assert "No engine starts m@2 as it is" in said and f"corral models import FILE --name m {option} OTHER" in said


def told(state: str, reason: str, restarts: int) -> str:
    spec = DeploymentSpec(name="d", model="m")
    deployment = Deployment(
        spec=spec, wanted="running", state=state, reason="", since=0, created_at=0, created_by="a", ready=0,
        generation=1, plan_bytes=0,
    )  # fmt: skip
    replica = Replica(
        id="d/0", deployment="d", model="m", version=1, engine="e", node="local", state=state, since=0, reason=reason,
        restarts=restarts,
    )  # fmt: skip
    return " ".join(sentences(deployment, [replica], [], 5.0))


def test_how_often_it_was_restarted_is_said_once() -> None:
    """It read `it was restarted 6 times (6 restarts)`."""
    then = verdict(wanted=True, reason="it crashed", permanent=False, restarts=6, steady=False, pauses=[1.0] * 6)
    assert told(then.state, then.reason, then.restarts).count("restart") == 1
    assert "it crashed (2 restarts)" in told("backoff", "it crashed", 2)


def test_only_the_launch_that_ended_last_gives_evidence() -> None:
    """Lines of two launches ago stood as what the engine said of a death that it had nothing to do with."""
    spec = DeploymentSpec(name="d", model="m")
    deployment = Deployment(
        spec=spec, wanted="running", state="ready", reason="", since=0, created_at=0, created_by="a", ready=1,
        generation=1, plan_bytes=0,
    )  # fmt: skip
    runs = LaunchStory(launch="c", started_at=90.0)
    silent = LaunchStory(launch="b", started_at=50.0, ended_at=80.0)
    spoke = LaunchStory(launch="a", started_at=10.0, ended_at=40.0, lines=("out of paper",))
    assert "out of paper" not in " ".join(sentences(deployment, [], [runs, silent, spoke], 100.0))
    said = " ".join(sentences(deployment, [], [runs, spoke], 100.0))
    assert "Before launch a ended 1 min ago the engine said: out of paper" in said
