"""`make test-pythons`: the tests that need no daemon, and one journey, with every other Python that the program takes.

Each gets a virtual environment of its own beside .venv (.venv-3.12 …), which git does not see.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MINORS = (11, 12, 13)
PYTEST = ["-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup"]
RUNS = (["-m", "not journey and not soak and not engines"], ["tests/journeys/test_road.py", "-k", "test_the_road"])


def candidates(minor: int) -> Iterator[str]:
    if there := shutil.which(f"python3.{minor}"):
        yield there
    for folder in sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*"), reverse=True):
        yield str(folder / "bin/python3")


def found(minor: int) -> str | None:
    """The first that is what its name says (a shim of pyenv may be nothing at all)."""
    code = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, {minor}))"
    for each in candidates(minor):
        try:
            if subprocess.run([each, "-c", code], capture_output=True, timeout=20).returncode == 0:
                return each
        except OSError:
            continue
    return None


def main() -> int:
    failed = []
    for minor in MINORS:
        python = None if minor == sys.version_info.minor else found(minor)
        if python is None:
            continue
        name = f".venv-3.{minor}"
        print(f"corral: Python 3.{minor} ({python})", file=sys.stderr)
        env = {**os.environ, "CORRAL_VENV": name}
        steps = [[python, "core/bootstrap.py", "--dev"]] + [[f"{name}/bin/python", *PYTEST, *run] for run in RUNS]
        if any(subprocess.run(step, cwd=ROOT, env=env, timeout=1200).returncode for step in steps):
            failed.append(f"3.{minor}")
    if failed:
        print(f"corral: it failed with Python {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
