"""`corral` with its modules loaded already: a fork of this process carries out a command, without a start of Python.

A start takes some 0.1 s of a processor, and the tests give thousands of commands. A fork has the arguments,
environment, working folder and streams of its caller, so it does what a started command does; that a start works, with
any streams and locale, is tested elsewhere. `command.py` runs it, and speaks to it over the socket that it is given.
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

LONGEST = 1 << 17
"""Bytes of a request: arguments, folder and environment."""


def serve(channel: socket.socket) -> None:
    """Fork at each request; its pipe is told the pid and then the exit code (4 bytes each). Returns in a fork, which is
    to carry out its command; ends when nobody is left to ask."""
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
            for each in running:
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
        if not _tell(told, pid):
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
        told = running.pop(pid)
        _tell(told, os.waitstatus_to_exitcode(status))
        os.close(told)


def _tell(pipe: int, number: int) -> bool:
    """False when who asked has given up."""
    try:
        os.write(pipe, number.to_bytes(4, "little", signed=True))
    except BrokenPipeError:
        return False
    return True


def load() -> None:
    """Import what a verb would."""
    import core.starting
    import tui.cli
    import tui.verbs

    for each in pkgutil.iter_modules(tui.verbs.__path__, "tui.verbs."):
        importlib.import_module(each.name)
    assert core.starting and tui.cli


if __name__ == "__main__":
    load()
    gc.freeze()  # a fork shares it, and does not look at it again when it ends
    serve(socket.socket(fileno=int(sys.argv[1])))
    from tui.__main__ import main

    main()
