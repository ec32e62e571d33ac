"""Every route: who may ask it, what reaches the engine, what it costs, and errors in the shape of its API."""

import asyncio
import hashlib
import json
import os

import pytest

from core.engines.base import serves
from core.engines.registry import registry
from core.gateway import wire
from core.gateway.apis import APIS, FIRST, ROUTES, shape_of
from core.nouns import ENDPOINTS, DeploymentSpec
from core.settings import EnginesTable

SECRET = "corral_" + "a" * 43
HEADER = f"x-api-key: {SECRET}\r\nanthropic-version: 2023-06-01\r\n"
BODY = {
    "/v1/chat/completions": {"messages": []},
    "/v1/completions": {"prompt": "Once"},
    "/v1/embeddings": {"input": "a llama"},
    "/v1/responses": {"input": "Hello"},
    "/v1/responses/input_tokens": {"input": "Hello"},
    "/v1/messages": {"messages": [], "max_tokens": 8},
    "/v1/messages/count_tokens": {"messages": []},
    "/v1/rerank": {"query": "llama", "documents": ["a llama"]},
    "/rerank": {"query": "llama", "documents": ["a llama"]},
    "/tokenize": {"content": "Hello"},
    "/detokenize": {"tokens": [1]},
}
SAID = {
    "/v1/responses": ({"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 5}}, (9, 5, 4)),
    "/v1/messages": ({"input_tokens": 2, "output_tokens": 4, "cache_read_input_tokens": 7}, (9, 7, 4)),
    "/v1/rerank": ({"prompt_tokens": 10, "total_tokens": 10}, (10, None, None)),
    "/v1/embeddings": ({"prompt_tokens": 6, "total_tokens": 6}, (6, None, None)),
}
"""Usage as each API tells it, and what is counted: prompt, cached, answer."""
MESSAGES = [
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":2,'
    b'"cache_read_input_tokens":7,"output_tokens":1}}}\n\n',
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0}\n\n',
    *[
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"%d"}}\n\n' % n
        for n in range(3)
    ],
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":4}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
]
RESPONSES = [
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"r","usage":null}}\n\n',
    *[
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"%d"}\n\n' % n
        for n in range(3)
    ],
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","usage":{"input_tokens":9,'
    b'"output_tokens":4,"input_tokens_details":{"cached_tokens":7}}}}\n\n',
]
STREAMS = {"/v1/messages": MESSAGES, "/v1/responses": RESPONSES}


def key(**fields) -> wire.Key:
    hashed = hashlib.sha256(SECRET.encode()).hexdigest()
    return wire.Key(id="k1", name="ci", hash=hashed, owner=f"user:{os.getuid()}", uid=os.getuid(), **fields)


def ask(path: str, **fields) -> dict:
    return {"model": "chat", **BODY[path], **fields}


def parted(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}, body


def events(body: bytes) -> bytes:
    """The body of a chunked answer."""
    made, rest = b"", body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        made, rest = made + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return made


# ------------------------------------------------------------------------------------------------ which there are


def test_what_a_key_can_be_bound_to_is_what_there_is():
    assert {api.scope for api in APIS} | {"models"} == set(ENDPOINTS)
    assert set(BODY) == {target.decode() for target in ROUTES}


def test_an_engine_serves_what_it_has_and_was_started_for():
    engines = registry(EnginesTable())
    every = {api.path for api in APIS}
    for name in ("xllamacpp", "llama-server"):
        abilities = engines.get(name).abilities
        for fields, lacks in (({}, {"/v1/embeddings", "/v1/rerank"}), ({"embedding": True}, {"/v1/rerank"})):
            spec = DeploymentSpec(name="chat", model="m", engine=name, **fields)
            assert set(serves(abilities, spec)) == every - lacks
        spec = DeploymentSpec(name="chat", model="m", engine=name, rerank=True)
        assert serves(abilities, spec) == ("/v1/rerank", "/tokenize", "/detokenize")
    small = engines.get("llama-cpp-python").abilities
    assert serves(small, DeploymentSpec(name="chat", model="m")) == ("/v1/chat/completions", "/v1/completions")
    assert serves(small, DeploymentSpec(name="chat", model="m", embedding=True)) == FIRST
    attached = engines.get("attach").abilities
    assert set(serves(attached, DeploymentSpec(name="chat", model="m", engine="attach"))) == every


