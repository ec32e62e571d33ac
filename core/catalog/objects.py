"""Where bytes lie: one object a content, a file or the folder of a split model, under `objects/` of its tier."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from core.catalog import files
from core.catalog.sweep import remove
from core.catalog.tables import object_of
from core.nouns import HOME, Model, ModelFile

log = logging.getLogger(__name__)


class Objects:
    """Only the catalog calls it. `lock` is held from the look at the versions to an object's place or end: a removal,
    a move and an import of equal content."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folders: dict[str, Path] = {HOME: home}
        """Of each tier; its service keeps them."""
        self.lock = asyncio.Lock()

    @property
    def incoming(self) -> Path:
        """Where files are made whole before they have a place at home."""
        return self.incoming_of(HOME)

    @property
    def quarantine(self) -> Path:
        """Where bytes lie that are not what they were."""
        return self.quarantine_of(HOME)

    def incoming_of(self, tier: str) -> Path:
        """The same of a tier: on its own disk, so that what is whole gets its place at once."""
        return self.folders[tier] / "incoming"

    def quarantine_of(self, tier: str) -> Path:
        return self.folders[tier] / "quarantine"

    def place(self, sha256: str, tier: str = HOME) -> Path:
        return self.folders[tier] / "objects" / sha256[:2] / sha256

    def path(self, model: Model) -> Path:
        """The file that an engine opens (the first part of a split model)."""
        place = self.place(object_of(model.files), model.tier)
        return place / model.files[0].name if len(model.files) > 1 else place

    def present(self, lying: dict[str, str], sizes: Mapping[str, int]) -> set[str]:
        """Those of these objects (with their tiers) whose place holds as many bytes as they have."""
        return {sha256 for sha256, tier in lying.items() if _size(self.place(sha256, tier)) == sizes[sha256]}

    def keep(self, model: Model, work: Path, tier: str, there: Collection[str], made: list[str]) -> None:
        """Move the files of a new version from `work` to their places in `tier`, but for the objects that are `there`
        already, in whichever tier. Those whose place was empty before are added to `made`."""
        own = object_of(model.files)
        beside = (*((model.projector,) if model.projector else ()), *model.adapters)
        for sha256, parts in ((own, model.files), *((each.sha256, (each,)) for each in beside)):
            if sha256 in there:
                continue
            place = self.place(sha256, tier)
            if not place.exists():
                made.append(sha256)
            self.put(sha256, tier, parts, work)

    def put(self, sha256: str, tier: str, parts: Collection[ModelFile], work: Path) -> None:
        """Move the complete files of an object from `work` to its place; what lies there gives way."""
        place = self.place(sha256, tier)
        for part in parts:
            files.keep(work / part.name, place / part.name if len(parts) > 1 else place)

    def set_aside(self, sha256: str, tier: str) -> None:
        """Take it out of its place, without losing it: it is not what it was."""
        self.quarantine_of(tier).mkdir(mode=0o700, exist_ok=True)
        self.place(sha256, tier).rename(self.quarantine_of(tier) / f"{sha256}-{time.time_ns()}")

    def left(self, sha256: str, tier: str) -> int:
        """Bytes that lie in its place there, whatever the tables say; 0 for an empty one."""
        return max(0, _size(self.place(sha256, tier)))

    def remove(self, sha256: str, tier: str) -> None:
        """Free its bytes; what an engine has open stays until it closes it. A tier that is away, or takes no changes,
        keeps them until it is swept."""
        try:
            remove(self.place(sha256, tier))
        except OSError as error:
            log.warning("%s stays on %s for now: %s", sha256, tier, error.strerror or error)


def _size(place: Path) -> int:
    """Bytes of the file there, or of those in the folder; -1 for an empty place."""
    try:
        return sum(each.stat().st_size for each in place.iterdir()) if place.is_dir() else place.stat().st_size
    except OSError:
        return -1
