"""`make demo` does what it promises: it ends with 0, prints the figures and leaves nothing behind."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    planned, measured = re.fullmatch(r"planned (\d+) MiB, measured (\d+) MiB .*", said["memory"]).groups()
    assert int(measured) == pytest.approx(int(planned), rel=0.05)
    assert "follows from the one before" in said["audit"]
    assert "taken down" in said
    assert not list(Path("/tmp").glob(f"corral-demo-{it.pid}-*"))
