"""`make demo` does what it promises: it ends with 0, prints the figures and leaves nothing behind."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).with_name("demo.py")


def homes() -> set[Path]:
    return set(Path("/tmp").glob("corral-demo-*"))


@pytest.mark.journey
def test_the_demo_goes_the_whole_road_and_leaves_nothing(sample: Path) -> None:
    before = homes()
    done = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(re.findall(r"^([a-z ]+?)  +(.+)$", done.stdout, re.MULTILINE))
    assert re.search(r"[\d.]+ tokens/s, first token after \d+ ms", said["speed"])
    assert said["answer"].strip()
    planned, measured = re.fullmatch(r"planned (\d+) MiB, measured (\d+) MiB .*", said["memory"]).groups()
    assert int(measured) == pytest.approx(int(planned), rel=0.05)
    assert "follows from the one before" in said["audit"]
    assert "taken down" in said
    assert homes() <= before
