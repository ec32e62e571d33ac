"""The resident set of a real engine, started with the command that the daemon would give its keeper."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from core.catalog.files import header_of
from core.catalog.shape import shape_of
from core.engines.base import Engine, LaunchPlan
from core.nouns import DeploymentSpec, ModelShape

SECRET = "measured"
READY_S = 90


class Resident(NamedTuple):
    """Resident bytes."""

    ready: int
    used: int
    """After a prompt of a whole batch, which touches the compute buffers."""


class _Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(str(self.path))


def shape(model: Path) -> ModelShape:
    """What sizing knows of the file."""
    fd = os.open(model, os.O_RDONLY)
    try:
        return shape_of([header_of(fd, model.name)])
    finally:
        os.close(fd)


def measure(engine: Engine, model: Path, shape: ModelShape, ctx: int, parallel: int, kind: str) -> Resident:
    """Start it, ask it once, end it. Raises `RuntimeError` with its last lines when it does not start."""
    spec = DeploymentSpec(name="m", model="m", ctx=ctx, parallel=parallel, cache_type=kind)
    command = engine.command(
        LaunchPlan(
            spec=spec, alias="m", model_path=str(model), shape=shape, ctx=ctx, parallel=parallel, threads=1,
            secret=SECRET,
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="r-") as folder:
        sock, log = Path(folder, "e.sock"), Path(folder, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command.argv, env=command.env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            _until_ready(process, sock, log)
            ready = _rss(process.pid)
            words = max(1, min(600, ctx // parallel - 64))
            status = _ask(sock, "/v1/completions", {"prompt": "word " * words, "max_tokens": 4})
            if status != 200:
                raise RuntimeError(f"the prompt was answered with {status}")
            return Resident(ready, _rss(process.pid))
        finally:
            process.kill()
            process.wait(timeout=30)


def _until_ready(process: subprocess.Popen[bytes], sock: Path, log: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _ask(sock, "/v1/models") == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"it did not start: {log.read_bytes()[-2000:].decode('utf-8', 'replace')}")


def _ask(sock: Path, path: str, body: object = None) -> int:
    link = _Local(sock)
    try:
        headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        link.request("GET" if body is None else "POST", path, body=data, headers=headers)
        answer = link.getresponse()
        answer.read()
        return answer.status
    finally:
        link.close()


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
