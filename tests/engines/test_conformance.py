"""What every engine that Corral starts must do: the same tests for all, against the real programs."""

import asyncio
import json
import re
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from stores import maker

from core.engines.base import ADAPTER, PROJECTOR, Engine, serves
from core.engines.llamacpp import KEEP
from core.gateway import apis
from core.gateway.counting import counts_of
from core.nodes.base import Limits

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120), pytest.mark.xdist_group("measures")]


# ---------------------------------------------------------------------------------------------- it serves


async def test_it_goes_from_starting_over_loading_to_ready(served: Any) -> None:
    order = ["starting", "loading", "ready"]
    assert served.seen == sorted(served.seen, key=order.index)
    assert served.seen[0] != "ready" and served.seen[-1] == "ready"


async def test_it_answers_a_chat_under_its_alias(served: Any) -> None:
    for options in ({}, {"model": "whatever"}):
        answer = await served.chat(**options)
        assert answer["choices"][0]["message"]["content"]
        assert answer["usage"]["completion_tokens"] == 8 and answer["usage"]["prompt_tokens"] > 10
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    for path, asked in (("/v1/chat/completions", body), ("/v1/models", None)):
        status, text = await served.call(path, asked)
        assert status == 200 and "herd" in text
        assert served.plan.model_path not in text and ".gguf" not in text


async def test_it_streams_and_says_how_much_it_used(served: Any) -> None:
    async with served.stream(max_tokens=12) as stream:
        events = await stream.take()
    assert stream.done
    pieces = [each["choices"][0]["delta"].get("content") for each in events if each["choices"]]
    assert len([piece for piece in pieces if piece]) >= 10
    assert {each["model"] for each in events} == {"herd"}
    assert not any(".gguf" in json.dumps(each) for each in events)
    usage = [each["usage"] for each in events if each.get("usage")]
    if served.engine.abilities.stream_usage:
        assert usage[-1]["completion_tokens"] == 12
    else:
        assert usage == []


