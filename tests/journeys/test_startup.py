"""What can be wrong with the place a daemon starts in, with the real command: each with its sentence and exit code.

What only root can set up (a disk of its own, somebody else's folder) is skipped by name for anyone else; a network file
system and the pieces of these checks are tested in tests/core/test_hostcheck.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import faults
import fleet
import pytest
from command import ask, corral, deployed, until
from faults import Disk, Program

from core.nodes import proc
from core.paths import Paths, user_paths

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can make a disk of its own or give a folder away")


def foreground(code: int) -> str:
    """`corral daemon --foreground`, which must end by itself: what it says, one line."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "core", "--foreground"], capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.startswith("corral: "), done.stderr
    return done.stderr


def refused(*sentences: str, code: int = 1) -> None:
    """A terminal says it too (exit 6: no daemon), with what the daemon said last."""
    by_hand, by_verb = foreground(code), corral("ps", code=6)
    for sentence in sentences:
        assert sentence in by_hand and sentence in by_verb, f"{by_hand}\n{by_verb}"
    assert "could not be started" in by_verb


@pytest.fixture
def paths(home: Path) -> Paths:
    return user_paths()


@pytest.fixture
def double(home: Path) -> None:
    """llama-server is an engine that is ready at once."""
    fleet.install(home)


def daemon() -> int:
    return int(ask("status")["daemon"]["pid"])


def record(paths: Paths, launch: str) -> dict[str, Any]:
    return dict(json.loads((paths.records / launch / "launch.json").read_bytes()))


def tell(paths: Paths, launch: str, **fields: object) -> None:
    """Change a launch's record as a reboot or a recycled pid would leave it."""
    file = paths.records / launch / "launch.json"
    file.write_text(json.dumps(record(paths, launch) | fields))


# ------------------------------------------------------------------------------------------------ paths, folders, disks


def test_a_socket_path_over_107_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / ("x" * 100)))
    refused("the socket's path has", "the kernel takes 107 at most", "CORRAL_HOME")


def test_a_home_that_is_not_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_HOME", "here")
    assert "must be an absolute path" in foreground(2)
    assert "must be an absolute path" in corral("ps", code=2)


def test_a_folder_that_others_may_write(paths: Paths) -> None:
    paths.state.mkdir(parents=True)
    paths.state.chmod(0o770)
    refused("may be written by others (mode 0770)", "chmod 700")


@ROOT
def test_a_folder_of_somebody_else(paths: Paths) -> None:
    paths.state.mkdir(parents=True)
    os.chown(paths.state, 65534, 65534)
    refused("belongs to uid 65534", "needs it to be uid")


def test_a_file_where_a_folder_should_be(paths: Paths) -> None:
    paths.state.mkdir(mode=0o700, parents=True)
    paths.records.write_text("")
    refused(f"{paths.records} is not a folder", "move it away")


def on_a_disk(home: Path, size: str, *steps: str) -> str:
    """Run `steps` in the shell with $CORRAL_HOME on a small disk that nobody else sees; what they say."""
    script = [
        "set -e", f"mount -t tmpfs -o size={size} tmpfs {home}", f'corral() {{ {sys.executable} -P -m tui "$@"; }}',
        f"alone() {{ {sys.executable} -P -m core --foreground; }}", *steps,
    ]  # fmt: skip
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", "\n".join(script)], capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL, env=dict(os.environ, CORRAL_HOME=str(home)),
    )  # fmt: skip
    if "unshare: unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


FILL = 'dd if=/dev/zero of="$CORRAL_HOME/fill" bs=4k 2>/dev/null || true'


@ROOT
def test_a_read_only_disk(home: Path) -> None:
    said = on_a_disk(
        home, "64m", 'mount -o remount,ro "$CORRAL_HOME"', "corral ps || echo code $?", "alone || echo code $?"
    )
    assert "code 6" in said and "Read-only file system" in said
    assert "cannot be made" in said and "the file system is read-only: set CORRAL_HOME" in said and "code 1" in said


@ROOT
def test_a_disk_that_became_read_only(home: Path) -> None:
    said = on_a_disk(
        home, "64m", "corral ps", "corral shutdown --all", 'mount -o remount,ro "$CORRAL_HOME"',
        "corral ps || echo code $?", "alone || echo code $?",
    )  # fmt: skip
    assert "code 6" in said and "daemon.log: Read-only file system" in said
    assert "daemon.lock cannot be opened" in said and "code 1" in said


