"""A disk that fails on command under the real daemon: faults.c preloaded, and one page shared with it.

Chosen over strace (not on every machine, and a process under ptrace is five times slower), a small tmpfs (root only,
and it knows no EIO) and an SQLite VFS (it sees no write of Python's own): the fault stands where the disk's would, in
what libc returns, for SQLite and Python alike. Needs a C compiler; without one the tests are skipped by name.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from core.client import Client
from core.errors import CorralError
from core.paths import user_paths

SOURCE = Path(__file__).with_name("faults.c")
HEAD = struct.Struct("=qqqqqq24s")
NAME, NAMES = 56, 8192
EVER = 1 << 62
KILL = -1
"""As an error: the daemon is killed at that write."""


def build(folder: Path) -> Path:
    """The library; skips where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: faults are injected by a preloaded library")
    library = folder / "faults.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"faults.c does not compile here: {done.stderr[-300:]}")
    return library


class Disk:
    """What the test says to the preloaded library, and what it hears of it."""

    def __init__(self, library: Path, control: Path, tier: Path | None = None) -> None:
        """`tier`: another folder whose writes may fail."""
        self._library, self._control, self._tier = library, control, tier
        with control.open("wb") as file:
            file.truncate(HEAD.size + NAME * NAMES)
        with control.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 0)

    def arm(self, at: int, error: int, *, lasting: bool = False, only: str = "") -> None:
        """The `at`-th write from now on fails, and with `lasting` all that follow, until `lift`. `only`: of names that
        begin so, `all`: also of models and of the tier."""
        self._page[: HEAD.size] = HEAD.pack(0, at, EVER if lasting else at, error, 0, 0, only.encode())

    def lift(self) -> None:
        """Nothing fails any more; the counts stay."""
        self._page[8:16] = bytes(8)

    def set_clock(self, seconds: int) -> None:
        """Set the daemon's clock forward (or back) by so much against the host's."""
        self._page[40:48] = struct.pack("=q", seconds)

    @property
    def count(self) -> int:
        return int(HEAD.unpack_from(self._page)[0])

    @property
    def failed(self) -> int:
        return int(HEAD.unpack_from(self._page)[4])

    def names(self) -> list[str]:
        """What each write since `arm` was: the call and the file."""
        found = [self._page[HEAD.size + n * NAME :][:NAME] for n in range(min(self.count, NAMES))]
        return [each.split(b"\0", 1)[0].decode() for each in found]

    def environment(self) -> dict[str, str]:
        return dict(
            os.environ, LD_PRELOAD=str(self._library), CORRAL_FAULT_CONTROL=str(self._control),
            CORRAL_FAULT_FOLDER=os.path.realpath(user_paths().state), CORRAL_FAULT_TIER=str(self._tier or ""),
        )  # fmt: skip


class Program:
    """The daemon of $CORRAL_HOME in the foreground, on that disk."""

    def __init__(self, disk: Disk, said: Path) -> None:
        self.disk, self._said = disk, said
        said.touch()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Start it and wait until it serves (True) or has ended (False)."""
        path = user_paths().socket
        with self._said.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "core", "--foreground"],
                env=self.disk.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while self.process.poll() is None:
            try:
                # A child that was about to execute may hold the old daemon's socket for a moment.
                if asyncio.run(Client(path).status()).daemon.pid == self.process.pid:
                    return True
            except CorralError:
                assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        return False

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def said(self) -> str:
        """Its log and its last words, of all starts."""
        return self._said.read_text(errors="replace")


def edge(names: list[str], n: int) -> bool:
    """Whether the n-th write is one of the first two or the last of a run to the same file."""
    same = [names[i - 1] if 1 <= i <= len(names) else "" for i in (n - 2, n - 1, n, n + 1)]
    return not (same[0] == same[1] == same[2] == same[3])


def name_of(error: int) -> str:
    return "kill -9" if error == KILL else errno.errorcode[error]


def open_intents(db: Any) -> list[Any]:
    """Effects whose outcome is not recorded."""
    found = db.execute(
        "SELECT seq, verb, object FROM audit a WHERE outcome = 'intent' AND NOT EXISTS"
        " (SELECT 1 FROM audit b WHERE b.effect = a.effect AND b.seq > a.seq)"
    )
    return list(found.fetchall())


def tiny(folder: Path) -> Path:
    """A model of a few KiB, for the double."""
    spec = importlib.util.spec_from_file_location("gguf_maker", Path(__file__).parents[1] / "catalog/gguf_maker.py")
    assert spec and spec.loader
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    path = folder / "tiny.gguf"
    path.write_bytes(maker.make())
    return path
