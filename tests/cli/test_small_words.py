"""Small words of the models' and tiers' verbs: said once, by what a person typed, and before a question."""

from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from core.nouns import BenchJob, PullPlan, Tier, TierDetail, VersionDifference
from tui import measured
from tui.cli import cli
from tui.verbs import pull, tiers
from tui.words import subject


@pytest.mark.parametrize(
    ("kind", "what", "said"),
    [("licence", "licence", "licence"), ("template", "chat template", "chat template"), ("size", "bytes", "size bytes"),
     ("files", "model", "file of the model"), ("files", "part 2", "file of part 2"),
     ("header", "general.name", "header general.name")],
)  # fmt: skip
def test_in_what_two_versions_differ_is_named_once(kind: str, what: str, said: str) -> None:
    assert subject(VersionDifference(kind=kind, what=what, old="a", new="b")) == said


def test_parameters_are_said_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 135 million it said `0.0 billion`."""
    plan = PullPlan(source="hf:o/r", revision="", licence="mit", gated=False, architecture="llama", params=134_515_008,
                    choices=(), why="", notes=(), ctx=0, left_bytes=0, disk_bytes=0)  # fmt: skip
    monkeypatch.setattr(pull, "run", lambda work, **more: plan)
    told = CliRunner().invoke(cli, ["models", "pull", "hf:o/r", "--list"]).output
    assert "llama, 135 M parameters" in told


def remove(monkeypatch: pytest.MonkeyPatch, **tier: Any) -> Result:
    found = TierDetail(tier=Tier(path="/t", state="here", **tier), models=())
    monkeypatch.setattr(tiers, "run", lambda work: found)
    monkeypatch.setattr(tiers, "ask", lambda question: pytest.fail("it asks what will be refused"))
    return CliRunner().invoke(cli, ["tiers", "rm", tier["name"]])


def test_what_will_be_refused_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "home stays" in str(remove(monkeypatch, name="home").output)
    assert "the tier fast holds 2 objects" in str(remove(monkeypatch, name="fast", objects=2).output)


def test_a_measurement_is_looked_at_and_ended_without_the_name_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    job = BenchJob(id="b", kind="model", object="model:tiny", state="measuring", by="ann", done=1, total=9)
    node = BenchJob(id="n", kind="node", object="node:local", state="measuring", by="ann")
    ended = []

    class Choosing:
        async def jobs(self) -> list[BenchJob]:
            return [job, node]

        async def cancel(self, id: str) -> BenchJob:
            ended.append(id)
            return job

    def run(work: Any) -> Any:
        step = work(SimpleNamespace(choosing=Choosing()))
        with pytest.raises(StopIteration) as done:
            step.send(None)
        return done.value.value

    monkeypatch.setattr(measured, "run", run)
    told = CliRunner().invoke(cli, ["models", "bench", "--status"])
    assert "model:tiny: measuring, 1 of 9" in told.output
    CliRunner().invoke(cli, ["models", "bench", "--cancel"])
    assert ended == ["b"]
    assert "name a model" in CliRunner().invoke(cli, ["models", "bench"]).output
