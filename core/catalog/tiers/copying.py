"""One object copied into another tier: written, put on the disk, and read back past the page cache.

What is compared is what the new disk gives back. A copy that is not what it should be is told apart from an original
that was not.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from core import fulldisk
from core.catalog.tiers import cold
from core.errors import Failed
from core.nouns import ModelFile

Progress = Callable[[str, int], None]
"""State, and bytes done in it."""


class Cancelled(Exception):
    """Raised in the copying thread."""


class Copying:
    """Only moves make one. `stop` ends it at the next piece."""

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self._progress, self._stop = progress, stop
        self._done: dict[str, int] = {"copying": 0, "verifying": 0}

    def copy(self, source: Path, parts: Sequence[ModelFile], work: Path) -> None:
        """In a thread. Put the files of the object at `source` into the folder `work`, by their names. Raises `Failed`,
        `NoRoom`, `Cancelled`."""
        try:
            work.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in parts:
                self._write(source / part.name if len(parts) > 1 else source, work / part.name)
            for part in parts:
                self._verify(source / part.name if len(parts) > 1 else source, work / part.name, part)
        except OSError as error:
            raise fulldisk.fault(error, "the model could not be copied", "the tier's disk") from error

    def _write(self, source: Path, target: Path) -> None:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                while data := os.read(fd, cold.CHUNK):
                    view = memoryview(data)
                    while view:
                        view = view[os.write(out, view) :]
                    self._tell("copying", len(data))
                os.fsync(out)
                os.posix_fadvise(out, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(out)
        finally:
            os.close(fd)

    def _verify(self, source: Path, target: Path, part: ModelFile) -> None:
        digest = hashlib.sha256()
        for piece in cold.pieces(target):
            digest.update(piece)
            self._tell("verifying", len(piece))
        if digest.hexdigest() == part.sha256:
            return
        with source.open("rb") as original:
            whole = hashlib.file_digest(original, "sha256").hexdigest() == part.sha256
        if whole:
            raise Failed(
                "the new copy is not what was written", f"SHA-256 {digest.hexdigest()[:16]}… was read back",
                "the tier's disk does not keep what it is given: look at it before anything is stored there",
            )  # fmt: skip
        raise Failed("the stored file is not what it was", todo="corral models verify says whom that concerns")

    def _tell(self, state: str, count: int) -> None:
        if self._stop.is_set():
            raise Cancelled
        self._done[state] += count
        self._progress(state, self._done[state])
