"""`corral` with its modules loaded already: a fork of this process carries out a command, without a start of Python.
The daemon that a command starts is a fork of a second one, which has loaded the daemon, and so are the gateways of the
gateway's tests.

A start takes some 0.1 s of a processor, a daemon's 0.4 s, and the tests give thousands of commands in hundreds of
homes. A fork has the arguments, environment, working folder and streams of its caller, so it does what a started
process does; that a start works, with any streams and locale, is tested elsewhere. `command.py` runs it, and speaks to
it over the socket that it is given.
"""

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

LONGEST = 1 << 17
"""Bytes of a request: arguments, folder and environment."""
DAEMON = ["-P", "-m", "core"]


def serve(channel: socket.socket, *, lasting: bool = False) -> None:
    """Fork at each request; its pipe is told the pid and then the exit code (4 bytes each). Returns in a fork, which is
    to carry out its command; ends when nobody is left to ask, and the forks with it, unless they are `lasting`."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    before = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    running: dict[int, int] = {}
    while True:
        ready = select.select([channel, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _reap(running)
        if channel not in ready:
            continue
        data, given, _, _ = socket.recv_fds(channel, LONGEST, 4)
        if not data:
            for each in () if lasting else running:
                os.kill(each, signal.SIGKILL)
            sys.exit()
        *streams, told = given
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, before)
            for each in (woken, wake, told, *running.values()):
                os.close(each)
            channel.close()
            _take(json.loads(data), streams)
            return
        for each in streams:
            os.close(each)
        running[pid] = told
        if not _tell(told, pid) and not lasting:
            os.kill(pid, signal.SIGKILL)


def _take(request: dict[str, object], streams: list[int]) -> None:
    """Become the process that was asked for."""
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    os.chdir(request["folder"])  # type: ignore[arg-type]
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[arg-type]
    sys.argv[1:] = request["arguments"]  # type: ignore[assignment]


def _reap(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        if told := running.pop(pid, 0):
            _tell(told, os.waitstatus_to_exitcode(status))
            os.close(told)


def _tell(pipe: int, number: int) -> bool:
    """False when who asked has given up."""
    try:
        os.write(pipe, number.to_bytes(4, "little", signed=True))
    except BrokenPipeError:
        return False
    return True


class Started:
    """A daemon that was asked for, as `subprocess.Popen` has it for who waits until it serves."""

    def __init__(self, told: int) -> None:
        self._told, self._got = told, b""
        os.set_blocking(told, False)

    def poll(self) -> int | None:
        try:
            while piece := os.read(self._told, 8):
                self._got += piece
        except BlockingIOError:
            return None
        return int.from_bytes(self._got[4:], "little", signed=True) if len(self._got) == 8 else -signal.SIGKILL


def start_by_fork(asks: socket.socket) -> None:
    """The daemon that this command starts is a fork, too."""
    from core import starting

    run = starting._run

    def forked(argv: list[str], log: int, env: dict[str, str]) -> object:
        if argv[1:] != DAEMON or "CORRAL_HOME" not in env:
            return run(argv, log, env)
        told, tell = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        request = {"arguments": [], "folder": "/", "environment": env}
        try:
            socket.send_fds(asks, [json.dumps(request).encode()], [nothing, log, log, tell])
        finally:
            os.close(nothing)
            os.close(tell)
        return Started(told)

    starting._run = forked  # type: ignore[assignment]


def load() -> None:
    """Import what a verb would."""
    import core.starting
    import tui.cli
    import tui.verbs

    for each in pkgutil.iter_modules(tui.verbs.__path__, "tui.verbs."):
        importlib.import_module(each.name)
    assert core.starting and tui.cli


def commands(channel: socket.socket) -> None:
    starts, asks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        channel.close()
        asks.close()
        daemons(starts)
    starts.close()
    load()
    gc.freeze()  # a fork shares it, and does not look at it again when it ends
    serve(channel)
    from tui.__main__ import main

    start_by_fork(asks)
    main()


def daemons(starts: socket.socket) -> NoReturn:
    from core.__main__ import main

    gc.freeze()
    serve(starts, lasting=True)
    os.setsid()
    # Its environment in /proc stays that of this program: a test's home knows its daemon by this (conftest.py).
    Path("/proc/self/comm").write_text(Path(os.environ["CORRAL_HOME"]).name)
    sys.exit(main())


def gateways(channel: socket.socket) -> None:
    from core.gateway import control
    from core.gateway.__main__ import main

    control.TICK_S = 0.1  # hundreds of tests wait for a line of usage
    gc.freeze()
    serve(channel)
    sys.exit(main())


if __name__ == "__main__":
    {"command": commands, "gateway": gateways}[sys.argv[1]](socket.socket(fileno=int(sys.argv[2])))