async def test_its_counters_grow_by_what_it_did(served: Any) -> None:
    before = await served.engine.counters(served.endpoint)
    if not served.engine.abilities.counters:
        assert before is None
        return
    answer = await served.chat(text="Something new about giraffes", max_tokens=7)
    after = await served.engine.counters(served.endpoint)
    usage = answer["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert after.generated_tokens - before.generated_tokens == usage["completion_tokens"] == 7
    assert after.prompt_tokens - before.prompt_tokens == usage["prompt_tokens"] - cached
    assert after.cached_tokens - before.cached_tokens == cached
    assert after.time > before.time and after.queued == 0


async def test_its_counters_show_a_request_that_runs(served: Any) -> None:
    if not served.engine.abilities.counters:
        assert await served.engine.counters(served.endpoint) is None
        return
    async with served.stream(max_tokens=400) as stream:
        await stream.take(3)
        assert (await served.engine.counters(served.endpoint)).slots_busy == 1


async def test_it_stays_healthy_while_it_answers(served: Any) -> None:
    async with served.stream(max_tokens=300) as stream:
        await stream.take(3)
        assert (await served.engine.health(served.endpoint)).state == "ready"


async def test_a_second_request_cuts_no_stream(served: Any) -> None:
    async with served.stream(max_tokens=40) as stream:
        await stream.take(2)
        async with asyncio.TaskGroup() as group:
            second = group.create_task(served.chat(text="And you, lion?"))
            first = group.create_task(stream.take())
    finish = [each["choices"][0].get("finish_reason") for each in first.result() if each["choices"]]
    assert stream.done and finish[-1] == "length" and len(finish) >= 38
    assert second.result()["usage"]["completion_tokens"] == 8


async def test_a_client_that_goes_frees_its_slot(served: Any) -> None:
    busy = 2 if served.engine.abilities.parallel else 1
    for _ in range(busy):
        async with served.stream(max_tokens=1900, text="Tell a very long story") as stream:
            await stream.take(3)
    began = time.monotonic()
    await served.chat(max_tokens=1)
    assert time.monotonic() - began < 5  # 1,900 tokens take some 20 s


ASKED: dict[str, dict[str, Any]] = {
    apis.CHAT.path: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    apis.COMPLETIONS.path: {"prompt": "hi", "max_tokens": 2},
    apis.EMBEDDINGS.path: {"input": "a llama"},
    apis.RESPONSES.path: {"input": "hi", "max_output_tokens": 2},
    apis.RESPONSES_COUNT.path: {"input": "hi"},
    apis.MESSAGES.path: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    apis.MESSAGES_COUNT.path: {"messages": [{"role": "user", "content": "hi"}]},
    apis.RERANK.path: {"query": "llama", "documents": ["a llama", "a stone"]},
    apis.TOKENIZE.path: {"content": "hi"},
    apis.DETOKENIZE.path: {"tokens": [1]},
}


async def test_it_serves_the_routes_that_it_says_and_no_other(served: Any) -> None:
    there = serves(served.engine.abilities, served.plan.spec)
    for path, body in ASKED.items():
        status, text = await served.call(path, {"model": "herd", **body})
        assert (status == 200) == (path in there), (path, status, text)


@pytest.mark.parametrize("path", [apis.MESSAGES.path, apis.RESPONSES.path])
async def test_it_tells_usage_as_each_api_does(served: Any, path: str) -> None:
    if path not in served.engine.abilities.routes:
        pytest.skip(f"{served.engine.name} does not serve {path}")
    api = next(api for api in apis.APIS if api.path == path)
    found = []
    for stream in (False, True):
        status, text = await served.call(path, {"model": "herd", **ASKED[path], "stream": stream})
        assert status == 200
        counts = counts_of(api, stream=stream, cut=False, cut_progress=False)
        counts.part(re.sub(r"(^|\r\n)[0-9a-f]+\r\n", "", text).encode(), True)  # without the sizes of its chunks
        found.append((counts.prompt, counts.answer))
        assert counts.events == (2 if stream else 0) or counts.events == 1  # a character may be more than a token
    _, text = await served.call(f"{path}/{'count' if api is apis.MESSAGES else 'input'}_tokens", ASKED[path])
    assert {answer for _, answer in found} == {2}
    # Where the first token is only a part of a character llama.cpp tells no prompt in a stream of Messages.
    assert {prompt for prompt, _ in found if prompt is not None} == {json.loads(text)["input_tokens"]}


async def test_it_reranks_if_it_was_started_for_it(engine: Engine, yard: Any) -> None:
    if apis.RERANK.path not in engine.abilities.routes:
        pytest.skip(f"{engine.name} does not rerank")
    served = await yard.ready(engine, rerank=True)
    status, text = await served.call("/v1/rerank", {"model": "herd", **ASKED[apis.RERANK.path]})
    assert status == 200, text
    assert {each["index"] for each in json.loads(text)["results"]} == {0, 1}
    assert json.loads(text)["usage"]["prompt_tokens"] > 4
    assert set(serves(engine.abilities, served.plan.spec)) == {
        apis.RERANK.path,
        apis.TOKENIZE.path,
        apis.DETOKENIZE.path,
    }
    await served.signal(signal.SIGKILL)


async def test_a_wrong_secret_is_refused(served: Any) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "input": "hi", "max_tokens": 1}
    for path, asked in (
        ("/v1/models", None), *((path, {**body, **ASKED[path]}) for path in served.engine.abilities.routes),
    ):  # fmt: skip
        for secret in ("", "wrong", served.endpoint.secret + "x"):
            status, _ = await served.call(path, asked, secret=secret)
            assert status == 401, (path, secret)
    if served.engine.abilities.counters:
        assert (await served.call("/metrics", secret="wrong"))[0] == 401
        assert (await served.call("/slots", secret="wrong"))[0] == 401


# ---------------------------------------------------------------------------------------------- it keeps quiet


async def test_it_listens_on_its_socket_and_nowhere_else(served: Any) -> None:
    process = psutil.Process(served.state.pid)
    assert Path(served.endpoint.socket).is_socket()
    assert process.net_connections(kind="inet") == []
    assert process.children(recursive=True) == []


async def test_its_environment_is_an_allow_list(served: Any, hostile_environment: dict[str, str]) -> None:
    environment = psutil.Process(served.state.pid).environ()
    secret = [key for key, value in environment.items() if value == served.plan.secret]
    assert secret in (["LLAMA_API_KEY"], ["API_KEY"])
    ours = {"GGML_NO_BACKTRACE", "PYTHONUNBUFFERED", *secret}
    words = "CACHE_RAM", "CTX_CHECKPOINTS", "SSE_PING_INTERVAL", "OFFLINE", "NO_CONTEXT_SHIFT"
    arguments = {f"LLAMA_ARG_{word}" for word in words}
    # LC_CTYPE is set by a Python that is started in the C locale.
    assert set(environment) <= {*KEEP, *ours, *arguments, "LC_CTYPE"}
    assert environment["GGML_NO_BACKTRACE"] == "1"
    assert not {*hostile_environment.values()} & {*environment.values()}