@pytest.mark.parametrize("path", BODY)
async def test_a_request_reaches_the_engine_as_it_came_under_the_route_s_own_path(gateway, stub, path):
    await gateway.route(stub, keys=[key()])
    status, headers, _ = parted(await gateway.post(ask(path), HEADER, f"{path}?beta=true"))
    assert status == 200 and headers["x-request-id"]
    assert (headers.get("request-id") == headers["x-request-id"]) == path.startswith("/v1/messages")
    assert json.loads(stub.bodies[0]) == ask(path)
    own = "/v1/rerank" if path == "/rerank" else path
    assert stub.heads[0].startswith(f"POST {own} HTTP/1.1\r\n".encode())
    assert SECRET.encode() not in stub.heads[0] and b"anthropic" not in stub.heads[0]
    line = await gateway.line()
    assert (line.path, line.id, line.key) == (own, headers["x-request-id"], "k1")


@pytest.mark.parametrize("path", BODY)
async def test_what_the_engine_lacks_is_refused_and_does_not_reach_it(gateway, stub, path):
    await gateway.route(stub, keys=[key()])
    own = ROUTES[path.encode()].path
    await gateway.change(serves=tuple(api.path for api in APIS if api.path != own))
    status, _, body = parted(await gateway.post(ask(path), HEADER, path))
    assert status == 404 and f"chat does not serve {own}; it serves".encode() in body
    assert not stub.bodies
    await gateway.change(serves=(own,))
    assert parted(await gateway.post(ask(path), HEADER, path))[0] == 200


def test_a_daemon_of_the_release_before_said_nothing_and_meant_the_first_three():
    route = wire.Route(name="chat", model="m", state="ready", replicas=())
    assert route.serves == FIRST == ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


@pytest.mark.parametrize("path", BODY)
async def test_a_key_asks_only_what_it_is_bound_to(gateway, stub, path):
    scope = ROUTES[path.encode()].scope
    others = tuple(each for each in ENDPOINTS if each != scope)
    await gateway.route(stub, keys=[key(endpoints=others)])
    status, _, body = parted(await gateway.post(ask(path), HEADER, path))
    assert (status, b"may not ask" in body, stub.bodies) == (403, True, [])
    await gateway.route(stub, keys=[key(endpoints=(scope,))])
    assert parted(await gateway.post(ask(path), HEADER, path))[0] == 200
    listing = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{HEADER}\r\n".encode()
    assert parted(await gateway.raw(listing))[0] == 403


# ------------------------------------------------------------------------------------------------ what they cost


@pytest.mark.parametrize("path", SAID)
async def test_usage_is_counted_as_each_api_tells_it(gateway, stub, path):
    usage, counted = SAID[path]
    stub.scripts[path.encode()] = 200, json.dumps({"usage": usage, "data": []}).encode()
    await gateway.route(stub)
    assert parted(await gateway.post(ask(path), path=path))[0] == 200
    line = await gateway.line()
    assert (line.prompt_tokens, line.cached_tokens, line.answer_tokens, line.estimated) == (*counted, False)


