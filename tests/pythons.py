"""`make test-pythons`: the tests that need no daemon, and one journey, with every other Python that the program takes.

Each gets a virtual environment of its own beside .venv (.venv-3.12 …), which git does not see. Each step ends within
its time, whatever hangs in it; one that does not is told and has failed.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[1]
MINORS = (11, 12, 13)
PYTEST = ["-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup"]
RUNS = (["-m", "not journey and not soak and not engines"], ["tests/journeys/test_road.py", "-k", "test_the_road"])
STEP_S = 1800.0
CLEARING_S = 60.0
"""What a step that took too long gets to end what it started."""


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
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None


def run(
    step: Sequence[str], env: Mapping[str, str] = MappingProxyType({}), seconds: float = STEP_S,
    clearing: float = CLEARING_S,
) -> bool:  # fmt: skip
    """Whether it ended well and in time. pytest ends what its tests started when it is interrupted; if it does
    not do so either, the step's process group is killed."""
    process = subprocess.Popen(step, cwd=ROOT, env={**os.environ, **env}, start_new_session=True)
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        print(f"corral: it took more than {seconds:g} s and is ended: {' '.join(step)}", file=sys.stderr)
        return False
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(clearing)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def main() -> int:
    failed = []
    for minor in MINORS:
        python = None if minor == sys.version_info.minor else found(minor)
        if python is None:
            continue
        name = f".venv-3.{minor}"
        print(f"corral: Python 3.{minor} ({python})", file=sys.stderr)
        steps = [[f"{name}/bin/python", *PYTEST, *each] for each in RUNS]
        if not run([python, "core/bootstrap.py", "--dev"], {"CORRAL_VENV": name}) or not all(map(run, steps)):
            failed.append(f"3.{minor}")
    if failed:
        print(f"corral: it failed with Python {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
