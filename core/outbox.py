"""A caller's own model files on their way to a daemon of another user: found, looked at before anything is sent, read.

What may be wrong with them is said here within a second; the daemon checks all of it again.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from core import formats
from core.errors import BadModel, NotFound

_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")
_HEADER = Path(__file__).parent / "keeper/gguf.py"
"""Run as a program: it has its own bounds, and importing it is not for the terminal."""
_HEADER_S = 60.0


def find(path: Path) -> list[Path]:
    """What to send for `path`: the file, all parts beside it that its name speaks of, or a folder's .gguf files.
    Raises `NotFound`, `BadModel`."""
    try:
        if path.is_dir():
            return sorted(each for each in path.iterdir() if each.name.endswith(".gguf"))
        part = _PART.fullmatch(path.name)
        if part is None:
            return [path]
        beside = [(each, _PART.fullmatch(each.name)) for each in path.parent.iterdir()]
    except FileNotFoundError:
        raise NotFound(f"{path} is not there", todo="name a .gguf file or a folder with one") from None
    except OSError as error:
        raise BadModel(f"{path} cannot be read", error.strerror or str(error)) from error
    return sorted(each for each, found in beside if found and found.groups() == part.groups()) or [path]


def check(files: Sequence[Path]) -> list[tuple[Path, int]]:
    """The files with their sizes, each with a header that can be read. Raises `NotFound`, `BadModel`."""
    told = []
    for file in files:
        fd = _open(file)
        try:
            size = os.fstat(fd).st_size
            head = os.pread(fd, formats.HEAD, 0)
            look = [sys.executable, "-I", "-S", str(_HEADER), f"/proc/self/fd/{fd}"]
            done = subprocess.run(
                look, pass_fds=[fd], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                timeout=_HEADER_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise BadModel(f"{file} cannot be read", f"its header took over {_HEADER_S:.0f} s") from error
        finally:
            os.close(fd)
        if done.returncode:
            if known := formats.no_gguf(file.name, head):
                raise BadModel(f"{file.name} is not taken", *known)
            why = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise BadModel(f"{file.name} cannot be taken", why[-1] if why else "its header cannot be read")
        told.append((file, size))
    return told


async def pieces(file: Path, size: int, tell: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The `size` bytes of a file, read in a thread; `tell` gets how many have gone. Raises `BadModel` if there are
    fewer, or if the file was written to meanwhile."""
    fd = _open(file)
    try:
        before, gone = _identity(fd), 0
        while gone < size:
            data = await asyncio.to_thread(os.read, fd, min(1 << 20, size - gone))
            gone += len(data)
            if not data or (gone == size and (_identity(fd) != before or os.fstat(fd).st_size != size)):
                raise BadModel(f"{file.name} was changed while it was read", todo="wait until it is complete")
            yield data
            tell(gone)
    finally:
        os.close(fd)


def _identity(fd: int) -> tuple[int, int, int]:
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _open(file: Path) -> int:
    """For reading, without waiting on a pipe."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"{file} is not there", todo="name a .gguf file or a folder with one") from None
    except OSError as error:
        raise BadModel(f"{file} cannot be read", error.strerror or str(error), "mend its mode or owner") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadModel(f"{file} is no file", "it is a pipe, a device or a socket", "name a .gguf file")
    return fd
