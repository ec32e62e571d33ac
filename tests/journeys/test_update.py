"""An update of the program, for real: a second copy of the source with another version takes over."""

import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from command import ask, corral, deployed, until

import core
from core.nodes import proc

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
SOURCE = Path(core.__file__).parents[1]


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The next release: this source with version 9.9.9, first on the path of what is started from now on."""
    tree = tmp_path / "next"
    for name in ("core", "tui"):
        shutil.copytree(SOURCE / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    info = tree / "corral-9.9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corral\nVersion: 9.9.9\n")
    return tree


def test_a_stream_goes_on_through_an_update(home: Path, sample: Path, newer: Path, monkeypatch) -> None:
    before = deployed()
    old = ask("status")
    gateway = old["gateway_status"]["pid"]
    body = json.dumps({"model": "chat", "stream": True, "max_tokens": 300, "ignore_eos": True, "messages": [
        {"role": "user", "content": "Count to one thousand."}]})  # fmt: skip
    stream = subprocess.Popen(
        ["curl", "-sN", "--unix-socket", old["gateway_socket"], "-H", "Content-Type: application/json",
         "-d", body, "http://corral/v1/chat/completions"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert stream.stdout is not None
    stream.stdout.readline()
    rest: list[bytes] = []
    reading = threading.Thread(target=lambda: rest.append(stream.stdout.read()))
    reading.start()
    corral("shutdown")
    monkeypatch.setenv("PYTHONPATH", str(newer))
    assert "9.9.9" in corral("--version")
    corral("ps")
    new = until(lambda: (s := ask("status"))["gateway_status"]["version"] == "9.9.9" and s)
    assert new["daemon"]["version"] == "9.9.9" and new["gateway_status"]["pid"] != gateway
    reading.join(60)
    assert stream.wait(10) == 0
    stream.stdout.close()
    assert rest[0].count(b'"content"') > 250 and b"[DONE]" in rest[0]
    (after,) = ask("ps")
    assert (after["pid"], after["launch"], after["state"]) == (before["pid"], before["launch"], "ready")
    until(lambda: proc.start_time(gateway) is None, 90)
    assert corral("chat", "chat", "Hi", "--max-tokens", "4").strip()
    (record,) = until(lambda: ask("audit", "ls", "--verb", "gateway.ended"))
    assert record["outcome"] == "done"
    assert ask("audit", "verify")["ok"]
    killed = new["gateway_status"]["pid"]
    os.kill(killed, signal.SIGKILL)
    until(lambda: (s := ask("status")["gateway_status"])["state"] == "ready" and s["pid"] not in (None, killed))
    assert corral("chat", "chat", "Hi", "--max-tokens", "4").strip()