@ROOT
def test_a_new_home_on_a_full_disk(home: Path) -> None:
    said = on_a_disk(home, "4m", FILL, "corral ps || echo code $?", "alone || echo code $?")
    assert "code 6" in said and "is full: make room, then try again" in said
    assert "cannot be opened; the disk with the database is full" in said and "code 1" in said


@ROOT
@pytest.mark.parametrize("inodes", [3, 5, 12])
def test_a_disk_that_takes_no_more_files(home: Path, inodes: int) -> None:
    """With room left: it was `OSError: [Errno 28]`, or no reason at all."""
    said = on_a_disk(home, f"64m,nr_inodes={inodes}", "corral ps || echo code $?")
    assert "code 6" in said and ("inodes are used up" in said or "`df -i`" in said)


@ROOT
def test_a_full_disk_lets_the_daemon_start_stop_and_record_but_nothing_else(home: Path, tmp_path: Path) -> None:
    """The ballast is what it lives on; when there is room again it is made again, without a restart."""
    tiny = faults.tiny(tmp_path)
    said = on_a_disk(
        home, "420m", "corral ps", f"corral models import {tiny} --name tiny",
        "corral deploy tiny --name one --ctx 256", "corral stop one", "corral shutdown --all", FILL,
        "corral status && exit 1", "corral ps", "corral status", "echo ---",
        "corral start one || true", "corral deployments", "corral stop one", "corral audit verify", "echo ---",
        'rm "$CORRAL_HOME/fill"',
        "for i in $(seq 200); do corral status | grep -q 'nearly full' || break; sleep 0.1; done",
        "corral status", "corral audit verify", "ls $CORRAL_HOME/*/ballast", "corral shutdown --all",
    )  # fmt: skip
    _, full, room = said.split("---")
    assert "nothing is started until there is room" in said.split("---")[0]
    assert "every record follows" in full
    assert "every record follows" in room and "nearly full" not in room and "/ballast" in room


# ------------------------------------------------------------------------------------------------ what was left behind


