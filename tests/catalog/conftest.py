"""What the tests of pulls and of tiers share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hub_double import HubDouble
from pullworld import NAME, REPO, World, model
from stores import opened
from tiered import elsewhere

from core.catalog import Catalog, files
from core.catalog.pull import download


@pytest.fixture
async def hub() -> AsyncIterator[HubDouble]:
    made = HubDouble()
    await made.begin()
    try:
        yield made
    finally:
        await made.end()


@pytest.fixture
async def world(tmp_path: Path, hub: HubDouble) -> AsyncIterator[World]:
    made = World(tmp_path, hub)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and syncs of sizes that small files have; and a disk that need not have 256 MiB to spare."""
    monkeypatch.setattr(download, "PIECE", 4096)
    monkeypatch.setattr(download, "SYNC", 16384)
    monkeypatch.setattr(files, "SPARE", 0)


@pytest.fixture
def data(hub: HubDouble) -> bytes:
    """A model of 200 KB in a repository of its own, and on the plain server."""
    made = model(200_000)
    hub.repos[REPO] = {NAME: made}
    hub.files["tiny.gguf"] = made
    return made


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with opened(tmp_path) as made:
        yield made


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    with elsewhere(tmp_path) as path:
        yield path
