"""What the tests of access share: a house with its first admins, and two users that every host has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from house import FIRST, House

from core.access.people import actor_named
from core.nouns import Actor
from core.paths import Paths
from core.store import Store


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir(parents=True, exist_ok=True)
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.access"))
    house = House(store, paths)
    await house.access.start(FIRST)
    await house.keys.start()
    yield house
    await store.close()


@pytest.fixture
async def ada() -> Actor:
    """The user `bin`."""
    return await actor_named("bin")


@pytest.fixture
async def bob() -> Actor:
    """The user `daemon`."""
    return await actor_named("user:daemon")
