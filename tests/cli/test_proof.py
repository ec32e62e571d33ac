"""`corral audit export` and `verify FILE`: a file that is verified where no daemon, database or home is."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from command import ask, corral, until

from core.errors import Failed
from core.gateway.wire import UsageLine
from core.nodes import proc
from core.telemetry.usage import commit_batch, row_of
from tui import exports

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


def elsewhere(*args: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """On a machine that never had a daemon: no home, nothing that could be made. `given`: its standard input."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    argv = [sys.executable, "-P", "-m", "tui", "audit", "verify", *args]
    done = subprocess.run(argv, env=env, capture_output=True, input=given, timeout=60)
    return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_an_export_is_verified_elsewhere_and_a_changed_one_is_not(home: Path, tmp_path: Path) -> None:
    corral("ps")
    key = corral("audit", "key", "show", "-q").strip()
    out = tmp_path / "trail"
    told = corral("audit", "export", "--out", str(out))
    assert "signed by key" in told and out.stat().st_mode & 0o777 == 0o600
    done = elsewhere(str(out), "--key", key)
    assert done.returncode == 0, done.stderr
    assert "complete, in order and unaltered" in done.stdout and "trusted" in done.stdout
    keys = tmp_path / "keys"
    keys.write_text(f"# the shop's\n{key}\n")
    found = json.loads(elsewhere(str(out), "--key", str(keys), "--json").stdout)
    assert found["ok"] and found["first"] == 1 and found["records"] == found["last"] and found["unvouched"] == 0
    (record,) = ask("audit", "ls", "--verb", "audit.export")
    assert record["outcome"] == "done" and record["seq"] == found["last"], "no record, no export"
    changed = tmp_path / "changed"
    changed.write_bytes(out.read_bytes().replace(b"daemon.start", b"daemon.stop.", 1))
    done = elsewhere(str(changed), "--key", key)
    assert done.returncode == 1 and "changed" in done.stdout
    corral("audit", "key", "rotate", "--reason", "a test")
    later = tmp_path / "later"
    corral("audit", "export", "--out", str(later))
    assert elsewhere(str(later), "--key", key, "--against", str(out)).returncode == 0
    done = elsewhere(str(out), "--key", key, "--against", str(later))
    assert done.returncode == 1 and "older copy" in done.stdout
    assert elsewhere(str(later), "--key", key, "--against", str(next(home.glob("*/audit.proof")))).returncode == 0


