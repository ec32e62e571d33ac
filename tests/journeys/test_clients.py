"""The clients that programs use, at the gateway's port: OpenAI's for Python and Node by the same cases, Anthropic's,
and LangChain's; with right, wrong, expired, bound, limited and revoked keys, whole and in streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import node_clients
import pytest
from command import ask, corral, deployed, until
from pooled import pooled

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]

HERE = Path(__file__).parent
QUESTION: Any = [{"role": "user", "content": "Say hello."}]
CHAT = {"model": "chat", "messages": QUESTION, "max_tokens": 8}
LONG = {**CHAT, "max_tokens": 3900, "stream": True, "logit_bias": {"0": -100, "2": -100}}  # it never ends by itself


class Client:
    """An official client in a process of its own."""

    def __init__(self, command: list[str], base: str, env: dict[str, str]) -> None:
        self._base = base
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}
        )

    def begin(self, key: str, call: str, args: dict[str, Any] | None = None, **more: Any) -> None:
        assert self._process.stdin is not None
        asked = {"base": self._base, "key": key, "call": call, "args": args or {}, **more}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the client has ended"
        return dict(json.loads(line))

    def end(self) -> dict[str, Any]:
        """What came of it, past what it said meanwhile."""
        while "answers" not in (found := self.hear()):
            pass
        return found

    def ask(self, key: str, call: str, args: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        self.begin(key, call, args, **more)
        return self.end()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


Starting = Callable[[], Client]


@pytest.fixture(params=["python", "node"])
def starting(request: pytest.FixtureRequest) -> Iterator[Starting]:
    """Starts clients of one language; Node's is skipped by name where it cannot be had."""
    command, env = [sys.executable, "-P", str(HERE / "openai_client.py")], {}
    if request.param == "node":
        try:
            node, root = node_clients.fetched()
        except node_clients.Absent as absent:
            pytest.skip(f"OpenAI's Node client: {absent}")
        command, env = [node, str(HERE / "openai_client.mjs")], {"CORRAL_NODE_CLIENTS": str(root)}
    made: list[Client] = []

    def start() -> Client:
        made.append(Client(command, f"{ask('status')['gateway']}/v1", env))
        return made[-1]

    yield start
    for client in made:
        client.close()


def key_of(name: str, *options: str) -> str:
    return str(ask("keys", "create", name, *options)["key"])


def refused(found: dict[str, Any], error: str, status: int, code: str) -> None:
    assert (found["error"], found["status"], found["code"]) == (error, status, code), found
    assert found["id"] and found["message"]


