"""`corral usage` with the real daemon and engine: what it tells is what the engine counted."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fleet
import pytest
from command import ask, corral, deployed, until

from core import http
from core.errors import CorralError
from core.nouns import UsageReport, UsageRow, UsageSums
from core.paths import user_paths
from tui.verbs.usage import _csv

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]
PRICES = """
[usage]
currency = "EUR"
[usage.prices."smollm2-*"]
per_million_in = 1000
per_million_cached = 10
per_million_out = 2000
per_core_hour = 1
"""


async def post(gateway: Path, body: dict[str, Any], path: str = "/v1/chat/completions") -> bytes:
    answer = await http.request(gateway, "POST", path, body=json.dumps(body).encode(), headers={}, timeout=60)
    async with answer:
        assert answer.status == 200, await answer.read()
        return await answer.read()


async def metrics(replica: dict[str, Any], secret: str) -> tuple[int, int]:
    """(prompt tokens that were computed, tokens that were made), as the engine has counted."""
    headers = {"Authorization": f"Bearer {secret}"}
    answer = await http.request(Path(replica["socket"]), "GET", "/metrics", body=b"", headers=headers, timeout=10)
    async with answer:
        text = (await answer.read()).decode()
    told = dict(re.findall(r"^llamacpp:(prompt_tokens_total|tokens_predicted_total) (\d+)", text, re.M))
    return int(told["prompt_tokens_total"]), int(told["tokens_predicted_total"])


def secret_of(replica: dict[str, Any]) -> str:
    database = ask("status")["daemon"]["database"]
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        found = db.execute("SELECT secret FROM launches WHERE id = ?", (replica["launch"],)).fetchone()[0]
    db.close()
    return str(found)


def hang_up(gateway: Path, path: str, body: dict[str, Any]) -> None:
    """A stream that is cut: its client goes after some events."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.settimeout(30)
        gone.connect(str(gateway))
        data = json.dumps(body).encode()
        gone.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        seen = b""
        while seen.count(b"data: ") < 20:
            seen += (piece := gone.recv(65536))
            assert piece


def total(*args: str) -> dict[str, Any]:
    return dict(ask("usage", *args)["total"])


async def test_the_sums_are_what_the_engine_counted(home: Path, sample: Path) -> None:
    replica = deployed()
    gateway, secret = Path(ask("status")["gateway_socket"]), secret_of(replica)
    question = {"model": "chat", "messages": [{"role": "user", "content": "What is a llama?"}], "max_tokens": 12}
    before = await metrics(replica, secret)
    await post(gateway, question)
    await post(gateway, question)  # its prompt is cached
    await post(gateway, {**question, "stream": True})
    await post(gateway, {**question, "stream": True, "stream_options": {"include_usage": True}})
    await post(gateway, {"model": "chat", "prompt": "One, two,", "max_tokens": 5}, "/v1/completions")
    corral("chat", "chat", "Hello", "--max-tokens", "8")
    until(lambda: total()["requests"] == 6)
    found, (read, made) = total(), await metrics(replica, secret)
    assert found["errors"] == found["estimated"] == 0
    assert found["answer_tokens"] == made - before[1] > 0
    assert found["prompt_tokens"] - found["cached_tokens"] == read - before[0] > 0
    assert found["cached_tokens"] > 0

    (row,) = ask("usage", "--by", "user,group,model,version,deployment,replica,node,key,outcome")["rows"]
    assert row["group"] == {
        "user": "root", "uid": os.getuid(), "group": "root", "model": "smollm2-135m", "version": 1,
        "deployment": "chat", "replica": "chat/0", "node": replica["node"], "key": "", "key_name": "", "outcome": "ok",
    }  # fmt: skip
    assert 0 < found["first_token_p50_s"] <= found["first_token_p95_s"] < 60 and found["core_hours"] > 0

    files = [*home.rglob("corral.db*"), *home.rglob("*.jsonl"), *home.rglob("*.log")]
    assert files and not [file for file in files if b"What is a llama?" in file.read_bytes()]

    long = {**question, "messages": [{"role": "user", "content": "Count from one to five hundred, please."}]}
    hang_up(gateway, "/v1/chat/completions", {**long, "stream": True, "max_tokens": 400, "ignore_eos": True})
    until(lambda: total()["requests"] == 7)
    cut, stopped = total(), time.monotonic() + 20
    while (counted := await metrics(replica, secret))[1] == made and time.monotonic() < stopped:
        pass
    assert cut["errors"] == 0
    computed = (cut["prompt_tokens"] - cut["cached_tokens"]) - (found["prompt_tokens"] - found["cached_tokens"])
    assert computed == counted[0] - read > 0
    # By the engine's own count. Where it does not tell in time the events up to its last one count, and of what it made
    # by then one token may have had none (core/gateway/rest.py).
    off = (cut["answer_tokens"] - found["answer_tokens"]) - (counted[1] - made)
    assert abs(off) <= cut["estimated"] <= 1


