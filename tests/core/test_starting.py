"""What a terminal makes before it starts the daemon, and what it says when that ended at once."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from command import until

from core import http, starting
from core.errors import NotAllowed
from core.nodes import proc
from core.paths import user_paths


@pytest.mark.journey
def test_all_of_a_users_own_daemon_is_closed_to_others_whatever_the_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        for name in ("CORRAL_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", folder)

        def corral(*args: str) -> None:
            done = subprocess.run(
                ["sh", "-c", 'umask 0; exec "$@"', "sh", sys.executable, "-P", "-m", "tui", "--user", *args],
                capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

        try:
            corral("ps")
            root = Path(folder) / ".local/state/corral"
            (state,) = root.iterdir()
            there = [root, *root.rglob("*")]
            assert len(there) > 10
            modes = {}
            for each in there:
                with contextlib.suppress(FileNotFoundError):  # written and renamed meanwhile
                    modes[each] = each.lstat().st_mode
            modes.pop(state / "gateway.sock", None)  # it asks who calls
            opened = {str(each): oct(mode) for each, mode in modes.items() if mode & 0o077}
            assert not opened
        finally:
            corral("shutdown", "--all")


ENDING = """
import ctypes, socket, sys, threading, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
threading.Thread(target=sys.stdin.read).start()
print("listens", flush=True)
if len(sys.argv) > 2:
    ctypes.CDLL(None).syscall({"x86_64": 60}.get(sys.argv[2], 93), 0)
"""
"""Its first thread ends and another holds its socket, as with a daemon that was killed a moment ago."""


@pytest.mark.parametrize("ends", [False, True])
async def test_what_listens_while_it_is_taken_down_is_no_daemon_that_answers(tmp_path: Path, ends: bool) -> None:
    path = tmp_path / "s"
    argv = [sys.executable, "-c", ENDING, str(path), *([os.uname().machine] if ends else [])]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        until(lambda: (proc.start_time(process.pid) is None) == ends)
        _, writer = await http.connect(path)
        writer.close()
        assert await starting.answers(path) is not ends
        process.kill()


async def test_what_listened_and_is_gone_by_now_is_no_daemon_that_answers(tmp_path: Path) -> None:
    """As one that was killed, and whose parent had waited for it before it was looked at: nobody hides it from us."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listen = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).listen()"
        argv = [sys.executable, "-c", listen, str(listener.fileno())]
        subprocess.run(argv, pass_fds=[listener.fileno()], check=True, timeout=60)
        assert not await starting.answers(path)


def test_its_last_words_are_read_though_its_log_was_rotated(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    path.write_text("from before\n")
    log = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        assert starting._last_words(log, path.stat().st_size) == ""
        mark = path.stat().st_size
        path.rename(tmp_path / "daemon.log.1")
        path.write_text("x")
        os.write(log, b"corral: the database is newer than this program\n")
        assert starting._last_words(log, mark) == "the database is newer than this program"
    finally:
        os.close(log)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("start", [False, True])
def test_another_users_daemon_is_not_taken_for_none(home: Path, start: bool) -> None:
    """Exit 4 and not 6, and nothing is begun."""
    user_paths()  # what it imports the child may not be able to read any more
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            asyncio.run(starting.find(start=start, user=True))
        except NotAllowed as error:
            code = error.exit if "ask root of this host" in error.todo else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert not list(home.iterdir())
