"""A store for usage."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from metered import PACKAGES, Usage

from core.paths import Paths
from core.store import Store


@pytest.fixture
async def usage(tmp_path: Path) -> AsyncIterator[Usage]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=PACKAGES)
    yield Usage(paths, store)
    await store.close()
