"""A tier's folder: whether it may be one, the marker by which it is known again, and whether it is there now.

An empty mount point looks like an empty tier. So a tier has a file with its id, and a folder without that file, or with
another one's, is not the tier.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from core.catalog.tiers import living
from core.errors import Conflict, Failed, Invalid

MARKER = ".corral-tier"
MEMORY = "objects.json"
"""What a sweep has left alone in it."""
OURS = frozenset({MARKER, f"{MARKER}.new", "incoming", "quarantine", "pulls", "objects", MEMORY, "lost+found"})
"""What may lie in a folder that becomes a tier: a tier's own things, and what mkfs makes."""
_TOP = "bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr var"
SYSTEM = frozenset(f"/{name}" for name in _TOP.split())
"""Folders that are the system's own, themselves."""
CLOSED = ("/boot", "/etc", "/proc", "/sys")
"""Those in which nothing else has a place either."""
LARGEST = 4096
"""Bytes of a marker."""
TRY_S = 10.0
_TRY = """
import os, sys
file, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
try:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.read(os.open(file, os.O_RDONLY), 1)
except OSError as error:
    sys.exit(error.strerror)
"""
"""It gives up root once it runs, as a keeper does: whether that account may read the interpreter is not asked."""


class Marked(NamedTuple):
    """What a marker says: the tier's id, its name and the database that it belongs to."""

    id: str
    name: str
    database: str


def check(path: Path, others: Iterable[tuple[str, Path]], engines: tuple[int, int] | None) -> None:
    """Raises `Invalid` for what cannot be a tier's folder: a link, somebody else's, one that others may write, one in
    `others` (with what they are) or around them, or one that `engines` (uid and gid) may not pass through."""
    told = str(path)
    if not path.is_absolute() or not told.isprintable():
        raise Invalid(f"{told!a} is no full path", todo="give the whole path, from / on")
    if not path.exists():
        raise Invalid(f"{path} is not there", todo=f"make it: install -d -m {'711' if engines else '700'} {path}")
    if path.resolve() != path:
        raise Invalid(f"{path} leads elsewhere", f"it is {path.resolve()}", "name that path: links may be turned")
    for what, other in others:
        real = other.resolve()
        if path == real or path.is_relative_to(real) or real.is_relative_to(path):
            raise Invalid(f"{path} cannot be a tier", f"it is in, or around, {what} ({real})", "take another folder")
    for each in (path, *path.parents):
        _check_one(each, each.lstat(), engines, own=each == path)


def check_new(path: Path) -> None:
    """In a thread. Raises `Invalid` for a folder of the system, and for one in which other things lie than a tier's."""
    told = str(path)
    if told == "/" or told in SYSTEM or any(path.is_relative_to(each) for each in CLOSED):
        raise Invalid(f"{path} cannot be a tier", "it is the system's own", "make a folder for models, and name that")
    try:
        others = sorted(each.name for each in path.iterdir() if each.name not in OURS)
    except OSError as error:
        raise Invalid(f"{path} cannot be read", error.strerror or str(error)) from error
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise Invalid(
            f"{path} is not empty", f"in it lie {', '.join(ascii(each)[1:-1] for each in others[:3])}{more}",
            "make an empty folder there, and name that",
        )  # fmt: skip


def _check_one(path: Path, found: os.stat_result, engines: tuple[int, int] | None, *, own: bool) -> None:
    me = os.getuid()
    if not stat.S_ISDIR(found.st_mode):
        raise Invalid(f"{path} is no folder")
    if found.st_uid not in (0, me):
        raise Invalid(
            f"{path} belongs to uid {found.st_uid}", "its owner could put other files in place of the models",
            f"chown {me} {path}",
        )  # fmt: skip
    if found.st_mode & 0o022 and (own or not found.st_mode & stat.S_ISVTX):
        raise Invalid(
            f"{path} may be written by others (mode {stat.S_IMODE(found.st_mode):04o})",
            "whoever may write there could put other files in place of the models", f"chmod go-w {path}",
        )  # fmt: skip
    if engines is not None and not _passes(found, *engines):
        raise Invalid(
            f"engines may not pass through {path} (mode {stat.S_IMODE(found.st_mode):04o})",
            "they run as an account of their own", f"chmod o+x {path}",
        )  # fmt: skip


def _passes(found: os.stat_result, uid: int, gid: int) -> bool:
    if found.st_uid == uid:
        return bool(found.st_mode & stat.S_IXUSR)
    return bool(found.st_mode & (stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH))


