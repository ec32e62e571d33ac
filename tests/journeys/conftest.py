"""What the journeys share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

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
