"""What the journeys share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
from sharedhost import Host


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="corral-") as folder:
        scratch = Path(folder)
        scratch.chmod(0o755)
        made = Host(scratch)
        try:
            yield made
        finally:
            made.end()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk that fails on command."""
    return faults.build(tmp_path_factory.mktemp("faults"))
