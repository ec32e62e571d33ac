"""What all tests share: a home of their own, the sample model, and an end for every process that they started."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import leftovers
import psutil
import pytest

from core.catalog import sample_path
from core.nodes.proc import start_time

FOLDER = pytest.StashKey[Path]()
LEFT = pytest.StashKey[list[str]]()
# How long an example takes is the machine's business.
hypothesis.settings.register_profile("corral", deadline=None)
hypothesis.settings.load_profile("corral")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[FOLDER] = leftovers.begin()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves something behind has failed; xdist's workers have ended by now."""
    if FOLDER in session.config.stash:
        left = leftovers.end(session.config.stash[FOLDER], session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
        session.config.stash[LEFT] = left
        if left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left := config.stash.get(LEFT, []):
        terminalreporter.section("the tests left behind", red=True)
        for each in left:
            terminalreporter.line(each)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A CORRAL_HOME with a short path; what runs with it in its environment or below it is ended afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="c-"))
    monkeypatch.setenv("CORRAL_HOME", str(folder))
    yield folder
    end_all(folder)
    shutil.rmtree(folder, ignore_errors=True)


def end_all(folder: Path) -> None:
    """Kill, by pid, every process whose environment or working folder names this home, and what those have just
    started: a keeper has neither for its first milliseconds."""
    for _ in range(3):
        there = list(psutil.process_iter(["ppid"]))
        mine = [p for p in there if p.pid != os.getpid() and _belongs(p, str(folder))]
        pids = {p.pid for p in mine}
        mine += [p for p in there if p.pid not in pids and p.info["ppid"] in pids]
        for process in mine:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        if not mine:
            return
        # Not psutil's wait: it takes a zombie that nobody reaps for a living process.
        deadline = time.monotonic() + 5
        while any(start_time(p.pid) is not None for p in mine) and time.monotonic() < deadline:
            time.sleep(0.01)


def _belongs(process: psutil.Process, folder: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get("CORRAL_HOME") == folder or folder in process.environ().get("CORRAL_GATEWAY_DIR", ""):
            return True
        return process.cwd().startswith(folder)
    except (psutil.Error, OSError):
        return False


@pytest.fixture(scope="session")
def sample() -> Path:
    """The sample model's file."""
    found = sample_path()
    if found is None:
        pytest.skip("the sample model is not installed: make setup-dev")
    return found