@pytest.mark.parametrize("first", [True, False])
async def test_usage_of_an_answer_that_is_too_long_to_be_kept_is_found(gateway, stub, first):
    """Embeddings of a hundred texts are some megabytes."""
    usage, data = b'"usage":{"prompt_tokens":600,"total_tokens":600}', b'"data":["%b"]' % (b'\\"usage\\":{} ' * 300_000)
    stub.scripts[b"/v1/embeddings"] = 200, b"{%b,%b}" % ((usage, data) if first else (data, usage))
    await gateway.route(stub)
    _, _, body = parted(await gateway.post(ask("/v1/embeddings"), path="/v1/embeddings"))
    assert body == stub.scripts[b"/v1/embeddings"][1]
    assert (await gateway.line()).prompt_tokens == 600


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_passes_unchanged_and_is_counted_by_its_own_usage(gateway, stub, path):
    stub.scripts[path.encode()] = 200, STREAMS[path]
    await gateway.route(stub)
    _, headers, body = parted(await gateway.post(ask(path, stream=True), path=path))
    assert headers["content-type"] == "text/event-stream" and events(body) == b"".join(STREAMS[path])
    assert json.loads(stub.bodies[0]) == ask(path, stream=True)  # nothing of chat's options was put in
    line = await gateway.line()
    assert (line.prompt_tokens, line.cached_tokens, line.answer_tokens, line.estimated) == (9, 7, 4, False)


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_that_is_cut_is_billed_for_what_was_made(gateway, stub, path):
    made = [event for event in STREAMS[path] if b".delta" in event or b"block_delta" in event]
    before = STREAMS[path][: STREAMS[path].index(made[0])]
    stub.scripts[path.encode()] = 200, [b"".join([*before, *made])]
    stub.hold.clear()
    await gateway.route(stub)
    body = json.dumps(ask(path, stream=True)).encode()
    reader, writer = await gateway.open()
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(10):
        await reader.readuntil(b'"2"')
    writer.close()
    line = await gateway.line()
    assert (line.outcome, line.answer_tokens, line.estimated) == ("client-gone", 3, True)
    assert line.prompt_tokens == (9 if path == "/v1/messages" else len(body) // 4 + 1)


@pytest.mark.parametrize(
    "path", ["/tokenize", "/detokenize", "/v1/messages/count_tokens", "/v1/responses/input_tokens"]
)
async def test_what_only_counts_costs_a_request_and_no_token_and_has_a_bounded_body(gateway, stub, path):
    stub.scripts[path.encode()] = 200, b'{"input_tokens":33,"usage":{"prompt_tokens":33}}'
    await gateway.route(stub, keys=[key(limits=wire.Limits(rpm=10, tpm=1000))])
    for _ in range(3):
        status, headers, _ = parted(await gateway.post(ask(path), HEADER, path))
        assert status == 200
    assert headers["x-ratelimit-remaining-requests"] == "7"
    _, headers, _ = parted(await gateway.post(ask(path), HEADER, path))
    assert int(headers["x-ratelimit-remaining-tokens"]) >= 999
    line = await gateway.line()
    assert (line.prompt_tokens, line.answer_tokens, line.estimated) == (0, 0, False)
    status, _, body = parted(await gateway.post(ask(path, x="x" * (1 << 20)), HEADER, path))
    assert status == 413 and b"at most 1048576 bytes" in body


@pytest.mark.parametrize(
    ("path", "fields", "tokens"),
    [
        ("/v1/messages", {"max_tokens": 100}, 100),
        ("/v1/responses", {"max_output_tokens": 100}, 100),
        ("/v1/chat/completions", {"max_completion_tokens": 100, "max_tokens": 7}, 100),
        ("/v1/completions", {"max_tokens": 100, "n": 3}, 300),
        ("/v1/completions", {"max_tokens": 100, "n": 2, "prompt": ["a", [1, 2]]}, 400),
        ("/v1/completions", {"max_tokens": 100, "prompt": ["a", 1, 2]}, 100),
        ("/v1/completions", {"max_tokens": 1, "n_predict": 200}, 200),
        ("/v1/completions", {"max_tokens": 1, "n_predict": -1}, 512),
        ("/v1/responses", {}, 512),
        ("/v1/embeddings", {}, 0),
        ("/v1/rerank", {"max_tokens": 500}, 0),
    ],
)
async def test_what_an_answer_may_have_is_reserved_as_each_api_bounds_it(gateway, stub, path, fields, tokens):
    stub.silent = True
    await gateway.route(stub, slots=4, keys=[key(limits=wire.Limits(tpm=10_000))])
    body = json.dumps(ask(path, **fields)).encode()
    _, writer = await gateway.open()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{HEADER}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await gateway.told(lambda live: live.in_flight >= 1)
    listing = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{HEADER}\r\n".encode()
    left = int(parted(await gateway.raw(listing))[1]["x-ratelimit-remaining-tokens"])
    # A prompt is a token for each 4 bytes; what has no bound takes the rest of a slot, prompt and all.
    prompt = 0 if tokens == 512 and "n_predict" not in fields and not fields else len(body) // 4 + 1
    assert 10_000 - left == pytest.approx(max(512, prompt) if tokens == 512 else prompt + tokens, abs=1)
    writer.close()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/responses", {"text": {"format": {"type": "json_schema", "schema": {"maxItems": 100_000_000}}}}),
        ("/v1/responses", {"tools": [{"type": "function", "parameters": {"minItems": 100_000_000}}]}),
        ("/v1/messages", {"tools": [{"name": "f", "input_schema": {"minItems": 100_000_000}}]}),
        ("/v1/messages", {"output_format": {"type": "json_schema", "schema": {"maxItems": 100_000_000}}}),
        ("/v1/responses", {"top_logprobs": 100_000}),
    ],
)
async def test_what_would_end_an_engine_is_refused_on_the_other_routes_too(gateway, stub, path, fields):
    await gateway.route(stub)
    assert parted(await gateway.post(ask(path, **fields), path=path))[0] == 400
    assert not stub.bodies


