"""A model that takes pictures, from its files to an answer and out of the store again: imported with its projector,
planned, deployed and asked through the gateway's HTTP; what is no picture, too large or elsewhere costs nothing."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import projectors
import pytest
from command import ask, corral

from core.catalog.probemodel import Probe, write

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

PICTURE = projectors.picture(64, 48)
BROKEN = PICTURE[: len(PICTURE) // 2]
"""Half of a picture, in whole base64 or nearly so."""


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A server on this host that has a picture, and who asked it for one."""
    seen: list[str] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/x.png", seen
        server.shutdown()


def question(url: str) -> Any:
    shown = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    return [{"role": "user", "content": shown}]


def stored(home: Path) -> list[Path]:
    return [each for each in home.rglob("objects/*/*") if each.is_file()]


def test_from_the_files_to_an_answer_about_a_picture_and_out_again(
    home: Path, tmp_path: Path, elsewhere: tuple[str, list[str]]
) -> None:
    names = "tiny", "second", "eye", "other", "wide", "cut"
    model, second, eye, other, wide, cut = (tmp_path / f"{name}.gguf" for name in names)
    for file in (model, second):
        write(Probe(kind="Q8_0", n_layer=2, n_embd=256, n_ff=512, n_head=4), file)
    projectors.put(eye, projectors.SMALL)
    projectors.put(other, projectors.SMALL, seed=2)
    projectors.put(wide, projectors.SMALL._replace(out=512))
    cut.write_bytes(eye.read_bytes()[:-1000])

    def take(file: Path, beside: Path | None, code: int = 0) -> str:
        given = ("--projector", str(beside)) if beside else ()
        return corral("models", "import", str(file), "--name", "tiny", *given, code=code)

    assert "no language model but a projector" in take(eye, None, 1)
    assert "is no projector" in take(model, second, 1)
    told = take(model, wide, 1)
    assert "tokens of 512 numbers" in told and "this model's have 256" in told
    assert "truncated" in take(model, cut, 1)
    assert ask("models", "ls") == [] and stored(home) == []

    take(model, eye)
    plan = ask("fit", "tiny", "--ctx", "1024", "--parallel", "1")
    assert plan["parts"]["projector"] == eye.stat().st_size
    assert plan["rss_bytes"] - plan["ready_bytes"] > plan["parts"]["pictures"] > 8 << 20
    assert any("by its header" in note for note in plan["notes"])
    assert "projector" in corral("fit", "tiny", "--ctx", "1024")
    corral("deploy", "tiny", "--name", "eyes", "--ctx", "1024", "--wait")
    corral("limits", "set", "deployment:eyes", "--tpm", "5000", "--longest-prompt", "1500")
    base, secret = f"{ask('status')['gateway']}/v1", ask("keys", "create", "ci", "--models", "eyes")["key"]
    client = openai.OpenAI(base_url=base, api_key=secret, max_retries=0, timeout=60)

    def see(url: str) -> Any:
        return client.chat.completions.create(model="eyes", messages=question(url), max_tokens=4)

    answer = see(projectors.picture(640, 480))
    asked: Any = [{"role": "user", "content": "What is it?"}]
    words = client.chat.completions.create(model="eyes", messages=asked, max_tokens=4)
    assert answer.usage.prompt_tokens - words.usage.prompt_tokens >= 4
    url, seen = elsewhere
    for wrong, status in ((url, 400), ("file:///etc/passwd", 400), (BROKEN, 400), ("data:image/png;base64,AAAA", 400),
                          ("data:image/png;base64," + "A" * (50 << 20), 413)):  # fmt: skip
        with pytest.raises(openai.APIStatusError) as refused:
            see(wrong)
        assert refused.value.status_code == status, refused.value
    # Past the gateway, as whoever has the engine's secret could: it has no way there.
    (replica,) = ask("ps")
    env = dict(each.partition(b"=")[::2] for each in Path(f"/proc/{replica['pid']}/environ").read_bytes().split(b"\0"))
    (sock,) = (each for each in home.rglob("e.sock") if each.parent.name == replica["launch"])
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(sock)), timeout=60) as engine:
        past = engine.post(
            "http://engine/v1/chat/completions", json={"messages": question(url), "max_tokens": 4},
            headers={"Authorization": f"Bearer {env[b'LLAMA_API_KEY'].decode()}"},
        )  # fmt: skip
    assert past.status_code >= 400 and seen == []
    assert see(PICTURE).usage and [each["pid"] for each in ask("ps")] == [replica["pid"]]

    take(model, other)
    differences = ask("models", "diff", "tiny@1", "tiny@2")
    assert [(each["kind"], each["what"]) for each in differences] == [("files", "projector")]
    assert "eyes" in corral("models", "rm", "tiny@1", "--yes", code=1)
    corral("rm", "eyes", "--yes")
    corral("models", "rm", "tiny", "--yes")
    assert ask("models", "ls") == [] and stored(home) == []
