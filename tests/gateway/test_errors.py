"""An engine's errors reach clients in the shape of their API, bounded, with nothing in them that a terminal obeys."""

from __future__ import annotations

import json

import pytest
from test_apis import HEADER, ask, key, parted

from core.gateway import errors

LLAMA = b'{"error":{"code":400,"message":"no such thing","type":"invalid_request_error"}}'
TOO_LONG = b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":512}}'
OPENAI = b'{"error":{"message":"m","type":"t","param":"temperature","code":"bad_value"}}'


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (LLAMA, ("no such thing", "invalid_request_error", None, None)),
        (TOO_LONG, ("too long", "invalid_request_error", None, "context_length_exceeded")),
        (OPENAI, ("m", "t", "temperature", "bad_value")),
        (b'{"error":"text"}', ("text", "invalid_request_error", None, None)),
        (b'{"detail":[{"loc":1}]}', ('[{"loc":1}]', "invalid_request_error", None, None)),
        (b'{"error":{"message":"m","code":{"a":1},"param":[1]}}', ("m", "invalid_request_error", None, None)),
        (b"<html>nginx</html>", ("<html>nginx</html>", "invalid_request_error", None, None)),
        (b"", ("the engine answered 400 and did not say why", "invalid_request_error", None, None)),
        (b"[" * 9000, ("[" * 2000, "invalid_request_error", None, None)),
        (b"\xff\x00\x1b[2Jx\xc2\x9by", ("\ufffd[2Jxy", "invalid_request_error", None, None)),
        (b'{"error":{"message":"a\\u001b]0;b\\u009bc","type":"\\u0007"}}', ("a]0;bc", "", None, None)),
    ],
)
def test_errors_have_openai_s_four_fields_whatever_an_engine_says(said, told):
    error = json.loads(errors.as_shape("openai", 400, said))["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert tuple(error.values()) == told


def test_words_of_an_engine_are_bounded():
    said = json.dumps({"error": {"message": "x" * 60_000, "type": "t" * 999, "code": "c" * 999}}).encode()
    assert len(errors.as_shape("openai", 500, said)) < 2400
    assert len(errors.as_shape("messages", 500, said)) < 2200
    assert json.loads(errors.as_shape("openai", 503, b"x"))["error"]["type"] == "server_error"


def test_messages_have_anthropic_s_shape_with_a_kind_of_theirs_kept():
    said = b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}'
    assert json.loads(errors.as_shape("messages", 503, said)) == json.loads(said)
    made = json.loads(errors.as_shape("messages", 400, LLAMA))
    assert made == {"type": "error", "error": {"type": "invalid_request_error", "message": "no such thing"}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"])
async def test_what_an_engine_refuses_comes_with_its_status_and_openai_s_fields(gateway, stub, path, stream):
    stub.scripts = {path.encode(): (400, LLAMA)}
    await gateway.route(stub, keys=[key()])
    status, headers, body = parted(await gateway.post(ask(path, stream=stream), HEADER, path))
    assert status == 400 and headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(body)
    assert json.loads(body)["error"] == {
        "message": "no such thing", "type": "invalid_request_error", "param": None, "code": None,
    }  # fmt: skip
    line = await gateway.line()
    assert (line.status, line.outcome, line.answer_tokens) == (400, "error", None)


async def test_an_engine_that_dies_while_it_says_no_is_502(gateway, stub):
    await gateway.route(stub, keys=[key()])
    stub.scripts = {b"/v1/chat/completions": (400, b"\r\n")}
    stub.torn = True
    status, _, body = parted(await gateway.post(ask("/v1/chat/completions"), HEADER))
    assert status == 502 and json.loads(body)["error"]["code"] == "replica_died"
