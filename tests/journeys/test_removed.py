"""Somebody removes what a running Corral needs: it is made again, and nobody has to find out how."""

import os
import shutil
import signal
from pathlib import Path

import hurried
import pytest
from command import ask, corral, deployed, ready, until

from core.paths import user_paths

pytestmark = pytest.mark.journey


def test_removed_sockets_are_made_again(home: Path, sample: Path) -> None:
    deployed()
    paths, before = user_paths(), ask("status")
    paths.socket.unlink()
    until(paths.socket.exists)
    after = ask("status")
    assert after["daemon"]["pid"] == before["daemon"]["pid"]
    paths.gateway_socket.unlink()
    until(paths.gateway_socket.exists)
    assert corral("chat", "chat", "Hi", "--max-tokens", "4").strip()
    assert ask("status")["gateway_status"]["pid"] == before["gateway_status"]["pid"]


def test_a_replica_without_its_folder_is_started_anew(home: Path, sample: Path) -> None:
    with hurried.daemon({"core.deployments.launch.LOOK_S": 0.5, "core.deployments.launch.UNREACHABLE_S": 0.5}):
        first = deployed()
        shutil.rmtree(Path(first["socket"]).parent)
        second = until(lambda: (found := ready()) and found["pid"] != first["pid"] and found)
        assert corral("chat", "chat", "Hi", "--max-tokens", "4").strip()
    assert second["restarts"] == 1
    assert any("its socket was gone" in each["reason"] for each in ask("audit", "ls", "--verb", "replica.died"))


def test_a_daemon_that_lost_its_gateway_lives_on(home: Path, sample: Path) -> None:
    """The gateway and its keeper, again and again."""
    deployed()
    daemon = ask("status")["daemon"]["pid"]
    for _ in range(3):
        gateway = ask("status")["gateway_status"]["pid"]
        keeper = int(Path(f"/proc/{gateway}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(keeper, signal.SIGKILL)
        until(lambda gateway=gateway: ask("status")["gateway_status"]["pid"] not in (gateway, None))
    until(lambda: ask("status")["gateway_status"]["state"] == "ready")
    assert ask("status")["daemon"]["pid"] == daemon
    assert corral("chat", "chat", "Hi", "--max-tokens", "4").strip()
    assert not ask("audit", "ls", "--verb", "daemon.died")
