"""What all tests share: a home of their own, the sample model, and an end for every process that they started."""

import contextlib
import faulthandler
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import command
import hypothesis
import leftovers
import pytest
import xdist.workermanage

from core.catalog import sample_path
from core.nodes.proc import start_time

FOLDER = pytest.StashKey[Path]()
LEFT = pytest.StashKey[list[str]]()
LOST = pytest.StashKey[list[str]]()
STDERR = pytest.StashKey[int]()
STUCK_S = 60.0
"""After its time-out a test's worker is ended: the time-out may have been lost in a task, or what clears up hangs."""
# Whatever the environment says: Corral's modules are compiled by some 1,000 processes, the tests' by each worker.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# How long an example takes is the machine's business.
hypothesis.settings.register_profile("corral", deadline=None)
hypothesis.settings.load_profile("corral")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[FOLDER] = leftovers.begin()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[LOST] = []
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        session.config.stash[STDERR] = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0] if marker else item.config.getini("timeout"))
    faulthandler.dump_traceback_later(seconds + STUCK_S, exit=True, file=item.config.stash[STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: xdist.workermanage.WorkerController, error: object) -> None:
    if error:
        node.config.stash[LOST].append(f"{node.gateway.id}: {error}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that lost a worker or leaves something behind has failed; xdist's workers have ended by now."""
    if session.config.stash[LOST] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    command.end()
    if FOLDER in session.config.stash:
        left = leftovers.end(session.config.stash[FOLDER], session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
        session.config.stash[LEFT] = left
        if left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lost := config.stash.get(LOST, []):
        terminalreporter.section("workers were lost, and the rest was not run", red=True)
        for each in lost:
            terminalreporter.line(each)
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
        there = [int(each) for each in os.listdir("/proc") if each.isdigit() and int(each) != os.getpid()]
        mine = {pid for pid in there if _belongs(pid, os.fsencode(folder))}
        if not mine:
            return
        mine |= {pid for pid in there if _parent(pid) in mine}
        for pid in mine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Not psutil's wait: it takes a zombie that nobody reaps for a living process.
        deadline = time.monotonic() + 5
        while any(start_time(pid) is not None for pid in mine) and time.monotonic() < deadline:
            time.sleep(0.01)


def _belongs(pid: int, folder: bytes) -> bool:
    """Read without psutil, which takes five times as long for all of a host's processes after each test."""
    try:
        if Path(f"/proc/{pid}/comm").read_bytes().strip() == os.path.basename(folder):  # a daemon by `loaded.py`
            return True
        told = dict(each.partition(b"=")[::2] for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
        if told.get(b"CORRAL_HOME") == folder or folder in told.get(b"CORRAL_GATEWAY_DIR", b""):
            return True
        return os.readlink(f"/proc/{pid}/cwd".encode()).startswith(folder)
    except OSError:  # gone, or a zombie
        return False


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0


@pytest.fixture(scope="session")
def sample() -> Path:
    """The sample model's file."""
    found = sample_path()
    if found is None:
        pytest.skip("the sample model is not installed: make setup-dev")
    return found
