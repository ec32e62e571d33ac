"""The machinery of the tests: whatever hangs or dies in one, the run ends, says so and has failed."""

import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

from core.nodes.proc import start_time

ROOT = Path(__file__).parents[2]
run_step = runpy.run_path(str(ROOT / "tests/pythons.py"))["run"]
CONFTEST = str(ROOT / "tests/conftest.py")
IMPATIENT = f"exec(compile(open({CONFTEST!r}).read(), {CONFTEST!r}, 'exec'))\nSTUCK_S = 1.0\n"
"""Our hooks as a plugin: it is no conftest of where these tests lie."""


def ran(folder: Path, tests: str) -> tuple[int, str]:
    """What a run of these tests by two workers says and exits with, under the settings and conftest of ours."""
    (folder / "test_it.py").write_text("import os, signal, time, pytest\n" + tests)
    (folder / "impatient.py").write_text(IMPATIENT)
    path = os.pathsep.join(map(str, (ROOT / "tests/journeys", ROOT, folder)))
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "impatient", "-q",
         "-n", "2", "--dist", "loadgroup", "--basetemp", str(folder / "base"), str(folder / "test_it.py")],
        cwd=folder, env=env | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_worker_that_dies_ends_the_run_with_a_failure(tmp_path: Path) -> None:
    """xdist by itself gives its test to the other worker, which dies too, and waits for their successors for ever."""
    code, said = ran(tmp_path, """
@pytest.mark.parametrize("n", range(12))
def test_one(n):
    time.sleep(0.05)
    if n == 5:
        os._exit(1)
""")  # fmt: skip
    assert code == 1
    assert "crashed while running" in said and "workers were lost" in said and "test_one[5]" in said


def test_a_test_that_takes_too_long_fails_alone_and_its_fixtures_are_torn_down(tmp_path: Path) -> None:
    code, said = ran(tmp_path, """
import asyncio, threading, subprocess
@pytest.fixture
def torn(tmp_path_factory):
    yield
    print("torn down by its fixture")

@pytest.mark.timeout(1)
async def test_waits(torn):
    await asyncio.sleep(600)

@pytest.mark.timeout(1)
def test_blocks(torn):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

@pytest.mark.timeout(1)
def test_asks(torn):
    subprocess.run(["sleep", "600"])

@pytest.mark.parametrize("n", range(8))
def test_good(n): pass
""")  # fmt: skip
    assert code == 1 and re.search(r"3 failed, 8 passed", said), said
    assert said.count("torn down by its fixture") == 3 and "workers were lost" not in said


def test_a_test_that_no_signal_ends_costs_its_worker_and_shows_where_it_stood(tmp_path: Path) -> None:
    code, said = ran(tmp_path, """
@pytest.mark.timeout(1)
def test_deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(600)

@pytest.mark.parametrize("n", range(8))
def test_good(n): pass
""")  # fmt: skip
    assert code == 1
    assert "crashed while running" in said and re.search(r"test_it\.py., line \d+ in test_deaf", said), said


def test_a_step_that_hangs_is_ended_with_all_of_its_group_and_has_failed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    assert not run_step([sys.executable, "-c", code], seconds=3.0, clearing=0.1)
    child, until = int((tmp_path / "pid").read_text()), time.monotonic() + 20
    while start_time(child) is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert start_time(child) is None


def test_a_step_that_is_interrupted_in_time_clears_up_by_itself(tmp_path: Path) -> None:
    code = (
        "import pathlib, time\n"
        "try:\n    time.sleep(600)\n"
        f"except KeyboardInterrupt:\n    pathlib.Path({str(tmp_path / 'cleared')!r}).touch()\n"
    )
    assert not run_step([sys.executable, "-c", code], seconds=2.0, clearing=20.0)
    assert (tmp_path / "cleared").exists()


def test_a_step_tells_by_its_exit_code(tmp_path: Path) -> None:
    assert run_step([sys.executable, "-c", ""])
    assert not run_step([sys.executable, "-c", "raise SystemExit(3)"])
