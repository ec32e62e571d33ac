"""Where bytes lie: one object a content, a file or the folder of a split model, under `objects/` of its tier."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from core.catalog import files
from core.catalog.sweep import remove
from core.catalog.tables import object_of
from core.nouns import Model, ModelFile


class Objects:
    """Only the catalog calls it. `lock` is held from the look at the versions to an object's place or end: a removal
    and an import of equal content."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lock = asyncio.Lock()

    @property
    def incoming(self) -> Path:
        """Where files are made whole before they have a place."""
        return self.home / "incoming"

    @property
    def quarantine(self) -> Path:
        """Where bytes lie that are not what they were."""
        return self.home / "quarantine"

    def place(self, sha256: str) -> Path:
        return self.home / "objects" / sha256[:2] / sha256

    def path(self, model: Model) -> Path:
        """The file that an engine opens (the first part of a split model)."""
        place = self.place(object_of(model.files))
        return place / model.files[0].name if len(model.files) > 1 else place

    def beside(self, part: ModelFile) -> Path:
        """A projector or an adapter."""
        return self.place(part.sha256)

    def keep(self, model: Model, work: Path) -> None:
        """Move the files of a new version from `work` to their places; equal ones that are there stay."""
        place = self.place(object_of(model.files))
        for part in model.files:
            files.keep(work / part.name, place / part.name if len(model.files) > 1 else place)
        for part in (*((model.projector,) if model.projector else ()), *model.adapters):
            files.keep(work / part.name, self.place(part.sha256))

    def set_aside(self, sha256: str) -> None:
        """Take it out of its place, without losing it: it is not what it was."""
        self.quarantine.mkdir(mode=0o700, exist_ok=True)
        self.place(sha256).rename(self.quarantine / f"{sha256}-{time.time_ns()}")

    def remove(self, sha256: str) -> None:
        """Free its bytes; what an engine has open stays until it closes it."""
        remove(self.place(sha256))
