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
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from core.catalog import sizing
from core.catalog.files import header_of
from core.catalog.shape import shape_of
from core.catalog.sizing import CacheType
from core.engines.base import Engine, LaunchPlan
from core.nouns import DeploymentSpec, ModelShape

SECRET = "measured"
READY_S = 90
POOLED = {"LLAMA_ARG_POOLING": "mean"}
"""As a model that is made for embeddings says itself: llama-server embeds no other."""


class Resident(NamedTuple):
    """Resident bytes."""

    ready: int
    used: int
    """After a prompt of a whole batch, which touches the compute buffers."""
    full: int = 0
    """After every slot at once had a context filled and a conversation gone on; without the prompt cache."""


class _Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=600)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(600)
        self.sock.connect(str(self.path))


def shape(model: Path) -> ModelShape:
    """What sizing knows of the file."""
    fd = os.open(model, os.O_RDONLY)
    try:
        return shape_of([header_of(fd, model.name)])
    finally:
        os.close(fd)


def measure(
    engine: Engine,
    model: Path,
    shape: ModelShape,
    ctx: int,
    parallel: int,
    kind: CacheType,
    *,
    embedding: bool = False,
    fill: bool = False,
    projector: str = "",
    picture: str = "",
) -> Resident:
    """Start it, ask it once, with `fill` all slots with all that goes into them, and end it; with a `projector` also of
    a `picture` (a data URL), twice: `full` is the most that it took. Raises `RuntimeError` with its last lines when it
    does not start."""
    spec = DeploymentSpec(name="m", model="m", ctx=ctx, parallel=parallel, cache_type=kind, embedding=embedding)
    plan = LaunchPlan(
        spec=spec, alias="m", model_path=str(model), shape=shape, ctx=ctx, parallel=parallel, threads=2 if fill else 1,
        secret=SECRET, projector_path=projector,
    )  # fmt: skip
    if fill or picture:  # the prompt cache has a limit of its own, that the plan adds
        plan = msgspec.structs.replace(plan, cache_ram_mib=0)
    command = engine.command(plan)
    with tempfile.TemporaryDirectory(prefix="r-") as folder:
        sock, log = Path(folder, "e.sock"), Path(folder, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command.argv, env=command.env | POOLED, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            _until_ready(process, sock, log)
            ready = _rss(process.pid)
            per = min(sizing.pad256(ctx / parallel), shape.ctx_train or ctx)
            _prompt(sock, "word " * max(1, min(600 if not embedding else 448, per - 64)), embedding)
            used = _rss(process.pid)
            if picture:
                shown = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "word"}]
                asked = {"messages": [{"role": "user", "content": shown}], "max_tokens": 4}
                for _ in range(2):  # the second finds the room of the first taken apart
                    if (status := _ask(sock, "/v1/chat/completions", asked)) != 200:
                        said = log.read_bytes()[-2000:].decode("utf-8", "replace")
                        raise RuntimeError(f"the picture was answered with {status}: {said}")
                return Resident(ready, used, _peak(process.pid))
            if not fill:
                return Resident(ready, used)
            each = min(ctx // parallel, per)
            room = max(1, (each if not embedding else min(each, sizing.N_UBATCH)) - 96)
            for words in (room // 2, room * 3 // 4, room):  # a conversation that goes on
                with ThreadPoolExecutor(parallel) as pool:
                    list(pool.map(partial(_prompt, sock, embedding=embedding), _texts(parallel, words)))
            return Resident(ready, used, _rss(process.pid))
        finally:
            process.kill()
            process.wait(timeout=30)


def _texts(count: int, words: int) -> list[str]:
    """One for each slot, and each begins as the shorter one of that slot did."""
    kinds = ("tree ", "house ", "river ", "stone ")
    return [f"{i} {kinds[i % 4] * words}" for i in range(count)]


def _prompt(sock: Path, text: str, embedding: bool = False) -> None:
    if embedding:
        status = _ask(sock, "/v1/embeddings", {"input": text})
    else:
        status = _ask(sock, "/v1/completions", {"prompt": text, "max_tokens": 16})
    if status != 200:
        raise RuntimeError(f"the prompt was answered with {status}")


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


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
