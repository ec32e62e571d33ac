"""Ends that are no order: a gateway that does not end when told to, a daemon that ends by an error of its own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hurried
import pytest
from command import ask, corral, until

from core import starting
from core.client import Client
from core.nodes import proc
from core.paths import user_paths

pytestmark = pytest.mark.journey

ENDS_BY_AN_ERROR = """
import asyncio, sys
from core import __main__, daemon
async def failing(self):
    while not self.paths.socket.exists():
        await asyncio.sleep(0.05)
    raise RuntimeError("my words are nobody's business")
daemon.Daemon._mend = failing
sys.argv = ["core", "--foreground"]
sys.exit(__main__.main())
"""
IN_A_HURRY = {
    "core.warned.LOOK_S": 0.1, "core.deployments.silence.PING_S": 0.1, "core.deployments.silence.SILENT_S": 2.0,
    "core.deployments.gateways.STOP_S": 2.0,
}  # fmt: skip
FIND_AGAIN = "import asyncio; from core import starting; print(asyncio.run(starting.find_again(user=True)))"


@pytest.fixture
def in_a_hurry(home: Path) -> Iterator[None]:
    with hurried.daemon(IN_A_HURRY):
        yield


def test_a_stopped_gateway_is_not_called_ready_and_shutdown_all_says_that_it_runs_on(in_a_hurry: None) -> None:
    until(lambda: ask("status")["gateway_status"]["state"] == "ready")
    pid = ask("status")["gateway_status"]["pid"]
    try:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: ask("status")["gateway_status"]["state"] == "not answering")
        assert any(f"kill -CONT {pid}" in each for each in ask("status")["daemon"]["warnings"])
        os.kill(pid, signal.SIGCONT)
        until(lambda: ask("status")["gateway_status"]["state"] == "ready")
        assert not any("kill -CONT" in each for each in ask("status")["daemon"]["warnings"])

        os.kill(pid, signal.SIGSTOP)
        told = corral("shutdown", "--all", code=1)
        assert "not everything has ended" in told and f"the gateway (pid {pid})" in told
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: proc.start_time(pid) is None)


def test_whoever_shows_warnings_is_told_when_one_comes_and_when_it_goes(in_a_hurry: None) -> None:
    until(lambda: ask("status")["gateway_status"]["state"] == "ready")
    pid = ask("status")["gateway_status"]["pid"]

    async def follow() -> None:
        client = Client(user_paths().socket)
        async with asyncio.timeout(30):
            picture = await client.picture()
            assert picture.status.daemon.warnings == ()
            os.kill(pid, signal.SIGSTOP)
            async for event in client.events(picture.event):
                if event.type != "warning":
                    continue
                if not (await client.picture()).status.daemon.warnings:
                    break
                os.kill(pid, signal.SIGCONT)

    try:
        asyncio.run(follow())
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_daemon_that_ended_by_an_error_of_its_own_is_said_to_and_is_started_again(home: Path) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", ENDS_BY_AN_ERROR], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    user_paths().socket.unlink(missing_ok=True)  # as asyncio does when it ends, from Python 3.13 on
    again = subprocess.run([sys.executable, "-P", "-c", FIND_AGAIN], capture_output=True, text=True, timeout=60)
    assert again.stdout.strip() == str(user_paths().socket), again.stderr
    (died,) = ask("audit", "ls", "--verb", "daemon.died")
    assert died["reason"].startswith("it ended by an error of its own: RuntimeError in <string>:7 failing")
    assert "business" not in died["reason"]
    assert any("ended by an error of its own (RuntimeError" in each for each in ask("status")["daemon"]["warnings"])

    os.kill(ask("status")["daemon"]["pid"], signal.SIGKILL)
    until(lambda: not asyncio.run(starting.answers(user_paths().socket)))
    assert ask("audit", "ls", "--verb", "daemon.died")[-1]["reason"] == "it left no record of its stop"
    assert not user_paths().daemon_crash.exists()
