"""Starts the gateway: `python -P -m core.gateway`, everything from the environment, everything imported at start."""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
from pathlib import Path

import uvloop

from core.gateway.serving import Serving
from core.memory import give_back, keep_in_memory, no_dumps

log = logging.getLogger("gateway")

YOUNG = 50_000
"""Objects made and not freed yet after which cycles are looked for. What a request leaves behind (a line of usage) is
none: at Python's 700, looking for them took a twentieth of the gateway's time."""


async def _serve(folder: Path, listen: Path, launch: str, owner: int, swapped: str) -> None:
    await Serving(folder, listen, launch, owner, swapped).run()


def main() -> int:
    """Exit codes: 0 ended on request or handed over, 1 it cannot listen or write its folder, 2 the environment is
    wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        folder = Path(os.environ["CORRAL_GATEWAY_DIR"])
        listen = Path(os.environ["CORRAL_GATEWAY_SOCKET"])
        launch = os.environ["CORRAL_GATEWAY_LAUNCH"]
        owner = int(os.environ["CORRAL_GATEWAY_OWNER"])
    except (KeyError, ValueError) as error:
        log.error("the environment lacks or garbles %s", error)
        return 2
    os.umask(0o077)
    no_dumps()
    give_back()
    swapped = keep_in_memory()
    if swapped:
        log.warning("what passes through may be written to swap: %s", swapped)
    # Two descriptors a stream: the usual soft limit of 1024 would end at 500 streams.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        uvloop.run(_serve(folder, listen, launch, owner, swapped))
    except OSError as error:
        log.error("%s: %s", error.filename or folder, error.strerror)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
