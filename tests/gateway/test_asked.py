"""What a body may ask for: numbers by which an engine takes memory are refused before it sees them."""

import json

import pytest

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TOO_MUCH = [
    (CHAT, {"logprobs": True, "top_logprobs": 21}),
    (CHAT, {"logprobs": True, "top_logprobs": 1e5}),
    (CHAT, {"logprobs": True, "top_logprobs": -2}),
    (CHAT, {"logprobs": 100_000}),
    (CHAT, {"top_logprobs": "100000"}),
    (CHAT, {"n_probs": 100_000}),
    (CHAT, {"n": 129}),
    (CHAT, {"max_tokens": 1e308}),
    (CHAT, {"max_completion_tokens": 1 << 31}),
    (CHAT, {"max_tokens": -1e308}),
    (CHAT, {"n_cmpl": 129}),
    (CHAT, {"repeat_last_n": 1 << 24}),
    (CHAT, {"dry_penalty_last_n": 1 << 24}),
    (COMPLETION, {"logprobs": 6}),
    (COMPLETION, {"n_probs": 21}),
    (COMPLETION, {"best_of": 129}),
    (COMPLETION, {"grammar": "root ::= " + "(" * 100_000}),
    (COMPLETION, {"dry_sequence_breakers": ["a"] * 17}),
    (COMPLETION, {"grammar": "root ::= " + '"a"? ' * 49}),
    (COMPLETION, {"grammar": "root ::= " + '("a" | "b"){0,3} ' * 49}),
    (COMPLETION, {"prompt": ["hi"] * 129}),
    (COMPLETION, {"prompt": [[1, 2]] * 3000}),
    ("/v1/embeddings", {"input": ["hi"] * 2049}),
]
ENOUGH = [
    (CHAT, {"logprobs": True, "top_logprobs": 20}),
    (CHAT, {"max_tokens": -1, "max_completion_tokens": (1 << 31) - 1}),
    (CHAT, {"logprobs": None, "top_logprobs": None, "n": None}),
    (CHAT, {"n": 1, "repeat_last_n": -1, "dry_penalty_last_n": -1}),
    (COMPLETION, {"logprobs": 5, "best_of": 1}),
    (COMPLETION, {"n_probs": 20, "repeat_last_n": 4096}),
    (COMPLETION, {"grammar": 'root ::= "yes" | "no"', "dry_sequence_breakers": ["\n", ":"]}),
    (COMPLETION, {"json_schema": {"type": "array", "minItems": 2, "maxItems": 5}}),
    (COMPLETION, {"json_schema": None}),
    (COMPLETION, {"prompt": "hi"}),
    (COMPLETION, {"prompt": ["hi"] * 128}),
    (COMPLETION, {"prompt": [*range(3000)]}),
    ("/v1/embeddings", {"input": ["hi"] * 2048}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "maxItems", "parameters": {}}}]}),
    (CHAT, {"tools": [], "response_format": {"type": "json_object"}}),
]
ARRAY = {"type": "array", "items": {"type": "integer"}, "maxItems": 100_000_000}
MANY = {"type": "object", "properties": {str(n): {**ARRAY, "maxItems": 1000} for n in range(200)}}
SCHEMAS = [
    (COMPLETION, {"json_schema": ARRAY}),
    (COMPLETION, {"json_schema": {**ARRAY, "minItems": 1e9, "maxItems": None}}),
    (COMPLETION, {"json_schema": MANY}),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": ARRAY}}}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": MANY}}]}),
]


async def asked(gateway, path: str, raw: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(raw)}\r\n\r\n"
    return await gateway.raw(head.encode() + raw)


@pytest.mark.parametrize(("path", "fields"), TOO_MUCH)
async def test_a_number_that_would_end_an_engine_is_refused_before_it_gets_there(gateway, stub, path, fields):
    await gateway.route(stub)
    answer = await asked(gateway, path, json.dumps({"model": "chat", **fields}).encode())
    assert answer.startswith(b"HTTP/1.1 400 Bad Request"), answer
    assert [*fields][-1].encode() in answer  # it names the field
    assert not stub.bodies


