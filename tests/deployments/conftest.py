"""A replica in a world of doubles."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.open()
    yield made
    await made.close()
