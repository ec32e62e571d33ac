"""What pyproject.toml cannot say: the gateway of a wheel is compiled by mypyc where that can be done (decision 0012).

By default it is compiled where there is a C compiler and Python's headers, and if the compiler then fails the wheel has
Python instead. CORRAL_COMPILED=1: it must be, or there is no wheel; 0: it is not. An editable install never is, so that
no compiled module hides one that was edited.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

COMPILED = (
    "admission", "asker", "bodies", "clock", "core", "counting", "crowd", "exchange", "framing", "gauges", "heads",
    "keys", "limits", "listener", "outbox", "places", "routes", "seating", "several", "subjects", "upstream",
    "usage", "users", "windows",
)  # fmt: skip
"""Of core/gateway, those that each request goes through. What may not stand in them is in decision 0012, and
tests/gateway/test_compiled.py looks for it."""
ASKED = os.environ.get("CORRAL_COMPILED", "")


def can() -> bool:
    """Whether there is what compiling needs."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(os.environ.get("CC", "cc").split()[0]) is not None and headers.exists()


WANTED = ASKED == "1" or (ASKED != "0" and can())


def extensions() -> list:
    from mypyc.build import mypycify

    return mypycify([f"core/gateway/{name}.py" for name in COMPILED], group_name="corral_gateway")


class Build(build_ext):
    """All of them or none: each is a door to one library, and a door without it an ImportError at the first start."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            if ASKED == "1":
                raise
            self.warn(f"the gateway is not compiled and runs as Python: {error}")
            for made in Path(self.build_lib).rglob("*.so"):
                made.unlink()


setup(
    # What a build needs is asked first, before it is there.
    setup_requires=["mypy==2.4.1", "msgspec>=0.19", "httptools>=0.6.4"] if WANTED else [],
    ext_modules=extensions() if WANTED and "bdist_wheel" in sys.argv else [],
    cmdclass={"build_ext": Build},
)
