"""What the tests of pulls share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hub_double import HubDouble
from pullworld import World


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
