"""The kernel's word about the other end of a socket, for members of many groups too."""

import os
import socket
from pathlib import Path

import pytest

from core.peer import peer


def test_the_peer_is_told_with_all_its_groups() -> None:
    one, two = socket.socketpair()
    with one, two:
        found = peer(one)
    assert (found.pid, found.uid) == (os.getpid(), os.getuid())
    assert found.groups == {os.getgid(), *os.getgroups()}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can join groups")
@pytest.mark.parametrize("count", [3, 256, 257, 5000])
def test_supplementary_groups_are_those_of_who_connected(tmp_path: Path, count: int) -> None:
    groups = list(range(80000, 80000 + count))
    tmp_path.chmod(0o755)
    path = f"/proc/self/fd/{os.open(tmp_path, os.O_PATH | os.O_CLOEXEC)}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        child = os.fork()
        if not child:
            os.setgroups(groups)
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(path)
                caller.recv(1)
            os._exit(0)
        taken, _ = listener.accept()
        with taken:
            found = peer(taken)
        os.waitpid(child, 0)
    assert found.groups == {os.getgid(), *groups}


def test_a_socket_without_a_peer_is_nobody() -> None:
    """The kernel says -1 then, which is Corral itself in the trail and may do everything."""
    with socket.socket(socket.AF_UNIX) as alone:
        assert peer(alone).uid == 2**32 - 1
