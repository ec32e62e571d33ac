"""Tiers for tests: a folder on another file system, what lies in which, and disks of a size where one may mount."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import ME, maker

from core.catalog import Catalog
from core.catalog.tables import joint
from core.catalog.tiers import Rules
from core.nouns import MoveJob, Tier

SHM = Path("/dev/shm")


@contextlib.contextmanager
def elsewhere(beside: Path) -> Iterator[Path]:
    """A folder on another file system than `beside`; without one the test is skipped."""
    if not SHM.is_dir() or not os.access(SHM, os.W_OK) or SHM.stat().st_dev == beside.stat().st_dev:
        pytest.skip("there is no second file system: /dev/shm is not there")
    path = Path(tempfile.mkdtemp(prefix="corral-tier-", dir=SHM))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own of that size at `path`; where nobody may mount the test is skipped."""
    path.mkdir(mode=0o700)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", path], capture_output=True)
    if made.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], capture_output=True)


def large(folder: Path, n: int = 0, mib: int = 4) -> Path:
    """A model's file of so many MiB; each `n` is another content."""
    path = folder / f"large-{n}.gguf"
    tensors: list[tuple[str, list[int], int, int | None]] = [("w", [1024, 256 * mib], 0, None)]
    path.write_bytes(maker.make(tensors=tensors, fill=bytes([n + 1])))
    return path


async def add(catalog: Catalog, path: Path, name: str = "fast", **rules: Any) -> Tier:
    return await catalog.tiers.add(ME, "r", name, str(path), Rules(**rules))


async def moved(catalog: Catalog, wanted: str, to: str) -> MoveJob:
    """The move when it has ended."""
    job = await catalog.moves.start(ME, "r", wanted, to)
    return await catalog.moves.ended(job.id)


def copies(catalog: Catalog, sha256: str) -> list[str]:
    """The tiers in which an object lies, whatever the tables say."""
    return sorted(name for name in catalog.objects.folders if catalog.objects.place(sha256, name).exists())


def hashed(object: Path) -> tuple[str, int]:
    """An object's hash and bytes by what lies there: of a file, or of the folder of a split model."""
    parts = [each.read_bytes() for each in (sorted(object.iterdir()) if object.is_dir() else [object])]
    hashes = [hashlib.sha256(part).hexdigest() for part in parts]
    return joint(hashes) if object.is_dir() else hashes[0], sum(map(len, parts))


async def sound(catalog: Catalog) -> None:
    """What must hold whatever happened: each stored object lies in its tier, whole, and nowhere else, and belongs to a
    version; nothing is on its way or promised; no tier holds more than it takes."""
    rows = await catalog._store.read(
        lambda db: db.execute("SELECT sha256, tier, bytes FROM objects WHERE state = 'stored'").fetchall()
    )
    made = await catalog._store.read(lambda db: db.execute("SELECT DISTINCT sha256 FROM version_objects").fetchall())
    assert {sha256 for sha256, _, _ in rows} <= {sha256 for (sha256,) in made}
    for sha256, tier, size in rows:
        assert copies(catalog, sha256) == [tier]
        assert hashed(catalog.objects.place(sha256, tier)) == (sha256, size)
    for name, path in catalog.objects.folders.items():
        there = {each.name for each in path.glob("objects/*/*")}
        assert there == {sha256 for sha256, tier, _ in rows if tier == name}, name
        for below in (path / "incoming", path / "pulls"):
            assert not below.is_dir() or not list(below.iterdir())
    promised = await catalog._store.read(lambda db: db.execute("SELECT * FROM tier_reservations").fetchall())
    assert not promised and not catalog.tiers.ledger.live
    for each in await catalog.tiers.ls():
        assert not each.capacity or each.stored_bytes + each.aside_bytes <= each.capacity
