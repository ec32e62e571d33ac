"""Objects that no model is made of: what a crash between the file and its record left behind goes at the next start.

Only what this database itself left behind. An object that another database may want (this one is new, because the one
before was corrupt and was set aside, or the tier was another one's) is somebody's model: it is kept, and named in
`objects.json` beside the database, or in the tier.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def sweep(models: Path, database_id: str, wanted: set[str], memory: Path) -> list[str]:
    """Remove the objects under `models` that are not `wanted` (SHA-256s); those removed. Kept ones are left alone, and
    named in the file `memory`."""
    there = {path.name: path for path in lying(models)}
    known = _known(memory)
    same = known.get("database") == database_id
    unwanted = set(there) - wanted
    kept = unwanted & set(known.get("kept", ())) if same else unwanted
    if kept:
        log.warning("%d objects of another database are kept under %s", len(kept), models / "objects")
    if not same or sorted(kept) != known.get("kept"):
        _remember(memory, {"database": database_id, "kept": sorted(kept)})
    gone = sorted(unwanted - kept)
    for sha256 in gone:
        log.warning("object %s belongs to nothing in %s and is removed", sha256, models)
        with contextlib.suppress(OSError):  # it takes no changes now
            remove(there[sha256])
    return gone


def kept(memory: Path, database_id: str) -> set[str]:
    """The objects of another database that a sweep has left alone."""
    known = _known(memory)
    return set(known.get("kept", ())) if known.get("database") == database_id else set()


def remove(path: Path) -> None:
    """An object: a file, or the folder of a split model."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def lying(models: Path) -> Iterator[Path]:
    """The objects under a tier's folder."""
    folder = models / "objects"
    for group in folder.iterdir() if folder.is_dir() else ():
        if len(group.name) == 2 and group.is_dir():
            yield from (path for path in group.iterdir() if len(path.name) == 64)


def _known(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("kept"), list) else {}


def _remember(path: Path, told: dict[str, object]) -> None:
    """Whole or not at all. A disk that takes nothing leaves the old one, and nothing is swept by mistake."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(told) + "\n")
        fd = os.open(new, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        new.rename(path)
