"""Memory stays off the disk: no core dump, whatever core_pattern names, and what is said about swap is so."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from core.memory import may_swap

SWAPS = "Filename\n/dev/sda2 partition 1 0 -2\n"
CRASH = """
import ctypes, os, resource
from core.memory import no_dumps
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
{more}
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)
os.listdir("/proc/self/fd"), open("/proc/self/stat").read()
os.abort()
"""


def crashed(folder: Path, more: str) -> tuple[str, list[Path]]:
    """What a program says that dies by SIGABRT, and what it leaves."""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{CRASH.format(more=more)}"], cwd=folder,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode < 0, done.stderr
    return done.stdout, list(folder.iterdir())


def test_a_crash_leaves_no_core_and_hands_none_on(tmp_path: Path) -> None:
    said, left = crashed(tmp_path, "no_dumps()")
    assert said.split() == ["(1,", "1)", "0"] and left == []  # 1: a program of core_pattern gets nothing either


@pytest.mark.skipif(
    Path("/proc/sys/kernel/core_pattern").read_text()[:1] in "/|"
    or resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY,
    reason="this host writes cores elsewhere, or none",
)
def test_the_same_crash_without_it_leaves_one(tmp_path: Path) -> None:
    assert crashed(tmp_path, "")[1] != []


@pytest.mark.parametrize(("swaps", "limit", "words"), [
    ("Filename\n", None, ""), (SWAPS, None, "this host swaps"), (SWAPS, "0\n", ""),
    (SWAPS, "max\n", "this host swaps"),
])  # fmt: skip
def test_no_swap_and_a_cgroup_that_forbids_it_are_known(
    tmp_path: Path, swaps: str, limit: str | None, words: str
) -> None:
    (tmp_path / "swaps").write_text(swaps)
    (tmp_path / "own").write_text("1:name=systemd:/x\n0::/system.slice/corral.service\n")
    here = tmp_path / "cg" / "system.slice"
    (here / "corral.service").mkdir(parents=True)
    if limit is not None:
        (here / "memory.swap.max").write_text(limit)
    assert may_swap(tmp_path / "swaps", tmp_path / "own", tmp_path / "cg") == words
    assert may_swap(tmp_path / "none", tmp_path / "own", tmp_path / "cg") == "it is not known whether this host swaps"
