"""Requests that are nearly right: valid ones, changed in bytes, lines, lengths, framing and JSON, and cut into packets;
and a reader that is strict about what comes back."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

SECRET = "corral_fuzz"
CHAT = b'{"model":"chat","messages":[{"role":"user","content":"Hi"}],"max_tokens":4}'
STREAM = b'{"model":"chat","stream":true,"messages":[{"role":"user","content":"\\u2028 \xc3\xa9"}],"tools":[{"a":{}}]}'
AUTH = b"Authorization: Bearer " + SECRET.encode() + b"\r\n"
PATHS = (b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings")


def _post(dice: random.Random, version: bytes = b"1.1") -> bytes:
    body = dice.choice((CHAT, STREAM))
    head = b"POST %b HTTP/%b\r\nHost: x\r\n%bContent-Type: application/json\r\n" % (dice.choice(PATHS), version, AUTH)
    if version == b"1.1" and dice.random() < 0.4:
        pieces, at = b"", 0
        while at < len(body):
            size = dice.randint(1, len(body) - at)
            extension = b";a=b" if dice.random() < 0.2 else b""
            pieces += b"%x%b\r\n%b\r\n" % (size, extension, body[at : at + size])
            at += size
        trailer = b"A: b\r\n" if dice.random() < 0.2 else b""
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n" + trailer + b"\r\n"
    expects = b"Expect: 100-continue\r\n" if dice.random() < 0.1 else b""
    return head + expects + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _get(dice: random.Random, version: bytes = b"1.1") -> bytes:
    target = dice.choice(
        (b"/v1/models", b"/healthz", b"/readyz", b"http://x/v1/models", b"/corral/turns/t?offset=1", b"/")
    )
    method = dice.choice((b"GET", b"GET", b"DELETE", b"OPTIONS"))  # not HEAD: its answer is framed by what was asked
    return b"%b %b HTTP/%b\r\nHost: x\r\n%b\r\n" % (method, target, version, AUTH)


def valid(dice: random.Random) -> bytes:
    """One to three requests as they should be."""
    made = b""
    for _ in range(dice.choice((1, 1, 1, 1, 2, 3))):
        version = b"1.0" if dice.random() < 0.1 else b"1.1"
        made += _post(dice, version) if dice.random() < 0.7 else _get(dice, version)
    return made


# ------------------------------------------------------------------------------------------------ changes

TOKENS = (
    b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"\x0b", b"\xff", b"0\r\n\r\n", b"\r\n\r\n", b"0x",
    b"+", b"-",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\r\n chunked\r\n",
    b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Content-Length: 99999999999999999999\r\n", b"Host: y\r\n",
    b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Connection: keep-alive\r\n",
    b"Expect: 9\r\n",
    b"X-Corral-Actor: 0:root\r\n", b"X-Corral-Turn: t\r\n", b"x-api-key: no\r\n", b"HTTP/2.0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"A: " + b"a" * 40_000 + b"\r\n", b"A: b\r\n" * 3000, b"[" * 3000, b'{"a":' * 3000, b"1e999", b"-0",
    b"\\ud800", b"null",
    b"\xc0\x80", b"1" * 400, b'"stream":true,', b'"n":1e9,', b'"grammar":"' + b"(" * 20_000 + b'",',
)  # fmt: skip
NUMBERS = (
    0,
    1,
    2,
    7,
    76,
    127,
    128,
    255,
    256,
    65535,
    65536,
    1 << 24,
    (1 << 24) + 1,
    (1 << 31) - 1,
    1 << 32,
    1 << 63,
    1 << 64,
)


def _at(dice: random.Random, data: bytes) -> int:
    return dice.randint(0, len(data))


def _flip(dice: random.Random, data: bytes) -> bytes:
    at = _at(dice, data)
    return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]


def _insert(dice: random.Random, data: bytes) -> bytes:
    at = _at(dice, data)
    return data[:at] + dice.choice(TOKENS) + data[at:]


def _drop(dice: random.Random, data: bytes) -> bytes:
    at = _at(dice, data)
    return data[:at] + data[at + dice.choice((1, 1, 2, 5, 20)) :]


def _double(dice: random.Random, data: bytes) -> bytes:
    at, size = _at(dice, data), dice.choice((1, 2, 8, 40, 200))
    return data[:at] + data[at : at + size] + data[at:]


def _line(dice: random.Random, data: bytes) -> bytes:
    """Lines in another order, one gone, one twice, or one more."""
    lines = data.split(b"\r\n")
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    how = dice.randrange(4)
    if how == 0:
        lines[one], lines[other] = lines[other], lines[one]
    elif how == 1:
        del lines[one]
    elif how == 2:
        lines.insert(other, lines[one])
    else:
        lines.insert(one, dice.choice(TOKENS))
    return dice.choice((b"\r\n", b"\r\n", b"\r\n", b"\n")).join(lines)


def _number(dice: random.Random, data: bytes) -> bytes:
    """A number that stands somewhere is another one: a length, a chunk's size, a version, a field."""
    found = list(re.finditer(rb"[0-9a-fA-F]+", data))
    if not found:
        return data
    at, value = dice.choice(found), dice.choice(NUMBERS)
    return data[: at.start()] + (b"%x" if dice.random() < 0.3 else b"%d") % value + data[at.end() :]


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: _at(dice, data)]