MISREAD = [
    ({"model": "chat", "max_tokens": "many"}, "max_tokens must be a number, not a string", "max_tokens"),
    ({"model": "chat", "stream": 1}, "stream must be true or false, not a number", "stream"),
    ({"model": "chat", "stream_options": []}, "stream_options must be an object, not a list", "stream_options"),
    ({"model": "chat", "stream_options": {"include_usage": "y"}},
     "stream_options.include_usage must be true or false, not a string", "stream_options.include_usage"),
    ({"model": "chat", "logprobs": "x"}, "logprobs must be true or false or a number, not a string", "logprobs"),
    ({"model": "chat", "top_logprobs": 21}, "top_logprobs must be at most 20", "top_logprobs"),
    ({"model": "chat", "logprobs": 21}, "logprobs must be at most 20", "logprobs"),
    ({"model": "chat", "n": -1}, "n must be at least 0", "n"),
    ({"model": "chat", "dry_sequence_breakers": ["a"] * 17}, "dry_sequence_breakers has at most 16 entries",
     "dry_sequence_breakers"),
    ({"model": "chat", "dry_sequence_breakers": [1]}, "dry_sequence_breakers[0] must be a string, not a number",
     "dry_sequence_breakers[0]"),
    ({"model": "chat", "grammar": "x" * 20_000}, "grammar has at most 16384 characters", "grammar"),
    ({"model": None}, "model must be a string, not null", "model"),
    ({}, "model is required", "model"),
    ([], "the body must be an object, not a list", None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message", "param"), MISREAD)
async def test_a_field_that_cannot_be_read_is_named_in_the_words_of_the_api(gateway, stub, body, message, param):
    await gateway.route(stub)
    answer = await asked(gateway, CHAT, json.dumps(body).encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert (error["message"], error["param"], error["code"]) == (message, param, "bad_request")
    assert error["type"] == "invalid_request_error" and not stub.bodies


@pytest.mark.parametrize(("path", "fields"), SCHEMAS)
async def test_a_schema_of_which_an_engine_would_make_a_huge_grammar_is_refused(gateway, stub, path, fields):
    await gateway.route(stub)
    answer = await asked(gateway, path, json.dumps({"model": "chat", **fields}).encode())
    assert answer.startswith(b"HTTP/1.1 400 ") and b"at most 10000 items" in answer
    assert not stub.bodies


async def test_a_field_by_another_spelling_of_its_name_is_refused_too(gateway, stub):
    await gateway.route(stub)
    for raw in (b'{"model":"chat","top\\u005flogprobs":1000}', b'{"model":"chat","n_probs":1000,"n_probs":1}'):
        assert (await asked(gateway, CHAT, raw)).startswith(b"HTTP/1.1 400")
    assert not stub.bodies


@pytest.mark.parametrize(("path", "fields"), ENOUGH)
async def test_what_openai_takes_is_passed_on_as_it_came(gateway, stub, path, fields):
    await gateway.route(stub, slots=128)
    raw = json.dumps({"model": "chat", **fields}).encode()
    assert (await asked(gateway, path, raw)).startswith(b"HTTP/1.1 200 OK")
    assert stub.bodies == [raw]


@pytest.mark.parametrize("fields", [b'"messages":', b'"messages":[],"stream_options":{},"x":'])
@pytest.mark.parametrize("depth", [200, 511, 512, 2_000, 200_000])
async def test_a_body_that_is_nested_too_deeply_is_refused_and_the_connection_goes_on(gateway, stub, depth, fields):
    await gateway.route(stub)
    raw = b'{"model":"chat","stream":true,' + fields + b"[" * depth + b"]" * depth + b"}"
    answer = await asked(gateway, CHAT, raw)  # the object around it counts too
    assert answer.startswith(b"HTTP/1.1 200 OK" if depth < 512 else b"HTTP/1.1 400 ")
    assert (b"nested too deeply" in answer) == (depth >= 512)
    assert len(stub.bodies) == (depth < 512)
    assert gateway.process.poll() is None


async def test_brackets_in_texts_and_beside_each_other_are_not_taken_for_depth(gateway, stub):
    await gateway.route(stub)
    text = '[{"' * 5_000 + "\\" + '"' + "[" * 5_000
    raw = json.dumps({"model": "chat", "messages": [{"role": "user", "content": text}, *[[]] * 2_000]}).encode()
    assert (await asked(gateway, CHAT, raw)).startswith(b"HTTP/1.1 200 OK")
    assert stub.bodies == [raw]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"\xff"}', b'{"model":"chat","x":"\xff"}', b'{"model":"chat","\xff":1}',
        b'{"model":"chat","tools":["\xff"]}',
        b'{"model":"chat","tools":[1e999]}', b'{"model":"chat","tools":{"minItems":1' + b"0" * 400 + b"}}",
        b'{"model":"chat","response_format":{"minItems":1e999}}', b'{"model":"chat","max_tokens":1e999}',
        b'{"model":"chat","stream":true,"stream_options":{"include_usage":false,"x":1e999}}',
        b'{"model":"chat","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", b'\xef\xbb\xbf{"model":"chat"}',
        b'"chat"', b"[]", b"",
    ],
    ids=range(14),
)  # fmt: skip
async def test_what_cannot_be_read_is_refused_and_the_connection_goes_on(gateway, stub, body):
    await gateway.route(stub)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = await gateway.raw(head + body + b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    first, second = answer.index(b"HTTP/1.1 400 "), answer.index(b"HTTP/1.1 200 ")
    assert first < second and answer.count(b"HTTP/1.1 ") == 2
    assert stub.bodies == []
