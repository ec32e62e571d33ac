"""How a caller's requests go out: one connection each, errors of the daemon and of the connection as `core.errors`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from core import http
from core.errors import CorralError, ErrorBody, Failed, Invalid, NoDaemon, TimedOut, from_body
from core.nouns import API_VERSION

T = TypeVar("T")
PREFIX = "/api/v1"


class Transport:
    """`through`: what the daemon's records say that one came through."""

    def __init__(self, socket: Path, through: str) -> None:
        self.socket = socket
        self._headers = {"Corral-Through": through, "Corral-API": str(API_VERSION)}
        self.daemon_version = ""
        """As the daemon's last answer said; empty before the first one."""

    async def _open(self, method: str, path: str, body: Any = None, *, timeout: float = 30.0) -> http.Response:
        try:
            raw = b"" if body is None else msgspec.json.encode(body)
        except UnicodeEncodeError as error:
            byte = ord(error.object[error.start]) & 0xFF  # how Python keeps a byte of an argument that it cannot read
            raise Invalid(
                "what was typed is not UTF-8",
                f"it has the byte 0x{byte:02x}",
                "look at the terminal's or script's locale",
            ) from error
        try:
            response = await http.request(
                self.socket, method, PREFIX + path, body=raw, headers=self._headers, timeout=timeout
            )
        except TimeoutError as error:
            raise TimedOut(
                f"the daemon did not answer within {timeout:.0f} s", await _how_it_hangs(self.socket), "see its log"
            ) from error
        except http.Lost as error:
            raise went_away(method) from error
        except OSError as error:
            raise NoDaemon("the daemon does not answer", str(error), "start it with any verb") from error
        self.daemon_version = response.headers.get("corral-version", "")
        if response.status >= 400:
            async with response:
                raise error_of(response.status, await response.read(1 << 20))
        return response

    async def call(self, method: str, path: str, type: type[T], body: Any = None, *, timeout: float = 30.0) -> T:
        """One request and its decoded answer."""
        return (await self._call(method, path, type, body, timeout=timeout))[1]

    async def _call(
        self, method: str, path: str, type: type[T], body: Any = None, *, timeout: float = 30.0
    ) -> tuple[int, T]:
        response = await self._open(method, path, body, timeout=timeout)
        async with response:
            try:
                async with asyncio.timeout(timeout):
                    raw = await response.read()
            except TimeoutError as error:
                raise TimedOut(
                    "the daemon's answer was not complete in time", todo="see `corral status`, and its log"
                ) from error
            except OSError as error:
                raise went_away(method) from error
        try:
            return response.status, msgspec.json.decode(raw, type=type)
        except msgspec.MsgspecError as error:
            raise Failed("the daemon's answer is not understood", str(error), "do the versions match?") from error

    async def stream(self, path: str, *, timeout: float = 60.0) -> AsyncIterator[bytes]:
        """A body in pieces, each within `timeout` seconds. Raises `NoDaemon` if it is cut off."""
        response = await self._open("GET", path, timeout=timeout)
        async with response:
            pieces = response.pieces()
            while True:
                try:
                    async with asyncio.timeout(timeout):
                        piece = await anext(pieces, None)
                except TimeoutError as error:
                    raise TimedOut("the daemon sent nothing for a while", todo="see its log") from error
                except OSError as error:
                    raise went_away() from error
                if piece is None:
                    return
                yield piece

    async def _text(self, path: str) -> str:
        response = await self._open("GET", path)
        async with response:
            return (await response.read()).decode()


async def begun(call: Coroutine[Any, Any, T], cancel: Callable[[T], Awaitable[object]]) -> T:
    """The job that `call` begins. Cancelled before the daemon has named it, it is cancelled there too."""
    asked = asyncio.create_task(call)
    try:
        return await asyncio.shield(asked)
    except asyncio.CancelledError:
        with contextlib.suppress(CorralError):
            await cancel(await asked)
        raise


def went_away(method: str = "GET") -> NoDaemon:
    """The daemon ended, or was killed, in the middle of this request. `sent` in the details: it may have been done."""
    if method == "GET":
        why, todo = "it ended, or was killed; nothing was changed", "give the command again"
    else:
        why = "it ended, or was killed: what was asked is done as a whole or not at all, and nobody can say which"
        todo = "look first (`corral events`, or an `ls`), then give the command again if it is still needed"
    return NoDaemon("the daemon went away in the middle of this", why, todo, sent=method != "GET")


def query(**fields: Any) -> str:
    given = {key: value for key, value in fields.items() if value is not None}
    return "?" + urlencode(given, errors="surrogateescape") if given else ""


def error_of(status: int, raw: bytes) -> CorralError:
    try:
        return from_body(msgspec.json.decode(raw, type=ErrorBody))
    except msgspec.MsgspecError:
        return Failed(f"the daemon answered {status}")


def lives(pid: int) -> bool:
    """A zombie has ended: where pid 1 does not reap, its entry stays."""
    return _state(pid) not in ("", "Z", "X")


def _state(pid: int) -> str:
    """The kernel's letter for a process; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0].decode()
    except (OSError, IndexError):
        return ""


async def _how_it_hangs(socket: Path) -> str:
    """Why a daemon that listens does not answer, as far as its process shows it."""
    try:
        async with asyncio.timeout(1):
            _, writer = await http.connect(socket)
    except (OSError, TimeoutError):
        return "it takes no connections either"
    pid = http.peer_pid(writer)
    writer.close()
    state = _state(pid)
    if state in ("T", "t"):
        return f"its process {pid} is stopped: `kill -CONT {pid}` lets it go on"
    if state == "D":
        return f"its process {pid} waits for a disk"
    return f"its process {pid} is busy, or hangs" if state else ""
