"""Pictures in a request: none is fetched for whoever asks, and none is counted by its bytes."""

from __future__ import annotations

import json

import pytest
from test_keyed import key

from core.gateway import pictures
from core.gateway.errors import Refusal

DATA = "data:image/png;base64," + "A" * 200_000
MESSAGES, RESPONSES, COMPLETIONS = "/v1/messages", "/v1/responses", "/v1/completions"
AWAY = "http://127.0.0.1:9/x.png"


def asked(*parts: object) -> dict:
    return {"model": "chat", "messages": [{"role": "user", "content": list(parts)}]}


def shown(url: object) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


FETCHED = [
    asked(shown(AWAY)),
    asked(shown("HTTPS://localhost/x.png")),
    asked(shown("file:///etc/passwd")),
    asked(shown("httpx")),
    asked({"type": "image_url", "image_url": AWAY}),
    asked({"type": "text", "text": "what is this?"}, shown(DATA), shown(AWAY)),
    asked({"type": "input_audio", "input_audio": {"data": AWAY, "format": "wav"}}),
    asked({"type": "input_video", "input_video": {"url": AWAY}}),
    asked({"type": "image", "source": {"type": "url", "url": AWAY}}),
    asked({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image", "source": {"url": AWAY}}]}),
    {"model": "chat", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": AWAY}]}]},
    {"model": "chat", "input": [{"type": "function_call_output", "output": [{"image_url": AWAY}]}]},
    {"model": "chat", "prompt": {"prompt_string": "x", "multimodal_data": [AWAY]}},
]  # fmt: skip
KEPT = [
    asked(shown(DATA)),
    asked({"type": "text", "text": f"what is at {AWAY}?"}),
    {"model": "chat", "messages": [{"role": "user", "content": AWAY}]},
    asked({"type": "tool_use", "id": "1", "name": "get", "input": {"url": AWAY}}),
    {"model": "chat", "messages": [{"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "get", "arguments": json.dumps({"url": AWAY})}}]}]},
    {"model": "chat", "input": AWAY},
    {"model": "chat", "prompt": AWAY},
    {"model": "chat", "messages": [[], 1, None, {"content": [3, {"image_url": 5, "source": {"url": 7}}]}]},
]  # fmt: skip


@pytest.mark.parametrize("fields", FETCHED)
def test_a_picture_that_would_have_to_be_fetched_is_refused(fields):
    for body in (
        json.dumps(fields),
        json.dumps(fields).replace("http", "\\u0068ttp").replace("image_url", "image\\u005furl"),
    ):
        with pytest.raises(Refusal, match="not fetched from anywhere") as refusal:
            pictures.size(body.encode())
        assert refusal.value.status == 400


@pytest.mark.parametrize("fields", KEPT)
def test_addresses_in_words_and_in_what_a_tool_was_called_with_are_nobodys_to_fetch(fields):
    assert pictures.size(json.dumps(fields).encode()) > 0


def test_a_picture_counts_for_as_much_whatever_its_bytes_are():
    alone = len(json.dumps(asked(shown(""))))
    for data in (DATA, "data:image/png;base64,AAAA"):
        assert pictures.size(json.dumps(asked(shown(data))).encode()) == alone + 4 * pictures.TOKENS
    assert pictures.size(json.dumps(asked(shown(DATA), shown(DATA))).encode()) > 2 * 4 * pictures.TOKENS


async def test_it_is_refused_where_a_deployment_takes_pictures_and_reaches_no_engine(gateway, stub):
    await gateway.route(stub)
    await gateway.change(pictures=True)
    for fields, path in ((FETCHED[0], "/v1/chat/completions"), (FETCHED[8], MESSAGES), (FETCHED[10], RESPONSES)):
        refused = await gateway.post(fields, path=path)
        assert b" 400 " in refused and b"not fetched from anywhere" in refused
    assert stub.bodies == []
    assert b" 200 " in await gateway.post(asked(shown(DATA)))
    assert json.loads(stub.bodies[0])["messages"][0]["content"][0]["image_url"]["url"] == DATA


async def test_limits_on_tokens_take_a_picture_for_what_it_is(gateway, stub):
    """By its bytes this one would have 50,000 tokens."""
    secret = "corral_seeing"
    await gateway.route(stub, keys=[key(secret, tpm=4000, longest_prompt=2000)])
    headers = f"Authorization: Bearer {secret}\r\n"
    refused = await gateway.post({**asked(shown(DATA)), "max_tokens": 5}, headers)
    assert b" 400 " in refused and b"tokens" in refused
    await gateway.change(pictures=True)
    assert b" 200 " in await gateway.post({**asked(shown(DATA)), "max_tokens": 5}, headers)
