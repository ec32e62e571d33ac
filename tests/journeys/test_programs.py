"""Programs at the gateway's port, with the official client: right, wrong, limited, revoked keys, streams and not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import openai
import pytest
from command import ask, corral, deployed, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

QUESTION: Any = [{"role": "user", "content": "Say hello."}]


def client(key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{ask('status')['gateway']}/v1", api_key=key, max_retries=0, timeout=60)


def test_a_key_that_is_made_or_revoked_is_so_at_the_gateway_when_that_is_answered(home: Path) -> None:
    corral("models", "ls")  # starts the daemon
    gateway = until(lambda: (told := ask("status")["gateway_status"])["state"] == "ready" and told["pid"])
    for verb in ("create", "revoke"):
        os.kill(gateway, signal.SIGSTOP)  # it hears of the change when it goes on
        try:
            changing = subprocess.Popen([sys.executable, "-P", "-m", "tui", "-y", "keys", verb, "ci"], stdout=DEVNULL)
            until(lambda verb=verb: ask("audit", "ls", "--verb", f"keys.{verb}"))
            assert changing.poll() is None
        finally:
            os.kill(gateway, signal.SIGCONT)
        assert changing.wait(30) == 0


def test_the_official_client_through_right_wrong_limited_and_revoked_keys(home: Path, sample: Path) -> None:
    deployed("--ctx", "8192")
    made = ask("keys", "create", "ci")
    right = client(made["key"])
    assert [model.id for model in right.models.list()] == ["chat"]
    whole = right.chat.completions.create(model="chat", messages=QUESTION, max_tokens=8)
    assert whole.choices[0].message.content and whole.usage and whole.usage.completion_tokens <= 8
    pieces = list(right.chat.completions.create(model="chat", messages=QUESTION, max_tokens=8, stream=True))
    assert "".join(each.choices[0].delta.content or "" for each in pieces if each.choices)
    asked = right.chat.completions.create(
        model="chat", messages=QUESTION, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    assert [each.usage for each in asked if each.usage][-1].total_tokens > 4
    text = right.completions.create(model="chat", prompt="Once", max_tokens=4)
    assert text.choices[0].text

    with pytest.raises(openai.AuthenticationError):
        client("corral_wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        right.chat.completions.create(model="none", messages=QUESTION)

    narrow = client(ask("keys", "create", "narrow", "--endpoints", "models", "--models", "other-*")["key"])
    assert list(narrow.models.list()) == []
    with pytest.raises(openai.PermissionDeniedError):
        narrow.chat.completions.create(model="chat", messages=QUESTION)
    # Its owner finds it in the trail, as what his key was refused.
    until(lambda: ask("audit", "ls", "--find", f"object:key:{made['owner']['name']}/narrow verb:gateway.refused"))
    (refused_key,) = ask("audit", "ls", "--find", f"object:key:{made['owner']['name']}/narrow verb:gateway.refused")
    assert refused_key["actor"] == made["owner"]["name"] and "may not ask" in refused_key["reason"]

    limited = client(ask("keys", "create", "few", "--rpm", "2")["key"])
    for _ in range(2):
        limited.chat.completions.create(model="chat", messages=QUESTION, max_tokens=2)
    with pytest.raises(openai.RateLimitError) as refused:
        limited.chat.completions.create(model="chat", messages=QUESTION, max_tokens=2)
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 62
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"

    # A revoked key loses the stream that it has, and is refused from then on.
    stream = right.chat.completions.create(
        model="chat", messages=QUESTION, max_tokens=8000, stream=True, extra_body={"ignore_eos": True}
    )
    pieces = iter(stream)
    next(pieces)
    corral("keys", "revoke", "ci", "--reason", "leaked", "--yes")
    with pytest.raises(openai.APIError, match="was revoked"):
        for _ in pieces:
            pass
    with pytest.raises(openai.AuthenticationError):
        right.models.list()

    # It is found by pasting it, and its secret is nowhere: not in the trail, the database, a log or a snapshot.
    told = corral("keys", "whose", stdin=made["key"] + "\n")
    assert "revoked" in told and "ci (" in told
    used = {each["name"]: each for each in ask("keys", "ls")}
    assert used["ci"]["used_from"] == "127.0.0.1" and used["narrow"]["state"] == "active"
    corral("shutdown")
    for file in home.rglob("*"):
        if file.is_file():
            assert made["key"].encode() not in file.read_bytes(), file
    assert {each["name"]: each["used_at"] for each in ask("keys", "ls")}["ci"] == used["ci"]["used_at"]


def test_a_rotated_key_works_with_both_secrets_for_a_while_and_without_grace_with_one(home: Path, sample: Path) -> None:
    corral("models", "sample")
    corral("deploy", "smollm2-135m", "--name", "chat", "--ctx", "512", "--wait")
    old = ask("keys", "create", "ci")["key"]
    new = ask("keys", "rotate", "ci", "--grace", "1h")["key"]
    for key in (old, new):
        assert list(client(key).models.list())
    rotated = corral("keys", "whose", stdin=old)
    assert "a secret of this key until" in rotated and "works until" in rotated and "ci (" in rotated
    newest = ask("keys", "rotate", "ci")["key"]
    assert "works no more" in corral("keys", "whose", stdin=old)
    assert ask("keys", "whose", stdin=old)["away_at"] and ask("keys", "whose", stdin=newest)["away_at"] is None
    assert list(client(newest).models.list())
    for key in (old, new):
        with pytest.raises(openai.AuthenticationError, match="this secret of the key ci was rotated away"):
            client(key).models.list()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("create", "Bad Name"), 2, "no name of a key"),
        (("create", "ci", "--rpm", "-1"), 2, "whole number"),
        (("create", "ci", "--rpm", "0"), 2, "leave it out, or say `none`"),
        (("limit", "ci", "--daily-tokens", "00"), 2, "leave it out, or say `none`"),
        (("create", "ci", "--models", "none"), 2, "no name of deployments here"),
        (("create", "ci", "--models", "all"), 2, "leave --models out for all"),
        (("create", "ci", "--models", "team-a/*"), 2, "for example team-a-*"),
        (("create", "ci", "--from", "10.0.0.0/99"), 2, "is no network"),
        (("create", "ci", "--models", "a*b"), 2, "star stands at the end"),
        (("create", "ci", "--expires", "yesterday"), 2, "say 8h"),
        (("create", "ci", "--owner", "user:no-such-user-here"), 3, "knows no"),
        (("show", "none"), 3, "there is no key"),
        (("limit", "none"), 2, "say what to change"),
        (("revoke", "none"), 2, "--yes"),
        (("rotate", "none", "--grace", "soon"), 2, "no length of time"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(home: Path, args: tuple[str, ...], code: int, words: str) -> None:
    assert words in corral("keys", *args, code=code)


def test_what_is_in_force_is_said_and_what_means_nothing_is_warned_of(home: Path) -> None:
    warned = corral("keys", "create", "ci", "--models", "chat", "--models", "*")
    assert "no deployment that you see is meant by chat: there are none" in warned
    said = corral("keys", "limit", "ci", "--from", "10.0.0.0/8", "--rpm", "5")
    assert said.strip() == "key ci: deployments chat, *; 5 requests/min; from 10.0.0.0/8"
    assert "meant by" not in corral("keys", "limit", "ci", "--models", "*")
    corral("keys", "limit", "ci", "--rpm", "none", "--from", "none")
    assert ask("keys", "show", "ci")["limits"]["rpm"] == 0
    assert "set for" not in corral("limits", "set", "each:user", "--rpm", "0", code=2)


def test_usage_names_keys_and_refuses_a_time_that_cannot_be(home: Path) -> None:
    made = ask("keys", "create", "ci")
    assert "nothing was used" in corral("usage", "--key", "ci", "--key", made["id"], "--key", made["begins"])
    assert "there is no key" in corral("usage", "--key", "cii", code=3)
    assert "ends before it begins" in corral("usage", "--since", "1h", "--until", "2h", code=2)
    assert "still to come" in corral("usage", "--since", "2999-01-01", code=2)


def test_ended_grants_are_left_out_unless_asked_for(home: Path) -> None:
    corral("ps")  # the daemon's start takes nothing of that second
    made = ask("access", "grant", "viewer", "user:bin", "--until", "1s")
    until(lambda: ask("access", "grants") == [])
    assert [each["id"] for each in ask("access", "grants", "--all")] == [made["id"]]
    assert "1 ended (`--all`)" in corral("access", "grants") and "ended" in corral("access", "grants", "--all")
