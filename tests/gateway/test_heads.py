"""A head that is known again is read as the parser reads it, whatever comes and however it is split; and rights and
limits are asked for with each request."""

import asyncio
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.gateway.errors import Refusal
from core.gateway.framing import Framer
from core.gateway.heads import MOST, LastHead
from core.gateway.routes import Table
from core.gateway.upstream import EngineConnection, Pool

POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
REQUESTS = [
    POST + b"Content-Length: 2\r\n\r\n{}",
    POST + b"Content-Length: 3\r\n\r\n{ }",
    POST + b"Content-Length: 11\r\n\r\n0123456789a",
    POST + b"Content-Length: 02\r\n\r\n{}",
    POST + b"Content-Length: 2\r\nA: b\r\n\r\n{}",
    POST + b"content-length:2\r\n\r\n{}",
    POST + b"Content-Length: 0\r\n\r\n",
    POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    POST + b"Content-Length: +2\r\n\r\n{}",
    POST + b"Content-Length: 2\r\nX-Corral-Turn: t1\r\n\r\n{}",
    POST + b"Content-Length: 2\r\nHost: y\r\n\r\n{}",
    POST + b"Content-Length: 9\r\nHost: y\r\n\r\n",
    POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}",
    POST + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
    POST + b"Content-Length: 2\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n{}",
    POST + b"Content-Length: 70\r\n\r\n" + b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n".ljust(70),
    POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n",
]
ANSWERS = [
    b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    for status, body in itertools.product((b"200 OK", b"400 Bad Request"), (b"{}", b"{ }", b"x" * 300, b""))
] + [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def framed(reads: list[bytes], path, *, memory: bool) -> list[object]:
    """What a connection makes of these reads."""
    framer = Framer(Table(path), lambda request: None)
    found: list[object] = []
    try:
        for read in reads:
            whole = framer.again(read) if memory else None
            if whole is not None:
                framer.ready.append(whole)
                rest = b""
            else:
                rest = framer.feed(read)
            while framer.ready:
                one = framer.ready.popleft()
                found.append((one.method, one.target, one.body, one.keep, one.old, one.actor, one.turn, framer.waits))
                one.body = b""
                if not one.keep:  # a connection reads no further
                    return found
                if not framer.ready and rest:
                    rest = framer.feed(rest)
    except Refusal as refusal:
        found.append((refusal.status, refusal.message))
    return found


@given(parts=st.lists(st.tuples(st.sampled_from(REQUESTS), st.booleans(), st.lists(st.integers(0, 500), max_size=3))))
def test_requests_are_read_as_without_a_memory(tmp_path_factory, parts):
    reads: list[bytes] = []
    for data, apart, cuts in parts:
        pieces = [data] if not cuts else split(data, cuts)
        if not apart and reads:  # what came before is in the same read
            pieces[0] = reads.pop() + pieces[0]
        reads += pieces
    path = tmp_path_factory.getbasetemp() / "none.json"
    assert framed(reads, path, memory=True) == framed(reads, path, memory=False)


@pytest.mark.parametrize("before", REQUESTS[:6])
def test_each_request_is_read_after_each_other_as_without_a_memory(tmp_path, before):
    for after in REQUESTS:
        for reads in ([before, after], [before, after, before, after]):
            assert framed(reads, tmp_path, memory=True) == framed(reads, tmp_path, memory=False)


def test_a_body_that_looks_like_the_request_before_is_a_body(tmp_path):
    first = REQUESTS[0]
    reads = [first, POST + b"Content-Length: %d\r\n\r\n" % len(first), first]
    assert [one[2] for one in framed(reads, tmp_path, memory=True)] == [b"{}", first]


class Transport:
    """Stands for a socket: how an engine's bytes are split cannot be chosen with a real one."""

    def write(self, data: bytes) -> None:
        pass

    writelines = abort = close = pause_reading = resume_reading = lambda self, *_: None


class Taker:
    def __init__(self) -> None:
        self.heads: list[tuple] = []
        self.body = b""
        self.ended = ""

    def answer(self, status: int, content_type: bytes, body: bytes) -> None:
        self.answer_head(status, content_type, len(body))
        self.answer_part(body, True)

    def answer_head(self, *head) -> None:
        self.heads.append(head)

    def answer_part(self, data: bytes, last: bool) -> None:
        self.body += data
        self.ended += "end" * last

    def answer_lost(self) -> None:
        self.ended += "lost"

    def heard(self) -> tuple:
        return self.heads, self.body, self.ended


@given(parts=st.lists(st.tuples(st.sampled_from(ANSWERS), st.lists(st.integers(0, 500), max_size=2))))
def test_answers_are_read_as_by_a_new_connection(parts):
    async def run() -> None:
        pool = Pool("unix:/nowhere")
        kept = EngineConnection(pool)
        kept.connection_made(Transport())
        for answer, cuts in parts:
            heard = []
            for connection in (kept, fresh := EngineConnection(pool)):
                if connection is fresh:
                    fresh.connection_made(Transport())
                connection.send(taker := Taker(), b"")
                for piece in split(answer, cuts):
                    connection.data_received(piece)
                connection.taker = None
                heard.append((*taker.heard(), connection.closed))
            assert heard[0] == heard[1]
            if kept.closed:
                return

    asyncio.run(run())


def test_a_long_head_is_not_kept():
    last = LastHead()
    message = POST + b"A: " + b"a" * MOST + b"\r\nContent-Length: 2\r\n\r\n{}"
    assert not last.learn(message, 2) and last.body(message) is None


@pytest.mark.parametrize("change", [{"uids": (12345,)}, {"body_bytes": 10}], ids=["rights", "length"])
async def test_what_changed_counts_for_the_next_request_of_a_connection(gateway, stub, change):
    await gateway.route(stub)
    body = json.dumps({"model": "chat"}).encode()
    data = POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    reader, writer = await gateway.open()
    async with asyncio.timeout(10):
        for _ in range(3):
            writer.write(data)
            assert await reader.readuntil(b"}}")
        await gateway.route(stub, **change)
        writer.write(data)
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 403" if "uids" in change else b"HTTP/1.1 413"), answer
    assert len(stub.bodies) == 3
    writer.close()
