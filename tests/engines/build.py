"""Build llama-server and llama-cpp-python from one source package into the user's cache, for `make test-engines`.

Standard library only. One build takes some 7 minutes on 2 cores and is kept, keyed by the hash of package and options;
a second call finds it in milliseconds, two at once build once, a call that was cut off is gone on with by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
"""Of the source package llama-cpp-python VERSION; it carries llama.cpp whole."""
NEEDS_BYTES = 1500 << 20
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_WEBUI=OFF",
    # So that the folder can be moved, and llama_cpp can find the libraries beside each other.
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    # Not for this very CPU: a virtual machine may show features that it traps (AMX: illegal instruction), and the
    # cache may be on a disk that other hosts see. Without AVX2 neither this nor xllamacpp's wheel runs.
    "-DGGML_NATIVE=OFF", "-DGGML_AVX=ON", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON",
)  # fmt: skip
KEY = hashlib.sha256(" ".join((SHA256, *OPTIONS)).encode()).hexdigest()[:16]


class Stop(Exception):
    """The sentence for the person."""


class Built(NamedTuple):
    """What a finished build offers."""

    llama_server: Path
    python: Path
    """Of a virtual environment that has llama-cpp-python[server]."""


def engines_folder(environ: dict[str, str] | None = None) -> Path:
    """`engines` in the user's cache folder, as core.settings.cache_folder has it (which a bare python lacks)."""
    env = dict(os.environ) if environ is None else environ
    if env.get("CORRAL_HOME"):
        return Path(env["CORRAL_HOME"]) / "cache/engines"
    home = Path(env.get("HOME") or Path.home())
    return Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "corral/engines"


def found(folder: Path | None = None) -> Built | None:
    """The finished build, or None. Without `folder` also the one of the user where a CORRAL_HOME has none."""
    if folder is None:
        user = {key: value for key, value in os.environ.items() if key != "CORRAL_HOME"}
        return found(engines_folder()) or found(engines_folder(user))
    root = folder / KEY
    built = Built(root / "bin/llama-server", root / "venv/bin/python")
    try:
        done = json.loads((root / "done.json").read_text())
    except (OSError, ValueError):
        return None
    whole = done.get("version") == VERSION and os.access(built.llama_server, os.X_OK) and built.python.exists()
    return built if whole else None


def build(folder: Path | None = None) -> Built:
    """Build what is missing. Raises Stop with a sentence."""
    folder = folder or engines_folder()
    there = found(folder)
    if there:
        return there
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(f"{folder} cannot be made: {error.strerror}") from error
    with _locked(folder / "lock"):
        there = found(folder)
        if there:
            return there
        root = folder / KEY
        root.mkdir(exist_ok=True)
        _check(root)
        venv = _venv(root)
        sdist = _sdist(root, venv)
        _server(root, venv, sdist)
        _package(root, venv, sdist)
        for name in ("src", "build", "sdist"):
            shutil.rmtree(root / name, ignore_errors=True)
        (root / "done.json.new").write_text(json.dumps({"version": VERSION, "sha256": SHA256, "time": time.time()}))
        (root / "done.json.new").replace(root / "done.json")
    there = found(folder)
    if there is None:
        raise Stop(f"the build in {folder} is not whole: remove the folder and run the same command again")
    return there


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time; the lock goes with its process, so a killed build blocks nobody."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is running: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check(root: Path) -> None:
    free = shutil.disk_usage(root).free
    if free < NEEDS_BYTES:
        raise Stop(f"the disk of {root} has {free >> 20} MiB free and the build takes {NEEDS_BYTES >> 20}")
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        raise Stop("there is no C++ compiler: install one (Debian, Ubuntu: `apt install g++`)")


def _venv(root: Path) -> Path:
    """A virtual environment of its own: the project's stays free of what only this engine needs."""
    venv = root / "venv"
    works = (venv / "bin/python").exists() and not subprocess.run(
        [venv / "bin/python", "-m", "pip", "--version"], capture_output=True, timeout=60
    ).returncode
    if not works:
        say("making a virtual environment")
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)], "the virtual environment was not made")
    missing = [name for name in ("cmake", "ninja") if not _tool(venv, name)]
    if missing:
        say("installing " + " and ".join(missing))
        _pip(venv, "install", *missing)
    return venv