async def test_several_answers_in_one_request_are_each_billed_as_the_engine_counted_them(
    home: Path, sample: Path
) -> None:
    replica = deployed("--parallel", "4")
    gateway, secret = Path(ask("status")["gateway_socket"]), secret_of(replica)
    texts = [f"Tell me {count} stories" for count in ("one", "two or three", "four", "a hundred")]
    completion = {"model": "chat", "prompt": texts, "max_tokens": 6}
    chat = {"model": "chat", "messages": [{"role": "user", "content": "What is a llama?"}], "max_tokens": 8}
    asked: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/completions", {**completion, "ignore_eos": True}, 24),
        ("/v1/completions", {**completion, "ignore_eos": True, "stream": True}, 24),
        ("/v1/completions", {**completion, "prompt": texts[:2], "n": 2, "ignore_eos": True, "logprobs": 1}, 24),
        ("/v1/completions", {**completion, "prompt": [[1, 2, 3], [4, 5]], "seed": 1}, 0),
        ("/v1/chat/completions", {**chat, "n": 3, "ignore_eos": True}, 24),
        ("/v1/chat/completions", {**chat, "n": 4, "stream": True}, 0),
        ("/v1/chat/completions", {**chat, "n": 2, "stream": True, "stream_options": {"include_usage": True}}, 0),
        ("/v1/chat/completions", {**chat, "n_cmpl": 2, "n": 3}, 0),
    ]
    begun, sums = await metrics(replica, secret), total()
    for count, (path, body, least) in enumerate(asked, 1):
        answer = await post(gateway, body, path)
        until(lambda count=count: total()["requests"] == count)
        told, (read, made) = total(), await metrics(replica, secret)
        assert told["answer_tokens"] == made - begun[1] >= least, body
        assert told["prompt_tokens"] - told["cached_tokens"] == read - begun[0], body
        if "stream" not in body:
            whole = json.loads(answer)
            assert whole["usage"]["completion_tokens"] == told["answer_tokens"] - sums["answer_tokens"]
            choices = whole["choices"]
            assert [each["index"] for each in choices] == list(range(len(choices)))
            assert all(each["finish_reason"] for each in choices)
            assert all(each.get("text") or each["message"]["content"] for each in choices)
        sums = told
    assert told["estimated"] == told["errors"] == 0

    # Some that are cut: their slots tell, where nothing else came into them meanwhile.
    body = {**completion, "max_tokens": 300, "ignore_eos": True, "stream": True}
    cuts = [(body, 12), ({**body, "prompt": texts[0], "n": 3}, 9)]
    for count, (body, most) in enumerate(cuts, len(asked) + 1):
        hang_up(gateway, "/v1/completions", body)
        until(lambda count=count: total()["requests"] == count)
        before, counted = -1, (await metrics(replica, secret))[1]
        while not made < counted == before:  # it counts each when its slot is free
            await asyncio.sleep(0.3)
            before, counted = counted, (await metrics(replica, secret))[1]
        told = total()
        off = told["answer_tokens"] - sums["answer_tokens"] - (counted - made)
        assert 0 <= off <= (most if told["estimated"] else 0), body
        made, sums = counted, told


async def test_rows_filters_prices_and_formats(home: Path, sample: Path) -> None:
    (home / "corral.toml").write_text(PRICES)
    deployed()
    assert "nothing was used" in corral("usage")
    corral("chat", "chat", "Hello", "--max-tokens", "4")
    until(lambda: total()["requests"] == 1)
    found = total()
    computed = found["prompt_tokens"] - found["cached_tokens"]
    tokens = (computed * 1000 + found["cached_tokens"] * 10 + found["answer_tokens"] * 2000) / 1e6
    assert found["cost"] == pytest.approx(tokens + found["core_hours"], abs=1e-5)
    shown = corral("usage", "--by", "user,model")
    assert re.search(r"^USER +MODEL +REQUESTS +ERRORS +IN +CACHED +OUT .*CORE-HOURS +EUR$", shown, re.M), shown
    assert re.search(rf"^root +smollm2-135m +1 +0 +{found['prompt_tokens']} ", shown, re.M)
    rows = list(csv.DictReader(io.StringIO(corral("usage", "--by", "day,deployment", "--csv"))))
    assert [(row["deployment"], row["requests"], row["answer_tokens"]) for row in rows] == [
        ("chat", "1", str(found["answer_tokens"]))
    ]
    assert total("--user", "root")["requests"] == total("--mine")["requests"] == 1
    assert total("--user", "ann")["requests"] == total("--outcome", "timeout")["requests"] == 0
    assert total("--model", "smol*", "--deployment", "chat")["requests"] == 1
    assert total("--until", "1h")["requests"] == 0
    assert "there are: user, group" in corral("usage", "--by", "prompt", code=2)
    fleet.kill(ask("status")["daemon"]["pid"])
    assert total()["requests"] == 1


