"""Several answers in one request: each takes a slot, counts for itself, and is billed by what the engine told of it."""

from __future__ import annotations

import asyncio
import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_apis import parted
from test_keyed import ASK, bearer, key

from core.gateway.apis import CHAT, COMPLETIONS, MESSAGES
from core.gateway.asked import Asked, read
from core.gateway.clock import Clock
from core.gateway.several import SeveralCounts
from core.gateway.subjects import Subjects

COMPLETION = "/v1/completions"
CHATS = "/v1/chat/completions"


def choice(index: int, **fields) -> bytes:
    return json.dumps({"index": index, "finish_reason": None, **fields}).encode()


def event(*choices: bytes, **fields) -> bytes:
    more = json.dumps({"id": "c1", "created": 5, "model": "m", **fields})[1:]
    return b'data: {"choices":[' + b",".join(choices) + b"]," + more.encode() + b"\n\n"


def ended(index: int, prompt: int, cached: int, made: int) -> bytes:
    usage = {
        "prompt_tokens": prompt, "completion_tokens": made, "prompt_tokens_details": {"cached_tokens": cached},
    }  # fmt: skip
    timings = {"prompt_n": prompt - cached, "cache_n": cached, "predicted_n": made}
    return event(choice(index, text="", finish_reason="length"), usage=usage, timings=timings)


DONE = b"data: [DONE]\n\n"
TWO = [
    event(choice(1, text=""), prompt_progress={"processed": 8, "cache": 5}),
    event(choice(0, text="One")),
    event(choice(1, text="Two", logprobs={"content": [{"id": 1}]})),
    event(choice(1, text=" \u00e4")),
    event(choice(1, text="", logprobs={"content": [{"id": 2}]})),
    ended(1, 8, 5, 4),
    event(choice(0, text=" llama")),
    ended(0, 3, 1, 2),
    DONE,
]
"""Two prompts, of 3 and of 8 tokens, answered with 2 and with 4, of which one was no text."""
SAID = {"model": "chat", "prompt": ["a", "b"], "max_tokens": 20}


@pytest.fixture
async def routed(gateway, stub):
    """An engine of llama.cpp's with four slots."""
    await gateway.route(stub, slots=4, keys=[key("a"), key("b", id="k2", concurrency=3, tpm=1000)])
    await gateway.change(prompt_progress=True)
    return gateway


# ------------------------------------------------------------------------------------ how many


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("a", 1), (["a"], 1), (["a", "b"], 2), ([1, 2, 3], 1), ([-1], 1), ([1, "a"], 1), (["a", 2, "b"], 1),
        ([[1, 2], [3]], 2), (["a", [1]], 2), ([{"prompt_string": "a"}, "b", [1, "c"]], 3), ([], 1), ([[]], 1),
        ([None, "a"], 2), ({"prompt_string": "a"}, 1), (None, 1),
    ],
)  # fmt: skip
def test_prompts_are_counted_as_llama_cpp_s_server_does(prompt, count):
    body = json.dumps({"model": "chat", "prompt": prompt}).encode()
    assert read(COMPLETIONS, body).several(COMPLETIONS) == (count, 1)
    assert read(CHAT, body).several(CHAT) == (1, 1), "it has messages, and this means nothing"


def test_of_several_counts_of_answers_the_largest_is_taken_where_there_are_any():
    asked = Asked(model="chat", n=2.9, n_cmpl=3, best_of=1)
    assert asked.several(CHAT) == asked.several(COMPLETIONS) == (1, 3)
    assert asked.several(MESSAGES) == (1, 1)
    assert Asked(model="chat", n=0).several(CHAT) == (1, 1)


async def test_more_than_a_replica_has_slots_are_refused_with_how_many_it_has(routed, stub):
    for fields in ({"prompt": ["a"] * 5}, {"prompt": ["a"] * 3, "n": 2}, {"prompt": "a", "best_of": 5}):
        status, _, body = parted(await routed.post({"model": "chat", **fields}, path=COMPLETION))
        error = json.loads(body)["error"]
        assert (status, error["type"], error["code"]) == (400, "invalid_request_error", "too_many_answers")
        count = 6 if "n" in fields else 5
        assert f"asks for {count} answers" in error["message"] and "makes 4 at once" in error["message"]
    assert stub.bodies == []


