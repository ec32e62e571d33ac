"""What a client of the gateway sees, and what the daemon hears of it."""

import asyncio
import json
import os
import signal

import pytest

from core.gateway import wire

ASK = {"model": "chat", "stream": True}
TRAPS = {
    "upgrade with a body": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
                            b"Content-Length: 2\r\n\r\n{}", b"501"),
    "no host": (b"GET /v1/models HTTP/1.1\r\n\r\n", b"400"),
    "two hosts": (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
    "huge headers": (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 60000 + b"\r\n\r\n", b"431"),
    "two lengths": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
                    b"400"),
    "length and chunks": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                          b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    "chunk extensions": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;"
                         + b"e" * 150000 + b"\r\n{\r\n", b"413"),
    "too long a body": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
    "not http": (b"hello\r\n\r\n", b"400"),
    "a tunnel": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", b"501"),
    "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
    "many small headers": (b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 8000 + b"\r\n", b"431"),
    "an endless url": (b"GET /" + b"a" * 60000, b"414"),
    "bare line feeds": (b"POST /v1/completions HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}", b"400"),
    "a bare line feed in a chunk": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                                    b"2\n{}\r\n0\r\n\r\n", b"400"),
    "two different lengths": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                              b"Content-Length: 3\r\n\r\n{} ", b"400"),
    "a length that is no number": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}", b"400"),
    "chunks by another name": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n{}",
                               b"501"),
    "expect with too long a body": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                                              b"Content-Length: 99999999999\r\n\r\n", b"413"),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
async def test_what_cannot_be_framed_is_refused_and_closed(gateway, stub, name):
    await gateway.route(stub)
    data, status = TRAPS[name]
    answer = await gateway.raw(data)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
    assert stub.bodies == []


_POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
MALFORMED = {
    "two lengths": (TRAPS["two lengths"][0], "it has more than one Content-Length"),
    "a length beside chunks": (TRAPS["length and chunks"][0], "it has both Content-Length and Transfer-Encoding"),
    "chunks beside a length": (_POST + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
                               "it has both Content-Length and Transfer-Encoding"),
    "a length that is no number": (TRAPS["a length that is no number"][0], "its Content-Length is no number"),
    "a folded header": (_POST + b"A: b\r\n c\r\n\r\n", "it has a header that is folded over several lines"),
    "a bare LF": (TRAPS["bare line feeds"][0], "a line of its head ends with a bare LF: CR LF ends each"),
    "a bare LF after a header": (_POST + b"A: b\n\r\n", "a line of its head ends with a bare LF: CR LF ends each"),
    "a bare CR": (_POST + b"A: b\rB: c\r\n\r\n", "a line of its head has a bare CR: CR LF ends each"),
    "a space before a colon": (_POST + b"A : b\r\n\r\n",
                               "the name of a header has a space before its colon, or a character that none may have"),
    "a control character": (_POST + b"A: b\x01\r\n\r\n", "the value of a header has a control character"),
    "no size of a chunk": (_CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", "the size of a chunk is no hexadecimal number"),
    "a bare LF after a size": (TRAPS["a bare line feed in a chunk"][0],
                               "the size of a chunk ends with a bare LF: CR LF ends it"),
    "a chunk of another size": (_CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n", "a chunk is longer or shorter than its size says"),
    "no method": (TRAPS["not http"][0], "its first line begins with no method"),
    "a space in the URL": (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
                           "its first line does not end with HTTP/1.1 after the URL"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_malformed_is_said(gateway, stub, name):
    await gateway.route(stub)
    data, why = MALFORMED[name]
    head, _, body = (await gateway.raw(data)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["message"] == f"the request is malformed: {why}"


@pytest.mark.parametrize("hello", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16"])
async def test_who_speaks_tls_to_a_plain_port_is_told_that_it_is_one(gateway, stub, hello):
    await gateway.route(stub)
    answer = await gateway.raw(hello)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"this port speaks plain HTTP, and TLS came" in answer


REFUSALS = {
    "too long a body": (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 16777217\r\n\r\n",
                        b"413 Content Too Large", "a body has at most 16777216 bytes", "body_too_large"),
    "not json": (b"POST /v1/completions HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
                 b"400 Bad Request", "the body cannot be read: it is not JSON", "bad_request"),
    "no model": (b"POST /v1/completions HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
                 b"400 Bad Request", "model is required", "bad_request"),
    "get instead of post": (b"GET /v1/completions HTTP/1.0\r\n\r\n",
                            b"405 Method Not Allowed", "POST a JSON body here", "method"),
    "post instead of get": (b"POST /v1/models HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
                            b"405 Method Not Allowed", "GET this", "method"),
    "no route": (b"GET /v2/models HTTP/1.0\r\n\r\n", b"404 Not Found",
                 "no such route; there are /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, "
                 "/v1/responses/input_tokens, /v1/messages, /v1/messages/count_tokens, /v1/rerank, /tokenize, "
                 "/detokenize, /rerank and /v1/models", "not_found"),
    "no url": (b"GET x:y:z HTTP/1.0\r\n\r\n", b"400 Bad Request", "the request is malformed", "bad_request"),
    "a tunnel": (TRAPS["a tunnel"][0], b"501 Not Implemented", "CONNECT is not supported: this is no proxy", "method"),
    "http/2": (TRAPS["http/2"][0], b"400 Bad Request", "this speaks HTTP/1.1, and HTTP/2 came", "bad_request"),
    "no deployment": (b'POST /v1/completions HTTP/1.0\r\nContent-Length: 13\r\n\r\n{"model":"x"}',
                      b"404 Not Found", "there is no deployment 'x'", "model_not_found"),
    "an upgrade": (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
                   b"501 Not Implemented", "Upgrade is not supported", "upgrade"),
    "chunk extensions": (TRAPS["chunk extensions"][0], b"413 Content Too Large", "too many bytes of chunk extensions",
                         "bad_request"),
    "huge headers": (TRAPS["huge headers"][0], b"431 Request Header Fields Too Large",
                     "more than 32768 bytes of headers", "headers_too_large"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_says_why(gateway, stub, name):
    await gateway.route(stub)
    data, status, message, code = REFUSALS[name]
    head, _, body = (await gateway.raw(data)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    error = json.loads(body)["error"]
    assert (error["message"], error["code"], error["type"]) == (
        message, code, "server_error" if status.startswith(b"5") else "invalid_request_error"
    )  # fmt: skip
    assert stub.bodies == []


async def test_one_body_of_the_most_bytes_is_taken_and_one_byte_more_is_not(gateway, stub):
    await gateway.route(stub, body_bytes=16)
    head = b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n"
    assert b"200 OK" in await gateway.raw(head % 16 + b'{"model":"chat"}')
    answer = await gateway.raw(head % 17 + b'{"model":"chat"} ')
    assert answer.startswith(b"HTTP/1.1 413") and b"a body has at most 16 bytes" in answer
    assert len(stub.bodies) == 1


async def test_a_head_of_30_kb_is_taken(gateway, stub):
    await gateway.route(stub)
    head = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: " + b"a" * 30_000 + b"\r\n\r\n"
    assert b"200 OK" in await gateway.raw(head)
    reader, writer = await gateway.open()
    for _ in range(3):  # the count begins anew with each request of a connection
        writer.write(head.replace(b"Connection: close\r\n", b""))
        async with asyncio.timeout(10):
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"]}")
    writer.close()


async def test_a_request_that_comes_byte_by_byte_is_one_request(gateway, stub):
    await gateway.route(stub)
    reader, writer = await gateway.open()
    body = b'{"model":"chat"}'
    for byte in b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    assert stub.bodies == [body]
    writer.close()


async def test_trailers_do_not_make_a_second_host_or_length(gateway, stub):
    await gateway.route(stub)
    body = b'{"model":"chat"}'
    answer = await gateway.raw(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\nHost: y\r\nX-Corral-Actor: 77:ann\r\n\r\n" % (len(body), body)
    )
    assert answer.startswith(b"HTTP/1.1 200") and stub.bodies == [body]
    assert (await gateway.line()).uid == os.getuid()


async def test_expect_is_refused_before_the_body_and_never_forwarded(gateway, stub):
    await gateway.route(stub, uids=(12345,))
    expecting = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 16\r\n\r\n"
    answer = await gateway.raw(expecting)
    assert answer.startswith(b"HTTP/1.1 403") and b"100 Continue" not in answer
    await gateway.route(stub)
    reader, writer = await gateway.open()
    writer.write(expecting)
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"model":"chat"}')
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    assert b"expect" not in stub.heads[0].lower()
    writer.close()


async def test_http_1_0_absolute_url_and_pipelining(gateway, stub):
    await gateway.route(stub)
    assert b'"chat"' in await gateway.raw(b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert b'"chat"' in await gateway.raw(b"GET http://x/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    two = await gateway.raw(
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert two.index(b"200 OK") < two.index(b"404 Not Found")


async def test_expect_is_answered_and_trailers_are_not_headers(gateway, stub):
    await gateway.route(stub)
    reader, writer = await gateway.open()
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        body = b'{"model":"chat"}'
        writer.write(b"%x\r\n%b\r\n0\r\nX-Corral-Turn: evil\r\n\r\n" % (len(body), body))
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def test_usage_is_asked_for_counted_and_cut_out(gateway, stub):
    await gateway.route(stub)
    answer = await gateway.post(ASK)
    assert b'"content":"2"' in answer and b"[DONE]" in answer and b"usage" not in answer
    assert json.loads(stub.bodies[0])["stream_options"] == {"include_usage": True}
    answer = await gateway.post({**ASK, "stream_options": {"include_usage": True}})
    assert b'"usage":{"prompt_tokens":7' in answer
    batch = await gateway.expect(wire.UsageBatch)
    assert (batch.lines[0].prompt_tokens, batch.lines[0].answer_tokens, batch.lines[0].outcome) == (7, 3, "ok")
    assert batch.lines[0].uid == os.getuid()
    gateway.send(wire.UsageAck(launch=batch.launch, n=batch.n))


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"stream": True, "stream_options": None}])
async def test_a_server_of_somebody_else_is_asked_by_its_own_models_name(gateway, stub, more):
    await gateway.route(stub)
    await gateway.change(asks_for="Qwen/Qwen3:8b")
    asked = {"model": "chat", "prompt": "a \u2028 \U0001f999", "n": 1.0, "x": {"model": "chat"}, **more}
    assert b"200 OK" in await gateway.post(asked)
    told = json.loads(stub.bodies[0])
    if more:
        assert told.pop("stream_options") == {"include_usage": True}
        asked.pop("stream_options", None)
    assert told == {**asked, "model": "Qwen/Qwen3:8b"}
    assert (await gateway.line()).deployment == "chat"


async def test_unknown_model_and_strangers_are_refused(gateway, stub):
    await gateway.route(stub)
    assert b"404 Not Found" in await gateway.post({"model": "other"})
    await gateway.route(stub, uids=(12345,))
    assert b"403 Forbidden" in await gateway.post(ASK)


async def test_a_client_that_goes_frees_its_slot(gateway, stub):
    await gateway.route(stub)
    stub.hold.clear()
    reader, writer = await gateway.open()
    body = json.dumps(ASK).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    async with asyncio.timeout(5):
        await reader.readuntil(b'"0"')
        writer.close()
        await stub.gone.wait()
    stub.hold.set()
    assert b"[DONE]" in await gateway.post(ASK)


async def test_a_replica_that_dies_ends_the_stream_with_an_error_event(gateway, stub):
    await gateway.route(stub)
    stub.die = True
    answer = await gateway.post(ASK)
    assert b'"0"' in answer and b'data: {"error"' in answer and answer.endswith(b"0\r\n\r\n")


async def test_time_outs_and_the_queue(gateway, stub):
    await gateway.route(stub, idle_timeout_s=0.3, queue=1, queue_timeout_s=0.1)
    stub.hold.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(gateway.post(ASK))
        others = [group.create_task(gateway.post(ASK)) for _ in range(2)]
    answers = [await first] + [await other for other in others]
    assert sum(b'"timeout"' in each for each in answers) == 1
    assert sum(b"429 Too Many" in each for each in answers) == 1
    assert sum(b"queue_timeout" in each for each in answers) == 1


async def test_a_killed_gateway_serves_without_the_daemon_and_keeps_its_usage(gateway, stub):
    await gateway.route(stub)
    await gateway.post(ASK)
    batch = await gateway.expect(wire.UsageBatch)
    gateway.writer.close()
    gateway.stop(signal.SIGKILL)
    gateway.start()
    welcome = await gateway.connect()
    assert (welcome.n, welcome.usage_from, welcome.usage_to) == (gateway.n, batch.n, batch.n)
    assert (gateway.folder / "snapshot.json").stat().st_mode & 0o777 == 0o600
    assert b"[DONE]" in await gateway.post(ASK)
    assert (await gateway.expect(wire.UsageBatch)).lines == batch.lines


async def test_a_turn_outlives_its_client(gateway, stub):
    await gateway.route(stub)
    stub.hold.clear()
    reader, writer = await gateway.open()
    body = json.dumps(ASK).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Corral-Turn: t1\r\nX-Corral-Actor: 77:ann\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    async with asyncio.timeout(5):
        await reader.readuntil(b'"0"')
    writer.close()
    stub.hold.set()
    got = await gateway.raw(b"GET /corral/turns/t1?offset=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b'"0"' in got and b'"2"' in got and b"[DONE]" in got
    assert (await gateway.expect(wire.UsageBatch)).lines[0].uid == 77


@pytest.mark.parametrize(
    ("target", "status", "allow"),
    [
        ("/v1/models", b"200 OK", None),
        ("/v1/chat/completions", b"405 Method Not Allowed", b"POST, OPTIONS"),
        ("/nowhere", b"404 Not Found", None),
    ],
)
async def test_head_is_answered_without_a_body_and_the_next_answer_is_found(gateway, stub, target, status, allow):
    await gateway.route(stub)
    reader, writer = await gateway.open()
    writer.write(f"HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(10):
        first = await reader.readuntil(b"\r\n\r\n")
        second = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert first.startswith(b"HTTP/1.1 " + status + b"\r\n"), first
    assert second.startswith(b"HTTP/1.1 200 OK\r\n"), second
    assert (b"\r\nAllow: " + allow + b"\r\n" in first) if allow else b"Allow" not in first


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/v1/models", b"GET, HEAD, OPTIONS"),
        ("PUT", "/v1/completions", b"POST, OPTIONS"),
        ("PUT", "/corral/turns/x", b"GET, DELETE"),
    ],
)
async def test_a_wrong_method_is_told_which_ones_there_are(gateway, stub, method, target, allow):
    await gateway.route(stub)
    answer = await gateway.raw(f"{method} {target} HTTP/1.0\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert answer.startswith(b"HTTP/1.1 405 ") and b"\r\nAllow: " + allow + b"\r\n" in answer