def test_a_stale_socket_a_stale_lock_and_two_terminals(paths: Paths) -> None:
    """Four at once get one daemon, though a dead one left its socket and a lock file of a pid that lives."""
    paths.state.mkdir(mode=0o700, parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(paths.socket))
    paths.daemon_lock.write_text(json.dumps({"pid": os.getpid(), "boot_id": "x", "start_time": 1, "host": "h"}))
    all_of_them = [
        subprocess.Popen([sys.executable, "-P", "-m", "tui", "ps"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for each in all_of_them:
        out, err = each.communicate(timeout=60)
        assert each.returncode == 0 and b"nothing is deployed" in out, err
    assert len(ask("audit", "ls", "--verb", "daemon.start")) == 1
    assert json.loads(paths.daemon_lock.read_bytes())["pid"] == daemon()


def test_a_second_daemon_learns_who_the_first_one_is(paths: Paths) -> None:
    corral("ps")
    assert f"a daemon runs already (pid {daemon()} on {socket.gethostname()})" in foreground(1)


@pytest.mark.parametrize(
    ("host", "sentences"),
    [
        ("far\x1b[31maway", ("a daemon runs on another host (pid 4242 on far", "cannot reach it", "CORRAL_HOME")),
        (socket.gethostname(), ("from before this host's restart (pid 4242 on ", "remove that file if no daemon")),
    ],
)
def test_a_daemon_of_another_host_is_told_at_once(paths: Paths, host: str, sentences: tuple[str, ...]) -> None:
    """Its lock is seen over a shared file system, its socket cannot be."""
    paths.state.mkdir(mode=0o700, parents=True)
    told = {"pid": 4242, "boot_id": "of another boot", "start_time": 1, "host": host}
    paths.daemon_lock.write_text(json.dumps(told))
    with paths.daemon_lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(*sentences)
        assert "\x1b" not in foreground(1)
        assert json.loads(paths.daemon_lock.read_bytes()) == told


def test_a_file_in_place_of_the_socket(paths: Paths) -> None:
    paths.state.mkdir(mode=0o700, parents=True)
    paths.socket.write_text("mine")
    said = corral("ps", code=6)
    assert "is in the way" in said and "move it away" in said
    assert paths.socket.read_text() == "mine"


def test_the_state_of_another_host_in_a_shared_home_is_left_alone(paths: Paths) -> None:
    other = paths.root / "0badcafe"
    other.mkdir(mode=0o700, parents=True)
    for name in ("corral.db", "audit.head", "daemon.lock"):
        (other / name).write_text("of another host")
    (other / "r" / "abcdefghij").mkdir(parents=True)
    before = {each: each.stat().st_mtime_ns for each in other.rglob("*")}
    assert "nothing is deployed" in corral("ps")
    corral("shutdown", "--all")
    assert {each: each.stat().st_mtime_ns for each in other.rglob("*")} == before


def test_a_recycled_pid_is_neither_adopted_nor_signalled(paths: Paths, double: None, tmp_path: Path) -> None:
    replica = fleet.deployed(tmp_path)
    told = record(paths, replica["launch"])
    fleet.kill(daemon())
    fleet.kill(told["keeper_pid"])
    until(lambda: proc.start_time(told["pid"]) is None)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        (paths.records / replica["launch"] / "exit.json").unlink(missing_ok=True)
        tell(paths, replica["launch"], pid=bystander.pid, keeper_pid=bystander.pid)
        new = until(lambda: (r := ask("ps")) and r[0]["state"] == "ready" and r[0])
        assert new["launch"] != replica["launch"] and new["pid"] != bystander.pid
        (died,) = ask("audit", "ls", "--verb", "replica.died")
        assert died["reason"].startswith("keeper lost: ")
        corral("rm", "one", "--yes")
        until(lambda: not ask("ps"))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_after_a_reboot_models_come_back_with_that_reason(paths: Paths, double: None, tmp_path: Path) -> None:
    """Everything is gone at once, and the records are of another boot; even pid and start time may be somebody's."""
    replica = fleet.deployed(tmp_path)
    gateway = int(ask("status")["gateway_status"]["pid"])
    records = {each.name: record(paths, each.name) for each in paths.records.iterdir()}
    fleet.kill(daemon())
    fleet.kill(*(told["keeper_pid"] for told in records.values()))
    until(lambda: all(proc.start_time(told["pid"]) is None for told in records.values()))
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        for launch in records:
            (paths.records / launch / "exit.json").write_bytes(b"\0" * 4096)
            start = proc.start_time(bystander.pid)
            tell(paths, launch, boot_id="0" * 32, pid=bystander.pid, start=start, keeper_pid=bystander.pid)
        (first,) = ask("ps")
        assert first["launch"] != replica["launch"] or first["state"] != "ready", "it is not what it was"
        until(lambda: (r := ask("ps")) and r[0]["state"] == "ready" and r[0]["launch"] != replica["launch"])
        (died,) = ask("audit", "ls", "--verb", "replica.died")
        assert died["reason"] == "the host was restarted"
        assert "the host was restarted" in corral("explain", "one")
        (ended,) = ask("audit", "ls", "--verb", "gateway.died")
        assert ended["reason"] == "the host was restarted"
        assert ask("status")["gateway_status"]["pid"] != gateway
        assert bystander.poll() is None
        assert ask("audit", "verify")["ok"]
    finally:
        bystander.kill()
        bystander.wait()


def test_a_daemon_that_dies_often_says_so_when_it_is_back(paths: Paths) -> None:
    """Two deaths are said by nobody, the third is, by the daemon that follows it."""

    def warnings() -> list[str]:
        corral("ps")
        return [each for each in ask("status")["daemon"]["warnings"] if "died" in each]

    for deaths in (0, 1, 2):
        assert not warnings(), deaths
        fleet.kill(daemon())
    (warning,) = warnings()
    assert warning.startswith("the daemon died 3 times within 10 minutes: see `corral audit ls ")
    assert "the daemon died 3 times" in corral("status") and warning in paths.daemon_log.read_text()
    corral("shutdown")
    assert warnings() == [warning]
    corral("shutdown")
    with closing(sqlite3.connect(paths.database)) as db:  # as if it were long ago
        db.execute("DROP TRIGGER audit_keeps_content")
        db.execute("UPDATE audit SET time = '2020' || substr(time, 5) WHERE verb = 'daemon.died'")
        db.commit()
    assert not warnings()


# ------------------------------------------------------------------------------------------------ the database


def test_a_database_newer_than_the_program(paths: Paths) -> None:
    corral("ps")
    corral("shutdown", "--all")
    with closing(sqlite3.connect(paths.database)) as db:
        db.execute("INSERT INTO migrations VALUES (9999, 'future', 0)")
        db.commit()
    before = paths.database.read_bytes()
    refused("the database is newer than this program", "migration 9999", "run the newer program")
    assert paths.database.read_bytes() == before


def test_a_corrupt_database_is_set_aside_and_the_chain_goes_on(paths: Paths, double: None, tmp_path: Path) -> None:
    """What ran is `unknown` afterwards: no row wants it, and only a person may end it."""
    replica = fleet.deployed(tmp_path)
    head = json.loads(paths.audit_head.read_bytes())
    fleet.kill(daemon())
    with closing(sqlite3.connect(paths.database)) as db:  # its log may have the pages that are destroyed
        until(lambda: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
    with paths.database.open("r+b") as file:
        file.write(b"x" * 5000)
    corrupt = paths.database.read_bytes()
    (stray,) = ask("ps")
    status = ask("status")["daemon"]
    assert any("was corrupt" in each and "is set aside as corral.db.corrupt-" in each for each in status["warnings"])
    (aside,) = [p for p in paths.state.glob("corral.db.corrupt-*") if not p.name.endswith(("-wal", "-shm"))]
    assert aside.read_bytes() == corrupt
    with closing(sqlite3.connect(f"file:{paths.database}?mode=ro", uri=True)) as db:
        prev = db.execute("SELECT prev FROM audit WHERE seq = 1").fetchone()[0]
    now = json.loads(paths.audit_head.read_bytes())
    assert now["seq"] < head["seq"] and len(prev) == 64 and prev != "0" * 64
    told = json.loads(corral("audit", "verify", "--json", code=1))
    assert (told["wrong"], told["how"]) == (1, "lost")
    assert any("the records before this chain are not here" in each for each in status["warnings"])
    fleet.kill(daemon())
    corral("ps")
    assert any("records before this chain" in each for each in ask("status")["daemon"]["warnings"]), "until accepted"
    corral("audit", "accept", "--reason", "the disk was replaced", "--yes")
    assert ask("audit", "verify")["ok"]
    assert (stray["state"], stray["pid"]) == ("unknown", replica["pid"])
    assert "no row of the database wants it" in stray["reason"]
    assert proc.start_time(replica["pid"]) is not None
    first, _ = ask("audit", "ls", "--verb", "daemon.start")
    assert "set aside" in first["reason"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[gateway]\nqueue = 64\nquue = 1\n", 'corral.toml:3: unknown key "quue" in [gateway]'),
        ("[replicas]\n\nstop_timeout_s = -1\n", "corral.toml:3: replicas.stop_timeout_s is the whole number -1"),
        ("[daemon\n", "corral.toml:1: not valid TOML"),
        ("[daemon]\nlog_level = 'loud'\n", 'corral.toml:2: daemon.log_level is the text "loud"'),
    ],
)
def test_a_wrong_corral_toml(paths: Paths, text: str, sentence: str) -> None:
    paths.config.write_text(text)
    refused(sentence, code=2)
    paths.config.unlink()
    corral("ps")
    paths.config.write_text(text)
    assert sentence in corral("reload", code=2)
    corral("status")
    (reload,) = ask("audit", "ls", "--verb", "daemon.reload")
    assert reload["outcome"] == "refused"


# ------------------------------------------------------------------------------------------------ the clock


@pytest.fixture
def program(home: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    library = faults.build(tmp_path_factory.mktemp("library"))
    found = Program(Disk(library, tmp_path / "control"), tmp_path / "said")
    yield found
    if found.alive():
        found.end(9)


def test_a_clock_that_jumps(program: Program, paths: Paths, double: None, tmp_path: Path) -> None:
    """A year back and a year on, while a model runs, while one is restarted, and over a restart of the daemon."""
    assert program.start()
    replica = fleet.deployed(tmp_path)
    year = 365 * 86400
    for by in (-year, year):
        program.disk.set_clock(by)
        (same,) = ask("ps")
        assert (same["launch"], same["state"]) == (replica["launch"], "ready")
        corral("deploy", "tiny", "--name", "two", "--ctx", "256", "--engine", "llama-server", "--wait")
        two = next(each for each in ask("ps") if each["deployment"] == "two")
        os.kill(two["pid"], signal.SIGKILL)
        until(
            lambda old=two: [r for r in ask("ps") if r["deployment"] == "two" and r["state"] == "ready"
                             and r["launch"] != old["launch"]]
        )  # fmt: skip
        assert corral("chat", "two", "Hi").split()[:2] == ["w0", "w1"]
        corral("rm", "two", "--yes")
        until(lambda: len(ask("ps")) == 1)
        report = ask("audit", "verify")
        assert report["ok"], report
        last = ask("audit", "ls")[-1]
        assert last["time"][:4] == time.strftime("%Y", time.gmtime(time.time() + by))
    program.end()
    program.disk.set_clock(-year)  # and the next daemon begins a year before the last record
    assert program.start()
    until(lambda: (r := ask("ps")) and r[0]["state"] == "ready" and r[0]["launch"] == replica["launch"])
    until(lambda: ask("status")["gateway_status"]["state"] == "ready")
    assert corral("chat", "one", "Hi").split()[:2] == ["w0", "w1"]
    seqs = [each["seq"] for each in ask("audit", "ls")]
    assert seqs == sorted(seqs) and ask("audit", "verify")["ok"]
    assert "Traceback" not in program.said(), program.said()[-3000:]


# ------------------------------------------------------------------------------------------------ secrets


def test_no_secret_prompt_or_answer_is_where_it_does_not_belong(home: Path, paths: Paths, sample: Path) -> None:
    """Searched: every table, every file of the state folder, the command lines of all processes, what the verbs say."""
    deployed()
    prompt = "Tell me about the quartz zebra of Ulm"
    corral("chat", "chat", prompt, "--system", "Be a marzipan owl", "--max-tokens", "32", "--temperature", "0")
    with closing(sqlite3.connect(f"file:{paths.database}?mode=ro", uri=True)) as db:
        (secret,) = db.execute("SELECT secret FROM launches WHERE ended_at IS NULL").fetchone()
        answer = ask("chats", "show", ask("chats", "ls")[0]["id"])["messages"][0]["answer"]
        assert len(secret) > 20 and len(answer) > 20
        hidden = {"secret": secret, "prompt": "quartz zebra", "system": "marzipan owl", "answer": answer[:40].strip()}
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {
            (what, table)
            for table in tables
            for row in db.execute(f"SELECT * FROM {table}")
            for what, text in hidden.items()
            if any(text in str(value) for value in row)
        }
    assert found == {("secret", "launches")}

    corral("ask-no-such-verb", code=2)
    corral("chat", "nosuch", prompt, code=3)
    chat = ask("chats", "ls")[0]["id"]
    said = {
        "audit": corral("audit", "ls", "--json"), "events": corral("events", "--json"), "ps": corral("ps", "--json"),
        "explain": corral("explain", "chat", "--json"), "status": corral("status", "--json"),
        "logs": corral("logs", "chat"), "deployments": corral("deployments", "--json"),
    }  # fmt: skip
    for verb, text in said.items():
        assert not [what for what, each in hidden.items() if each in text], verb
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = line.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        assert not [what for what, each in hidden.items() if each in command], command

    files = [each for each in paths.state.rglob("*") if each.is_file() and "objects" not in each.parts]
    assert len(files) > 8

    def held(file: Path) -> bytes:
        """Nothing where it went meanwhile, as the gateway's list of what runs does."""
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return b""

    where = {
        (what, str(file.relative_to(paths.state)))
        for file in files
        for what, text in hidden.items()
        if text.encode() in held(file)
    }
    database = {("secret", name) for name in ("corral.db", "corral.db-wal")}
    routes = {each for each in where if each[0] == "secret" and each[1].startswith("gateway/snapshot")}
    assert where - database - routes == set(), where
    for name in ("corral.db", "corral.db-wal", *(each[1] for each in routes)):
        file = paths.state / name
        assert not file.exists() or file.stat().st_mode & 0o077 == 0, file

    corral("chats", "rm", chat, "--yes")
    texts = [hidden[what].encode() for what in ("prompt", "answer", "system")]
    left = [str(file) for file in files if file.exists() and any(text in file.read_bytes() for text in texts)]
    assert not left, left
    corral("rm", "chat", "--yes")
    until(lambda: not ask("ps"))
    with closing(sqlite3.connect(f"file:{paths.database}?mode=ro", uri=True)) as db:
        assert db.execute("SELECT secret FROM launches").fetchall() == [("",)]