async def test_the_responses_route_has_no_n(routed, stub):
    """llama.cpp's server answers it with a list there, which no client reads."""
    for name in ("n", "n_cmpl"):
        status, _, body = parted(await routed.post({"model": "chat", "input": "a", name: 2}, path="/v1/responses"))
        assert status == 400 and json.loads(body)["error"]["param"] == "n"
    assert stub.bodies == []


# ------------------------------------------------------------------------------------ limits


async def left(gateway) -> int:
    """Tokens a minute of the key `b`."""
    listing = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{bearer('b')}\r\n".encode()
    return int(parted(await gateway.raw(listing))[1]["x-ratelimit-remaining-tokens"])


async def test_each_is_one_towards_concurrency(routed, stub):
    stub.hold.clear()
    two = asyncio.create_task(routed.post({**ASK, "stream": True, "n": 2, "max_tokens": 9}, bearer("b")))
    await routed.told(lambda live: live.in_flight == 2)
    status, headers, body = parted(await routed.post({**ASK, "n": 2, "max_tokens": 9}, bearer("b")))
    assert status == 429 and b"3 requests at once" in body and headers["retry-after"]
    one = asyncio.create_task(routed.post({**ASK, "stream": True, "max_tokens": 9}, bearer("b")))
    await routed.told(lambda live: live.in_flight == 3)
    assert parted(await routed.post({**ASK, "max_tokens": 9}, bearer("b")))[0] == 429
    stub.hold.set()
    await asyncio.gather(one, two)
    assert parted(await routed.post({**ASK, "n": 3, "max_tokens": 10}, bearer("b")))[0] != 429
    status, _, body = parted(await routed.post({**ASK, "n": 4}, bearer("b")))
    assert status == 400 and b"the key ci of ann may have 3 at once" in body


async def test_what_all_may_take_is_reserved_and_refused_where_it_never_fits(routed, stub):
    stub.silent = True
    status, _, body = parted(await routed.post({**SAID, "max_tokens": 500}, bearer("b"), COMPLETION))
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "too_many_answers") and "1000 tokens a minute" in error["message"]
    # One that is over the whole limit is let in when nothing else counts; else it could never be asked for.
    data = json.dumps({**SAID, "n": 1, "max_tokens": 300}).encode()
    head = f"POST {COMPLETION} HTTP/1.1\r\nHost: x\r\n{bearer('b')}Content-Length: {len(data)}\r\n\r\n"
    _, writer = await routed.open()
    writer.write(head.encode() + data)
    await routed.told(lambda live: live.in_flight == 2)
    assert 1000 - await left(routed) == 600 + len(data) // 4 + 1
    writer.close()


# ------------------------------------------------------------------------------------ slots


async def test_it_takes_a_slot_for_each_and_nobody_passes_it_in_the_queue(routed, stub):
    stub.hold.clear()
    first = asyncio.create_task(routed.post({**ASK, "stream": True, "n": 3}, bearer("a")))
    await routed.told(lambda live: live.in_flight == 3)
    wide = asyncio.create_task(routed.post({**ASK, "stream": True, "n": 2, "seed": 1}, bearer("a")))
    await routed.told(lambda live: live.queued == {"chat": 1})
    narrow = asyncio.create_task(routed.post({**ASK, "stream": True, "seed": 2}, bearer("a")))
    live = await routed.told(lambda live: live.queued == {"chat": 2})
    assert live.in_flight == 3 and len(stub.bodies) == 1, "the fourth slot is kept"
    stub.hold.set()
    await asyncio.gather(first, wide, narrow)
    assert [json.loads(body).get("seed") for body in stub.bodies] == [None, 1, 2]
    assert (await routed.told(lambda live: live.in_flight == 0)).queued == {}


