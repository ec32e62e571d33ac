"""`make demo` does what it promises: it ends with 0, prints the figures and leaves nothing behind."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from command import until

DEMO = Path(__file__).with_name("demo.py")


@pytest.mark.journey
def test_the_demo_goes_the_whole_road_and_leaves_nothing(sample: Path) -> None:
    it = subprocess.Popen([sys.executable, str(DEMO)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        text, _ = it.communicate(timeout=110)
    finally:
        it.kill()
    assert it.returncode == 0, text
    said = dict(re.findall(r"^([a-z ]+?)  +(.+)$", text, re.MULTILINE))
    assert re.search(r"[\d.]+ tokens/s, first token after \d+ ms", said["speed"])
    assert said["answer"].strip()
    told = re.fullmatch(r"planned (\d+) MiB just ready, (\d+) MiB .*, measured (\d+) MiB .*", said["memory"])
    ready, used, measured = map(int, told.groups())
    assert ready * 0.95 <= measured <= used * 1.05
    assert "follows from the one before" in said["audit"]
    assert "taken down" in said
    assert not list(Path("/tmp").glob(f"corral-demo-{it.pid}-*"))


def left_of(demo: subprocess.Popen[str]) -> list[str]:
    """Its home, and command lines of what runs with it."""
    mark = f"corral-demo-{demo.pid}-"
    found = [str(home) for home in Path("/tmp").glob(f"{mark}*")]
    for process in psutil.process_iter():
        try:
            if process.pid != demo.pid and mark in process.environ().get("CORRAL_HOME", "") + process.cwd():
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.mark.journey
@pytest.mark.parametrize(
    "end, code",
    [
        (lambda demo: demo.stdout.close(), 141), (lambda demo: demo.send_signal(signal.SIGTERM), 143),
        (lambda demo: demo.send_signal(signal.SIGHUP), 129), (lambda demo: demo.send_signal(signal.SIGINT), 130),
    ],
    ids=["reader", "term", "hup", "ctrl+c"],
)  # fmt: skip
def test_a_demo_that_is_ended_early_takes_everything_down(
    sample: Path, end: Callable[[subprocess.Popen[str]], None], code: int
) -> None:
    """As `make demo | head -1`, a closed terminal and ctrl+c do: a daemon with a model ran on for good."""
    demo = subprocess.Popen([sys.executable, str(DEMO)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stdout and demo.stderr
    try:
        assert demo.stdout.readline().startswith("import")
        end(demo)
        assert demo.wait(100) == code
        assert "Traceback" not in demo.stderr.read()
        assert left_of(demo) == []
    finally:
        demo.kill()
        demo.stderr.close()
        demo.stdout.close()


@pytest.mark.journey
def test_a_demo_that_is_ended_while_its_daemon_starts_takes_it_down(sample: Path) -> None:
    demo = subprocess.Popen([sys.executable, str(DEMO)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: list(Path("/tmp").glob(f"corral-demo-{demo.pid}-*/*/daemon.log")))
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(100) == 143
        assert left_of(demo) == []
    finally:
        demo.kill()
