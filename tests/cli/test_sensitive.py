"""A sensitive deployment with the real daemon, engine and gateway: where it runs, who gets at it, what is kept."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from command import ask, corral, deployed, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]


def asked(secret: str, deployment: str) -> int:
    """The status that a program with this key gets."""
    body = {"model": deployment, "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]}
    request = urllib.request.Request(
        ask("status")["gateway"] + "/v1/chat/completions", json.dumps(body).encode(),
        {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_runs_where_its_label_is_keeps_no_chats_and_takes_keys_of_its_groups(home: Path, sample: Path) -> None:
    corral("models", "sample")
    deploy = ("deploy", "smollm2-135m", "--name", "chat", "--ctx", "512", "--wait")
    told = corral(*deploy, "--sensitive", "zone=secure", "--keys-of", "group:daemon", code=1)
    assert "the node local lacks zone=secure" in told and "corral nodes label local" in told
    assert ask("deployments", "ls") == [] and corral("deployments", "marks", "-q") == "chat\n"
    corral(*deploy, code=1)  # the mark is of the name: without the option it is marked all the same
    corral("nodes", "label", "local", "zone=secure")
    corral(*deploy)
    assert "sensitive" in corral("deployments", "ls")
    assert "It is sensitive" in corral("explain", "chat") and "group:daemon alone" in corral("explain", "chat")
    assert "chat runs on local and is sensitive" in corral("nodes", "label", "local", "--rm", "zone", code=1)

    told = corral("chat", "chat", "Say hello.", code=1)
    assert "is sensitive: no chat with it is kept" in told and ask("chats", "ls") == []

    secret = ask("keys", "create", "ci")["key"]
    corral("deploy", "smollm2-135m", "--name", "open", "--ctx", "512", "--wait")
    assert asked(secret, "open") == 200
    assert asked(secret, "chat") in (403, 404)
    corral("access", "teams", "set", "mine", "--member", f"user:{ask('whoami')['name']}")
    corral("deployments", "mark", "chat", "--label", "zone=secure", "--keys-of", "team:mine", "--reason", "patients")
    until(lambda: asked(secret, "chat") == 200)
    corral("deployments", "mark", "chat", "--label", "zone=secure")
    until(lambda: asked(secret, "chat") in (403, 404))

    corral("stop", "chat", "--wait")
    corral("nodes", "label", "local", "--rm", "zone")
    assert "lacks zone=secure" in corral("start", "chat", code=1)
    corral("rm", "chat", "--yes")
    corral(*deploy, code=1)
    corral("deployments", "unmark", "chat", "--reason", "over", "--yes")
    corral(*deploy)
    marks = [(each["outcome"], each["reason"]) for each in ask("audit", "ls", "--verb", "deployments.mark")]
    assert marks == [("done", ""), ("done", "patients"), ("done", ""), ("done", "over")]
    refused = ask("audit", "ls", "--verb", "deployments.*", "--outcome", "refused")
    assert len([each for each in refused if "zone=secure" in each["reason"]]) == 4


def test_an_answer_in_the_making_ends_with_the_mark_and_its_owner_is_told(home: Path, sample: Path) -> None:
    engine = deployed()["pid"]
    corral("nodes", "label", "local", "zone=secure")
    chat = [sys.executable, "-P", "-m", "tui", "chat", "chat", "Write a long story about a llama."]
    with subprocess.Popen(chat, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as asking:
        assert asking.stdout is not None and asking.stderr is not None and asking.stdout.read(8)
        os.kill(engine, signal.SIGSTOP)  # the answer does not end by itself meanwhile
        try:
            corral("deployments", "mark", "chat", "--label", "zone=secure")
            told = asking.stderr.read().decode()
        finally:
            os.kill(engine, signal.SIGCONT)
    assert asking.returncode == 1 and "chat was marked as sensitive" in told and "--private" in told
    assert until(lambda: not ask("chats", "ls"), 10)
    (record,) = until(lambda: ask("audit", "ls", "--verb", "chats.unkeep"))
    assert record["actor"] == "corral" and record["before"] == {"turn": 1, "chat": True}
