"""Who is at the other end of the socket: uid and groups as the kernel says."""

import asyncio
import os
import subprocess
import sys

import pytest

ASK = """
import os, socket, sys
os.setgroups([int(each) for each in sys.argv[4].split()])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
sock = socket.socket(socket.AF_UNIX)
sock.connect(f"/proc/self/fd/{sys.argv[1]}/g.sock")
head = "GET /v1/models HTTP/1.0\\r\\n" + sys.argv[2] + "\\r\\n"
sock.sendall(head.encode())
print(sock.recv(4096).decode().partition("\\r\\n")[0])
"""
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as somebody else")


async def asked(gateway, uid: int, groups: list[int], headers: str = "") -> str:
    """The status line that a process of another user gets."""
    gateway.folder.chmod(0o711)
    folder = os.open(gateway.folder, os.O_PATH)
    try:
        told = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-I", "-S", "-c", ASK, str(folder), headers, str(uid), " ".join(map(str, groups))],
            pass_fds=(folder,), capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    finally:
        os.close(folder)
    return told.stdout.strip()


async def test_a_member_of_an_allowed_group_is_let_in(gateway, stub):
    await gateway.route(stub, uids=(), gids=(4242,))
    assert "403" in await asked(gateway, 12345, [])
    assert "403" in await asked(gateway, 12345, [4243])
    assert "200" in await asked(gateway, 12345, [4241, 4242])
    assert "200" in await asked(gateway, 4242, [])


async def test_only_the_daemon_may_say_for_whom_it_asks(gateway, stub):
    await gateway.route(stub, uids=(12345,))
    assert "200" in await asked(gateway, 12345, [])
    for header in ("X-Corral-Actor: 77:ann\r\n", "X-Corral-Turn: t1\r\n", "x-corral-actor: \r\n"):
        assert "403" in await asked(gateway, 12345, [], header)
    assert "200" in await asked(gateway, 12345, [], "X-Corral-Other: x\r\n")


async def test_the_daemon_needs_no_rule_of_its_own_to_ask_for_somebody_and_root_without_one_is_refused(gateway, stub):
    await gateway.route(stub, uids=())
    ask = {"model": "chat", "messages": []}
    assert b" 403 " in await gateway.post(ask)
    assert b" 200 " in await gateway.post(ask, "X-Corral-Actor: 77:ann\r\n")
    assert b" 200 " in await gateway.post(ask, "X-Corral-Actor: 77:ann\r\nX-Corral-Turn: t1\r\n")
