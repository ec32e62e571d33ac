"""What `pip install .` gives: everything of the source tree, and a `corral` command that works from it alone."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this tree, built as pip builds it (a build of its own fetches setuptools)."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("core", "tui"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check", "-w", str(out)]
    done = subprocess.run([*pip, str(source)], capture_output=True, text=True, cwd=out)
    if done.returncode and "requirement setuptools" in done.stderr:
        pytest.skip("the package index is not reached")
    assert done.returncode == 0, done.stderr
    (found,) = out.glob("corral-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program and nothing else; what it depends on comes from our own environment."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_source_tree_and_nothing_else(wheel: Path) -> None:
    here = {
        str(path.relative_to(ROOT))
        for top in ("core", "tui")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "corral = tui.__main__:main" in archive.read(points).decode()
    assert names == here
    children = {"core/keeper/keeper.py", "core/keeper/gguf.py", "core/engines/xllamacpp_child.py"}
    assert children <= names and any(name.endswith(".sql") for name in names)


def call(installed: Path, *args: str, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-P", str(installed / "bin/corral"), *args], cwd="/", env=env, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_installed_command_works_from_its_folder_alone(home: Path, sample: Path, installed: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    assert "deploy" in call(installed, "--help", env=env)
    call(installed, "models", "sample", env=env)
    call(installed, "deploy", "smollm2-135m", "--name", "d", "--ctx", "512", "--wait", env=env)
    (replica,) = json.loads(call(installed, "ps", "--json", env=env))
    daemon = json.loads(call(installed, "status", "--json", env=env))["daemon"]["pid"]
    for pid in (daemon, replica["pid"]):
        told = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        assert str(ROOT).encode() + b"/core" not in told and f"PYTHONPATH={ROOT}\0".encode() not in told
    call(installed, "shutdown", "--all", env=env)
