"""A model's files on their way in: found, opened without being fooled, hashed while copied, kept read-only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from core import formats, fulldisk
from core.errors import BadModel, NoRoom, NotFound
from core.keeper.gguf import BadHeader, read_header

FICLONE = 0x40049409
CHUNK = 4 << 20
SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
PARTS = 1000
"""Files of a split model, at most: none of those that a name claims is looked for before."""
SPARE = 256 << 20
"""Room that is left on the disk with the database."""


def find_set(path: Path) -> list[Path]:
    """The files of the one model that `path` names: a file, one part of a split model, or a folder with exactly one
    complete set. Raises `BadModel` or `NotFound`."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise NotFound(f"{path} is not there", todo="name a .gguf file or a folder with one") from None
    except OSError as error:
        raise BadModel(f"{path} cannot be read", error.strerror or str(error)) from error
    if not stat.S_ISDIR(found.st_mode):
        if not stat.S_ISREG(found.st_mode):
            raise BadModel(f"{path} is no file", _kind(found.st_mode), "name a .gguf file")
        part = SPLIT.fullmatch(path.name)
        if part is None:
            return [path]
        names = _names(part[1], int(part[3]), lambda name: (path.parent / name).is_file())
        return [path.parent / name for name in names]
    try:
        there = {each.name for each in path.iterdir()}
    except OSError as error:
        raise BadModel(f"{path} cannot be read", error.strerror or str(error)) from error
    return [path / name for name in one_set(there, str(path))]


def one_set(there: Collection[str], where: str) -> list[str]:
    """The names of the one complete model among the names `there`, in order. Raises `BadModel`."""
    sets: dict[tuple[str, int], str] = {}
    for name in sorted(there):
        if name.endswith(".gguf"):
            part = SPLIT.fullmatch(name)
            sets.setdefault((part[1], int(part[3])) if part else (name, -1), name)
    if len(sets) != 1:
        found = [name if name.isprintable() else ascii(name) for name in list(sets.values())[:5]]
        more = f" and {len(sets) - len(found)} more" if len(sets) > len(found) else ""
        told = ", ".join(found) + more
        if not told and (others := formats.others(there)):
            why = f"it holds no .gguf file; {others} are not taken: no engine reads them here, or they may be code"
            raise BadModel(f"{where} holds no model that is taken", why, formats.ANOTHER)
        why = f"it holds {told or 'no .gguf file'}"
        raise BadModel(f"{where} does not hold exactly one model", why, "name the file")
    ((base, count),) = sets
    return [base] if count < 0 else _names(base, count, lambda name: name in there)


