"""`corral audit archive`: a real daemon is killed while it archives, and archive and store together are whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ask, corral, until

pytestmark = pytest.mark.journey


def grow(count: int) -> None:
    for n in range(count):
        corral("access", "grant", "viewer", "user:bin", "--scope", f"model:m{n}-{time.monotonic_ns()}")


def test_old_records_go_into_a_file_and_everything_still_verifies(home: Path, tmp_path: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "corral.toml").write_text("[audit]\ncheckpoint_records = 1\n")
    corral("ps")
    grow(3)
    key = corral("audit", "key", "show", "-q").strip()
    out = tmp_path / "archives"
    out.mkdir()
    every = ask("audit", "ls", "--limit", "10000")
    assert "records of the last day stay" in corral("audit", "archive", "--before", "0s", "--yes", code=1)
    assert "is not over yet" in corral("audit", "archive", "--before", "2999-01-01", "--yes", code=2)
    assert "say --yes" in corral("audit", "archive", "--before", "0s", "--recent", code=2)
    plan = ask("audit", "archive", "--before", "0s", "--recent", "--plan", "--to", str(out))
    assert plan["first"] == 1 and ask("audit", "archives")["archives"] == [] and not list(out.iterdir())
    made = ask("audit", "archive", "--before", "0s", "--recent", "--to", str(out), "--yes")
    assert Path(made["file"]).parent == out and made["first"] == 1 and made["there"]
    found = ask("audit", "ls", "--limit", "10000")
    assert [each["seq"] for each in found] == list(range(1, found[-1]["seq"] + 1)), "what was archived is found"
    assert {each["archive"] for each in found if each["seq"] <= made["last"]} == {1}
    known = min(made["last"], len(every))  # the daemon itself may have recorded something since
    assert [{**each, "archive": 0} for each in found[:known]] == every[:known] and known > 3
    assert f"{made['last']} records, 1 to {made['last']}, come from archive 1" in corral("audit", "ls", "--since", "1h")
    (first,) = ask("audit", "ls", "--verb", "daemon.start")
    assert first["seq"] <= made["last"] and ask("audit", "ls", "--find", "verb:daemon.start") == [first]
    assert made["file"] in corral("audit", "archives")
    report = ask("audit", "verify", "--archives")
    assert report["ok"] and "every archive is as it was sealed" in report["message"]
    assert ask("audit", "verify", made["file"], "--key", key)["ok"]
    now = tmp_path / "now"
    corral("audit", "export", "--out", str(now))
    assert ask("audit", "verify", str(now), "--key", key, "--against", made["file"])["ok"]
    page = corral("audit", "report")
    assert "Where older records lie" in page and Path(made["file"]).name in page.replace("&#95;", "_")
    assert "nothing to archive" in corral("audit", "archive", "--before", "30d", "--yes", code=1)
    Path(made["file"]).unlink()
    assert f"records 1 to {made['last']} are not read" in corral("audit", "ls", "--since", "1h")
    told = corral("audit", "verify", "--archives", code=1)
    assert "not as it was sealed" in told and corral("audit", "verify")


def in_database() -> int:
    """seq of the first record that is in the database."""
    return next(each["seq"] for each in ask("audit", "ls", "--limit", "10000") if not each["archive"])


def test_a_daemon_that_is_killed_while_it_archives_loses_no_record(home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "corral.toml").write_text("[audit]\ncheckpoint_records = 1\n")
    corral("ps")
    for n in range(4):
        grow(2)
        before = ask("audit", "archives")["archives"]
        argv = [sys.executable, "-P", "-m", "tui", "audit", "archive", "--before", "0s", "--recent", "--yes"]
        pid = ask("status")["daemon"]["pid"]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as work:
            until(
                lambda: (
                    work.poll() is not None
                    or any(home.glob("*/audit-archive/*"))
                    or any(home.glob("*/audit-archive/.*"))
                )
            )
            time.sleep(0.004 * n)
            os.kill(pid, signal.SIGKILL)
            work.wait(60)
        report = ask("audit", "verify", "--archives")
        assert report["ok"], report
        after = ask("audit", "archives")["archives"]
        files = {each.name for each in home.glob("*/audit-archive/*")} | {
            each.name for each in home.glob("*/audit-archive/.*")
        }
        assert len(after) - len(before) in (0, 1)
        assert files == {Path(each["file"]).name for each in after}, "each file is sealed, each seal has its file"
        last = after[-1]["last"] if after else 0
        until(lambda last=last: in_database() == last + 1)
