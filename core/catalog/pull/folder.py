"""What lies on the disk of pulls: one folder each, beside the models' objects."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from core.catalog.pull.download import read_kept

log = logging.getLogger(__name__)


def here(folder: Path) -> int:
    """Bytes of a pull that count."""
    parts = folder.glob("*.gguf")
    return sum(kept.synced for path in parts if (kept := read_kept(path)) is not None)


def tidy(folder: Path, wanted: set[str]) -> None:
    """Remove what a crash left of pulls that are over."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in wanted:
            log.warning("%s belongs to no pull and is removed", path)
            shutil.rmtree(path, ignore_errors=True)