def test_the_official_clients_get_what_they_expect(
    home: Path, sample: Path, tmp_path: Path, starting: Starting
) -> None:
    deployed()
    model = tmp_path / "pooled.gguf"
    model.write_bytes(pooled(sample.read_bytes()))
    corral("models", "import", str(model), "--name", "pooled")
    unpooled = corral("deploy", "smollm2-135m", "--name", "embed", "--ctx", "512", "--embedding", code=2)
    assert "smollm2-135m@1 makes no embeddings of texts" in unpooled and "no llama.pooling_type" in unpooled
    corral("deploy", "pooled", "--name", "embed", "--ctx", "512", "--embedding", "--wait")
    client, right = starting(), key_of("right")

    listed = client.ask(right, "models.list")["answer"]
    assert [each["id"] for each in listed["data"]] == ["chat", "embed"]
    assert client.ask(right, "models.retrieve", of=["chat"])["answer"]["object"] == "model"
    refused(client.ask(right, "models.retrieve", of=["none"]), "NotFoundError", 404, "model_not_found")

    whole = client.ask(right, "chat.completions.create", CHAT)
    assert whole["id"] and whole["answer"]["choices"][0]["message"]["content"]
    assert whole["answer"]["usage"]["completion_tokens"] <= 8
    stream = client.ask(right, "chat.completions.create", {**CHAT, "stream": True})
    assert stream["text"] and stream["pieces"] > 2 and stream["usage"] is None
    told = client.ask(
        right, "chat.completions.create", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    )
    assert told["usage"]["prompt_tokens"] > 4 and 0 < told["usage"]["completion_tokens"] <= 8
    text = {"model": "chat", "prompt": "Once", "max_tokens": 4}
    assert client.ask(right, "completions.create", text)["answer"]["choices"][0]["text"]
    assert client.ask(right, "completions.create", {**text, "stream": True})["text"]

    asked = {"model": "chat", "input": "Say hello.", "max_output_tokens": 8}
    answer = client.ask(right, "responses.create", asked)["answer"]
    assert answer["status"] == "completed" and answer["output"][0]["content"][0]["text"]
    stream = client.ask(right, "responses.create", {**asked, "stream": True})
    assert (stream["kinds"][0], stream["kinds"][-1]) == ("response.created", "response.completed")
    assert stream["text"] and stream["usage"]["input_tokens"] == answer["usage"]["input_tokens"]
    counted = client.ask(right, "responses.input_tokens.count", {"model": "chat", "input": "Say hello."})
    assert counted["answer"]["input_tokens"] == answer["usage"]["input_tokens"]

    # Both clients ask for base64 unless told otherwise, and decode it.
    for more in ({}, {"encoding_format": "float"}):
        made = client.ask(right, "embeddings.create", {"model": "embed", "input": ["a llama", "a stone"], **more})
        assert [len(each["embedding"]) for each in made["answer"]["data"]] == [576, 576]
        assert made["answer"]["usage"]["prompt_tokens"] > 2
    lacks = client.ask(right, "embeddings.create", {"model": "chat", "input": "a llama"})
    refused(lacks, "NotFoundError", 404, "route_not_served")
    refused(
        client.ask(right, "chat.completions.create", {**CHAT, "model": "none"}), "NotFoundError", 404, "model_not_found"
    )
    refused(client.ask(right, "chat.completions.create", {**CHAT, "n": 1000}), "BadRequestError", 400, "bad_request")


def test_the_official_clients_with_keys_that_do_not_open_and_keys_that_are_limited(
    home: Path, sample: Path, starting: Starting
) -> None:
    corral("models", "sample")
    corral("deploy", "smollm2-135m", "--name", "chat", "--ctx", "4096", "--parallel", "2", "--wait")
    client, other, right = starting(), starting(), key_of("right")
    for stream in (False, True):
        wrong = client.ask("corral_wrong", "chat.completions.create", {**CHAT, "stream": stream})
        refused(wrong, "AuthenticationError", 401, "invalid_api_key")
    narrow = key_of("narrow", "--endpoints", "models", "--models", "other-*")
    assert client.ask(narrow, "models.list")["answer"]["data"] == []
    refused(client.ask(narrow, "chat.completions.create", CHAT), "PermissionDeniedError", 403, "not_allowed")
    elsewhere = key_of("elsewhere", "--models", "other-*")
    refused(client.ask(elsewhere, "chat.completions.create", CHAT), "NotFoundError", 404, "model_not_found")
    short = key_of("short", "--expires", "2s")
    ended = until(lambda: (found := client.ask(short, "models.list")).get("error") and found)
    refused(ended, "AuthenticationError", 401, "invalid_api_key")
    assert "expired" in ended["message"]

    few = key_of("few", "--rpm", "2")
    for stream in (False, True):
        assert "error" not in client.ask(few, "chat.completions.create", {**CHAT, "stream": stream})
    for stream in (False, True):
        limited = client.ask(few, "chat.completions.create", {**CHAT, "stream": stream})
        refused(limited, "RateLimitError", 429, "rate_limit_exceeded")
        assert 1 <= int(limited["answers"][0][1]) <= 62

    # The client's own retry: one stream holds all that the key may, another call is told when to come again, and does.
    single = key_of("single", "--concurrency", "1")
    other.begin(single, "chat.completions.create", LONG)
    assert other.hear() == {"begun": True}
    client.begin(single, "chat.completions.create", CHAT, retries=9)
    assert client.hear() == {"limited": True}
    corral("keys", "limit", "single", "--concurrency", "2")
    again = client.end()
    assert again["answer"]["choices"] and again["answers"][-1][0] == 200
    for (_, after, before), (_, _, later) in zip(again["answers"], again["answers"][1:], strict=False):
        assert later - before >= float(after)

    # A stream that its client breaks off frees its slot at once.
    lone = key_of("lone", "--concurrency", "1")
    assert client.ask(lone, "chat.completions.create", LONG, take=3)["pieces"] == 3
    until(lambda: "error" not in client.ask(lone, "chat.completions.create", CHAT))

    # A revoked key loses the stream that it has, and is refused from then on.
    client.begin(right, "chat.completions.create", LONG)
    assert client.hear() == {"begun": True}
    corral("keys", "revoke", "right", "--reason", "leaked", "--yes")
    cut = client.end()
    assert cut["error"] == "APIError" and "was revoked" in cut["message"] and cut["code"] == "invalid_api_key"
    refused(client.ask(right, "models.list"), "AuthenticationError", 401, "invalid_api_key")
    corral("keys", "revoke", "single", "--yes")
    assert other.end()["code"] == "invalid_api_key"