def test_what_is_wrong_on_the_command_line_is_said(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "trail"
    out.write_bytes(b"\x1b[31mnot a trail\n")
    done = elsewhere(str(out))
    assert done.returncode == 2 and "--key" in done.stderr
    for wrong in ("ed25519:00", "/nonexistent/key", str(tmp_path)):
        assert elsewhere(str(out), "--key", wrong).returncode == 2
    key = "ed25519:" + "0" * 64
    done = elsewhere(str(out), "--key", key)
    assert done.returncode == 1 and "\x1b" not in done.stdout
    done = elsewhere("/nonexistent/file", "--key", key)
    assert done.returncode == 1 and "cannot be read" in done.stderr
    assert elsewhere(str(out), "--key", key, "--against", "/nonexistent/file").returncode == 1
    corral("ps")
    assert "for a FILE" in corral("audit", "verify", "--key", key, code=2)
    assert "is there already" in corral("audit", "export", "--out", str(out), code=1)
    assert out.read_bytes().endswith(b"not a trail\n")
    assert "could not be written" in corral("audit", "export", "--out", "/nonexistent/x", code=1)
    for folder in ("", ".", "/"):
        assert "is no file" in corral("audit", "export", "--out", folder, code=2)
        assert "is no file" in corral("audit", "report", "--out", folder, code=2)
    corral("audit", "export", "--out", str(out), "--yes")
    assert out.read_bytes().startswith(b'["corral-export-1"')
    assert corral("audit", "export", "--out", "-").startswith('["corral-export-1"')
    assert [each.name for each in tmp_path.iterdir()] == ["trail"]


def test_a_file_is_verified_from_standard_input_as_it_comes(home: Path, tmp_path: Path) -> None:
    corral("ps")
    key, out = corral("audit", "key", "show", "-q").strip(), tmp_path / "trail"
    corral("audit", "export", "--out", str(out))
    whole = out.read_bytes()
    for text, against, code in ((whole, (), 0), (whole[:-9], (), 1), (whole, ("--against", str(out)), 0), (b"", (), 1)):
        done = elsewhere("-", "--key", key, *against, given=text)
        assert done.returncode == code, done.stdout + done.stderr
    assert elsewhere(str(out), "--key", key, "--against", "-", given=whole).returncode == 0
    done = elsewhere("-", "--key", key, "--against", "-", given=whole)
    assert done.returncode == 2 and "which is one file" in done.stderr
    export = [sys.executable, "-P", "-m", "tui", "audit", "export", "--out", "-"]
    with subprocess.Popen(export, stdout=subprocess.PIPE) as writes:
        check = [sys.executable, "-P", "-m", "tui", "audit", "verify", "-", "--key", key, "--json"]
        done = subprocess.run(check, stdin=writes.stdout, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["records"] > 3, done.stderr


@pytest.mark.parametrize("whole", [True, False])
async def test_an_export_that_is_cut_off_leaves_no_file(tmp_path: Path, whole: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'["corral-export-1","i","d",1,"t",""]\n'
        if not whole:
            raise Failed("the daemon went away")

    with pytest.raises(Failed):
        await exports.write(pieces(), tmp_path / "trail")
    assert not list(tmp_path.iterdir())


def test_kill_9_of_the_daemon_loses_no_checkpoint_that_was_told_and_no_chain(home: Path, tmp_path: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "corral.toml").write_text("[audit]\ncheckpoint_records = 1\n")
    corral("ps")
    key = corral("audit", "key", "show", "-q").strip()
    before, known = None, 0
    for n in range(6):
        out = tmp_path / f"trail-{n}"
        corral("audit", "export", "--out", str(out))
        told = [*(["--against", str(before)] if before else [])]
        assert elsewhere(str(out), "--key", key, *told).returncode == 0
        shown = ask("audit", "key", "show")
        assert shown["checkpoints"] > known
        known, before = shown["checkpoints"], out
        pid = ask("status")["daemon"]["pid"]
        argv = [sys.executable, "-P", "-m", "tui", "access", "grant", "viewer", "user:bin", "--reason", str(n)]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as grant:
            if n % 2:
                grant.wait(30)
            os.kill(pid, signal.SIGKILL)
            grant.wait(30)
        until(lambda pid=pid: proc.start_time(pid) is None)
        report = ask("audit", "verify")
        assert report["ok"], report
    warnings = " ".join(ask("status")["daemon"]["warnings"])
    assert not any(word in warnings for word in ("signed", "audit.proof", "checkpoint", "verify"))


def test_exports_go_on_while_records_are_written(home: Path, tmp_path: Path) -> None:
    corral("ps")
    key = corral("audit", "key", "show", "-q").strip()

    async def many() -> None:
        async def grant(n: int) -> None:
            argv = [sys.executable, "-P", "-m", "tui", "access", "deny", "models.rm", "user:bin", "--reason", str(n)]
            await (await asyncio.create_subprocess_exec(*argv, stdout=subprocess.DEVNULL)).wait()

        async def export(n: int) -> None:
            argv = [sys.executable, "-P", "-m", "tui", "audit", "export", "--out", str(tmp_path / f"t{n}"), "-q"]
            assert await (await asyncio.create_subprocess_exec(*argv)).wait() == 0

        await asyncio.gather(*(grant(n) for n in range(4)), *(export(n) for n in range(4)))

    asyncio.run(many())
    for n in range(4):
        assert elsewhere(str(tmp_path / f"t{n}"), "--key", key).returncode == 0


def test_a_file_of_json_lines_has_every_record_through_kills_and_restarts(home: Path) -> None:
    out = home / "trail.jsonl"
    (home / "corral.toml").write_text(f'[audit.sinks]\nfile = "{out}"\nspool_records = 50\n')
    corral("ps")
    until(lambda: ask("status")["audit_sinks"])

    def seqs() -> list[int]:
        found = [json.loads(each) for each in out.read_text().splitlines()] if out.exists() else []
        return [each["seq"] for each in found if "seq" in each]

    for n in range(3):
        corral("access", "grant", "viewer", "user:bin", "--reason", str(n), "--scope", f"model:m{n}")
        pid = ask("status")["daemon"]["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: proc.start_time(pid) is None)
        corral("ps")
    (sink,) = ask("status")["audit_sinks"]
    assert sink["name"] == "file"
    assert "sink      file" in corral("status")
    corral("shutdown")
    found = seqs()
    assert set(found) >= set(range(min(found), max(found) + 1)), "no gap; what was sent twice has its seq"
    corral("ps")
    last = [each for each in ask("audit", "ls") if each["verb"] == "daemon.stop"][-1]["seq"]
    assert last in found, "the stop itself was sent before the daemon ended"
    (home / "trail.jsonl").unlink()
    (home / "trail.jsonl").mkdir()
    corral("access", "grant", "viewer", "user:bin", "--scope", "model:x")
    until(lambda: any("sink file does not take" in each for each in ask("status")["daemon"]["warnings"]))
    (home / "corral.toml").write_text("")
    corral("reload")
    until(lambda: not ask("status")["audit_sinks"])


def used(database: Path, user: str, at: float) -> None:
    """A line of usage: 7 tokens in, 3 out, of `chat`."""
    line = UsageLine(
        id="a", time=at, uid=7, deployment="chat", model="m", replica="chat/0", launch="l",
        path="/v1/completions", status=200, outcome="ok", prompt_tokens=7, answer_tokens=3, queue_s=0.0,
        first_byte_s=0.1, total_s=1.0,
    )  # fmt: skip
    with closing(sqlite3.connect(database)) as db, db:
        commit_batch(db, "a test", int(at), [row_of(line, {7: (user, "staff")})])


def test_a_report_is_one_page_and_exits_1_where_the_chain_is_broken(home: Path, tmp_path: Path) -> None:
    corral("ps")
    corral("access", "grant", "operator", "user:bin", "--reason", "<b>x</b>|y")
    (database,) = home.glob("*/corral.db")
    used(database, "alice", time.time() - 7200)
    used(database, "alice", time.time() - 60)
    out = tmp_path / "report.html"
    corral("audit", "report", "--since", "90d", "--html", "--out", str(out))
    text = out.read_text()
    assert "&lt;b&gt;x&lt;/b&gt;|y" in text and "<b>" not in text and text.startswith("<!doctype html>")
    told = corral("audit", "report")
    for heading in ("Verification", "Who may do what", "Who acted", "Changes of rights", "Refusals", "Gaps in service"):
        assert f"## {heading}" in told
    assert "user:bin" in told and "every record follows from the one before" in told
    found = ask("audit", "report", "--since", "1h")
    assert found["records"] and found["chain"]["ok"] and found["keys"]["usable"]
    assert len(ask("audit", "ls", "--verb", "audit.report")) == 3
    assert "| alice | chat | 2 | 14 | 6 |" in told
    (use,) = found["use"]
    assert use == {
        "actor": "alice", "deployment": "chat", "requests": 1, "prompt_tokens": 7, "answer_tokens": 3,
    }  # fmt: skip
    assert found["use_all"] == 1
    db = sqlite3.connect(database)
    db.executescript("DROP TRIGGER audit_keeps_content; UPDATE audit SET actor = 'nobody' WHERE seq = 1")
    db.close()
    told = corral("audit", "report", code=1)
    assert "**The chain does not verify: record 1 was changed" in told


def test_a_trail_that_cannot_be_read_to_its_end_leaves_no_file(home: Path, tmp_path: Path) -> None:
    """The daemon's export fails in the middle, after its first bytes are sent."""
    stand_in = (
        "import core.audit.export as export, sqlite3\n"
        "def page(db, after, last): raise sqlite3.OperationalError('disk I/O error')\n"
        "export._page = page\n"
        "from core.__main__ import main; main()\n"
    )
    process = subprocess.Popen([sys.executable, "-P", "-c", stand_in], stdin=subprocess.DEVNULL)
    try:
        until(lambda: list(home.glob("*/corral.sock")))
        told = corral("audit", "export", "--out", str(tmp_path / "trail"), code=1)
        assert "was cut off" in told and not list(tmp_path.iterdir())
        assert "was cut off" in corral("audit", "export", "--out", "-", code=1)
        (log,) = home.glob("*/daemon.log")
        assert "an export was cut off" in log.read_text() and "Traceback" not in log.read_text()
        assert ask("status")["audit_ok"]
    finally:
        process.terminate()
        process.wait(30)
