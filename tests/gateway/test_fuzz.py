"""The gateway under requests that are nearly right, by thousands: it answers well or hangs up, serves all others, and
has at the end what it had in the beginning. CORRAL_FUZZ_SEED repeats a run's requests."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import ssl
from pathlib import Path

import psutil
import pytest
from certs import issued, port, trusting
from fuzzing import AUTH, CHAT, SECRET, answers, mutated, packets

from core.gateway import wire
from core.listen import Listen

pytestmark = pytest.mark.xdist_group("measures")
KEY = wire.Key(
    id="k1", name="fuzz", hash=hashlib.sha256(SECRET.encode()).hexdigest(), owner="ann", uid=4242,
    limits=wire.Limits(tpm=1 << 50, daily_tokens=1 << 50),
)  # fmt: skip
MIB = 1 << 20
AT_ONCE = 48
EVERY = 250
"""Requests between two that must be answered."""
QUIET_S = 0.03
"""Nothing has come for so long: the rest of a request is waited for, so the client goes."""
HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(200))
RIGHT = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (AUTH, len(CHAT), CHAT)


class Range:
    """A gateway with all its doors open, and what is shot at it."""

    def __init__(self, gateway, stub, folder: Path) -> None:
        self.gateway, self.stub = gateway, stub
        self.process = psutil.Process(gateway.process.pid)
        self.files, _ = issued(folder)
        self.context = trusting(self.files)
        self.shot = 0
        self.heard: dict[int, int] = {}

    async def open(self) -> None:
        doors = (Listen(f"127.0.0.1:{port()}"), Listen(f"127.0.0.1:{port()}", True))
        live = await self.gateway.route(
            self.stub, keys=[KEY], doors=doors, files=self.files, slots=AT_ONCE, queue=AT_ONCE, body_bytes=MIB
        )
        self.plain, self.tls = (int(each.url.rpartition(":")[2]) for each in live.doors)

    async def acknowledge(self) -> None:
        """The daemon's end: a spool that fills up would refuse what is right."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                batch = await self._batch()
                self.gateway.send(wire.UsageAck(launch=batch.launch, n=batch.n))
                self.gateway.usage.clear()

    async def _batch(self) -> wire.UsageBatch:
        while True:
            with contextlib.suppress(TimeoutError):
                return await self.gateway.expect(wire.UsageBatch)

    async def connect(self, kind: str, source: str = "127.0.0.1"):
        if kind == "unix":
            return await self.gateway.open()
        if kind == "tls":
            return await asyncio.open_connection(
                "127.0.0.1", self.tls, ssl=self.context, server_hostname="localhost", local_addr=(source, 0)
            )
        at = self.tls if kind == "hello" else self.plain
        return await asyncio.open_connection("127.0.0.1", at, local_addr=(source, 0))

    async def shoot(self, dice: random.Random) -> None:
        """One connection with one volley."""
        kind = dice.choices(("unix", "tcp", "tls", "hello"), (50, 32, 15, 3))[0]
        data = mutated(dice)
        pieces = packets(dice, data)
        if kind == "hello":
            pieces = [bytes(each ^ (dice.random() < 0.02) for each in HELLO[: dice.randint(1, len(HELLO))]), data]
        reader, writer = await self.connect(kind)
        got = b""
        try:
            async with asyncio.timeout(20):
                for each in pieces:
                    writer.write(each)
                    await writer.drain()
                    await asyncio.sleep(0)
                if dice.random() < 0.1:  # it goes in the middle
                    return
                while piece := await asyncio.wait_for(reader.read(1 << 16), QUIET_S):
                    got += piece
        except (ConnectionError, ssl.SSLError):
            pass
        except TimeoutError:
            pass  # it waits for the rest, or keeps the connection
        finally:
            writer.transport.abort()
            self.shot += 1
        if kind != "hello":
            try:
                for status in answers(got)[0]:
                    self.heard[status] = self.heard.get(status, 0) + 1
            except AssertionError as error:
                raise AssertionError(f"{error}\nto {b'|'.join(pieces)[:3000]!r}\ngot {got[:3000]!r}") from None

    async def well(self) -> None:
        """Requests as they should be are answered, on each door."""
        for kind in ("unix", "tcp", "tls"):
            reader, writer = await self.connect(kind)
            async with asyncio.timeout(20):
                writer.write(RIGHT)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 "), head
                await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
            writer.transport.abort()
        for body in self.stub.bodies:
            assert b'"model"' in body and body.decode(), "an engine gets nothing that was not read"
        self.stub.bodies.clear()
        self.stub.heads.clear()

    async def settled(self, descriptors: int) -> None:
        """All that was opened is closed again."""
        async with asyncio.timeout(30):
            while self.process.num_fds() > descriptors:
                await asyncio.sleep(0.1)


async def volleys(range_: Range, count: int, folder: Path) -> None:
    seed = int(os.environ.get("CORRAL_FUZZ_SEED") or random.SystemRandom().getrandbits(32))
    print(f"CORRAL_FUZZ_SEED={seed}")
    await range_.open()
    acknowledging = asyncio.create_task(range_.acknowledge())
    numbers = itertools.count()

    async def shooter() -> None:
        while (number := next(numbers)) < count:
            await range_.shoot(random.Random(f"{seed}/{number}"))
            if number % EVERY == 0:
                await range_.well()

    async def warm() -> None:
        for number in range(300):
            await range_.shoot(random.Random(f"{seed}/warm/{number}"))
        await range_.well()

    try:
        await warm()  # pools, caches, the heads that connections remember
        await asyncio.sleep(0)
        descriptors, before = range_.process.num_fds(), range_.gateway.rss()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(shooter())
        await range_.well()
        await range_.settled(descriptors + 8)  # connections to the engine that are kept
        grown = range_.gateway.rss() - before
    finally:
        acknowledging.cancel()
        await asyncio.gather(acknowledging, return_exceptions=True)
    said = (folder / "gateway.log").read_text()
    print(f"{range_.shot} volleys, {dict(sorted(range_.heard.items()))}, grown by {grown / MIB:.1f} MiB")
    assert "Traceback" not in said and "ERROR" not in said and "Exception" not in said, said[-3000:]
    assert {200, 400, 401, 404} <= set(range_.heard), "the requests reach what they are aimed at"
    assert grown < 48 * MIB
    assert range_.gateway.process.poll() is None


@pytest.fixture
async def shooting(gateway, stub, tmp_path):
    return Range(gateway, stub, tmp_path)


@pytest.mark.timeout(300)
async def test_2000_requests_that_are_nearly_right(shooting, tmp_path):
    await volleys(shooting, 2000, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_100000_requests_that_are_nearly_right(shooting, tmp_path):
    await volleys(shooting, 100_000, tmp_path)
