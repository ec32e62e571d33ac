"""A stream whose end is that of its connection: whole where its last event came, else it ends with an error event."""

import asyncio
import contextlib
import json
import os

import pytest
from test_keyed import bearer, key

from core.gateway.ending import TAIL_BYTES, ended, tail
from core.gateway.guess import guess

DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"hello data: [DONE]"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
TOLD = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = [
    (DELTA, DONE), (DELTA, STOP), (DELTA, STOP, TOLD), (b'data: {"error":{"message":"full"}}\n\n',),
    (b'event: message_stop\ndata: {"type":"message_stop"}\n\n',), (b'event: error\ndata: {"type":"error"}\n\n',),
    (b'data: {"type": "response.completed", "response": {}}\n\n',), (b"data: [DO", b"NE]\n\n"), (DELTA * 99, DONE),
]  # fmt: skip
TORN = [
    (DELTA,), (DELTA, TOLD), (DELTA, DONE[:-6]), (), (b'data: {"type":"response.output_text.delta"}\n\n',),
    (b'data: {"delta":{"text":"\\"finish_reason\\": \\"stop\\""}}\n\n',),
]  # fmt: skip


@pytest.mark.parametrize("parts", WHOLE)
def test_what_has_its_last_event_is_whole(parts):
    last = b""
    for part in parts:
        last = tail(last, part)
    assert ended(last) and len(last) <= TAIL_BYTES


@pytest.mark.parametrize("parts", TORN)
def test_what_lacks_its_last_event_is_not(parts):
    last = b""
    for part in parts:
        last = tail(last, part)
    assert not ended(last)


class Plain:
    """A server of somebody else: no length and no chunks, the end of its answer is that of the connection."""

    def __init__(self, path, kind: bytes, parts: list[bytes]) -> None:
        self.path, self.kind, self.parts = path, kind, parts

    async def serve(self, reader, writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: %b\r\n\r\n" % self.kind)
        for part in self.parts:
            writer.write(part)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def attached(tmp_path, *parts: bytes, kind: bytes = b"text/event-stream"):
    there = Plain(tmp_path / "p" / "e.sock", kind, list(parts))
    there.path.parent.mkdir()
    folder = os.open(there.path.parent, os.O_PATH)
    server = await asyncio.start_unix_server(there.serve, f"/proc/self/fd/{folder}/e.sock")
    yield there
    server.close()
    os.close(folder)


async def test_a_stream_that_ends_without_its_last_event_ends_with_an_error(gateway, tmp_path):
    async with attached(tmp_path, DELTA, DELTA, b'data: {"half') as there:
        await gateway.route(there)
        answer = await gateway.post({"model": "chat", "stream": True})
        line = await gateway.line()
    assert answer.count(b"hello") == 2 and b"half" not in answer
    assert b'data: {"error":{"message":"replica chat/0 ended the stream before its last event"' in answer
    assert (line.outcome, line.status, line.answer_tokens, line.estimated) == ("replica-died", 200, 2, True)


@pytest.mark.parametrize("end", [DONE, STOP])
async def test_one_that_ends_with_its_last_event_is_whole(gateway, tmp_path, end):
    async with attached(tmp_path, DELTA, end) as there:
        await gateway.route(there)
        answer = await gateway.post({"model": "chat", "stream": True})
        line = await gateway.line()
    assert b'"error"' not in answer and line.outcome == "ok"


async def test_a_server_without_usage_is_used_for_what_limits_charge(gateway, tmp_path):
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "x" * 400}, "index": 0}]}).encode()
    async with attached(tmp_path, body, kind=b"application/json") as there:
        await gateway.route(there, keys=[key(daily_tokens=100_000)])
        answer = await gateway.post({"model": "chat", "messages": [{"content": "y" * 4000}], "max_tokens": 9}, bearer())
        assert b"x" * 400 in answer
        line = await gateway.line()
        assert line.prompt_tokens is not None and 1000 <= line.prompt_tokens < 1030
        assert (line.answer_tokens, line.estimated, line.outcome) == (100, True, "ok")
        again = await gateway.post({"model": "chat", "max_tokens": 0}, bearer())
    left = int(again.split(b"x-ratelimit-remaining-tokens: ")[1].split(b"\r\n")[0])
    assert 0 <= 100_000 - line.prompt_tokens - 100 - left < 30, "and both say the same"


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"choices":[{"text":"12345678"},{"text":"9"}]}', 3),
        (b'{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"arguments":"1234"}}]}}]}', 1),
        (b'{"output":[{"content":[{"type":"output_text","text":"12345"}]}]}', 2),
        (b'{"content":[{"type":"text","text":"1234"}]}', 1),
        (b'{"data":[{"embedding":[1,2,3]}]}', 0), (b"[1]", 0), (b"{", 0),
    ],
)  # fmt: skip
def test_an_answer_is_guessed_by_its_text(body, tokens):
    assert guess(body) == tokens
