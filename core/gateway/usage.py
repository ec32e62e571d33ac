"""Usage lines: an append-only spool in numbered batches that are kept until the daemon has committed them.

Each launch of a gateway writes a file of its own, `<launch>.jsonl`, and holds its lock while it lives. Whose lock is
free has died or was replaced: the gateway that serves sends what is left of it, oldest first, and removes it. Beside
it stands how far those requests had come, a second ago, that run (`<launch>.running`): of a gateway that was killed
these are lines too.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.gateway import wire

log = logging.getLogger("gateway")

GATEWAY_DIED = "gateway-died"
"""The outcome of a request that ran when its gateway was killed."""
SPOOL_BYTES = 32 << 20
LOCK_S = 1.0
"""How long a start waits for the lock of its own file, which somebody may look into."""
BATCH_LINES = 5000
"""Of a batch at most: some 2 MB, well below what a line on the control socket may be."""
_LINE_BYTES = 400
"""What a line that is not written yet is counted with."""


def _locked(file: Path) -> int:
    """The file, made where it is not there, with its lock. A gateway that serves takes one without a lock for a dead
    gateway's, and may come between the two: then it takes that file away, and there is another. Raises OSError."""
    end = time.monotonic() + LOCK_S
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            if time.monotonic() > end:
                os.close(descriptor)
                raise
            time.sleep(0.01)
        os.close(descriptor)


