"""The daemon's socket as any program may use it: hostile queries, another version, events that are resumed."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import corral

from core import program_version
from core.client import Client
from core.errors import CorralError
from core.nouns import API_VERSION, Event
from core.paths import user_paths

pytestmark = pytest.mark.journey
LONG = "9" * 5000
HOSTILE = [
    f"/{path}?{name}={value}"
    for path, names in {
        "audit": ("limit", "since", "until", "before_seq", "after_seq"), "samples": ("seconds",),
        "deployments/x/wait": ("timeout",), "deployments/x/logs": ("replica", "start", "limit", "wait", "since"),
        "chats/x/turns/y/stream": ("offset",),
    }.items()
    for name in names
    for value in ("inf", "-inf", "nan", "1e999", "1e18", "-1", "99999999999999999999", LONG, "%D9%A3", "%FF", "x")
]  # fmt: skip
SEVERAL = "GET /api/v1{path} HTTP/1.1\r\nHost: x\r\nCorral-API: {api}\r\nConnection: close\r\n\r\n"


def speak(path: str, api: int = API_VERSION, method: str = "GET") -> tuple[int, dict[str, str], Any]:
    """One request by hand: status, headers, body."""
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(20)
        end.connect(str(user_paths().socket))
        end.sendall(SEVERAL.format(path=path, api=api).replace("GET", method, 1).encode())
        raw = b"".join(iter(lambda: end.recv(65536), b""))
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, json.loads(body) if body and "json" in headers["content-type"] else None


def test_no_query_is_an_error_of_the_daemon(home: Path) -> None:
    corral("ps")
    for path in [*HOSTILE, "/imports/x/files/٣".encode().decode("latin-1"), "/imports/x/files/" + LONG]:
        method = "PUT" if "files" in path else "GET"
        status, _, body = speak(path, method=method)
        assert status < 500, (path[:80], body)
    epoch = asyncio.run(Client(user_paths().socket).picture()).event.partition(".")[0]
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(20)
        end.connect(str(user_paths().socket))
        end.sendall(SEVERAL.format(path=f"/events?since={epoch}.{LONG}", api=API_VERSION).encode())
        assert _until(end, b"resync")
    assert "Traceback" not in user_paths().daemon_log.read_text()


def _until(end: socket.socket, what: bytes) -> bool:
    seen = b""
    while what not in seen:
        piece = end.recv(4096)
        assert piece, seen
        seen += piece
    return True


def test_a_terminal_of_another_version_is_told_what_to_do_and_can_end_the_daemon(home: Path) -> None:
    corral("ps")
    status, headers, body = speak("/replicas", api=API_VERSION + 1)
    assert status == 426 and body["code"] == "version_mismatch"
    assert body["what"] == "this terminal and the daemon speak different versions"
    assert f"the daemon is {program_version()} with interface {API_VERSION}, the terminal speaks 2" in body["why"]
    assert body["todo"] == "`corral shutdown` (models run on), then any verb"
    assert headers["corral-api"] == str(API_VERSION) and headers["corral-version"] == program_version()
    assert speak("/status", api=API_VERSION + 1)[0] == 200

    class Newer(Client):
        def __init__(self) -> None:
            super().__init__(user_paths().socket)
            self._headers["Corral-API"] = str(API_VERSION + 1)

    with pytest.raises(CorralError, match="speak different versions"):
        asyncio.run(Newer().replicas())
    asyncio.run(Newer().shutdown(False))
    corral("status", code=6)


def test_a_program_of_another_release_says_so_and_works_on(home: Path, tmp_path: Path) -> None:
    """Same interface, other release: a word on standard error, none in a script's document."""
    corral("ps")
    info = tmp_path / "corral-9.9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corral\nVersion: 9.9.9\n")
    env = dict(os.environ, PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[2]}")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui", "ps"], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "nothing is deployed" in done.stdout
    told = f"the daemon is {program_version()} and this program 9.9.9: `corral shutdown` (models run on), then any verb"
    assert told in done.stderr
    as_json = subprocess.run(
        [sys.executable, "-P", "-m", "tui", "ps", "--json"], env=env, capture_output=True, text=True, timeout=60
    )
    assert (as_json.stdout.strip(), as_json.stderr) == ("[]", "")


async def test_events_go_on_after_the_last_id_that_was_seen(home: Path) -> None:
    await asyncio.to_thread(corral, "ps")
    client = Client(user_paths().socket)
    start = (await client.picture()).event
    for _ in range(3):
        await client.reload()

    async def audits(since: str, count: int) -> list[Event]:
        found: list[Event] = []
        async for event in client.events(since):
            assert event.type != "resync"
            found += [event] if event.type == "audit" else []
            if len(found) == count:
                return found
        return found

    async with asyncio.timeout(20):
        first = await audits(start, 3)
        again = await audits(first[0].id, 2)
    assert [each.id for each in again] == [each.id for each in first[1:]]
    with_header = f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {first[1].id}\r\n\r\n"
    reader, writer = await asyncio.open_unix_connection(str(client.socket))
    writer.write(with_header.encode())
    async with asyncio.timeout(20):
        await reader.readuntil(f"id: {first[2].id}\n".encode())
    writer.close()
