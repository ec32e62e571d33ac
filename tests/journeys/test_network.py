"""Programs over TLS: a certificate is made, an address beyond loopback opened, another certificate taken up, and all of
it is in the trail."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest
from command import ask, corral, deployed, free_port, until

from core.paths import user_paths
from core.settings import PLAIN_HTTP

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
QUESTION: Any = [{"role": "user", "content": "Say hello."}]


def settings(text: str) -> None:
    user_paths().config.write_text(f"[gateway]\n{text}\n")


def door() -> dict[str, Any]:
    (found,) = ask("gateway")["doors"]
    return dict(found)


def healthy(url: str, certificate: str) -> bool:
    context = ssl.create_default_context(cafile=certificate)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by itself
    with urllib.request.urlopen(f"{url}/healthz", timeout=10, context=context) as answer:
        return bool(answer.status == 200)


def test_an_address_on_the_network_speaks_tls_with_a_certificate_of_our_own(
    home: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed()
    key = ask("keys", "create", "ci")["key"]
    settings(f'listen = "0.0.0.0:{free_port()}"')
    said = corral("reload")
    assert "there is no certificate" in said and "corral gateway certificate" in said
    assert ask("status")["gateway"] == "" and "there is no certificate" in ask("status")["daemon"]["warnings"][-1]

    made = ask("gateway", "certificate", "--name", "gpu1.example.com", "--name", "192.0.2.7")
    assert {"localhost", "gpu1.example.com", "192.0.2.7", "127.0.0.1", "::1"} <= set(made["names"])
    certificate, private = Path(made["certificate"]), Path(made["key"])
    assert (certificate.stat().st_mode & 0o777, private.stat().st_mode & 0o777) == (0o644, 0o600)
    url = until(lambda: ask("status")["gateway"])
    assert url.startswith("https://localhost:") and healthy(url, made["certificate"])
    assert door()["fingerprint"] == made["fingerprint"] and door()["until"] == made["until"]

    monkeypatch.setenv("SSL_CERT_FILE", made["certificate"])
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)
    pieces = iter(client.chat.completions.create(
        model="chat", messages=QUESTION, max_tokens=300, stream=True, extra_body={"ignore_eos": True}
    ))  # fmt: skip
    next(pieces)
    assert "--force" in corral("gateway", "certificate", code=1)
    second = ask("gateway", "certificate", "--force")
    assert second["fingerprint"] != made["fingerprint"]
    until(lambda: door()["fingerprint"] == second["fingerprint"])
    rest = list(pieces)
    assert rest[-1].choices[0].finish_reason == "length", "the stream that ran goes on to its end"
    assert healthy(url, second["certificate"])

    private.chmod(0o644)
    until(lambda: "may be read by others" in door()["trouble"])
    assert healthy(url, second["certificate"])
    private.chmod(0o600)
    until(lambda: not door()["trouble"])

    listens = ask("audit", "ls", "--verb", "gateway.listens")
    told = [[(each["url"], each["certificate"]) for each in record["after"]] for record in listens]
    assert told[0][0][0].startswith("http://127.0.0.1:")
    assert told[1:] == [[], [(url, made["fingerprint"])], [(url, second["fingerprint"])]]
    assert [r["outcome"] for r in ask("audit", "ls", "--verb", "gateway.certificate")] == [
        "intent", "done", "intent", "failed", "intent", "done",
    ]  # fmt: skip
    Path(second["certificate"]).unlink()
    assert ask("gateway", "certificate")["fingerprint"] != second["fingerprint"], "a key alone is no certificate"
    secret = private.read_bytes().splitlines()[1]
    for file in home.rglob("*"):
        if file.is_file() and file != private:
            assert secret not in file.read_bytes(), file


def test_plain_http_on_the_network_is_said_in_words(home: Path) -> None:
    corral("ps")
    settings(f'listen = "http://0.0.0.0:{free_port()}"')
    assert "plain HTTP on the network" in corral("reload", code=2)
    settings(f'listen = "http://0.0.0.0:{free_port()}"\ninsecure_plain_http = "yes"')
    assert PLAIN_HTTP in corral("reload", code=2)
    settings(f'listen = "0.0.0.0:{free_port()}"\ninsecure_plain_http = "{PLAIN_HTTP}"')
    corral("reload")
    url = until(lambda: ask("status")["gateway"])
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
        assert answer.status == 200
    record = ask("audit", "ls", "--verb", "daemon.reload")[-1]
    assert record["after"]["gateway"]["insecure_plain_http"] == PLAIN_HTTP


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--name", "a b"), "no name of a host"), (("--name", "-x.y"), "no name of a host"),
        (("--days", "0"), "whole number"), (("--days", "99999"), "whole number"),
    ],
)  # fmt: skip
def test_what_no_certificate_can_have_is_said(home: Path, args: tuple[str, ...], words: str) -> None:
    assert words in corral("gateway", "certificate", *args, code=2)
    assert not user_paths().gateway_key.exists()
