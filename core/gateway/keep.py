"""What subjects have used, in a file: after a kill -9 what was used in the last second or so is free."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import msgspec

from core.gateway import wire
from core.gateway.clock import boot_id
from core.gateway.subjects import Subjects

log = logging.getLogger("gateway")

VERSION = 1


class Keep:
    """`counts.json` in `folder`; `boot` is which boot of the host this is."""

    def __init__(self, folder: Path, subjects: Subjects, boot: str | None = None) -> None:
        self._file = folder / "counts.json"
        self._older = folder / "keys.json"
        """Of a gateway of one release back: what keys have used of their day."""
        self._subjects = subjects
        self._boot = boot_id() if boot is None else boot
        self._failed = False

    def load(self) -> None:
        """Go on from the file; one that cannot be read is as none, and said."""
        try:
            try:
                kept = msgspec.json.decode(self._file.read_bytes(), type=wire.Kept)
            except FileNotFoundError:
                uses = msgspec.json.decode(self._older.read_bytes(), type=dict[str, wire.Use])
                self._subjects.restore({f"key:{id}": use for id, use in uses.items()})
                return
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.error("what was used before is not known, so limits count from now on: %s", error)
            return
        same = bool(self._boot) and kept.boot == self._boot
        self._subjects.clock.go_on(kept.offset, kept.at, same)
        uses = kept.uses
        if not same:  # seconds of another boot
            uses = {id: msgspec.structs.replace(use, minutes={}) for id, use in uses.items()}
        self._subjects.restore(uses)

    def write(self, *, whole: bool = False) -> bool:
        """Called each second and at the end; `whole`: also if nothing has changed. A disk that refuses is said and
        tried again. Whether the file is as it should be."""
        if self._subjects.handing:
            return True  # the file is the other gateway's
        uses = self._subjects.kept()
        if uses is None and not whole and not self._failed:
            return True
        clock = self._subjects.clock
        now = clock.boot()
        kept = wire.Kept(
            version=VERSION, boot=self._boot, offset=clock.offset, at=clock.unix(now), uses=self._subjects.uses
        )
        temporary = self._file.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(kept))
            temporary.replace(self._file)
        except OSError as error:
            self._failed = True
            log.error("what was used of limits is not on the disk: %s", error.strerror)
            return False
        self._failed = False
        with contextlib.suppress(OSError):
            self._older.unlink(missing_ok=True)
        return True
