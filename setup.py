"""What pyproject.toml cannot say: with CORRAL_COMPILED=1 a wheel's gateway is compiled by mypyc (decision 0012).

An editable install never is, so that no compiled module hides one that was edited.
"""

import os
import sys

from setuptools import setup

COMPILED = (
    "admission", "asker", "bodies", "clock", "core", "counting", "crowd", "exchange", "framing", "gauges", "heads",
    "keys", "limits", "listener", "outbox", "routes", "seating", "subjects", "upstream", "usage", "users",
    "windows",
)  # fmt: skip
"""Of core/gateway, those that each request goes through. What may not stand in them is in decision 0012, and
tests/gateway/test_compiled.py looks for it."""
WANTED = os.environ.get("CORRAL_COMPILED") == "1"


def extensions() -> list:
    from mypyc.build import mypycify

    return mypycify([f"core/gateway/{name}.py" for name in COMPILED], group_name="corral_gateway")


setup(
    # What a build needs is asked first, before it is there.
    setup_requires=["mypy==2.4.1", "msgspec>=0.19", "httptools>=0.6.4"] if WANTED else [],
    ext_modules=extensions() if WANTED and "bdist_wheel" in sys.argv else [],
)