class Uncounting(BaseHTTPRequestHandler):
    """A server of somebody else that says how many tokens it made to nobody."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._say("application/json", b'{"object":"list","data":[{"id":"m"}]}')

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert "return_progress" not in asked
        if asked.get("stream"):
            events = [b'data: {"choices":[{"index":0,"delta":{"content":"w "}}]}\n\n'] * 3
            self._say("text/event-stream", b"".join(events) + b"data: [DONE]\n\n")
        else:
            self._say("application/json", b'{"choices":[{"message":{"content":"w w w"}}]}')

    def _say(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def uncounting() -> Iterator[int]:
    """Its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Uncounting)
    server.daemon_threads = True
    running = threading.Thread(target=server.serve_forever, args=(0.05,))
    running.start()
    yield server.server_port
    server.shutdown()
    running.join()
    server.server_close()


async def test_what_no_engine_counted_is_shown_as_estimated(home: Path, uncounting: int) -> None:
    corral("deploy", "m", "--url", f"http://127.0.0.1:{uncounting}", "--name", "far", "--wait")
    gateway = Path(ask("status")["gateway_socket"])
    question = {"model": "far", "messages": [{"role": "user", "content": "Hi"}]}
    await post(gateway, {**question, "stream": True})
    await post(gateway, question)
    until(lambda: total()["requests"] == 2)
    found = total()
    assert (found["estimated"], found["answer_tokens"], found["prompt_tokens"]) == (2, 5, 38), (
        "what limits charge: a token for 4 bytes asked"
    )
    assert (found["core_hours"], found["cost"]) == (0, None)
    shown = corral("usage")
    assert re.search(r"^root +m +2 +0 +~38 +0 +~5 ", shown, re.M), shown
    assert "corral: ~ is estimated: of 2 requests no engine told all tokens" in shown


async def test_a_stream_that_ran_when_the_gateway_was_killed_is_billed_for_what_was_written_down(
    home: Path, sample: Path
) -> None:
    deployed("--ctx", "8192")
    status = ask("status")
    gateway, pid = Path(status["gateway_socket"]), status["gateway_status"]["pid"]
    asked = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "ignore_eos": True}
    answer = await http.request(
        gateway, "POST", "/v1/chat/completions", body=json.dumps(asked).encode(), headers={}, timeout=60
    )
    async with answer:
        folder = user_paths().gateway / "spool"

        def written() -> Any:
            lines = [each for file in folder.glob("*.running") for each in json.loads(file.read_bytes())]
            return next((line for line in lines if line.get("answer_tokens", 0) > 5), None)

        line = await asyncio.to_thread(until, written)
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError, CorralError):
            await answer.read()
    found = await asyncio.to_thread(until, lambda: ask("usage", "--by", "outcome", "--since", "1h")["rows"])
    (row,) = (each for each in found if each["group"]["outcome"] == "gateway-died")
    assert row["sums"]["requests"] == row["sums"]["errors"] == 1
    assert row["sums"]["answer_tokens"] >= line["answer_tokens"] and row["sums"]["prompt_tokens"] > 5
    assert not [*folder.glob("*.running")]


def test_a_spreadsheet_takes_no_name_for_a_formula() -> None:
    sums = UsageSums(
        requests=1, errors=0, prompt_tokens=2, cached_tokens=0, answer_tokens=3, estimated=0, queue_s=0.5,
        first_token_p50_s=None, first_token_p95_s=None, total_p50_s=None, total_p95_s=None, core_hours=0.25, cost=None,
        unpriced=0,
    )  # fmt: skip
    rows = (
        UsageRow(group={"key": "=1+1"}, sums=sums),
        UsageRow(group={"key": -1}, sums=sums),
        UsageRow(group={"key": 'a,"b"\x1b[2J'}, sums=sums),
    )
    report = UsageReport(since=None, until=None, by=("key",), currency="", mine=False, rows=rows, total=sums)
    written = list(csv.reader(io.StringIO(_csv(report))))
    assert written[0][:3] == ["key", "requests", "errors"] and written[1][0] == "'=1+1"
    assert written[2][0] == "-1", "a uid that is nobody's is a number"
    assert written[3][0].startswith('a,"b"') and "\x1b" not in written[3][0]
    assert written[1][1:] == ["1", "0", "2", "0", "3", "0", "0.5", "", "", "", "", "0.25", "", "0"]
