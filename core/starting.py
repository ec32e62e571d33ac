"""Which daemon a terminal speaks to, and the start of one's own if none answers. The client calls it.

The shared daemon comes first where one is installed; when it is down that is said, never covered by a second daemon
that knows nothing of the models which people look for.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import subprocess
import sys
from pathlib import Path

import msgspec

from core import fulldisk, http, systemd
from core.errors import NoDaemon, NotAllowed
from core.paths import SYSTEM_SOCKET, Paths, system_paths, user_paths

START_TIMEOUT_S = 20.0
EXITING = 0x4
"""PF_EXITING among a process's flags in /proc."""
RESTART_S = 5.0
"""How long the shared daemon may be away, as it is during `systemctl restart`."""


async def find(*, start: bool, user: bool) -> Path:
    """The socket of the daemon that answers; one's own is started if none does and `start`. Raises `NoDaemon`, and
    `NotAllowed` for another user's."""
    if not user and not os.environ.get("CORRAL_HOME"):
        if await answers(SYSTEM_SOCKET):
            return SYSTEM_SOCKET
        if has_shared():
            if start and await _comes_back(SYSTEM_SOCKET):
                return SYSTEM_SOCKET
            unit = "`systemctl start corral` as root (`journalctl -u corral` says why)"
            begin = unit if systemd.system_unit() else "`corral daemon --system` as root"
            raise NoDaemon(
                "the shared daemon of this host does not run", f"nobody answers on {SYSTEM_SOCKET}",
                f"{begin}; --user for one of your own",
            )  # fmt: skip
    paths = user_paths()
    _refuse_foreign(paths)
    if not await answers(paths.socket):
        if not start:
            raise NoDaemon("no daemon runs", f"nobody answers on {paths.socket}", "any other verb starts it")
        await _start(paths)
    return paths.socket


def has_shared() -> bool:
    """Whether a shared daemon belongs to this host: as a unit, or as one that root began by hand, which left its socket
    or its state."""
    if systemd.system_unit() or os.path.lexists(SYSTEM_SOCKET):
        return True
    try:
        system_paths().state.stat()
    except PermissionError:  # a folder that is closed to us is there
        return True
    except OSError:
        return False
    return True


def _refuse_foreign(paths: Paths) -> None:
    """Raises `NotAllowed` for the home of another user's daemon, into which the kernel lets nobody else."""
    try:
        os.lstat(paths.socket)
    except PermissionError:
        raise NotAllowed(
            f"the daemon of {paths.root} is another user's",
            "its folder is closed to you",
            "unset CORRAL_HOME for one of your own; a shared one: ask root of this host (`corral daemon --system`)",
        ) from None
    except OSError:
        return


async def find_again(*, user: bool) -> Path:
    """As `find`, for who has had a daemon: one's own is started again if it died, and left as it is if somebody ended
    it. Raises `NoDaemon`; `ended` in its details says that it was ended."""
    try:
        return await find(start=False, user=user)
    except NoDaemon:
        if not user and not os.environ.get("CORRAL_HOME") and has_shared():
            raise
    paths = user_paths()
    pid = await asyncio.to_thread(_holder, paths)
    if pid:
        raise NoDaemon("the daemon does not answer", f"its process {pid} is there: it ends, or is stuck")
    # Who ends in order takes its socket away; looked at after the process, which does it last. Who ends by an error of
    # its own may do so too, and leaves word.
    if paths.socket.is_socket() or paths.daemon_crash.exists():
        return await find(start=True, user=user)
    raise NoDaemon("the daemon was shut down", f"nobody answers on {paths.socket}", "any verb starts it", ended=True)


class _Holder(msgspec.Struct, frozen=True):
    """Who took the lock of a state folder, as far as it is needed to know that process again."""

    pid: int
    start_time: int


