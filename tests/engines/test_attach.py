"""attach: watching servers of somebody else, a real one and a double that misbehaves in each way seen or feared."""

import asyncio
import json
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from core.engines import probe
from core.engines.attach import Attach
from core.engines.base import Endpoint
from core.engines.llama_cpp_python import LlamaCppPython
from core.engines.llama_server import LlamaServer
from core.errors import Invalid
from core.nodes.base import LaunchOrder, Limits
from core.settings import EnginesTable

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("measures")]
ATTACH = Attach(EnginesTable())
MODELS = b'{"object": "list", "data": [{"id": "m"}]}'
Misdeed = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


# ---------------------------------------------------------------------------------------------- a real server


async def test_a_real_server_is_watched_and_its_end_is_seen(yard: Any) -> None:
    engine = yard.engine("xllamacpp")
    plan = yard.plan(engine)
    command = engine.command(plan)
    told = json.loads(command.argv[-1]) | {"socket": "127.0.0.1"}
    launch = secrets.token_hex(5)
    await yard.node.launch(
        LaunchOrder(
            id=launch,
            kind="replica",
            owner="somebody/0",
            argv=(*command.argv[:-1], json.dumps(told)),
            env=command.env,
            limits=Limits(),
        )
    )
    async with asyncio.timeout(30):
        while not (found := re.search(rb"listening on http://127.0.0.1:(\d+)", await _log(yard, launch))):
            await asyncio.sleep(0.02)
    endpoint = Endpoint(host="127.0.0.1", port=int(found[1]), secret=plan.secret)
    assert (await ATTACH.health(endpoint)).state == "ready"
    assert await ATTACH.counters(endpoint) is None
    stranger = await ATTACH.health(msgspec.structs.replace(endpoint, secret=""))
    assert stranger.state == "lost" and "asks for a key" in stranger.reason
    elsewhere = await ATTACH.health(msgspec.structs.replace(endpoint, prefix="/elsewhere"))
    assert elsewhere.state == "lost" and "404" in elsewhere.reason
    await yard.node.signal(launch, signal.SIGKILL)
    async with asyncio.timeout(10):
        while (health := await ATTACH.health(endpoint)).state == "ready":
            await asyncio.sleep(0.02)
    assert "cannot be reached" in health.reason


async def _log(yard: Any, launch: str) -> bytes:
    return bytes((await yard.node.read_log(launch, 0, 1 << 20)).data)


async def test_it_is_never_started() -> None:
    assert not ATTACH.abilities.starts and ATTACH.availability().found
    with pytest.raises(Invalid):
        ATTACH.command(None)  # type: ignore[arg-type]
    assert ATTACH.explain(code=None, signal=None, log_tail=[], was_ready=True).reason


# ---------------------------------------------------------------------------------------------- a misbehaving one