# ------------------------------------------------------------------------------------------------ how they fail


def fault(shape: str, body: bytes) -> tuple[str, str]:
    told = json.loads(body)
    if shape == "messages":
        assert told["type"] == "error" and set(told["error"]) == {"type", "message"}
    else:
        assert set(told) == {"error"} and set(told["error"]) == {"message", "type", "param", "code"}
    return told["error"]["type"], told["error"]["message"]


@pytest.mark.parametrize("path", BODY)
async def test_each_api_is_refused_in_its_own_shape(gateway, stub, path):
    await gateway.route(stub, keys=[key(limits=wire.Limits(rpm=1))])
    shape = shape_of(path.encode())
    messages = shape == "messages"
    wrong = HEADER.replace("aaa", "bbb")
    status, headers, body = parted(await gateway.post(ask(path), wrong, path))
    assert (status, fault(shape, body)[0]) == (401, "authentication_error" if messages else "invalid_request_error")
    assert headers["x-request-id"] and headers["connection"] == "close"
    status, _, body = parted(await gateway.post(ask(path, model="none"), HEADER, path))
    assert (status, fault(shape, body)[0]) == (404, "not_found_error" if messages else "invalid_request_error")
    status, headers, body = parted(await gateway.raw(f"PUT {path} HTTP/1.0\r\n{HEADER}\r\n".encode()))
    assert (status, fault(shape, body)[0], headers["allow"]) == (405, "invalid_request_error", "POST, OPTIONS")
    assert parted(await gateway.post(ask(path), HEADER, path))[0] == 200
    status, headers, body = parted(await gateway.post(ask(path), HEADER, path))
    assert (status, fault(shape, body)[0]) == (429, "rate_limit_error") and int(headers["retry-after"]) > 0


@pytest.mark.parametrize(("limits", "again"), [({"rpm": 1}, None), ({"daily_tokens": 1}, "false")])
async def test_a_client_is_not_let_wait_for_hours_by_itself(gateway, stub, limits, again):
    await gateway.route(stub, keys=[key(limits=wire.Limits(**limits))])
    assert parted(await gateway.post(ask("/v1/embeddings"), HEADER, "/v1/embeddings"))[0] == 200
    status, headers, _ = parted(await gateway.post(ask("/v1/embeddings"), HEADER, "/v1/embeddings"))
    assert (status, headers.get("x-should-retry")) == (429, again)


async def test_a_request_like_one_before_is_refused_in_its_own_shape_too(gateway, stub):
    """Its head is known, so no parser sees it; the one between came in two reads, which are not remembered."""
    await gateway.route(stub, keys=[key()])
    body = json.dumps(ask("/v1/messages")).encode()
    data = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\n{HEADER}Content-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await gateway.open()

    async def answer() -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))

    async with asyncio.timeout(10):
        writer.write(data)
        await answer()
        other = data.replace(b"/messages", b"/responses").replace(b"Host", b"Expect: 100-continue\r\nHost")
        writer.write(other[: -len(body)])
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        await answer()
        await gateway.route(stub)
        writer.write(data)
        status, headers, said = parted(await reader.read())
    assert (status, fault("messages", said)[0]) == (401, "authentication_error") and headers["request-id"]
    writer.close()