def _holder(paths: Paths) -> int:
    """The pid of one's own daemon if its process still lives, else 0. The lock itself is not tried: a daemon that
    starts meanwhile would find it taken."""
    try:
        told = msgspec.json.decode(paths.daemon_lock.read_bytes(), type=_Holder)
        state, *rest = Path(f"/proc/{told.pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, msgspec.MsgspecError, IndexError, ValueError):
        return 0
    return told.pid if state not in (b"Z", b"X") and int(rest[18]) == told.start_time else 0


def runs(paths: Paths) -> bool:
    """Whether a daemon of this state folder lives, or a model or gateway that one has launched; taken for so where that
    cannot be looked at."""
    return bool(_holder(paths)) or any(_held(each) for each in paths.records.glob("*/lock"))


def _held(lock: Path) -> bool:
    """Whether somebody lives who has this lock of a launch (`core.nodes.records`, which no terminal may import)."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


async def answers(path: Path) -> bool:
    """Whether somebody listens on the socket `path` who goes on: what was killed listens for some milliseconds more,
    and resets whoever came."""
    try:
        async with asyncio.timeout(2):
            _, writer = await http.connect(path)
    except (OSError, TimeoutError):
        return False
    ending = _is_ending(http.peer_pid(writer))
    writer.close()
    return not ending


def _is_ending(pid: int) -> bool:
    """Whether the kernel takes the process down: its first thread goes before those that still hold its sockets."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
        return state in (b"Z", b"X") or bool(int(rest[5]) & EXITING)
    except (OSError, IndexError, ValueError):
        return _is_gone(pid)


def _is_gone(pid: int) -> bool:
    """Whether there is no such process any more, also where others' are hidden from us."""
    try:
        if pid > 0:
            os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's
    return False


async def _comes_back(path: Path) -> bool:
    deadline = asyncio.get_running_loop().time() + RESTART_S
    while asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
        if await answers(path):
            return True
    return False


async def _start(paths: Paths) -> None:
    """Start the per-user daemon and wait for its socket. Raises `NoDaemon` with the sentence that it left.

    By the user's own unit where one is installed; else as a child, outside of a session that would take it along.
    """
    try:
        if not paths.root.exists():  # `parents` alone gives the folders above the mode of the umask
            paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.state.mkdir(mode=0o700, exist_ok=True)
        log = os.open(paths.daemon_log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        todo = fulldisk.lacks(paths.state) if fulldisk.is_full(error) else ""
        raise NoDaemon("the daemon could not be started", f"{error.filename}: {error.strerror}", todo) from error
    env = _environment()
    plain = [sys.executable, "-P", "-m", "core"]
    ways = [way for way in (systemd.user_unit(env), systemd.outside(plain, _user_name(), env)) if way]
    if plain not in ways:
        ways.append(plain)
    try:
        mark = os.fstat(log).st_size
        process = _run(ways[0], log, env)
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while not await answers(paths.socket):
            code = process.poll()
            if code not in (None, 0):
                if len(ways) == 1:
                    raise NoDaemon(
                        "the daemon could not be started",
                        _last_words(log, mark) or f"exit code {code}",
                        fulldisk.lacks(paths.state),
                    )
                del ways[0]
                process = _run(ways[0], log, env)
            if asyncio.get_running_loop().time() > deadline:
                raise NoDaemon(
                    f"the daemon does not answer after {START_TIMEOUT_S:.0f} s", f"its log: {paths.daemon_log}"
                )
            await asyncio.sleep(0.03)
    finally:
        os.close(log)


def _run(argv: list[str], log: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=env
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _environment() -> dict[str, str]:
    """The daemon's environment: ours, with the folder of an uninstalled source tree where it is run from one."""
    env = systemd.with_manager(dict(os.environ))
    source = str(Path(__file__).parent.parent)
    if "site-packages" not in source:
        env["PYTHONPATH"] = source
    return env


def _last_words(log: int, mark: int) -> str:
    """The last line after byte `mark` of the file that we gave the daemon: it may have been rotated meanwhile."""
    lines = os.pread(log, 65536, mark).decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("corral: ") if lines else ""