async def test_the_secret_and_the_prompts_are_in_no_file_and_no_argument(served: Any, yard: Any) -> None:
    await served.chat()
    assert not any(served.plan.secret in each for each in psutil.Process(served.state.pid).cmdline())
    for path in yard.paths.root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert served.plan.secret.encode() not in data, path
            assert b"zebra" not in data, path


async def test_the_plan_reaches_the_engine(served: Any) -> None:
    if not served.engine.abilities.counters:
        assert "n_ctx                 = 2048" in await served.log()
        return
    status, text = await served.call("/slots")
    assert status == 200
    assert [slot["n_ctx"] for slot in json.loads(text)] == [1024, 1024]
    assert "n_threads = 1" in await served.log()


async def test_more_context_than_was_trained_is_not_asked_for(engine: Engine, yard: Any) -> None:
    command = engine.command(yard.plan(engine, ctx=1 << 20, parallel=2))
    assert any("16384" in each for each in command.argv) and not any("1048576" in each for each in command.argv)


# ---------------------------------------------------------------------------------------------- it ends


@pytest.mark.parametrize("streams", [True, False])
async def test_a_term_while_it_answers_ends_it_fast(engine: Engine, yard: Any, streams: bool) -> None:
    served = await yard.ready(engine)
    async with served.stream(max_tokens=1900, text="Tell a very long story") as stream:
        await stream.take(5)
        asked = None
        if not streams:
            asked = asyncio.create_task(served.call("/v1/chat/completions", _long()))
            await asyncio.sleep(0)
        seconds, last = await served.stop()
        assert seconds < (6 if engine.abilities.term_again_s else 3)
        assert last.exit.signal is None and last.exit.code == (
            0 if not engine.abilities.term_again_s else last.exit.code
        )
        await stream.take()
        assert not stream.done and stream.events
        if asked:
            [answer] = await asyncio.gather(asked, return_exceptions=True)
            assert isinstance(answer, (OSError, EOFError)), answer


def _long() -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "Tell a very long story"}], "max_tokens": 900}
    return body | {"logit_bias": {"0": -100, "2": -100}}


async def test_an_idle_engine_ends_in_order(engine: Engine, yard: Any) -> None:
    served = await yard.ready(engine)
    if engine.name in ("xllamacpp", "llama-server"):  # they answer before they mind a signal
        async with asyncio.timeout(20):
            while "listening on" not in await served.log():
                await asyncio.sleep(0.02)
    _, last = await served.stop()  # which waits less than the daemon does before it kills
    assert (last.exit.code, last.exit.signal) == (0, None)


async def test_a_term_while_it_loads_ends_it(engine: Engine, yard: Any) -> None:
    served = await yard.start(engine)
    await served.signal(signal.SIGTERM)
    last = await served.end(5)
    assert (last.exit.code, last.exit.signal) in ((0, None), (None, signal.SIGTERM), (143, None))
    failure = await served.why(was_ready=False)
    assert failure.reason and not failure.permanent


async def test_a_kill_is_explained(engine: Engine, yard: Any) -> None:
    served = await yard.ready(engine)
    await served.signal(signal.SIGKILL)
    failure = await served.why(was_ready=True)
    assert "SIGKILL" in failure.reason and not failure.permanent
    health = await engine.health(served.endpoint)
    assert health.state == "starting" and "nothing listens" in health.reason


@pytest.mark.parametrize(
    "kind, words",
    [("missing", "not there"), ("cut", "damaged"), ("garbage", "no GGUF"), ("stranger", "architecture 'zlama'")],
)
async def test_a_bad_file_is_explained_and_not_tried_again(
    engine: Engine, yard: Any, spoiled: Callable[[str], Path], kind: str, words: str
) -> None:
    served = await yard.start(engine, model_path=str(spoiled(kind)))
    failure = await served.why(was_ready=False)
    assert words in failure.reason, await served.log()
    assert failure.permanent and 1 <= len(failure.lines) <= 3
    assert (await engine.health(served.endpoint)).state == "starting"


