"""The engine runs only after launch.json has reached the disk, whichever of the keeper's flushes fails; and there is
room for its end by then."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.keeper import keeper

STRACE = shutil.which("strace")


def run(folder: Path, failing: int) -> tuple[int, bool, dict, dict]:
    """A keeper whose flush number `failing` gives EIO: exit code, whether the program ran, launch.json, exit.json."""
    work, records = folder / f"l{failing}", folder / f"r{failing}"
    work.mkdir()
    records.mkdir()
    mark = work / "ran"
    order = {
        "id": "aaaaaaaaaa", "kind": "replica", "owner": "t/0", "argv": ["/bin/sh", "-c", f"echo > {mark}"], "env": {},
        "folder": str(work), "records": str(records), "limits": {}, "spec": {"n": 1}, "restart": False,
    }  # fmt: skip
    with (records / "lock").open("w") as lock:
        done = subprocess.run(
            [str(STRACE), "-f", "-o", str(folder / "trace"), "-e", "trace=fsync",
             "-e", f"inject=fsync:error=EIO:when={failing}",
             sys.executable, "-I", "-S", keeper.__file__, str(lock.fileno())],
            input=json.dumps(order).encode(), pass_fds=[lock.fileno()], stderr=subprocess.PIPE, timeout=30,
        )  # fmt: skip
    if "ptrace" in done.stderr.decode() or not (folder / "trace").exists():
        pytest.skip("strace may not trace here")
    return done.returncode, mark.exists(), told(records / "launch.json"), told(records / "exit.json")


def told(path: Path) -> dict:
    text = path.read_bytes().strip(b"\0 \n") if path.exists() else b""
    return json.loads(text) if text else {}


@pytest.mark.skipif(STRACE is None, reason="strace is not installed: no flush can be made to fail")
def test_no_program_runs_whose_record_did_not_reach_the_disk(tmp_path: Path) -> None:
    reasons = []
    for failing in range(1, 8):
        code, ran, launch, ended = run(tmp_path, failing)
        assert ran == (code == 0 or bool(ended.get("code") == 0)), (failing, code, ended)
        if ran:
            assert launch["id"] == "aaaaaaaaaa" and launch["spec"] == {"n": 1} and launch["owner"] == "t/0"
        reasons.append(ended.get("reason", ""))
    assert "launch.json could not be written: Input/output error" in reasons


def test_there_is_room_for_the_end_before_anything_runs(tmp_path: Path) -> None:
    keeper.Records(str(tmp_path))
    for name, room in (("launch.json", keeper.LAUNCH_ROOM), ("exit.json", keeper.EXIT_ROOM)):
        found = os.stat(tmp_path / name)
        assert found.st_size == room and found.st_blocks * 512 >= room
