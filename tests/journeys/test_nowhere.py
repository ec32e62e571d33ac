"""What was said stands nowhere on the disk, in no log, record or figure, whatever was killed while it was said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fleet
import pytest
from command import ask, corral, until

from core.paths import user_paths

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]

MARKER = "quartz-zebra-of-ulm"
ECHO = f'DOUBLE_ECHO=1 DOUBLE_PAUSE_S=0.1 exec "{sys.executable}" -I -S "{fleet.DOUBLE}" "$@"'


class Foreground:
    """Daemons in the foreground, as systemd runs them; `said` has what they wrote, as journald would have it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self.said: list[Path] = []

    def start(self) -> None:
        out = self._folder / f"journal-{len(self.said)}"
        with out.open("wb") as file:
            args = [sys.executable, "-P", "-m", "core", "--foreground"]
            self._running.append(subprocess.Popen(args, stdout=file, stderr=file))
        self.said.append(out)
        status = [sys.executable, "-P", "-m", "tui", "status"]
        until(lambda: subprocess.run(status, capture_output=True).returncode == 0)

    def end(self) -> None:
        for each in self._running:
            each.kill()
            each.wait(timeout=20)


@pytest.fixture
def daemon(home: Path, tmp_path: Path) -> Iterator[Foreground]:
    fleet.install(home, program=ECHO)
    made = Foreground(tmp_path)
    made.start()
    yield made
    made.end()


def holding(*places: Path) -> list[str]:
    """Files in which it stands."""
    files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    assert len(files) > 10
    return [str(path) for path in files if MARKER.encode() in path.read_bytes()]


def answering(*more: str) -> subprocess.Popen[bytes]:
    """A chat whose answer has begun."""
    asked = subprocess.Popen(
        [sys.executable, "-P", "-m", "tui", "chat", "one", f"What is {MARKER}", "--system", MARKER, *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert asked.stdout is not None
    until(lambda: MARKER.encode() in os.read(asked.stdout.fileno(), 4096))
    return asked


def ended(asked: subprocess.Popen[bytes]) -> None:
    asked.communicate(timeout=60)


def core_limit(pid: int) -> str:
    rows = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(row.split()[4] for row in rows if row.startswith("Max core file size"))


def test_what_was_said_is_in_no_file_log_or_record(home: Path, daemon: Foreground, tmp_path: Path) -> None:
    fleet.deployed(tmp_path)
    said = corral("chat", "one", f"What is {MARKER}", "--system", MARKER)
    assert said.count(MARKER) == 24
    (chat,) = ask("chats", "ls")
    corral("chats", "rename", chat["id"], f"About {MARKER}")
    assert len(ask("chats", "search", MARKER)) == 1
    corral("chat", "nosuch", MARKER, code=3)
    assert MARKER in corral("chats", "export", chat["id"]) and MARKER in corral("chats", "export")

    assert MARKER in corral("chat", "one", f"Privately {MARKER}", "--private")
    assert len(ask("chats", "ls")) == 1

    # killed with SIGKILL while it answers, one after the other
    for who in ("engine", "gateway", "daemon"):
        asked = answering()
        status = ask("status")
        pids = {"engine": ask("ps")[0]["pid"], "gateway": status["gateway_status"]["pid"],
                "daemon": status["daemon"]["pid"]}  # fmt: skip
        assert {who: core_limit(pid) for who, pid in pids.items()} == dict.fromkeys(pids, "1")
        fleet.kill(pids[who])
        if who == "daemon":
            daemon.start()
        ended(asked)
        until(lambda: [r["state"] for r in ask("ps")] == ["ready"])
        until(lambda: ask("status")["gateway_status"]["state"] == "ready")
    asked = answering("--private")
    asked.send_signal(signal.SIGINT)
    ended(asked)

    told = [corral(*args, "--json") for args in (("audit", "ls"), ("events",), ("ps",), ("explain", "one"), ("status",),
                                                 ("deployments",), ("usage",))]  # fmt: skip
    assert not [text for text in told if MARKER in text]
    assert MARKER not in corral("logs", "one")
    paths = user_paths()
    assert holding(paths.root, *daemon.said) == []
    assert not [path for place in (Path("/"), paths.state, Path.cwd()) for path in place.glob("core.[0-9]*")]
    corral("shutdown", "--all")
    assert holding(paths.root, *daemon.said) == []


def test_a_chat_is_kept_out_of_the_hands_of_who_lacks_the_right_or_a_reason(
    home: Path, daemon: Foreground, tmp_path: Path
) -> None:
    fleet.deployed(tmp_path)
    corral("chat", "one", MARKER)
    (chat,) = ask("chats", "ls")
    me = ask("whoami")["name"]
    assert "--reason" in corral("chats", "ls", "--user", me, code=2)
    found = ask("chats", "ls", "--user", me, "--reason", "ticket 7")
    assert [each["id"] for each in found] == [chat["id"]]
    assert MARKER in corral("chats", "export", "--user", me, "--reason", "ticket 7")
    looks = ask("audit", "ls", "--verb", "chats.read-others")
    assert [(each["object"], each["reason"]) for each in looks] == [(f"user:{me}", "ticket 7")] * 2

    hold = ask("chats", "hold", "add", me, "--reason", "case 3")
    assert ask("chats", "ls")[0]["held"] and "held" in corral("chats", "ls")
    corral("chats", "rm", chat["id"], "--yes", code=1)
    corral("chats", "forget", me, "--reason", "asked for", "--yes", code=1)
    corral("chat", "one", "x", "--private", code=1)
    corral("chats", "hold", "release", hold["id"], "--reason", "closed")
    assert "--yes" in corral("chats", "forget", me, "--reason", "asked for", code=2)
    gone = ask("chats", "forget", me, "--reason", "asked for", "--yes")
    assert (gone["chats"], gone["keys"]) == (1, 1) and ask("chats", "ls") == []

    corral("chats", "retention", "set", "deployment:one", "--none", "--yes", "--reason", "policy 4")
    assert json.loads(corral("chat", "one", MARKER, "--json"))["answer"]
    assert ask("chats", "ls") == [] and ask("chats", "retention")[0]["days"] == 0
    assert holding(user_paths().root, *daemon.said) == []