async def test_slots_that_were_kept_for_it_are_given_on_when_its_client_goes(routed, stub):
    stub.hold.clear()
    first = asyncio.create_task(routed.post({**ASK, "stream": True, "n": 3}, bearer("a")))
    await routed.told(lambda live: live.in_flight == 3)
    wide = asyncio.create_task(routed.post({**ASK, "stream": True, "n": 2}, bearer("a")))
    await routed.told(lambda live: live.queued == {"chat": 1})
    narrow = asyncio.create_task(routed.post({**ASK, "stream": True}, bearer("a")))
    await routed.told(lambda live: live.queued == {"chat": 2})
    wide.cancel()
    await routed.told(lambda live: live.in_flight == 4 and not live.queued)
    stub.hold.set()
    await asyncio.gather(first, narrow)


async def test_one_that_waits_is_refused_when_no_replica_has_so_many_slots_any_more(routed, stub):
    stub.hold.clear()
    first = asyncio.create_task(routed.post({**ASK, "stream": True, "n": 3}, bearer("a")))
    await routed.told(lambda live: live.in_flight == 3)
    wide = asyncio.create_task(routed.post({**ASK, "stream": True, "n": 4}, bearer("a")))
    await routed.told(lambda live: live.queued == {"chat": 1})
    (replica,) = routed.snapshot.routes[0].replicas
    await routed.change(replicas=(msgspec.structs.replace(replica, slots=3),))
    status, _, body = parted(await wide)
    assert status == 400 and b"makes 3 at once" in body
    stub.hold.set()
    await first


# ------------------------------------------------------------------------------------ in one piece


async def test_what_is_wanted_in_one_piece_is_asked_for_as_a_stream_and_billed_to_the_token(routed, stub):
    stub.scripts[COMPLETION.encode()] = 200, TWO
    status, headers, body = parted(await routed.post({**SAID, "logprobs": 1}, path=COMPLETION))
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {
        "id": "c1", "object": "text_completion", "created": 5, "model": "m", "system_fingerprint": None,
        "choices": [
            {"index": 0, "text": "One llama", "logprobs": None, "finish_reason": "length"},
            {"index": 1, "text": "Two \u00e4", "logprobs": {"content": [{"id": 1}, {"id": 2}]},
             "finish_reason": "length"},
        ],
        "usage": {
            "prompt_tokens": 11, "completion_tokens": 6, "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 6},
        },
    }  # fmt: skip
    asked = json.loads(stub.bodies[0])
    assert asked["stream"] is asked["return_progress"] is asked["stream_options"]["include_usage"] is True
    line = await routed.line()
    assert (line.prompt_tokens, line.cached_tokens, line.answer_tokens, line.estimated) == (11, 6, 6, False)


