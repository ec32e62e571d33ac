"""A daemon that waits less long: for tests of what it does when a time-out is over that no setting names."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

from command import until

from core import starting
from core.paths import user_paths

PROGRAM = """
import sys
from importlib import import_module
from core import __main__
for name, seconds in {constants!r}.items():
    module, _, constant = name.rpartition(".")
    assert hasattr(import_module(module), constant), name
    setattr(import_module(module), constant, seconds)
sys.argv = ["core"]
sys.exit(__main__.main())
"""


@contextlib.contextmanager
def daemon(constants: dict[str, float]) -> Iterator[None]:
    """The daemon of this home, with other values of these constants (`core.warned.LOOK_S`), in seconds."""
    argv = [sys.executable, "-P", "-c", PROGRAM.format(constants=constants)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
        try:
            until(lambda: asyncio.run(starting.answers(user_paths().socket)))
            yield
        finally:
            process.kill()
