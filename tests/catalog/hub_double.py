"""A stand-in for a hub and for the place where its files lie, on loopback: it speaks the hub's routes and does harm.

Two servers, since a hub sends one on to another host (here: another port) for the bytes. Whoever uses it says what
shall go wrong with `faults`: each request for bytes takes the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from aiohttp import web


class Fault(NamedTuple):
    """What one request for bytes meets."""

    cut: int = -1
    """The connection breaks after so many bytes."""
    status: int = 0
    retry_after: str = ""
    length: int = 0
    """Added to the Content-Length that is told."""
    extra: bytes = b""
    """Sent after the file."""
    slow_s: float = 0.0
    """Between two pieces of 1 KiB."""
    shift: int = 0
    """Added to where the answer says that it begins."""
    redirect: str = ""
    hang: bool = False
    """The head comes, and no byte."""
    encoding: str = ""


class Asked(NamedTuple):
    """One request: which server, what, and what was said with it."""

    server: str
    path: str
    token: str
    range: str
    if_range: str


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


class HubDouble:
    """`await begin()`, then `url`. `repos[name]` is {file: bytes}; a change of it is another commit."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.licence: dict[str, str] = {}
        self.token = ""
        """The one that is let in to what is gated."""
        self.lies: dict[str, str] = {}
        """File name to the SHA-256 that the hub says it has."""
        self.sizes: dict[str, int] = {}
        self.extra: dict[str, Any] = {}
        """More fields of a repository's answer."""
        self.files: dict[str, bytes] = {}
        """Of the plain web server, by name."""
        self.faults: deque[Fault] = deque()
        self.api_faults: deque[Fault] = deque()
        self.look_faults: deque[Fault] = deque()
        """What a look at a header meets."""
        self.asked: list[Asked] = []
        self.peeked = ""
        """The Content-Range of a look at a header, in place of the true one."""
        self.ranges = True
        self.etags = True
        self.weak = False
        self.on_bytes: Callable[[int], None] = lambda count: None
        """Told of every piece that is sent."""
        self.sent = 0
        self.gate = asyncio.Event()
        self.gate.set()
        """Bytes flow while it is set."""
        self.url = self.cdn = ""
        self._runners: list[web.AppRunner] = []

    async def begin(self) -> None:
        hub, cdn = web.Application(), web.Application()
        hub.router.add_get("/api/models/{org}/{repo}", self._model)
        hub.router.add_get("/api/models/{org}/{repo}/revision/{revision}", self._model)
        hub.router.add_get("/{org}/{repo}/resolve/{revision}/{path:.+}", self._resolve)
        hub.router.add_get("/files/{name}", self._file)
        cdn.router.add_get("/cdn/{sha256}", self._bytes)
        self.url, self.cdn = await self._serve(hub), await self._serve(cdn)

    async def end(self) -> None:
        self.gate.set()
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(self, app: web.Application) -> str:
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    def commit(self, repo: str) -> str:
        told = sorted((name, hashlib.sha256(data).hexdigest()) for name, data in self.repos[repo].items())
        return hashlib.sha1(repr(told).encode()).hexdigest()

    def of(self, server: str) -> list[Asked]:
        return [each for each in self.asked if each.server == server]

    def _note(self, request: web.Request, server: str) -> None:
        headers = request.headers
        token = headers.get("Authorization", "")
        self.asked.append(
            Asked(server, request.path_qs, token, headers.get("Range", ""), headers.get("If-Range", ""))
        )  # fmt: skip

    async def _model(self, request: web.Request) -> web.StreamResponse:
        self._note(request, "api")
        if self.api_faults:
            fault = self.api_faults.popleft()
            if fault.redirect:
                return web.Response(status=302, headers={"Location": fault.redirect})
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return web.Response(status=fault.status, headers=headers)
        repo = f"{request.match_info['org']}/{request.match_info['repo']}"
        if repo not in self.repos:
            return web.json_response(
                {"error": "Repository not found"}, status=401 if not request.headers.get("Authorization") else 404,
                headers={"X-Error-Code": "RepoNotFound"},
            )  # fmt: skip
        commit, revision = self.commit(repo), request.match_info.get("revision", "main")
        if revision not in ("main", commit):
            return web.json_response(
                {"error": "Invalid rev id"}, status=404, headers={"X-Error-Code": "RevisionNotFound"}
            )
        siblings = []
        for name, data in self.repos[repo].items():
            sha256 = self.lies.get(name, hashlib.sha256(data).hexdigest())
            size = self.sizes.get(name, len(data))
            siblings.append({
                "rfilename": name, "size": size, "blobId": "0" * 40,
                **({"lfs": {"sha256": sha256, "size": size, "pointerSize": 134}} if name.endswith(".gguf") else {}),
            })  # fmt: skip
        card = {"license": self.licence[repo]} if repo in self.licence else {}
        return web.json_response({
            "_id": "1", "id": repo, "modelId": repo, "sha": commit, "private": False, "disabled": False,
            "gated": "manual" if repo in self.gated else False, "tags": [], "siblings": siblings, "cardData": card,
            **self.extra,
        })  # fmt: skip

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        self._note(request, "hub")
        repo = f"{request.match_info['org']}/{request.match_info['repo']}"
        if repo in self.gated and request.headers.get("Authorization") != f"Bearer {self.token}":
            said = 403 if request.headers.get("Authorization") else 401
            return web.Response(status=said, headers={"X-Error-Code": "GatedRepo"})
        data = self.repos.get(repo, {}).get(request.match_info["path"])
        if data is None or request.match_info["revision"] != self.commit(repo):
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        sha256 = hashlib.sha256(data).hexdigest()
        return web.Response(
            status=302,
            headers={
                "Location": f"{self.cdn}/cdn/{sha256}?Signature=s3cr3t", "X-Repo-Commit": self.commit(repo),
                "X-Linked-Etag": f'"{self.lies.get(request.match_info["path"], sha256)}"',
                "X-Linked-Size": str(len(data)),
            },
        )  # fmt: skip

    async def _bytes(self, request: web.Request) -> web.StreamResponse:
        self._note(request, "cdn")
        for files in self.repos.values():
            for data in files.values():
                if hashlib.sha256(data).hexdigest() == request.match_info["sha256"]:
                    return await self._give(request, data)
        return web.Response(status=404)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self._note(request, "web")
        data = self.files.get(request.match_info["name"])
        return web.Response(status=404) if data is None else await self._give(request, data)

    async def _give(self, request: web.Request, data: bytes) -> web.StreamResponse:
        """The bytes, or those that are asked for, with the next fault. The first megabytes that somebody asks for to
        look at the header meet faults of their own."""
        looks = request.headers.get("Range", "").startswith("bytes=0-")
        faults = self.look_faults if looks else self.faults
        fault = faults.popleft() if faults else Fault()
        if fault.status:
            return web.Response(
                status=fault.status, headers={"Retry-After": fault.retry_after} if fault.retry_after else {}
            )
        if fault.redirect:
            return web.Response(status=302, headers={"Location": fault.redirect})
        headers = {"ETag": f"W/{etag(data)}" if self.weak else etag(data)} if self.etags else {}
        if fault.encoding:
            headers["Content-Encoding"] = fault.encoding
        start, status, last = 0, 200, len(data) - 1
        asked = request.headers.get("Range", "")
        same = request.headers.get("If-Range", headers.get("ETag", "")) == headers.get("ETag", "")
        if asked and self.ranges and same:
            first, _, end = asked.removeprefix("bytes=").partition("-")
            start, last = int(first), min(int(end or last), last)
            if start >= len(data):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
            status = 206
            headers["Content-Range"] = f"bytes {start + fault.shift}-{last}/{len(data)}"
            if looks and self.peeked:
                headers["Content-Range"] = self.peeked
        body = data[start : last + 1] + fault.extra
        headers["Content-Length"] = str(len(body) + fault.length)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if fault.hang:
            await asyncio.sleep(3600)
        with contextlib.suppress(ConnectionError):  # who asked has gone
            await self._send(request, response, body, fault, looks)
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, body: bytes, fault: Fault, looks: bool
    ) -> None:  # fmt: skip
        step = 1024 if fault.slow_s else 1 << 14
        for at in range(0, len(body), step):
            if not looks:
                await self.gate.wait()
            piece = body[at : at + step]
            if 0 <= fault.cut < at + len(piece):
                await response.write(piece[: fault.cut - at])
                await asyncio.sleep(0.02)
                if request.transport is not None:  # else who asked is gone
                    request.transport.abort()
                return
            await response.write(piece)
            if not looks:
                self.sent += len(piece)
                self.on_bytes(len(piece))
            if fault.slow_s:
                await asyncio.sleep(fault.slow_s)


@contextlib.contextmanager
def in_a_thread() -> Iterator[HubDouble]:
    """One with a thread of its own, for tests that wait for commands and could not answer meanwhile."""
    made, loop = HubDouble(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(made.begin(), loop).result(20)
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(made.end(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