async def test_messages_are_put_together_with_thoughts_and_calls(routed, stub):
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    stub.scripts[CHATS.encode()] = (
        200,
        [
            event(choice(0, delta={"role": "assistant", "content": None})),
            event(choice(1, delta={"role": "assistant", "content": None})),
            event(choice(1, delta={"tool_calls": [call]})),
            event(choice(0, delta={"reasoning_content": "Hm"})),
            event(choice(1, delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]})),
            event(choice(0, delta={"reasoning_content": "m."})),
            event(choice(0, delta={"content": "A "})),
            event(choice(1, delta={"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]})),
            event(choice(1, delta={}, finish_reason="tool_calls")),
            event(usage=usage),
            event(choice(0, delta={"content": "llama"})),
            event(choice(0, delta={}, finish_reason="stop")),
            event(usage=usage),
            DONE,
        ],
    )
    status, _, body = parted(await routed.post({**ASK, "n": 2}))
    answer = json.loads(body)
    assert status == 200 and answer["object"] == "chat.completion"
    assert [each["finish_reason"] for each in answer["choices"]] == ["stop", "tool_calls"]
    said, called = (each["message"] for each in answer["choices"])
    assert said == {"role": "assistant", "content": "A llama", "reasoning_content": "Hmm."}
    made = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert called == {"role": "assistant", "content": None, "tool_calls": [made]}
    line = await routed.line()
    assert (line.prompt_tokens, line.answer_tokens, line.estimated) == (9, 10, False), "the prompt is read once"


async def test_an_error_of_the_engine_is_the_answer_and_what_was_made_is_billed(routed, stub):
    error = b'data: {"error":{"code":500,"message":"no room left","type":"server_error"}}\n\n'
    for events, words in (([*TWO[:3], error], b"no room left"), (TWO[:3], b"ended before all answers had")):
        stub.scripts[COMPLETION.encode()] = 200, events
        before = await left(routed)
        status, headers, body = parted(await routed.post(SAID, bearer("b"), COMPLETION))
        assert (status, headers["content-type"]) == (500, "application/json") and words in body
        assert before - await left(routed) >= 2
        line = await routed.line()
        assert (line.status, line.outcome, line.estimated) == (500, "error", True) and line.answer_tokens >= 2
        routed.usage.clear()
    stub.scripts[COMPLETION.encode()] = 400, b'{"error":{"code":400,"message":"too long"}}'
    status, _, body = parted(await routed.post(SAID, path=COMPLETION))
    assert status == 400 and b"too long" in body
    assert (await routed.line()).answer_tokens is None


async def test_a_replica_that_dies_before_all_have_ended_is_502_and_nothing_of_it_comes(routed, stub):
    stub.scripts[COMPLETION.encode()] = 200, TWO
    stub.die = True
    status, _, body = parted(await routed.post(SAID, path=COMPLETION))
    assert status == 502 and b"replica_died" in body and b"llama" not in body


async def test_one_whose_client_goes_is_billed_for_what_each_had_made(routed, stub):
    stub.scripts[COMPLETION.encode()] = 200, TWO
    stub.hold.clear()
    stub.more = TWO[1:4]
    data = json.dumps(SAID).encode()
    _, writer = await routed.open()
    writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (COMPLETION.encode(), len(data)) + data)
    await routed.told(lambda live: live.in_flight == 2)
    while not stub.bodies:
        await asyncio.sleep(0.01)
    writer.close()
    line = await routed.line()
    assert (line.outcome, line.estimated) == ("client-gone", True) and line.answer_tokens >= 3
    assert (await routed.told(lambda live: live.in_flight == 0)).queued == {}


async def test_a_deadline_holds_until_all_of_it_are_there(routed, stub):
    stub.scripts[COMPLETION.encode()] = 200, TWO
    stub.hold.clear()
    answer = await routed.post(SAID, "X-Corral-Deadline: 0.3\r\n", COMPLETION)
    assert answer.startswith(b"HTTP/1.1 504") and b"the first byte did not come" in answer


# ------------------------------------------------------------------------------------ servers of somebody else


async def test_a_server_that_tells_of_all_is_believed_and_one_that_tells_of_the_first_is_estimated(gateway, stub):
    await gateway.route(stub, slots=4)
    usage = {"prompt_tokens": 9, "completion_tokens": 30}
    body = {"choices": [{"index": n, "text": "a llama " * 9} for n in range(3)], "usage": usage}
    stub.scripts[COMPLETION.encode()] = 200, json.dumps(body).encode()
    asked = {**SAID, "prompt": ["a llama"] * 3}
    await gateway.post(asked, path=COMPLETION)
    line = await gateway.line()
    assert (line.prompt_tokens, line.answer_tokens, line.estimated) == (9, 30, False)
    gateway.usage.clear()
    timings = {"prompt_n": 3, "cache_n": 0, "predicted_n": 10}
    told = {**body, "usage": {"prompt_tokens": 3, "completion_tokens": 10}, "timings": timings}
    stub.scripts[COMPLETION.encode()] = 200, json.dumps(told).encode()
    await gateway.post(asked, path=COMPLETION)
    line = await gateway.line()
    assert (line.prompt_tokens, line.answer_tokens, line.estimated) == (len(json.dumps(asked["prompt"])), 50, True)
    assert json.loads(stub.bodies[-1]) == asked, "it is asked as it is"