def _body(dice: random.Random, data: bytes) -> bytes:
    """The JSON is another one, and the length is right: what is behind the framing gets to see it."""
    head, mark, body = data.partition(b"\r\n\r\n")
    for _ in range(dice.randint(1, 3)):
        body = dice.choice((_flip, _insert, _drop, _double, _number))(dice, body)
    return re.sub(rb"(?i)content-length: \d+", b"Content-Length: %d" % len(body), head) + mark + body


def _splice(dice: random.Random, data: bytes) -> bytes:
    return data[: _at(dice, data)] + (other := valid(dice))[_at(dice, other) :]


def _noise(dice: random.Random, data: bytes) -> bytes:
    return dice.randbytes(dice.choice((1, 16, 300, 5000)))


CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip, _flip, _insert, _insert, _drop, _double, _line, _line, _number, _number, _cut, _body, _body, _body, _splice,
    _noise,
)  # fmt: skip


def mutated(dice: random.Random) -> bytes:
    """A request, or several, with one to four changes; one in ten is as it should be."""
    data = valid(dice)
    if dice.random() < 0.9:
        for _ in range(dice.choice((1, 1, 1, 2, 2, 4))):
            data = dice.choice(CHANGES)(dice, data)
    return data


def packets(dice: random.Random, data: bytes) -> list[bytes]:
    """Cut into pieces; most come in one."""
    cuts = sorted({_at(dice, data) for _ in range(dice.choice((0, 0, 0, 1, 1, 2, 5)))})
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if b > a]


# ------------------------------------------------------------------------------------------------ what comes back

MAY = {100, 200, 400, 401, 403, 404, 405, 408, 409, 413, 414, 417, 429, 431, 501, 505}
"""Nothing that is our fault: the engine that stands behind is well."""
_HEAD = re.compile(
    rb"HTTP/1\.1 (\d{3}) [A-Za-z ]+\r\n((?:[A-Za-z-]+: [^\r\n\0]*\r\n)+)\r\n|HTTP/1\.1 100 Continue\r\n\r\n"
)
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


class Malformed(AssertionError):
    """An answer that no client could read."""


def answers(data: bytes) -> tuple[list[int], bool]:
    """The statuses of the answers in `data`, and whether the last one is whole. Raises `Malformed`."""
    found: list[int] = []
    while data:
        head = _HEAD.match(data)
        if head is None:
            if b"\r\n\r\n" in data or not b"HTTP/1.1 ".startswith(data[:9]):
                raise Malformed(f"no head: {data[:200]!r}")
            return found, False
        data = data[head.end() :]
        if head[1] is None:
            found.append(100)
            continue
        status, fields = int(head[1]), head[2].lower()
        if status not in MAY:
            raise Malformed(f"{status}: {data[:300]!r}")
        found.append(status)
        lengths = re.findall(rb"content-length: (\d+)\r\n", fields)
        chunked = b"transfer-encoding: chunked\r\n" in fields
        if len(lengths) + chunked > 1:
            raise Malformed(f"two lengths: {fields!r}")
        if chunked:
            while True:
                size = _CHUNK.match(data)
                if size is None or len(data) < size.end() + int(size[1], 16) + 2:
                    return found, False
                end = size.end() + int(size[1], 16)
                if data[end : end + 2] != b"\r\n":
                    raise Malformed(f"no chunk: {data[:200]!r}")
                data = data[end + 2 :]
                if end == size.end():
                    break
        elif lengths:
            length = int(lengths[0])
            if len(data) < length:
                return found, False
            data = data[length:]
        else:
            return found, True  # HTTP/1.0: to the end
    return found, True
