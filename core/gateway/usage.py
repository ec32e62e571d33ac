"""Usage lines: an append-only spool in numbered batches that are kept until the daemon has committed them."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

import msgspec

from core.gateway import wire

SPOOL_BYTES = 32 << 20


class Spool:
    """Batches of one folder: of this launch, and of dead gateways before it."""

    def __init__(self, folder: Path, launch: str, *, bound: int = SPOOL_BYTES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = folder / "usage.jsonl"
        self._mark = folder / "mark.json"
        self._bound = bound
        self.launch = launch
        self._lines: list[wire.UsageLine] = []
        self.pending: deque[tuple[str, int, bytes]] = deque()
        self.bytes = 0
        self.n = self._read()
        self._out = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _read(self) -> int:
        """Find what was spooled; a torn last line is cut off. Returns the last number of this launch."""
        last = 0
        try:
            mark = msgspec.json.decode(self._mark.read_bytes(), type=dict[str, int])
            last = mark.get(self.launch, 0)
        except (OSError, msgspec.DecodeError):
            pass
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return last
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            os.truncate(self._file, len(whole))
        for line in whole.splitlines():
            try:
                batch = msgspec.json.decode(line, type=wire.UsageBatch)
            except msgspec.DecodeError:
                continue
            self.pending.append((batch.launch, batch.n, line))
            self.bytes += len(line)
            if batch.launch == self.launch:
                last = max(last, batch.n)
        return last

    @property
    def full(self) -> bool:
        return self.bytes + 400 * len(self._lines) > self._bound

    @property
    def first(self) -> int:
        """Number of this launch's first batch that is not acknowledged."""
        return next((n for launch, n, _ in self.pending if launch == self.launch), self.n + 1)

    def add(self, line: wire.UsageLine) -> None:
        """Take one request's line; dropped when the spool is full (`serve_uncounted`)."""
        if not self.full:
            self._lines.append(line)

    def flush(self) -> bool:
        """Write what came since the last call as one batch. False if there was nothing or no room on disk; then
        the lines are kept for the next call."""
        if not self._lines:
            return False
        data = msgspec.json.encode(wire.UsageBatch(launch=self.launch, n=self.n + 1, lines=tuple(self._lines)))
        size = os.fstat(self._out).st_size
        try:
            if os.write(self._out, data + b"\n") != len(data) + 1:
                os.ftruncate(self._out, size)
                return False
        except OSError:
            return False
        self._lines.clear()
        self.n += 1
        self.pending.append((self.launch, self.n, data))
        self.bytes += len(data)
        return True

    def acknowledge(self, launch: str, n: int) -> None:
        """Forget what is committed; the file is emptied when nothing is left in it."""
        kept = [each for each in self.pending if each[0] != launch or each[1] > n]
        if len(kept) == len(self.pending):
            return
        self.pending = deque(kept)
        self.bytes = sum(len(each[2]) for each in kept)
        if not kept:
            # The number outlives the file, so that a restart of this launch never uses one twice.
            temporary = self._mark.with_suffix(".new")
            try:
                temporary.write_bytes(msgspec.json.encode({self.launch: self.n}))
                temporary.replace(self._mark)
                os.ftruncate(self._out, 0)
            except OSError:
                return

    def close(self) -> None:
        self.flush()
        os.close(self._out)
