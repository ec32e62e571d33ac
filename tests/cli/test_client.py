"""The client where the other end does not do its part: errors of the family, in time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.client import Client
from core.errors import CorralError, Failed, NoDaemon, TimedOut
from core.nouns import Status

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Daemon:
    """A socket that answers each request with `answer`, or never (None)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: bytes | None = None
        self.never = asyncio.Event()
        self.callers: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.callers.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            if self.answer is None:
                await self.never.wait()
            writer.write(self.answer or b"")
            await writer.drain()
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            self.callers.discard(task)
            writer.close()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    made = Daemon(tmp_path / "s")
    server = await asyncio.start_unix_server(made.serve, made.path)
    yield made
    server.close()
    for task in list(made.callers):
        task.cancel()
    await asyncio.gather(*made.callers, return_exceptions=True)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, TimedOut),
        (HEAD + b"Content-Length: 100\r\n\r\n{", NoDaemon),
        (b"", NoDaemon),
        (b"SSH-2.0-OpenSSH\r\n", NoDaemon),
        (HEAD + b"Content-Length: 2\r\n\r\n{}", Failed),
        (HEAD + b"Content-Length: 4\r\n\r\nnope", Failed),
        (b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\nnope", Failed),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_an_error_in_time(
    daemon: Daemon, answer: bytes | None, error: type[CorralError]
) -> None:
    daemon.answer = answer
    async with asyncio.timeout(10):
        with pytest.raises(error):
            await Client(daemon.path).call("GET", "/status", Status, timeout=0.3 if answer is None else 5)


@pytest.mark.parametrize("answer", [b"", HEAD + b"Content-Length: 100\r\n\r\n{"])
async def test_a_daemon_that_goes_in_the_middle_is_told_apart_from_one_that_is_not_there(
    daemon: Daemon, answer: bytes
) -> None:
    """Of a question that nothing was changed; of all else that it may be done. A script sees it in the details."""
    daemon.answer = answer
    with pytest.raises(NoDaemon, match=r"went away .* nothing was changed; give the command again") as read:
        await Client(daemon.path).call("GET", "/status", Status)
    with pytest.raises(NoDaemon, match=r"went away .* done as a whole or not at all.*; look first") as written:
        await Client(daemon.path).call("POST", "/deployments", Status, {})
    assert (read.value.details, written.value.details) == ({"sent": False}, {"sent": True})
    with pytest.raises(NoDaemon, match="does not answer"):
        await Client(daemon.path.with_name("nobody")).call("GET", "/status", Status)


async def test_an_answer_that_does_not_end_is_an_error_in_time(daemon: Daemon) -> None:
    daemon.answer = None

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        await Daemon.serve(daemon, reader, writer)

    server = await asyncio.start_unix_server(begin, daemon.path.with_name("slow"))
    async with asyncio.timeout(10):
        with pytest.raises(TimedOut):
            await Client(daemon.path.with_name("slow")).call("GET", "/status", Status, timeout=0.3)
    server.close()


async def test_nobody_there_is_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon):
        await Client(tmp_path / "nobody").status()


async def test_a_daemon_that_says_nothing_of_an_answer_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.client.chats.SILENT_S", 0.3)
    writers: list[asyncio.StreamWriter] = []

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(HEAD + b'Transfer-Encoding: chunked\r\n\r\n21\r\ndata: {"offset":0,"text":"one"}\n\n\r\n')

    server = await asyncio.start_unix_server(begin, tmp_path / "s")
    came = []
    async with asyncio.timeout(10):
        with pytest.raises(TimedOut, match="has said nothing"):
            async for piece in Client(tmp_path / "s").stream_turn("c", "t"):
                came.append(piece["text"])
    assert came == ["one"]
    server.close()
    for writer in writers:
        writer.close()
        await writer.wait_closed()