# ------------------------------------------------------------------------------------ counting


def counted(each: int, events: list[bytes], cuts: list[int]) -> tuple[SeveralCounts, bytes]:
    counts, data = SeveralCounts(True, True, True, 2, each, 20, 9), b"".join(events)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    parts = [data[start:end] for start, end in itertools.pairwise(edges)]
    return counts, b"".join(counts.part(part, n == len(parts) - 1) for n, part in enumerate(parts))


@given(cuts=st.lists(st.integers(0, 10_000)))
def test_what_each_tells_is_added_however_the_bytes_of_a_stream_are_split(cuts):
    counts, left = counted(1, TWO, cuts)
    assert (counts.prompt, counts.cached, counts.answer) == (11, 6, 6)
    assert left == b"".join(TWO[1:]), "the progress is for us alone"


def test_of_n_answers_the_first_tells_of_their_prompt():
    for told in itertools.permutations([ended(1, 8, 8, 4), ended(0, 8, 5, 3)]):
        counts, _ = counted(2, [*told, DONE], [])
        assert (counts.prompt, counts.cached, counts.answer) == (8, 5, 7)


def test_a_server_that_tells_once_of_all_and_one_that_tells_with_each_token_are_not_counted_twice():
    total = {"prompt_tokens": 11, "completion_tokens": 6}
    counts, _ = counted(1, [event(choice(0, text="x")), event(usage=total), DONE], [])
    assert (counts.prompt, counts.answer) == (11, 6)
    each = [event(choice(0, text="x"), timings={"prompt_n": 3, "cache_n": 0, "predicted_n": n}) for n in (1, 2)]
    counts, _ = counted(1, [*each, ended(0, 3, 0, 3), ended(1, 8, 0, 4), DONE], [])
    assert (counts.prompt, counts.answer) == (11, 7)


def test_a_stream_without_its_end_is_no_less_than_what_was_told_and_what_came():
    counts, _ = counted(1, TWO[:7], [])
    assert counts.answer is None
    came = counts.events
    counts.lost()
    assert counts.events == max(came, 4) + 6, "three more of each may have been made"
    silent, _ = counted(1, [], [])
    silent.lost()
    assert silent.events == 0 and silent.answer is None


LONG = {"choices": [{"text": "x" * 600_000}] * 2, "usage": {"prompt_tokens": 3, "completion_tokens": 7}}


@pytest.mark.parametrize(("more", "told"), [({}, (3, 7, False)), ({"timings": {"prompt_n": 3}}, (9, 40, True))])
def test_an_answer_that_is_too_long_to_be_read_is_never_the_first_of_them_alone(more, told):
    counts, data = SeveralCounts(False, False, False, 2, 1, 20, 9), json.dumps({**LONG, **more}).encode()
    for start in range(0, len(data), 65536):
        counts.part(data[start : start + 65536], start + 65536 >= len(data))
    assert (counts.prompt, counts.answer, counts.estimated) == told


async def test_its_line_has_the_cores_of_all_its_slots_and_one_request(routed, stub):
    (replica,) = routed.snapshot.routes[0].replicas
    await routed.change(replicas=(msgspec.structs.replace(replica, cores=4),))
    stub.late = asyncio.Event()
    wide = asyncio.create_task(routed.post({**ASK, "stream": True, "n": 2}))
    await routed.told(lambda live: live.in_flight == 2)
    stub.late.set()
    await wide
    line = await routed.line()
    assert line.requests == 1 and line.core_s == pytest.approx(2 * (line.total_s - line.queue_s), rel=1e-3)


def test_a_gateway_that_is_replaced_says_how_many_answers_it_still_makes():
    subjects, mine = Subjects(Clock()), key(concurrency=4)
    subjects.use([], [mine])
    meters = subjects.of_key(mine)
    subjects.hand_over(True)
    subjects.admit(meters, 1, 1, lambda: (0, 0), 3)
    assert subjects.in_flight()["key:k1"].requests == 3
