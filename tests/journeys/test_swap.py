"""On a host that swaps, daemon and gateway lock their memory where they may, and say so where they may not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import ask, corral, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

SWAPS = "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2\tpartition\t1048576\t0\t-2\n"
BOUND = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /proc/swaps && exec "$@"']
"""The kernel's list of swap devices is another one for what runs below: the host of the tests keeps its own."""
HELD = ["setpriv", "--bounding-set=-ipc_lock,-sys_resource", "prlimit", "--memlock=65536:65536"]
"""Root too has to obey the limit then."""

Begin = Callable[..., dict[str, int]]


@pytest.fixture
def begin(home: Path, tmp_path: Path) -> Iterator[Begin]:
    """Starts a daemon on a host whose list of swap devices is `swaps`; the pids of daemon and gateway."""
    if os.getuid() != 0 or not all(shutil.which(each) for each in ("unshare", "setpriv", "prlimit")):
        pytest.skip("only root gives a process another list of swap devices")
    running = []

    def made(swaps: str, *below: str) -> dict[str, int]:
        (tmp_path / "swaps").write_text(swaps)
        args = [*BOUND, str(tmp_path / "swaps"), *below, sys.executable, "-P", "-m", "core", "--foreground"]
        with (tmp_path / "log").open("wb") as log:
            running.append(subprocess.Popen(args, stdout=log, stderr=log))
        until(lambda: list(home.glob("*/corral.sock")) or running[-1].poll() is not None)
        until(lambda: ask("status")["gateway_status"]["state"] == "ready")
        status = ask("status")
        return {"daemon": status["daemon"]["pid"], "gateway": status["gateway_status"]["pid"]}

    yield made
    for each in running:
        each.terminate()
        each.wait(30)


def locked_kib(pid: int) -> int:
    """What the kernel says of memory that it may not swap."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmLck:"))


def why() -> dict[str, str]:
    status = ask("status")
    return {"daemon": status["daemon"]["swapped"], "gateway": status["gateway_status"]["swapped"]}


def test_daemon_and_gateway_are_locked_in_memory_where_the_host_swaps(begin: Begin) -> None:
    pids = begin(SWAPS)
    assert why() == {"daemon": "", "gateway": ""}
    assert {who: locked_kib(pid) > 10_000 for who, pid in pids.items()} == {"daemon": True, "gateway": True}
    assert corral("status").count("is not written to swap") == 2


def test_a_limit_that_forbids_it_is_told_of_each_and_nothing_is_locked(begin: Begin, tmp_path: Path) -> None:
    pids = begin(SWAPS, *HELD)
    words = "this host swaps, and it may lock 64 KiB only (LimitMEMLOCK=infinity lifts that)"
    assert why() == {"daemon": words, "gateway": words}
    assert {who: locked_kib(pid) for who, pid in pids.items()} == {"daemon": 0, "gateway": 0}
    assert corral("status").count("may be written to swap: this host swaps") == 2
    assert words in (tmp_path / "log").read_text()


def test_without_swap_nothing_is_locked(begin: Begin) -> None:
    pids = begin(SWAPS.splitlines()[0] + "\n", *HELD)
    assert why() == {"daemon": "", "gateway": ""}
    assert {who: locked_kib(pid) for who, pid in pids.items()} == {"daemon": 0, "gateway": 0}