async def test_no_room_is_an_overload_to_clients_of_messages(gateway, stub):
    await gateway.route(stub, queue=0)
    await gateway.change(replicas=(), state="starting")
    for path, status, kind in (("/v1/messages", 529, "overloaded_error"), ("/v1/responses", 503, "server_error")):
        got, _, body = parted(await gateway.post(ask(path), path=path))
        assert (got, fault(shape_of(path.encode()), body)[0]) == (status, kind)


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_whose_replica_dies_ends_with_the_error_event_of_its_api(gateway, stub, path):
    stub.scripts[path.encode()] = 200, STREAMS[path][:1]
    stub.die = True
    await gateway.route(stub)
    _, _, body = parted(await gateway.post(ask(path, stream=True), path=path))
    first, last = events(body).split(b"\n\n")[0], events(body).split(b"\n\n")[-2]
    assert first + b"\n\n" == STREAMS[path][0] and last.startswith(b"event: error\ndata: {")
    told = json.loads(last.partition(b"data: ")[2])
    assert told["type"] == "error" and "died while it answered" in told["error"]["message"]
    assert told["error"]["type"] == ("api_error" if path == "/v1/messages" else "server_error")
    if path == "/v1/responses":
        assert (told["code"], told["param"]) == ("replica_died", None) and "died" in told["message"]


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (b'{"error":{"code":400,"message":"no messages","type":"invalid_request_error"}}', 400, "no messages"),
        (b'{"detail":"Not Found"}', 404, '"Not Found"'),
        (b'{"object":"error","message":"too long"}', 400, "too long"),
        (b"<html>gone</html>", 502, "<html>gone</html>"),
        (b"[" * 20_000, 500, "["),
        (b'{"type":"error","error":{"type":"rate_limit_error","message":"later"}}', 429, "later"),
    ],
)
async def test_an_engine_s_own_error_comes_in_the_shape_of_messages(gateway, stub, said, kind, words):
    stub.scripts[b"/v1/messages"] = kind, said
    await gateway.route(stub)
    for stream in (False, True):
        status, _, body = parted(await gateway.post(ask("/v1/messages", stream=stream), path="/v1/messages"))
        assert status == kind and fault("messages", body)[1].startswith(words)
    assert (await gateway.line()).outcome == "error"


@pytest.mark.parametrize("path", STREAMS)
async def test_a_first_event_that_the_engine_left_out_is_put_in(gateway, stub, path):
    """As llama.cpp does where the first token is only a part of a character."""
    stub.scripts[path.encode()] = 200, [b": ping\n\n", *STREAMS[path][1:]]
    await gateway.route(stub)
    _, _, body = parted(await gateway.post(ask(path, stream=True), path=path))
    ping, first, rest = events(body).split(b"\n\n", 2)
    name = "message_start" if path == "/v1/messages" else "response.created"
    assert (ping, rest) == (b": ping", b"".join(STREAMS[path][1:]))
    assert first.startswith(f"event: {name}\ndata: ".encode())
    told = json.loads(first.partition(b"data: ")[2])
    assert told["type"] == name and told["message" if name == "message_start" else "response"]["model"] == "chat"


# ------------------------------------------------------------------------------------------------ what else is served


async def test_models_are_listed_and_looked_up(gateway, stub):
    await gateway.route(stub)
    await gateway.change(created_at=1_700_000_000.5)
    row = {"id": "chat", "object": "model", "created": 1_700_000_000, "owned_by": "corral"}

    async def get(method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        return parted(await gateway.raw(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()))

    assert json.loads((await get("GET", "/v1/models"))[2]) == {"object": "list", "data": [row]}
    status, headers, body = await get("GET", "/v1/models/ch%61t?x=1")
    assert (status, json.loads(body)) == (200, row) and headers["x-request-id"]
    status, _, body = await get("GET", "/v1/models/none")
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
    assert (await get("HEAD", "/v1/models"))[0::2] == (200, b"")
    status, headers, body = await get("OPTIONS", "/v1/models")
    assert (status, headers["allow"], body) == (200, "GET, HEAD, OPTIONS", b"")
    assert (await get("OPTIONS", "/v1/messages"))[1]["allow"] == "POST, OPTIONS"
    assert (await get("DELETE", "/v1/models/chat"))[0] == 405


async def test_a_deployment_that_one_may_not_use_is_no_model(gateway, stub):
    await gateway.route(stub, keys=[key(deployments=("other-*",))])
    asked = f"GET /v1/models/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{HEADER}\r\n".encode()
    assert parted(await gateway.raw(asked))[0] == 404


async def test_every_answer_has_an_id_of_its_own(gateway, stub):
    await gateway.route(stub)
    ids = set()
    for data in (
        b"GET /v1/models HTTP/1.0\r\n\r\n", b"GET /healthz HTTP/1.0\r\n\r\n", b"GET /nothing HTTP/1.0\r\n\r\n",
        b"BAD\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    ):  # fmt: skip
        ids.add(parted(await gateway.raw(data))[1]["x-request-id"])
    ids.add(parted(await gateway.post({"model": "chat"}))[1]["x-request-id"])
    assert len(ids) == 6
