"""Objects that no model is made of: what a crash between the file and its record left behind goes at the next start.

Only what this database itself left behind. An object that another database may want (this one is new, because the one
before was corrupt and was set aside) is somebody's model: it is kept, and named in `objects.json` beside the database.
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


def sweep(models: Path, database_id: str, wanted: set[str]) -> list[str]:
    """Remove the objects under `models` that are not `wanted` (SHA-256s); those removed. Kept ones are left alone."""
    there = {path.name: path for path in _objects(models / "objects")}
    known = _known(models.with_name("objects.json"))
    same = known.get("database") == database_id
    unwanted = set(there) - wanted
    kept = unwanted & set(known.get("kept", ())) if same else unwanted
    if kept:
        log.warning("%d objects of another database are kept under %s", len(kept), models / "objects")
    if not same or sorted(kept) != known.get("kept"):
        _remember(models.with_name("objects.json"), {"database": database_id, "kept": sorted(kept)})
    gone = sorted(unwanted - kept)
    for sha256 in gone:
        log.warning("object %s belongs to no model and is removed", sha256)
        remove(there[sha256])
    return gone


def remove(path: Path) -> None:
    """An object: a file, or the folder of a split model."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _objects(folder: Path) -> Iterator[Path]:
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
