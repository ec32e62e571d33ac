"""`make test-compiled`: the gateway's tests with a gateway that is compiled (decision 0012).

The wheel is built from a copy of the clone and put into an environment of its own, .venv-compiled, which takes all
else from .venv; it is made anew when what it is made of has changed. Without a C compiler it says so and ends well.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv-compiled"
PYTHON = VENV / "bin" / "python"
PARTS = ("core", "tui", "setup.py", "pyproject.toml")
WORDS = ("README.md", "LICENSE")
"""That a wheel has too, and is not made anew for."""
BUILD_S = 900.0


class Without(Exception):
    """Why nothing can be compiled here."""


def _key() -> str:
    """Of all that the wheel is made of, and of the Python that it is for."""
    found = hashlib.sha256(sys.version.encode())
    for part in PARTS:
        path = ROOT / part
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix not in (".pyc", ".so"):
                found.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


def python() -> Path:
    """The Python of an environment in which the gateway is compiled, as it is in this clone now. Raises `Without`, and
    CalledProcessError where the build fails."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        raise Without("there is no C compiler (Debian: apt install gcc)")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise Without("there are no headers of this Python (Debian: apt install python3-dev)")
    with Path(sys.prefix, "compiled.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, key = VENV / "made-of", _key()
        if not made.exists() or made.read_text() != key:
            _make()
            made.write_text(key)
    return PYTHON


def _make() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, wheels = Path(folder, "source"), Path(folder, "wheels")
        source.mkdir()
        for part in (*PARTS, *WORDS):
            path = ROOT / part
            if path.is_dir():
                shutil.copytree(path, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
            else:
                shutil.copy(path, source / part)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        env = {**os.environ, "CORRAL_COMPILED": "1"}
        _run([*pip, "wheel", "-q", "--no-deps", "-w", str(wheels), str(source)], env)
        shutil.rmtree(VENV, ignore_errors=True)
        _run([sys.executable, "-m", "venv", "--without-pip", str(VENV)])
        (wheel,) = wheels.glob("*.whl")
        _run([*pip, "--python", str(PYTHON), "install", "-q", "--no-deps", str(wheel)])
    others = sysconfig.get_path("purelib")
    Path(sysconfig.get_path("purelib", vars={"base": str(VENV)}), "others.pth").write_text(f"{others}\n")


def _run(argv: list[str], env: dict[str, str] | None = None) -> None:
    subprocess.run(argv, check=True, timeout=BUILD_S, env=env)


def main() -> int:
    """Arguments are pytest's."""
    try:
        found = python()
    except Without as why:
        print(f"corral: test-compiled is skipped: {why}", file=sys.stderr)
        return 0
    except subprocess.SubprocessError as error:
        print(
            f"corral: the compiled gateway could not be built (its build needs the network): {error}", file=sys.stderr
        )
        return 1
    # Without -P the clone's own core, which is not compiled, would come first.
    argv = [str(found), "-P", "-m", "pytest", "-q", "-n", "3", "--dist", "loadgroup"]
    argv += sys.argv[1:] or ["tests/gateway"]
    return subprocess.run(argv, cwd=ROOT, env={**os.environ, "CORRAL_TEST_COMPILED": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main())
