"""The npm package of OpenAI's client, fetched once into the user's cache folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

VERSION = "6.49.0"
WAIT_S = 120


class Absent(Exception):
    """Why it cannot be used here."""


def folder() -> Path:
    home = Path(os.environ.get("HOME") or Path.home())
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "corral" / "clients" / f"openai-{VERSION}"


def fetched() -> tuple[str, Path]:
    """`node`, and the folder whose node_modules holds the client. Raises `Absent`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Absent(f"there is no {'node' if node is None else 'npm'} here")
    root = folder()
    done = root / "done"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers fetch once
        if not done.exists():
            _fetch(npm, root)
            done.touch()
    return node, root


def _fetch(npm: str, root: Path) -> None:
    """No script of a package is run."""
    (root / "package.json").write_text('{"private": true}')
    options = (
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--loglevel=error",
        "--fetch-retries=1",
    )
    try:
        made = subprocess.run(
            [npm, "install", *options, f"openai@{VERSION}"], cwd=root, capture_output=True, text=True, timeout=WAIT_S
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"npm did not fetch it within {WAIT_S} s") from None
    if made.returncode:
        raise Absent(f"npm did not fetch it (is there a network?): {made.stderr[-300:]}")