def _names(base: str, count: int, there: Callable[[str], bool]) -> list[str]:
    """The names of all parts of a split model."""
    if not 1 <= count <= PARTS:
        raise BadModel(f"{base}-…-of-{count:05d}.gguf: absurd count of parts", f"a split model has 1 to {PARTS}")
    names = [f"{base}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1)]
    missing = [name for name in names if not there(name)]
    if missing:
        told = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise BadModel("the split model is not complete", f"missing: {told}", "download the missing parts")
    return names


def check_parts(headers: Sequence[dict[str, Any]]) -> None:
    """The headers of all files of one model, in order: engines find the parts by what the headers say, not by the
    names. Raises `BadModel` for a set that says something else of itself."""
    for number, header in enumerate(headers):
        meta = header["metadata"]
        count, place = meta.get("split.count", 1), meta.get("split.no", 0)
        if count in (0, 1) and len(headers) == 1:
            return
        if count != len(headers) or place != number:
            raise BadModel(
                "the file is a part of a split model" if len(headers) == 1 else "the parts do not belong together",
                f"file {number + 1} of {len(headers)} says that it is part {_plus_one(place)} of {count!r:.20}",
                "keep the names that the parts were downloaded with",
            )
    tensors = sum(len(header["tensors"]) for header in headers)
    told = headers[0]["metadata"].get("split.tensors.count", tensors)
    if told != tensors:
        raise BadModel("the split model is not complete", f"it has {tensors} tensors and says {told!r:.20}")


def _plus_one(place: object) -> str:
    return str(place + 1) if isinstance(place, int) else f"{place!r:.20}"


def _kind(mode: int) -> str:
    for test, word in (
        (stat.S_ISFIFO, "it is a named pipe"),
        (stat.S_ISCHR, "it is a device"),
        (stat.S_ISBLK, "it is a device"),
        (stat.S_ISSOCK, "it is a socket"),
    ):
        if test(mode):
            return word
    return "it is no regular file"


def open_regular(path: Path) -> int:
    """Open for reading without waiting on a pipe; only a regular file is taken. Raises `BadModel`, `NotFound`."""
    try:
        # Links are resolved first (a hub's cache is made of them), then none is followed any more.
        fd = os.open(path.resolve(), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise NotFound(f"{path} is not there", todo="name a file that is") from None
    except OSError as error:
        raise BadModel(f"{path} cannot be read", error.strerror or str(error), "mend its mode or owner") from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise BadModel(f"{path} is no file", _kind(mode), "name a .gguf file")
    return fd


def header_of(fd: int, name: str) -> dict[str, Any]:
    """The header of an open file. Raises `BadModel` with the reason."""
    try:
        found: dict[str, Any] = read_header(fd)
        return found
    except BadHeader as error:
        if known := formats.no_gguf(name, os.pread(fd, formats.HEAD, 0)):
            raise BadModel(f"{name} is not taken", *known) from error
        raise BadModel(f"{name} cannot be taken", str(error), "download it again, or name another file") from error
    except (OSError, ValueError) as error:
        raise BadModel(f"{name} cannot be read", str(error)) from error


def identity(fd: int) -> tuple[int, int, int, int]:
    """What changes when a file is written to or replaced."""
    found = os.fstat(fd)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def copy_in(fd: int, target: Path, progress: Callable[[int], None]) -> str:
    """Copy an open file to `target` (reflinked where the disk can) and hash it; its SHA-256. The source must not
    change meanwhile. `progress` gets the bytes done and may raise to cancel. Raises `BadModel`, `NoRoom`."""
    before = identity(fd)
    out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.ioctl(out, FICLONE, fd)
            cloned = True
        except OSError:
            cloned = False
        digest = hashlib.sha256()
        os.lseek(fd, 0, os.SEEK_SET)
        done = 0
        while data := os.read(out if cloned else fd, CHUNK):
            digest.update(data)
            if not cloned:
                _write(out, data)
            done += len(data)
            progress(done)
        os.fsync(out)
    except OSError as error:
        if fulldisk.is_full(error):
            raise no_room(error) from error
        raise BadModel("the model could not be copied", error.strerror or str(error)) from error
    finally:
        os.close(out)
    if identity(fd) != before or done != before[1]:
        raise BadModel("the file was changed while it was read", todo="wait until it is complete and try again")
    return digest.hexdigest()


def take_in(fd: int, source: Path, target: Path, progress: Callable[[int], None]) -> str:
    """As `copy_in`, of a file of Corral's own that nobody writes to: on the same disk it needs no room of its own.
    `source` stays where the disk can give a file two names. Raises `BadModel`, `NoRoom`."""
    try:
        os.link(source, target)
    except OSError:
        try:
            source.rename(target)
        except OSError:
            return copy_in(fd, target, progress)
    before, digest, done = identity(fd), hashlib.sha256(), 0
    while data := os.pread(fd, CHUNK, done):
        digest.update(data)
        done += len(data)
        progress(done)
    os.fsync(fd)
    held = os.fstat(fd)
    if identity(fd) != before or done != before[1] or not os.path.samestat(held, target.stat()):
        raise BadModel("the file was changed while it was read", todo="get it again")
    return digest.hexdigest()


def no_room(error: OSError) -> NoRoom:
    """What to say of a disk that is full, or a quota that is used up."""
    why, todo = fulldisk.why(error.errno, "the disk"), fulldisk.todo(error.errno)
    return NoRoom("there is no room for the model", why, todo)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def keep(incoming: Path, target: Path) -> None:
    """Move a complete file to its place among the objects, read-only; what lies there gives way."""
    depth = next(n for n, each in enumerate(target.parents) if each.name == "objects")
    for above in reversed(target.parents[: depth + 1]):  # engines of another account pass through
        above.mkdir(mode=0o711, exist_ok=True)
        above.chmod(0o711)
    incoming.chmod(0o444)
    incoming.rename(target)
    for folder in target.parents[:3]:  # a folder that was made just now is an entry of its parent
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