@pytest.mark.parametrize("ctx", [2048, 16384])
async def test_a_memory_limit_at_load_is_explained_and_not_tried_again(engine: Engine, yard: Any, ctx: int) -> None:
    served = await yard.start(engine, Limits(data_bytes=150 << 20), ctx=ctx)
    failure = await served.why(was_ready=False)
    assert "memory" in failure.reason and failure.permanent, await served.log()
    assert failure.lines


# ---------------------------------------------------------------------------------------------- its options


@pytest.mark.parametrize("cache_type", ["q8_0", "q4_0"])
async def test_a_quantised_cache_works(engine: Engine, yard: Any, cache_type: str) -> None:
    assert cache_type in engine.abilities.cache_types
    served = await yard.ready(engine, cache_type=cache_type)
    assert (await served.chat())["usage"]["completion_tokens"] == 8
    await served.signal(signal.SIGKILL)


async def test_embeddings_work(engine: Engine, yard: Any, spoiled: Callable[[str], Path]) -> None:
    served = await yard.ready(engine, embedding=True, model_path=str(spoiled("pooled")))
    status, text = await served.call("/v1/embeddings", {"model": "herd", "input": "a llama in the corral"})
    assert status == 200, text
    assert len(json.loads(text)["data"][0]["embedding"]) == yard.shape.n_embd
    await served.signal(signal.SIGKILL)


def adapter(folder: Path) -> Path:
    """A LoRA adapter of the sample that changes what one of its layers says."""
    meta = {
        "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
        "adapter.lora.alpha": struct.pack("<If", 6, 8.0),
    }  # fmt: skip
    tensors = [
        ("blk.9.ffn_down.weight.lora_a", [1536, 4], 0, None),
        ("blk.9.ffn_down.weight.lora_b", [4, 576], 0, None),
    ]
    path = folder / "adapter.gguf"
    path.write_bytes(maker.make(meta, tensors, fill=b"\x40"))
    return path


async def test_an_adapter_or_a_projector_that_does_not_fit_is_explained_and_not_tried_again(
    engine: Engine, yard: Any, tmp_path: Path
) -> None:
    if not (engine.abilities.adapters and engine.abilities.projector):
        pytest.skip(f"{engine.name} takes none: it is refused before")
    told = {"general.architecture": "qwen2", "general.type": "adapter", "adapter.type": "lora"}
    (other := tmp_path / "adapter.gguf").write_bytes(
        maker.make(told | {"adapter.lora.alpha": struct.pack("<If", 6, 8.0)})
    )
    (eye := tmp_path / "eye.gguf").write_bytes(maker.make({"general.architecture": "clip", "general.type": "mmproj"}))
    for beside, words in (({"adapter_paths": (str(other),)}, ADAPTER), ({"projector_path": str(eye)}, PROJECTOR)):
        served = await yard.start(engine, **beside)
        failure = await served.why(was_ready=False)
        assert words in failure.reason and failure.permanent, await served.log()


async def test_what_a_version_is_served_with_reaches_it(engine: Engine, yard: Any, tmp_path: Path) -> None:
    """An adapter, another chat template, and what is used where a request says nothing."""
    has = engine.abilities
    if not (has.adapters and has.template and has.defaults):
        pytest.skip(f"{engine.name} takes none of these: it is refused before")
    plain = await yard.ready(engine)
    usual = await plain.chat()
    await plain.stop()
    template = "{% for m in messages %}<<{{ m['content'] }}>>{% endfor %}"
    defaults = {"temperature": 0.125, "top_p": 0.5, "top_k": 7.0, "min_p": 0.25}
    served = await yard.ready(engine, template=template, defaults=defaults, adapter_paths=(str(adapter(tmp_path)),))
    _, text = await served.call("/props")
    props = json.loads(text)
    assert props["chat_template"] == template
    told = props["default_generation_settings"]["params"]
    assert {name: pytest.approx(told[name]) for name in defaults} == defaults
    changed = await served.chat()
    assert changed["choices"] != usual["choices"]
    assert changed["usage"]["prompt_tokens"] < usual["usage"]["prompt_tokens"]  # the template is shorter
    await served.stop()
    # With its own template alone the adapter's doing shows.
    served = await yard.ready(engine, adapter_paths=(str(adapter(tmp_path)),))
    assert (await served.chat())["choices"][0]["message"] != usual["choices"][0]["message"]
