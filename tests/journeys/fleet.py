"""A fleet of doubles under the real daemon: engines that are ready at once, by `llama-server`'s name."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import faults
from command import ask, corral, until

from core.nodes import proc
from core.paths import user_paths

DOUBLE = Path(__file__).with_name("engine_double.py")
CONFIG = """
[engines]
llama_server = "{engine}"
[capacity]
reserve_bytes = 1
[replicas]
backoff_s = [0.05, 600]
"""


def install(home: Path, *, more: str = "", program: str = "", pause: float = 0.01, counts: str = "") -> None:
    """Make llama-server the double, which pauses so many seconds after each of its 24 pieces and counts what it made in
    the file `counts`, or a shell script; `more` lines for [replicas]."""
    engine = home / "llama-server"
    double = f'DOUBLE_COUNTS="{counts}" DOUBLE_PAUSE_S={pause} exec "{sys.executable}" -I -S "{DOUBLE}" "$@"'
    engine.write_text(f"#!/bin/sh\n{program or double}\n")
    engine.chmod(0o755)
    user_paths().config.write_text(CONFIG.format(engine=engine) + more)


def take(folder: Path) -> None:
    """Import a tiny model."""
    corral("models", "import", str(faults.tiny(folder)), "--name", "tiny")


def deploy(*more: str, code: int = 0) -> str:
    """Deploy it as `one`; what the command said."""
    return corral("deploy", "tiny", "--name", "one", "--ctx", "256", "--engine", "llama-server", *more, code=code)


def deployed(folder: Path) -> dict[str, Any]:
    """Its replica when it is ready."""
    take(folder)
    deploy("--wait")
    (replica,) = ask("ps")
    return dict(replica)


def kill(*pids: int) -> None:
    """kill -9, and wait until they are gone."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(proc.start_time(pid) is None for pid in pids))
