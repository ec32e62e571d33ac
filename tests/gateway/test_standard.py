"""HTTP as RFC 9112 and 9110 have it, and what they leave open, decided: each odd request is served or refused, and no
two readers could take it for different ones."""

import asyncio
import json

import pytest

POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
CODING = POST + b"Transfer-Encoding: "
CLOSE = b"POST /v1/completions HTTP/1.1\r\nConnection: close\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"model":"chat"}'
LENGTH = b"Content-Length: 16\r\n"


def get(target: bytes, version: bytes = b"1.1", more: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/" + version + b"\r\nHost: x\r\n" + more + b"Connection: close\r\n\r\n"


REFUSED = {
    # Where a request ends
    "a list of lengths": (POST + b"Content-Length: 16, 16\r\n\r\n" + BODY, 400),
    "a length of many digits": (POST + b"Content-Length: 18446744073709551632\r\n\r\n" + BODY, 400),
    "a length below zero": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "a length in hex": (POST + b"Content-Length: 0x10\r\n\r\n" + BODY, 400),
    "no length": (POST + b"Content-Length:\r\n\r\n", 400),
    "gzip before chunked": (CODING + b"gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "identity, then chunked": (CODING + b"identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (CODING + b"chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked is not last": (CODING + b"chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "chunked in quotes": (CODING + b'"chunked"\r\n\r\n0\r\n\r\n', 501),
    "chunked with a vertical tab": (CODING + b"\x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (b"POST /v1/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "length after chunked": (CODING + b"chunked\r\n" + LENGTH + b"\r\n" + BODY, 400),
    "a chunk in hex with 0x": (CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk with a sign": (CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk after a space": (CHUNKED + b" 2\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk of many digits": (CHUNKED + b"10000000000000002\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk that is longer": (CHUNKED + b"2\r\n{}x\r\n0\r\n\r\n", 400),
    "a chunk without its end": (CHUNKED + b"2\r\n{}0\r\n\r\n", 400),
    "an extension with a line feed": (CHUNKED + b"2;a\n{}\r\n0\r\n\r\n", 400),
    "an extension with a carriage return": (CHUNKED + b"2;a\rb\r\n{}\r\n0\r\n\r\n", 400),
    "trailers without end": (CHUNKED + b"0\r\n" + b"A: b\r\n" * 40_000, 413),
    # Lines
    "a folded header": (POST + b"A: b\r\n c\r\n" + LENGTH + b"\r\n" + BODY, 400),
    "a folded transfer coding": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "a bare carriage return": (POST + b"A: b\rC: d\r\n" + LENGTH + b"\r\n" + BODY, 400),
    "a space before the colon": (POST + b"Content-Length : 16\r\n\r\n" + BODY, 400),
    "a space before the first header": (CLOSE[:34] + b" Host: x\r\n" + LENGTH + b"\r\n" + BODY, 400),
    "a header without a name": (POST + b": b\r\n" + LENGTH + b"\r\n" + BODY, 400),
    "a zero byte": (POST + b"A: b\0c\r\n" + LENGTH + b"\r\n" + BODY, 400),
    "a control character": (POST + b"A: b\x01c\r\n" + LENGTH + b"\r\n" + BODY, 400),
    "nothing but empty lines": (b"\r\n" * 10_000, 400),
    # What is asked
    "HTTP/2.0": (get(b"/v1/models", b"2.0"), 505),
    "HTTP/0.9": (b"GET /v1/models HTTP/0.9\r\n\r\n", 505),
    "HTTP/1.2": (get(b"/v1/models", b"1.2"), 400),
    "a method that nobody knows": (b"BREW /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "a method in small letters": (b"get /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
    "a TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 64, 400),
    "too long a URL": (get(b"/v1/models?" + b"a" * 9000), 414),
    "a space in the URL": (get(b"/v1/models x"), 400),
    "letters beyond ASCII in the URL": (get("/v1/é".encode()), 400),
    "a fragment": (get(b"/v1/models#x"), 400),
    "a star with GET": (get(b"*"), 400),
    "another scheme": (get(b"ftp://x/v1/models"), 400),
    "a URL with a user": (get(b"http://a@x/v1/models"), 400),
    "a URL without a host": (get(b"http:///v1/models"), 400),
    "a host with a path": (b"GET /v1/models HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    "a host with a user": (b"GET /v1/models HTTP/1.1\r\nHost: a@x\r\n\r\n", 400),
    "a host with a space": (b"GET /v1/models HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "two hosts in HTTP/1.0": (b"GET /v1/models HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "an expectation that nobody knows": (POST + b"Expect: 200-maybe\r\n" + LENGTH + b"\r\n" + BODY, 417),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_and_the_connection_closed(gateway, stub, name):
    await gateway.route(stub)
    data, status = REFUSED[name]
    answer = await gateway.raw(data + b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"\r\nConnection: close" in head and b"\r\nContent-Length: %d" % len(body) in head
    assert json.loads(body)["error"]["message"], "one answer, and nothing after it"
    assert stub.bodies == []


TAKEN = {
    "a length with a space after it": CLOSE + b"Host: x\r\nContent-Length: 16 \r\n\r\n" + BODY,
    "chunked in capitals": CLOSE + b"Host: x\r\nTransfer-Encoding: Chunked\r\n\r\n10\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an extension": CLOSE + b'Host: x\r\nTransfer-Encoding: chunked\r\n\r\n10;a="b"\r\n' + BODY + b"\r\n0\r\n\r\n",
    "empty lines before it": b"\r\n\r\n" + CLOSE + b"Host: x\r\n" + LENGTH + b"\r\n" + BODY,
    "a header beyond ASCII": POST + b"A: \xff\r\nConnection: close\r\n" + LENGTH + b"\r\n" + BODY,
    "an empty host": CLOSE + b"Host:\r\n" + LENGTH + b"\r\n" + BODY,
    "a host of IPv6": CLOSE + b"Host: [::1]:8620\r\n" + LENGTH + b"\r\n" + BODY,
    "a whole URL of another host": b"POST http://y:1/v1/completions?a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                                   + LENGTH + b"\r\n" + BODY,
    "HTTP/1.0": b"POST /v1/completions HTTP/1.0\r\n" + LENGTH + b"\r\n" + BODY,
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
async def test_it_is_served(gateway, stub, name):
    await gateway.route(stub)
    answer = await gateway.raw(TAKEN[name])
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    assert stub.bodies == [BODY]


@pytest.mark.parametrize("method", [b"TRACE", b"PATCH", b"PROPFIND", b"M-SEARCH"])
async def test_other_methods_are_told_which_there_are_and_the_connection_goes_on(gateway, stub, method):
    await gateway.route(stub)
    asked = method + b" /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await gateway.raw(asked + get(b"/v1/models"))
    first, second = answer.index(b"HTTP/1.1 405 "), answer.index(b"HTTP/1.1 200 ")
    assert first < second and b"\r\nAllow: GET, HEAD" in answer


async def test_no_page_of_another_origin_is_let_in(gateway, stub):
    """No CORS: a browser's pre-flight has no key and gets no leave, and what it would send is not asked."""
    await gateway.route(stub)
    ask = b"Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n"
    for target, status in ((b"/v1/chat/completions", b"200"), (b"*", b"405")):
        answer = await gateway.raw(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: x\r\n" + ask)
        assert answer.startswith(b"HTTP/1.1 " + status) and b"access-control" not in answer.lower()
    answer = await gateway.raw(get(b"/v1/models", more=b"Origin: https://evil.example\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 ") and b"access-control" not in answer.lower()


async def test_empty_lines_are_counted_after_a_request_too(gateway, stub):
    await gateway.route(stub)
    reader, writer = await gateway.open()
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.readuntil(b"]}")
        for _ in range(2000):
            writer.write(b"\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_connection_on_which_nothing_was_ever_asked_is_closed_sooner(gateway, stub):
    await gateway.route(stub, request_timeout_s=1, idle_timeout_s=120)
    used, using = await gateway.open()
    using.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(20):
        await used.readuntil(b"]}")
        silent, waiting = await gateway.open()
        assert await silent.read() == b""
        using.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        await used.readuntil(b"]}")
    using.close()
    waiting.close()


async def test_a_request_that_comes_too_slowly_is_refused_and_closed(gateway, stub):
    gateway.hang_up()
    gateway.stop()
    gateway.start(fork=False)  # which looks for unused connections each second, and not before this request is late
    await gateway.connect()
    await gateway.route(stub, request_timeout_s=0.5, idle_timeout_s=0.5)
    for begun in (b"G", POST, POST + LENGTH + b"\r\n{", CHUNKED + b"2\r\n"):
        answer = await gateway.raw(begun)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"was not whole within 1 s" in answer
