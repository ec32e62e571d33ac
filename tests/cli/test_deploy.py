"""Deploying from a script: the same again changes nothing, a wait returns with the reason, what asks is answered."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import ask, corral, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
DOUBLE = Path(__file__).parents[1] / "journeys/engine_double.py"


@pytest.fixture
def double(home: Path, sample: Path, tmp_path: Path) -> Path:
    """The sample model beside a double of llama-server, which is ready at once; the double's program."""
    program = tmp_path / "llama-server"
    program.write_text(f"#!{sys.executable} -IS\n" + DOUBLE.read_text())
    program.chmod(0o755)
    (home / "corral.toml").write_text(f'[engines]\nllama_server = "{program}"\n[replicas]\nbackoff_s = [0.1]\n')
    corral("models", "sample")
    return program


def deploy(*more: str, code: int = 0) -> str:
    return corral("deploy", "smollm2-135m", "--name", "d", "--engine", "llama-server", *more, code=code)


def the_replica() -> dict[str, Any]:
    (found,) = ask("ps")
    return dict(found)


def test_the_same_again_changes_nothing(double: Path) -> None:
    deploy("--ctx", "1024", "--wait")
    before = the_replica()
    for more in ((), ("--wait",), ("--replace",)):
        told = deploy("--ctx", "1024", *more)
        assert "nothing changes" in told and "d is ready" in told
    assert json.loads(deploy("--ctx", "1024", "--json"))["generation"] == 1
    assert (the_replica()["pid"], the_replica()["launch"]) == (before["pid"], before["launch"])
    assert "--replace" in deploy("--ctx", "2048", code=2)
    assert ask("deployments")[0]["spec"]["ctx"] == 1024


def test_the_same_of_a_stopped_one_is_a_change_that_is_asked_for(double: Path) -> None:
    deploy("--ctx", "1024", "--wait")
    corral("stop", "d", "--wait")
    told = deploy("--ctx", "1024", "--json", code=2)
    assert json.loads(told)["details"]["changes"] == [{"field": "wanted", "old": "stopped", "new": "running"}]
    assert "--replace" in deploy("--ctx", "1024", "--yes", code=2)
    assert ask("deployments")[0]["wanted"] == "stopped"
    deploy("--ctx", "1024", "--replace", "--wait")
    assert the_replica()["state"] == "ready"


def test_only_replace_changes_one_that_runs(double: Path) -> None:
    deploy("--ctx", "1024", "--wait")
    before = the_replica()
    for more in ((), ("--yes",), ("--yes", "--wait")):
        told = deploy("--ctx", "2048", *more, code=2)
        assert "FIELD" in told and "2048" in told and "say --replace" in told and "--yes" not in told
        error = json.loads(deploy("--ctx", "2048", "--json", *more, code=2))
        assert "--replace" in error["do"]
        assert error["details"]["changes"] == [{"field": "ctx", "old": 1024, "new": 2048}]
    assert (the_replica()["launch"], ask("deployments")[0]["generation"]) == (before["launch"], 1)
    deploy("--ctx", "2048", "--replace", "--wait")
    assert the_replica()["ctx"] == 2048


def test_a_failed_one_is_tried_again_with_replace(double: Path) -> None:
    good = double.read_text()
    double.write_text(f"#!{sys.executable} -IS\nprint('0.00.001 E no such tensor')\nraise SystemExit(3)\n")
    told = json.loads(deploy("--wait", "--json", code=1))
    assert "failed" in told["error"] and "3" in told["reason"] and told["do"] == "corral explain d"
    assert "nothing changes" in deploy()
    double.write_text(good)
    deploy("--replace", "--wait")
    assert the_replica()["state"] == "ready"


def test_a_wait_ends_in_time_with_what_it_waits_for(double: Path) -> None:
    double.write_text(f"#!{sys.executable} -IS\nimport time\ntime.sleep(600)\n")
    told = json.loads(deploy("--wait", "--timeout", "0.5", "--json", code=1))
    assert told["code"] == "timed_out" and "loading" in told["reason"] + told["error"]
    corral("rm", "d", "--yes")
    until(lambda: not ask("ps"))
    assert "--timeout" in deploy("--timeout", "-1", code=2)


def test_a_wait_tells_that_a_replica_is_in_back_off_and_why(double: Path, home: Path) -> None:
    """It printed nothing for as long as the engine was tried again."""
    settings = (home / "corral.toml").read_text().replace("[0.1]", "[60]")
    (home / "corral.toml").write_text(settings)
    corral("reload")
    double.write_text(f"#!{sys.executable} -IS\nprint('0.00.001 E no such tensor')\nraise SystemExit(3)\n")
    told = deploy("--wait", "--timeout", "6", code=1)
    assert told.count("d/0 is in back-off: ") == 1 and "no such tensor" in told and "it is started again in" in told


def test_a_deployment_that_is_removed_meanwhile_ends_the_wait(double: Path) -> None:
    double.write_text(f"#!{sys.executable} -IS\nimport time\ntime.sleep(600)\n")
    waiting = subprocess.Popen(
        [sys.executable, "-P", "-m", "tui", "deploy", "smollm2-135m", "--name", "d", "--engine", "llama-server",
         "--wait", "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: [each for each in ask("ps") if each["state"] == "loading"])  # so what waits has deployed it
    corral("rm", "d", "--yes")
    told = waiting.communicate(timeout=60)[1]
    assert (waiting.returncode, json.loads(told)["code"]) == (3, "not_found")


def test_less_context_than_was_asked_for_is_said(home: Path, sample: Path) -> None:
    corral("models", "sample")
    assert "ctx is 8192 and not 100000" in corral("fit", "smollm2-135m", "--ctx", "100000")
    said = corral("deploy", "smollm2-135m", "--ctx", "100000", "--replicas", "0")
    assert "ctx is 8192 and not 100000" in said