@asynccontextmanager
async def double(misdeed: Misdeed) -> AsyncIterator[Endpoint]:
    """A double: a server that reads a request and then does `misdeed`."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await misdeed(reader, writer)
            await writer.drain()
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Endpoint(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def says(data: bytes) -> Misdeed:
    async def misdeed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return misdeed


async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    await asyncio.sleep(60)


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.2)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def endless_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()


async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: and more\r\n" * 1000)
        await writer.drain()


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


MISDEEDS: dict[str, tuple[Misdeed, str]] = {
    "never answers": (never_answers, "does not answer within 2 s"),
    "drips": (drips, "does not answer within 2 s"),
    "closes early": (says(b""), "cut off"),
    "closes in the head": (says(b"HTTP/1.1 200 OK\r\nContent-"), "cut off"),
    "closes in the body": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), "cut off"),
    "garbage": (says(b"\x00\xff\x16\x03 what?\r\n\r\n"), "does not speak HTTP"),
    "SSH": (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "does not speak HTTP"),
    "status that is no number": (says(b"HTTP/1.1 fine\r\n\r\n"), "does not speak HTTP"),
    "negative length": (says(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc"), "does not speak HTTP"),
    "length that is no number": (says(b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n"), "does not speak HTTP"),
    "chunk that is no number": (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "not speak HTTP"),
    "huge length": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"), "too large"),
    "huge chunk": (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"), "too large"),
    "endless body": (endless, "too large"),
    "endless chunks": (endless_chunks, "too large"),
    "endless head": (endless_head, "too large"),
    "500": (says(answer(b"oops", b"500 Internal Server Error")), "says 500"),
    "redirect": (says(answer(b"", b"302 Found")), "says 302"),
    "a web page": (says(answer(b"<!doctype html><title>It works</title>")), "no OpenAI-compatible server"),
    "other JSON": (says(answer(b'{"hello": "world"}')), "no OpenAI-compatible server"),
    "deep JSON": (says(answer(b"[" * 100000)), "no OpenAI-compatible server"),
    "no model": (says(answer(b'{"object": "list", "data": []}')), "serves no model"),
    "null": (says(answer(b'{"object": "list", "data": null}')), "serves no model"),
}

CONTENT = ("a web page", "other JSON", "deep JSON", "no model", "null")
"""Good HTTP: only who reads the list of models minds."""


@pytest.mark.parametrize("name", MISDEEDS)
async def test_a_server_that_misbehaves_is_lost_with_the_reason(name: str) -> None:
    misdeed, words = MISDEEDS[name]
    async with double(misdeed) as endpoint:
        began = time.monotonic()
        health = await ATTACH.health(endpoint)
        assert time.monotonic() - began < 2.5
    assert health.state == "lost" and words in health.reason, health


@pytest.mark.parametrize("name", [name for name in MISDEEDS if name not in CONTENT])
async def test_no_engine_trips_over_a_server_that_misbehaves(name: str) -> None:
    """Health and counters of the engines that Corral starts: never `ready`, never an exception."""
    misdeed, _ = MISDEEDS[name]
    server, package = LlamaServer(EnginesTable()), LlamaCppPython(EnginesTable())
    async with double(misdeed) as endpoint:
        looks = await asyncio.gather(server.health(endpoint), package.health(endpoint), server.counters(endpoint))
    assert looks[0].state in ("starting", "loading") and looks[0].reason
    assert looks[1].state in ("starting", "loading") and looks[1].reason
    assert looks[2] is None


async def test_a_well_behaved_double_is_ready() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(MODELS) + MODELS + b"\r\n0\r\n\r\n"
    for data in (answer(MODELS), chunked, b"HTTP/1.0 200 OK\r\n\r\n" + MODELS):
        async with double(says(data)) as endpoint:
            assert (await ATTACH.health(endpoint)).state == "ready"


async def test_where_nobody_listens_or_nothing_resolves_it_is_lost() -> None:
    async with double(never_answers) as endpoint:
        pass
    for gone in (endpoint, Endpoint(host="no-such-host.invalid", port=80), Endpoint(host="a" * 300, port=80)):
        health = await ATTACH.health(gone)
        assert health.state == "lost" and ("reached" in health.reason or "answer" in health.reason)


async def test_a_server_without_tls_where_tls_is_asked_is_lost() -> None:
    async with double(says(answer(MODELS))) as endpoint:
        health = await ATTACH.health(msgspec.structs.replace(endpoint, tls=True))
    assert health.state == "lost" and health.reason


async def test_the_secret_and_the_prefix_are_sent() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(MODELS))
        await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await ATTACH.health(Endpoint(host="127.0.0.1", port=port, secret="s3", prefix="/api"))
    assert seen[0].startswith(b"GET /api/v1/models HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer s3\r\n")


async def test_a_socket_path_of_any_length_is_reached(tmp_path: Any) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"ok"))
        await writer.drain()
        writer.transport.abort()

    short = tmp_path / "s"
    short.symlink_to(folder)
    server = await asyncio.start_unix_server(serve, f"{short}/e.sock")
    async with server:
        found = await probe.get(Endpoint(socket=f"{folder}/e.sock"), "/health")
    assert (found.status, found.body) == (200, b"ok")
    with pytest.raises(OSError):
        await probe.get(Endpoint(socket=f"{folder}/none/e.sock"), "/health")
