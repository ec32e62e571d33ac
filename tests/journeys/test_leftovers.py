"""A run of the tests that leaves something behind is told of it, and nobody else's processes are touched."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import leftovers
import pytest


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """As a run has it, within this one."""
    for name in ("TMPDIR", "XDG_STATE_HOME", "PYTEST_DEBUG_TEMPROOT"):
        monkeypatch.setenv(name, os.environ[name])
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setattr(leftovers, "GRACE_S", 0.1)
    return leftovers.begin()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], env={}, cwd="/")
    yield process
    process.kill()
    process.wait()


def test_what_is_left_is_named_and_ended(folder: Path, bystander: subprocess.Popen[bytes]) -> None:
    Path(tempfile.mkdtemp(), "f").write_text("left")
    (folder / "state/empty").mkdir(parents=True)
    mine = [
        subprocess.Popen(["sleep", "601"], cwd="/"), subprocess.Popen(["sleep", "602"], env={}, cwd=folder),
        subprocess.Popen(["tail", "-F", str(folder / "no.log")], env={}, cwd="/", stderr=subprocess.DEVNULL),
    ]  # fmt: skip
    told = leftovers.end(folder)
    assert [process.wait(10) for process in mine] == [-9, -9, -9]
    commands = [each.partition(": ")[2] for each in told[:3]]
    assert sorted(commands) == ["sleep 601", "sleep 602", f"tail -F {folder}/no.log"]
    assert [Path(each.removeprefix("file ")).name for each in told[3:]] == ["empty", "f"]
    assert bystander.poll() is None
    assert not folder.exists()


def test_a_run_that_leaves_nothing_is_told_nothing(folder: Path) -> None:
    subprocess.run(["true"], check=True)
    assert leftovers.end(folder) == []