def test_anthropic_s_and_langchain_s_clients_get_what_they_expect(home: Path, sample: Path) -> None:
    import anthropic
    import openai
    from langchain_openai import ChatOpenAI

    engine = deployed()["pid"]
    base, key = ask("status")["gateway"], key_of("right")

    def messages(key: str) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=base, api_key=key, max_retries=0, timeout=60)

    asked: Any = {"model": "chat", "max_tokens": 8, "messages": QUESTION}
    with messages(key) as claude, messages("corral_wrong") as wrong, messages(key_of("few", "--rpm", "1")) as few:
        whole = claude.messages.create(**asked)
        assert whole.content[0].text and whole._request_id and whole.stop_reason in ("max_tokens", "end_turn")
        read = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
        assert claude.messages.count_tokens(model="chat", messages=QUESTION).input_tokens == read
        for _ in range(4):  # one in some begins with half a character
            with claude.messages.stream(**asked) as stream:
                text = "".join(stream.text_stream)
                assert stream.get_final_message().content[0].text == text
                assert 0 < stream.get_final_message().usage.output_tokens <= 8
        assert [each.id for each in claude.models.list()] == ["chat"]
        with pytest.raises(anthropic.NotFoundError, match="no deployment 'none'"):
            claude.messages.create(**{**asked, "model": "none"})
        with pytest.raises(anthropic.BadRequestError) as bad:
            claude.messages.create(**{**asked, "messages": [{"role": "user", "content": "a llama " * 3000}]})
        assert bad.value.body["type"] == "error" and bad.value.body["error"]["type"] == "invalid_request_error"
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            wrong.messages.create(**asked)
        assert unknown.value.body["error"]["type"] == "authentication_error" and unknown.value.request_id
        few.messages.create(**asked)
        with pytest.raises(anthropic.RateLimitError) as limited:
            few.messages.create(**asked)
        assert 1 <= int(limited.value.response.headers["retry-after"]) <= 62
        story: Any = [{"role": "user", "content": "Write a long story about a llama."}]
        long = claude.messages.create(**{**asked, "max_tokens": 1500, "messages": story, "stream": True})
        next(iter(long))
        os.kill(engine, signal.SIGSTOP)  # of this API nothing makes an answer endless: hold it up
        try:
            corral("keys", "limit", "right", "--endpoints", "messages", "--models", "other-*")
            with pytest.raises(anthropic.APIStatusError, match="was taken away") as cut:
                for _ in long:
                    pass
        finally:
            os.kill(engine, signal.SIGCONT)
        assert cut.value.body["error"]["type"] == "permission_error"
        with pytest.raises(anthropic.PermissionDeniedError):
            claude.models.list()

    open_key = key_of("chain")
    for responses in (False, True):
        chain = ChatOpenAI(
            base_url=f"{base}/v1", api_key=open_key, model="chat", max_tokens=8, max_retries=0,  # type: ignore[call-arg]
            use_responses_api=responses,
        )  # fmt: skip
        answer = chain.invoke("Say hello.")
        assert answer.text and answer.usage_metadata["output_tokens"] <= 8
        assert "".join(piece.text for piece in chain.stream("Say hello."))
    with pytest.raises(openai.AuthenticationError):
        ChatOpenAI(base_url=f"{base}/v1", api_key="corral_wrong", model="chat", max_retries=0).invoke("Say hello.")