class Spool:
    """The batches of this launch, and those of dead gateways that `adopt` has found. Raises OSError when its folder
    cannot be written or another process is this launch."""

    def __init__(self, folder: Path, launch: str, *, bound: int = SPOOL_BYTES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = self.folder = folder
        self._bound = bound
        self.launch = launch
        self._lines: list[wire.UsageLine] = []
        self._denied: tuple[wire.Denied, ...] = ()
        self._batches: dict[str, deque[tuple[int, bytes]]] = {}
        self._adopted: dict[str, int] = {}
        self.bytes = 0
        self.left = bound // _LINE_BYTES
        """Lines that it has room for. Asked for each request, so it is counted and not reckoned."""
        file = self._file(launch)
        self._out = _locked(file)
        whole = self._read(file, launch)
        if whole < os.fstat(self._out).st_size:
            os.ftruncate(self._out, whole)
        last = self._batches[launch][-1][0] if launch in self._batches else 0
        self.n = max(last, self._mark())
        self._unsynced = False
        self._runs = True
        """Something may be written down as running."""
        self._recover(launch)

    def _file(self, launch: str) -> Path:
        return self._folder / f"{launch}.jsonl"

    def _mark(self) -> int:
        """The last number that was used when the file was emptied: a restart of this launch uses none twice."""
        try:
            return int(self._file(self.launch).with_suffix(".n").read_text())
        except (OSError, ValueError):
            return 0

    def _read(self, file: Path, launch: str) -> int:
        """Take the batches of a file; returns how many bytes of it are whole lines (a torn last one is none)."""
        data = file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                batch = msgspec.json.decode(line, type=wire.UsageBatch)
            except msgspec.DecodeError:
                log.warning("%s has a line that cannot be read; it is left out", file.name)
                continue
            self._keep(launch, batch.n, line)
        return len(whole)

    def _keep(self, launch: str, n: int, data: bytes) -> None:
        self._batches.setdefault(launch, deque()).append((n, data))
        self._weigh(len(data))

    def _weigh(self, more: int) -> None:
        self.bytes += more
        self.left = (self._bound - self.bytes) // _LINE_BYTES - len(self._lines)

    def adopt(self) -> None:
        """Take over what launches that have ended left behind."""
        for file in self._left():
            launch = file.stem
            if launch == self.launch or launch in self._adopted:
                continue
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # it lives: a gateway that was replaced and still ends its streams
                os.close(descriptor)
                continue
            self._adopted[launch] = descriptor
            self._read(file, launch)
            self._recover(launch)
            if launch not in self._batches:
                self._forget(launch)

    def running(self, lines: list[wire.UsageLine]) -> None:
        """Keep what the requests that run have used so far, in place of what was kept before. Called each second."""
        if not lines and not self._runs:
            return
        file = self._running(self.launch)
        try:
            if lines:
                temporary = file.with_suffix(".new")
                with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                    out.write(msgspec.json.encode(lines))
                temporary.replace(file)
            else:
                file.unlink(missing_ok=True)
        except OSError:  # of the disk's trouble the lines themselves tell
            return
        self._runs = bool(lines)

    def _running(self, launch: str) -> Path:
        return self._folder / f"{launch}.running"

    def _recover(self, launch: str) -> None:
        """Take what ran when a launch was killed, but for what had ended. (What has ended, and was committed already in
        the second before, the daemon leaves out.)"""
        file = self._running(launch)
        try:
            lines = msgspec.json.decode(file.read_bytes(), type=list[wire.UsageLine])
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError):
            log.warning("%s cannot be read; it is left out", file.name)
            lines = []
        batches = (msgspec.json.decode(data, type=wire.UsageBatch) for _, data in self._batches.get(launch, ()))
        ended = {line.id for batch in batches for line in batch.lines}
        for line in lines:
            if line.id not in ended:
                self.add(line)
        if self.flush() or not self._lines:
            file.unlink(missing_ok=True)

    def _left(self) -> list[Path]:
        """The files of all launches, oldest first; a gateway that was replaced removes what it has sent."""
        found = []
        for file in self._folder.glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                found.append((file.stat().st_mtime, file))
        return [file for _, file in sorted(found)]

    def _forget(self, launch: str) -> None:
        """Remove the file of a launch that has ended and is committed."""
        self._file(launch).unlink(missing_ok=True)
        self._file(launch).with_suffix(".n").unlink(missing_ok=True)
        self._running(launch).unlink(missing_ok=True)
        os.close(self._adopted.pop(launch))

    @property
    def first(self) -> int:
        """Number of this launch's first batch that is not acknowledged; `n + 1` if there is none."""
        mine = self._batches.get(self.launch)
        return mine[0][0] if mine else self.n + 1

    def __len__(self) -> int:
        """Batches that are not acknowledged, with the one that the next `flush` makes."""
        return sum(len(each) for each in self._batches.values()) + bool(self._lines or self._denied)

    def batches(self) -> Iterator[tuple[str, int, bytes]]:
        """(launch, n, JSON) of what is not acknowledged: dead launches first, each in order."""
        for launch in [*self._adopted, self.launch]:
            for n, data in self._batches.get(launch, ()):
                yield launch, n, data

    def add(self, line: wire.UsageLine) -> None:
        """Take one request's line; dropped when the spool is full (`serve_uncounted`)."""
        if self.left > 0:
            self.left -= 1
            self._lines.append(line)

    def deny(self, denied: tuple[wire.Denied, ...]) -> None:
        """Take who was turned away; goes with the next batch."""
        self._denied += denied

    def flush(self) -> bool:
        """Write what came since the last call, in batches. False if there was nothing or no room on disk; then
        the lines are kept for the next call."""
        wrote = False
        while (self._lines or self._denied) and self._write():
            wrote = True
        return wrote and not self._lines

    def _write(self) -> bool:
        lines = tuple(self._lines[:BATCH_LINES])
        data = msgspec.json.encode(wire.UsageBatch(launch=self.launch, n=self.n + 1, lines=lines, denied=self._denied))
        size = os.fstat(self._out).st_size
        try:
            if os.write(self._out, data + b"\n") != len(data) + 1:
                os.ftruncate(self._out, size)
                return False
        except OSError:
            return False
        del self._lines[: len(lines)]
        self._denied = ()
        self.n += 1
        self._keep(self.launch, self.n, data)
        self._unsynced = True
        return True

    def sync(self) -> None:
        """Bring what was written to the disk. Blocks for some ms: call it in a thread. Raises OSError."""
        if self._unsynced:
            self._unsynced = False
            os.fdatasync(self._out)

    def acknowledge(self, launch: str, n: int) -> None:
        """Forget what is committed; a file is emptied or removed when nothing is left in it."""
        batches = self._batches.get(launch)
        if batches is None:
            return
        while batches and batches[0][0] <= n:
            self._weigh(-len(batches.popleft()[1]))
        if batches:
            return
        del self._batches[launch]
        if launch != self.launch:
            self._forget(launch)
            return
        mark = self._file(launch).with_suffix(".n")
        try:
            temporary = mark.with_suffix(".new")
            temporary.write_text(str(self.n))
            temporary.replace(mark)
            os.ftruncate(self._out, 0)
        except OSError:
            return

    def close(self) -> None:
        """Write what is left and let go of the locks."""
        self.flush()
        self.running([])
        for descriptor in self._adopted.values():
            os.close(descriptor)
        os.close(self._out)