def _tool(venv: Path, name: str) -> str | None:
    own = venv / "bin" / name
    return str(own) if own.exists() else shutil.which(name)


def _sdist(root: Path, venv: Path) -> Path:
    path = root / "sdist" / f"llama_cpp_python-{VERSION}.tar.gz"
    if not path.exists():
        say(f"downloading llama-cpp-python {VERSION} (76 MB)")
        new = root / "sdist.new"
        shutil.rmtree(new, ignore_errors=True)
        _pip(
            venv, "download", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(new),
            f"llama-cpp-python=={VERSION}",
        )  # fmt: skip
        path.parent.mkdir(exist_ok=True)
        next(new.glob("llama_cpp_python-*.tar.gz")).replace(path)
        shutil.rmtree(new)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        path.unlink()
        raise Stop(f"the source package has sha256 {digest} and not {SHA256}: it was removed, nothing was built")
    return path


def _server(root: Path, venv: Path, sdist: Path) -> None:
    """cmake and ninja, at low priority; the finished files are moved into place in one step."""
    if (root / "bin/llama-server").exists():
        return
    source = root / "src"
    if not source.exists():
        say("unpacking")
        with tarfile.open(sdist) as archive:
            archive.extractall(root / "src.new", filter="data")
        next((root / "src.new").iterdir()).replace(source)
        (root / "src.new").rmdir()
    cmake, ninja = _tool(venv, "cmake"), _tool(venv, "ninja")
    assert cmake and ninja
    say("configuring")
    _run(
        [cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", str(source / "vendor/llama.cpp"),
         "-B", str(root / "build"), *OPTIONS],
        "cmake refused",
    )  # fmt: skip
    say("compiling llama-server: some 7 minutes on 2 cores, once")
    _ninja([ninja, "-C", str(root / "build"), "llama-server"])
    new = root / "bin.new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(root / "build/bin", new, symlinks=True)
    _run([str(new / "llama-server"), "--version"], "the new llama-server does not run here")
    new.replace(root / "bin")


def _package(root: Path, venv: Path, sdist: Path) -> None:
    """llama-cpp-python against the libraries that were just built."""
    say(f"installing llama-cpp-python[server] {VERSION}")
    _pip(venv, "install", f"llama-cpp-python[server] @ {sdist.as_uri()}", CMAKE_ARGS="-DLLAMA_BUILD=OFF")
    site = next((venv / "lib").glob("python3*/site-packages/llama_cpp"))
    libraries = site / "lib"
    libraries.mkdir(exist_ok=True)
    for file in sorted((root / "bin").glob("*.so*")):
        link = libraries / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(file, libraries))
    _run([str(venv / "bin/python"), "-I", "-c", "import llama_cpp.server.app"], "llama-cpp-python does not import")


def _pip(venv: Path, *args: str, **environment: str) -> None:
    _run(
        [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet", *args],
        "pip failed (is there a network?)", **environment,
    )  # fmt: skip


def _run(command: list[str], what: str, **environment: str) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800,
        env=os.environ | environment,
    )  # fmt: skip
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:])
        raise Stop(f"{what}; its words stand above")


def _ninja(command: list[str]) -> None:
    """Run ninja and say how far it is, each 20 steps."""
    process = subprocess.Popen(
        ["nice", "-n", "10", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    told, last = 0, ""
    with process:
        for line in process.stdout:
            last = (last + line)[-4000:]
            step = re.match(r"\[(\d+)/(\d+)\]", line)
            if step and (int(step[1]) >= told + 20 or step[1] == step[2]):
                told = int(step[1])
                say(f"compiled {step[1]} of {step[2]}")
    if process.returncode:
        sys.stderr.write(last)
        raise Stop("the compiler failed; its words stand above, and the next call goes on from here")


def say(text: str) -> None:
    print(f"engines: {text}", file=sys.stderr, flush=True)


def main() -> int:
    try:
        built = build()
    except Stop as stop:
        say(str(stop))
        return 1
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"the build failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; the next call goes on from here")
        return 130
    print(f"{built.llama_server}\n{built.python}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