def unreadable(file: Path, engines: tuple[int, int]) -> str:
    """In a thread: why the engines' account cannot read a file, tried as that account; "" if it can. Modes are not all:
    a mount may be one user's own, and a file server may let in whom it likes."""
    uid, gid = engines
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRY, str(file), str(uid), str(gid)], cwd="/", env={}, timeout=TRY_S,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"uid {uid} has not read it within {TRY_S:.0f} s"
    except (OSError, subprocess.SubprocessError) as error:
        return f"it could not be tried as uid {uid}: {error}"
    said = done.stderr.strip().splitlines() or ["it cannot be read"]
    return "" if done.returncode == 0 else f"uid {uid}: {said[-1][:200]}"


def marked(path: Path) -> Marked | None:
    """What the marker there says; None without one. Raises OSError, and ValueError for one that is broken."""
    try:
        fd = os.open(path / MARKER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        found = json.loads(os.read(fd, LARGEST))
    finally:
        os.close(fd)
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in Marked._fields):
        raise ValueError("it is no marker of Corral")
    return Marked(found["id"], found["name"], found["database"])


def mark(path: Path, new: Marked, *, take_over: bool, engines: tuple[int, int] | None) -> None:
    """In a thread. Make the folder a tier. Raises `Conflict` for one that is marked, unless it is taken over from a
    database whose daemon does not live here, `Invalid` for one in which `engines` can read nothing, and `Failed`."""
    try:
        there = marked(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else ""
        raise Failed(f"the marker in {path} cannot be read", why or str(error), f"look at {path / MARKER}") from error
    if there is not None and there.database != new.database and living.lives(there.database):
        raise Conflict(
            f"{path} is in use", f"it is the tier {there.name} of the database {there.database}, whose daemon runs",
            "remove it there first (corral tiers rm), or take another folder",
        )  # fmt: skip
    if there is not None and not take_over:
        raise Conflict(
            f"{path} is a tier already", f"it is {there.name} of the database {there.database}",
            "if no daemon uses it any more, say --take-over: what that one stored stays, and belongs to nothing"
            " at first; what this database once left there goes",
            take_over="another",
        )  # fmt: skip
    try:
        for below in ("incoming", "quarantine"):
            (path / below).mkdir(mode=0o700, exist_ok=True)
        fresh = path / f"{MARKER}.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.fchmod(fd, 0o644)  # whatever the umask: by it engines of another account try whether they can read
            os.write(fd, json.dumps(new._asdict()).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.rename(path / MARKER)
        sync(path)
        if engines is not None and (why := unreadable(path / MARKER, engines)):
            unmark(path)
            raise Invalid(
                f"engines cannot read what lies in {path}", why,
                "look at how it is mounted (FUSE: allow_other) and at what a file server lets that account do",
            )  # fmt: skip
    except OSError as error:
        raise Failed(f"{path} cannot be made a tier", error.strerror or str(error)) from error


def unmark(path: Path) -> None:
    """It is no tier any more; what else lies there stays. Raises OSError."""
    (path / MARKER).unlink(missing_ok=True)
    for below in ("incoming", "quarantine", "pulls", "objects"):
        for each in sorted((path / below).glob("*")) if below == "objects" else ():
            _drop(each)
        _drop(path / below)
    (path / MEMORY).unlink(missing_ok=True)
    sync(path)


def _drop(folder: Path) -> None:
    """Remove an empty folder."""
    try:
        folder.rmdir()
    except OSError:
        return


def look(path: Path, id: str) -> str:
    """Why the tier is not there now; "" if it is."""
    try:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return f"{path} is no folder"
        if found.st_uid not in (0, os.getuid()):
            return f"{path} belongs to uid {found.st_uid} now"
        there = marked(path)
    except FileNotFoundError:
        return f"{path} is not there"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    except ValueError:
        return f"the marker in {path} is broken"
    if there is None:
        return f"{path} has no marker: nothing is mounted there, or something else"
    if there.id == id:
        return ""
    return f"{path} is another tier now: {there.name[:64]!a} of the database {there.database[:64]!a}"


def read_only(path: Path) -> bool:
    """Whether it takes no changes. Raises OSError."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY) or not os.access(path, os.W_OK | os.X_OK)


def sync(folder: Path) -> None:
    """Have the names in a folder on the disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
