"""What can be wrong with the place a daemon starts in: folders, socket path, lock, logout; each with its sentence.

Called by the composition root before anything is opened; every function takes its paths as arguments.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import stat
from pathlib import Path
from typing import NamedTuple

import msgspec

from core import fulldisk
from core.access.accounts import Accounts
from core.errors import Conflict, CorralError, Failed, StoreError
from core.paths import SOCKET_LIMIT, Paths

NETWORK = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "coda", "ceph", "lustre", "gpfs", "beegfs", "glusterfs",
    "gfs2", "ocfs2", "orangefs", "pvfs2", "davfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse",
    "fuse.s3fs", "fuse.rclone",
)  # fmt: skip


class Folder(NamedTuple):
    """A folder that a daemon needs, and whose it must be."""

    path: Path
    mode: int
    uid: int
    gid: int = -1
    """-1: whichever it is."""


def folders(paths: Paths, accounts: Accounts | None) -> list[Folder]:
    """All folders, outermost first. In system mode (`accounts`) the gateway has its own, and the engines' account may
    pass through to the models and to its launch folder, and read nothing on the way."""
    me = os.getuid()
    private = [Folder(each, 0o700, me) for each in (paths.records, paths.backups)]
    if accounts is None:
        mine = (paths.root, paths.state, paths.run, paths.launches, paths.gateway, paths.models)
        return [Folder(each, 0o700, me) for each in mine] + private
    gateway, engine = accounts.gateway, accounts.engine
    return [
        Folder(paths.root, 0o755, me),
        Folder(paths.state, 0o711, me),
        Folder(paths.run, 0o755, me),
        Folder(paths.launches, 0o711, me),
        Folder(paths.models, 0o710, me, engine.gid),
        Folder(paths.gateway, 0o700, gateway.uid, gateway.gid),
        Folder(paths.gateway_socket.parent, 0o755, gateway.uid, gateway.gid),
        *private,
    ]


def make_folders(paths: Paths, accounts: Accounts | None = None) -> None:
    """Create the state folders with owner and mode; refuse those that somebody else owns or may write.

    Raises `Failed` with the folder and what to do.
    """
    for folder, mode, uid, gid in folders(paths, accounts):
        try:
            if not folder.exists():
                with contextlib.suppress(FileExistsError):  # made at this moment by another start, or a link to nothing
                    folder.mkdir(mode=0o700, parents=True)
                    os.chown(folder, uid, gid)
                    folder.chmod(mode)
            found = os.lstat(folder)
        except OSError as error:
            raise Failed(f"{folder} cannot be made", error.strerror or str(error), _todo(error)) from error
        if not stat.S_ISDIR(found.st_mode):
            raise Failed(f"{folder} is not a folder", "it may be a link", "move it away, or set CORRAL_HOME")
        if found.st_uid != uid or gid not in (-1, found.st_gid):
            raise Failed(
                f"{folder} belongs to uid {found.st_uid}, group {found.st_gid}",
                f"the daemon runs as uid {os.getuid()} and needs it to be uid {uid}'s",
                f"chown {uid}{'' if gid < 0 else f':{gid}'} {folder}"
                + ("" if accounts else ", or set CORRAL_HOME to another folder"),
            )
        # A home that somebody chose may be his group's; his own folders in it are not.
        others = 0o002 if folder == paths.root and not accounts else 0o022
        if found.st_mode & others and not (folder == paths.root and found.st_mode & stat.S_ISVTX):
            raise Failed(
                f"{folder} may be written by others (mode {stat.S_IMODE(found.st_mode):04o})",
                "whoever may write there could act as you",
                f"chmod {mode:o} {folder}",
            )


def _todo(error: OSError) -> str:
    if error.errno == 30:
        return "the file system is read-only: set CORRAL_HOME to a folder that may be written"
    if fulldisk.is_full(error):
        return f"{fulldisk.why(error.errno, 'the disk')}: {fulldisk.todo(error.errno)}"
    return "mend the folder above it, or set CORRAL_HOME to another one"


def check_socket(path: Path) -> None:
    """Raises `Failed` if a Unix socket's path is too long for the kernel."""
    length = len(os.fsencode(path))
    if length > SOCKET_LIMIT:
        raise Failed(
            f"the socket's path has {length} bytes: {path}",
            f"the kernel takes {SOCKET_LIMIT} at most",
            "set CORRAL_HOME to a folder with a shorter path",
        )


class DaemonLock:
    """One daemon a state folder: an flock held for life. A recycled pid or a reboot can't fake it: the kernel
    drops the lock with its process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def take(self) -> None:
        """Raises `Conflict` with the holder's pid if a daemon runs, and `Failed` if it runs on another host of a shared
        home, where this host does not reach it, or if the file cannot be opened."""
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Failed(f"{self._path} cannot be opened", error.strerror or str(error), _todo(error)) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(self._fd, 4096, 0)
            os.close(self._fd)
            self._fd = -1
            raise _held(self._path, text) from None
        with contextlib.suppress(OSError):  # a full disk: the lock counts, its text is for people
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(me()).encode() + b"\n", 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Holder(msgspec.Struct, frozen=True):
    """Who took a lock, as its file says."""

    pid: int
    boot_id: str
    host: str


def _held(path: Path, text: bytes) -> CorralError:
    """What to say of a lock that somebody holds. A lock goes with the kernel of its holder, so one of another boot is
    held over the network."""
    try:
        holder = msgspec.json.decode(text, type=_Holder)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Conflict("a daemon runs already (another process)", f"it holds {path}")
    host, here = "".join(each for each in holder.host if each.isprintable())[:64], me()
    told = f"pid {holder.pid} on {host}"
    if holder.boot_id == here["boot_id"]:
        return Conflict(f"a daemon runs already ({told})", f"it holds {path}")
    if host == here["host"]:
        return Failed(
            f"the file server still holds the lock of a daemon from before this host's restart ({told})",
            f"it is {path}", "remove that file if no daemon of yours runs on any host",
        )  # fmt: skip
    return Failed(
        f"a daemon runs on another host ({told})", f"it holds {path}, and {here['host']} cannot reach it",
        f"work on {host}, or end it there (corral shutdown), or set CORRAL_HOME to a folder of this host",
    )  # fmt: skip


def me() -> dict[str, object]:
    """This process: pid, boot id, start time (clock ticks since boot) and host."""
    start = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"pid": os.getpid(), "boot_id": boot, "start_time": int(start), "host": socket.gethostname()}


def clear_socket(path: Path) -> None:
    """Remove a stale socket (the lock is ours, so nobody listens). Raises `Failed` for anything else there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Failed(f"{path} is in the way", "it is not a socket", "move it away")
    path.unlink()


def refuse_network(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Raises `StoreError` if `path`, links resolved, lies on a network file system, where SQLite's WAL loses data."""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = _unescape(left.split()[4])
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    if kind in NETWORK:
        raise StoreError(
            f"the database would lie on a network file system ({kind} at {best})",
            "SQLite's write-ahead log is not safe there",
            "set CORRAL_HOME to a folder on a local disk",
        )


def _unescape(text: str) -> str:
    """A path as the kernel writes it: blank, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
