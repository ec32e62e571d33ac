"""The `corral` command as journeys use it, and waiting for what it shows."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loaded import LONGEST

LOADED = Path(__file__).with_name("loaded.py")
TAKEN_AT_START = "PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC", "SSL_CERT"
"""Beginnings of the variables that a process takes notice of when it starts, and no more."""
LIMIT_S = 120.0


def corral(*args: str, code: int = 0, stdin: str | None = None) -> str:
    done = started(args, stdin) if stdin is not None else run(*args)
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def started(args: Sequence[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """One command in a process that is started for it."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "tui", *args], capture_output=True, text=True, timeout=LIMIT_S,
        **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
    )  # fmt: skip


def run(*args: str) -> subprocess.CompletedProcess[str]:
    """One command in a fork of a process that has all of its modules loaded, where that is the same (`loaded.py`)."""
    global _forks
    with _starting:
        if _forks is None:
            _forks = Forks()
    if _forks.at_start != _at_start():
        return started(args)
    return _forks.run(args)


def gateway(env: dict[str, str], stderr: int) -> Fork | subprocess.Popen[bytes]:
    """A gateway with this environment: a fork, as above, where that is the same."""
    global _gateways
    with _starting:
        if _gateways is None:
            _gateways = Forks("gateway")
    if _gateways.at_start != _at_start():
        return subprocess.Popen([sys.executable, "-P", "-m", "core.gateway"], env=env, stderr=stderr)
    return _gateways.start(env, stderr)


def end() -> None:
    """Whoever ran commands or gateways has none left."""
    global _forks, _gateways
    for each in (_forks, _gateways):
        if each is not None:
            each.end()
    _forks = _gateways = None


def _at_start() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(TAKEN_AT_START)}


class Fork:
    """One that runs on, with what is used of `subprocess.Popen`."""

    def __init__(self, pid: int, told: int) -> None:
        self.pid, self._told = pid, told
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode if self._ended(0) else None

    def wait(self, timeout: float) -> int:
        if not self._ended(timeout) or self.returncode is None:
            raise subprocess.TimeoutExpired("a fork", timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _ended(self, timeout: float) -> bool:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = int.from_bytes(os.read(self._told, 4), "little", signed=True)
            os.close(self._told)
        return self.returncode is not None


class Forks:
    """The process that forks. Several threads may run commands at once."""

    def __init__(self, what: str = "command") -> None:
        self.at_start = _at_start()
        self._said = ""
        self._ending = threading.Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Without the home of a test, after which it would be ended with all that has its home.
        env = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(LOADED), what, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=env,
                cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Raises TimeoutError, or RuntimeError with a traceback of the process; the command has ended in any case."""
        asked = json.dumps({"arguments": args, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        if len(asked) > LONGEST:
            return started(args)
        pipes = [os.pipe() for _ in range(3)]
        nothing = os.open(os.devnull, os.O_RDONLY)
        given = [nothing, *(write for _, write in pipes)]
        try:
            try:
                socket.send_fds(self._channel, [asked], given)
            except OSError as error:
                raise RuntimeError(self._last_words()) from error
            finally:
                for each in given:
                    os.close(each)
            out, err, told = _read_all([read for read, _ in pipes])
        finally:
            for read, _ in pipes:
                os.close(read)
        if len(told) != 8:
            raise RuntimeError(self._last_words())
        code = int.from_bytes(told[4:], "little", signed=True)
        return subprocess.CompletedProcess(list(args), code, out.decode(), err.decode())

    def start(self, env: dict[str, str], stderr: int) -> Fork:
        """A process that runs on. Raises RuntimeError with a traceback of the one that forks."""
        asked = json.dumps({"arguments": [], "folder": os.getcwd(), "environment": env}).encode()
        told, tell = os.pipe()
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            socket.send_fds(self._channel, [asked], [nothing, nothing, stderr, tell])
        except OSError as error:
            raise RuntimeError(self._last_words()) from error
        finally:
            os.close(nothing)
            os.close(tell)
        if len(pid := os.read(told, 4)) != 4:
            raise RuntimeError(self._last_words())
        return Fork(int.from_bytes(pid, "little"), told)

    def _last_words(self) -> str:
        self.end()
        return f"the process that forks has ended: {self._said}"

    def end(self) -> None:
        with self._ending:
            self._channel.close()
            if self._process.returncode is None:
                self._said = self._process.communicate(timeout=10)[1].decode()


def _read_all(pipes: list[int]) -> list[bytes]:
    """What comes up to the end of each; the last tells the pid of the process that writes, which is killed when they
    are not at their ends in time."""
    got = {each: b"" for each in pipes}
    open_ones, deadline = set(pipes), time.monotonic() + LIMIT_S
    try:
        while open_ones:
            ready = select.select(open_ones, [], [], max(0, deadline - time.monotonic()))[0]
            if not ready:
                raise TimeoutError(got)
            for each in ready:
                piece = os.read(each, 1 << 16)
                got[each] += piece
                if not piece:
                    open_ones.remove(each)
    finally:
        if len(told := got[pipes[-1]]) == 4:
            os.kill(int.from_bytes(told, "little"), 9)
    return list(got.values())


_forks: Forks | None = None
_gateways: Forks | None = None
_starting = threading.Lock()


def ask(*args: str, stdin: str | None = None) -> Any:
    return json.loads(corral(*args, "--json", stdin=stdin))


def free_port() -> int:
    """For a gateway that is killed and is to come back there: the first free one from 8620 on, which it takes else, may
    be taken by another test's gateway meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(check: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.05)


def deployed(*options: str) -> dict[str, Any]:
    corral("models", "sample")
    corral("deploy", "smollm2-135m", "--name", "chat", *(options or ("--ctx", "2048")), "--wait")
    (replica,) = ask("ps")
    assert replica["state"] == "ready"
    return dict(replica)


def ready() -> dict[str, Any] | None:
    found = [r for r in ask("ps") if r["state"] == "ready"]
    return found[0] if found else None
