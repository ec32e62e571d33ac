"""How replicas end and what is said of it, with the real command: never ready, dead but not told, scaled, removed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import fleet
import pytest
from command import ask, corral, until

from core.client import Client
from core.nodes import proc
from core.nouns import Deployment, Replica
from core.paths import user_paths

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


@pytest.fixture
def double(home: Path) -> None:
    """llama-server is an engine that is ready at once."""
    fleet.install(home)


def keeper_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_what_was_killed_is_not_ready_though_its_keeper_has_not_said_so(double: None, tmp_path: Path) -> None:
    """The keeper is stopped, so that nobody but the kernel knows of the death."""
    first = fleet.deployed(tmp_path)
    keeper = keeper_of(first["pid"])
    os.kill(keeper, signal.SIGSTOP)
    try:
        os.kill(first["pid"], signal.SIGKILL)
        until(lambda: proc.start_time(first["pid"]) is None)

        async def ask_at_once() -> tuple[Deployment, list[Replica], dict[str, int]]:
            client = Client(user_paths().socket)
            waited = await client.wait_deployment("one", 0)
            return waited, await client.replicas(), (await client.status()).replicas

        waited, (replica,), counted = asyncio.run(ask_at_once())
        assert (waited.state, waited.ready) == ("pending", 0)
        assert (replica.state, replica.reason) == ("unknown", "its process has ended")
        assert counted == {"unknown": 1}
    finally:
        os.kill(keeper, signal.SIGCONT)
    fleet.deploy("--wait")
    (second,) = ask("ps")
    assert second["state"] == "ready" and second["pid"] != first["pid"] and second["restarts"] == 1


def test_a_wait_right_after_a_kill_waits_for_the_next_process(double: None, tmp_path: Path) -> None:
    first = fleet.deployed(tmp_path)
    fleet.kill(first["pid"])
    (replica,) = asyncio.run(Client(user_paths().socket).replicas())
    assert replica.state != "ready" or replica.pid != first["pid"]
    fleet.deploy("--wait")
    (second,) = ask("ps")
    assert second["state"] == "ready" and second["pid"] != first["pid"]


def test_a_launch_whose_end_nobody_saw_is_explained_without_a_code(double: None, tmp_path: Path) -> None:
    first = fleet.deployed(tmp_path)
    fleet.kill(keeper_of(first["pid"]))
    until(lambda: (r := ask("ps")) and r[0]["state"] == "ready" and r[0]["pid"] != first["pid"])
    said = corral("explain", "one")
    (row,) = [each for each in said.splitlines() if each.startswith(first["launch"])]
    assert "keeper lost" in row and "None" not in said


def test_a_deployment_of_no_replicas_is_there(double: None, tmp_path: Path) -> None:
    fleet.take(tmp_path)
    assert "one is stopped: scaled to 0 replicas" in fleet.deploy("--replicas", "0", "--wait")
    assert "no replica runs or should run: one" in corral("ps")
    assert "one is stopped" in corral("chat", "one", "Hi", code=1)
    corral("shutdown", "--all")
    assert "no replica runs or should run: one" in corral("ps")
    until(lambda: ask("status")["gateway_status"]["state"] == "ready")
    assert "one is stopped" in corral("chat", "one", "Hi", code=1)
    corral("rm", "one", "--yes")
    assert "nothing is deployed" in corral("ps")


def test_an_engine_that_is_never_ready_ends_with_all_that_it_started_and_that_reason(
    home: Path, tmp_path: Path
) -> None:
    """It is a script that does not execute its server but starts it, and waits."""
    fleet.install(home, program="echo $$ > pids; sleep 600 & echo $! >> pids; wait", more="start_timeout_s = 1\n")
    fleet.take(tmp_path)
    said = fleet.deploy("--wait", "--timeout", "4", code=1)
    assert "it was not ready after 1 s" in said, said
    files = list(user_paths().launches.glob("*/pids"))
    pids = [int(each) for file in files for each in file.read_text().split()]
    assert len(pids) == 4 and all(proc.start_time(pid) is None for pid in pids)
    (replica,) = ask("ps")
    assert (replica["state"], replica["reason"], replica["restarts"]) == ("backoff", "it was not ready after 1 s", 2)
    assert corral("explain", "one").count("it was not ready after 1 s") >= 4


def test_an_engine_that_ends_with_exit_code_0_has_failed(home: Path, tmp_path: Path) -> None:
    fleet.install(home, program="exit 0")
    user_paths().config.write_text(user_paths().config.read_text().replace("[0.05, 600]", "[0.05]"))
    fleet.take(tmp_path)
    said = fleet.deploy("--wait", code=1)
    assert "one is failed" in said and "it ended with exit code 0 before it was ready; it was restarted 1 times" in said
    assert corral("explain", "one").count("code 0 ") >= 2


class Asking:
    """`corral chat one` at work, whose answer has begun."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tui", "chat", "one", "Hi"], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.begun = self.process.stdout.read(3)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()

    def rest(self) -> tuple[str, int]:
        """What it said in all, and its exit code."""
        out, _ = self.process.communicate(timeout=60)
        return self.begun + out, self.process.returncode


@pytest.mark.parametrize("verb", [("scale", "one", "0"), ("stop", "one"), ("restart", "one"), ("rm", "one", "--yes")])
def test_an_answer_on_its_way_is_ended_before_its_replica(home: Path, tmp_path: Path, verb: tuple[str, ...]) -> None:
    fleet.install(home, pause=0.15)
    fleet.deployed(tmp_path)
    with Asking() as asking:
        corral(*verb)
        answer, code = asking.rest()
    assert code == 0 and answer.split() == [f"w{n}" for n in range(24)], answer
    if verb[0] == "restart":
        assert "one is ready" in fleet.deploy("--wait")
    else:
        until(lambda: not any(each["pid"] for each in ask("ps")))


def test_an_answer_that_takes_longer_than_the_limit_is_cut(home: Path, tmp_path: Path) -> None:
    fleet.install(home, pause=5, more="drain_timeout_s = 0.3\n")
    fleet.deployed(tmp_path)
    with Asking() as asking:
        corral("stop", "one", "--wait", "--timeout", "10")
        answer, code = asking.rest()
    assert code == 1 and "replica one/0 was stopped while it answered" in answer, answer
    assert answer.startswith("w0 ") and "w23" not in answer


def test_the_tenth_replica_comes_after_the_ninth(double: None, tmp_path: Path) -> None:
    fleet.take(tmp_path)
    fleet.deploy("--replicas", "12")
    counted = [f"one/{n}" for n in range(12)]
    until(lambda: len(ask("ps")) == 12)
    assert [each["id"] for each in ask("ps")] == counted
    assert [row.split()[0] for row in corral("ps").splitlines()[1:]] == counted
    assert corral("ps", "-q").split() == counted
