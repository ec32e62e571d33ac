"""From the model that one runs to a better one, and back out of the disks: recommend, pull, deploy, a second version,
its alias, verify, tiers on two file systems, gc. The real daemon, engine and sample model, through the command."""

from __future__ import annotations

import contextlib
import http.client
import json
import shlex
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import ask, corral, until
from hub_double import HubDouble, in_a_thread
from tiered import elsewhere

from core.paths import user_paths

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]

REPO, NAME = "acme/small-135m-GGUF", "small-135m"
OWN = f"""family = "ours"
[[models]]
name = "{NAME}"
uses = ["general"]
ctx = 8192
licence = "apache-2.0"
repo = "{REPO}"
params = 134_515_008
files = [{{ quantization = "Q4_1", bytes = %d }}]
[models.shape]
architecture = "llama"
vocab_size = 49152
block_count = 30
context_length = 8192
embedding_length = 576
feed_forward_length = 1536
attention.head_count = 9
attention.head_count_kv = 3
tied_embeddings = true
"""
"""An entry of the user's own: those that ship name hubs that no test asks."""


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with in_a_thread() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


@pytest.fixture
def fast(home: Path) -> Iterator[Path]:
    with elsewhere(home) as path:
        yield path


def answer() -> str:
    """What the gateway's own socket answers to a client."""
    client = http.client.HTTPConnection("corral", timeout=60)
    with contextlib.closing(client):
        client.sock = socket.socket(socket.AF_UNIX)
        client.sock.settimeout(60)
        client.sock.connect(ask("status")["gateway_socket"])
        body = {
            "model": "chat", "messages": [{"role": "user", "content": "What is a llama?"}], "max_tokens": 16,
            "temperature": 0,
        }  # fmt: skip
        client.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        told = client.getresponse()
        found = json.loads(told.read())
    assert told.status == 200, found
    return str(found["choices"][0]["message"]["content"])


def replica(version: int) -> int:
    """The pid of the one engine, which runs this version."""
    (found,) = until(lambda: [each for each in ask("ps") if each["state"] == "ready"])
    assert (found["model"], found["version"]) == (NAME, version)
    return int(found["pid"])


def mapped(pid: int) -> set[str]:
    """The model files that a process has open, as the kernel names them."""
    rows = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {row.split(maxsplit=5)[5] for row in rows if "/objects/" in row}


def files(tier: dict[str, Any]) -> list[Path]:
    """What lies among a tier's objects, by the disk and not by the tables."""
    return [each for each in (Path(tier["path"]) / "objects").rglob("*") if each.is_file()]


def two_days_pass() -> None:
    """By the database: a rule counts in days."""
    with contextlib.closing(sqlite3.connect(user_paths().database, timeout=30)) as db, db:
        db.execute("UPDATE objects SET used_at = used_at - 172800, added_at = added_at - 172800")


def in_order(**objects: int) -> None:
    """Each tier holds so many objects; its ledger says what lies there; nothing is promised, set aside or left over."""
    for tier in ask("tiers", "ls"):
        assert tier["objects"] == objects[tier["name"]] == len(files(tier)), tier
        assert tier["stored_bytes"] == sum(each.stat().st_size for each in files(tier)), tier
        assert not tier["reserved_bytes"] and not tier["aside_bytes"], tier
        assert not list(Path(tier["path"]).glob("incoming/*")), tier
    corral("tiers", "check")


def test_from_one_model_to_a_better_one_and_back_out_of_the_disks(
    home: Path, sample: Path, hub: HubDouble, fast: Path
) -> None:
    first = sample.read_bytes()
    second = first.replace(b"Mix1 Ep2", b"Mix1 Ep3", 1)  # in its general.name: another version, and it loads
    assert second != first
    size = len(first)
    hub.repos[REPO] = {"small-135m-Q4_1.gguf": first}
    own = user_paths().config.parent / "catalogue"
    own.mkdir(parents=True)
    (own / "ours.toml").write_text(OWN % size)

    # Which one; its commands are carried out as they are told.
    wishes = ("--for", "general", "--memory", "1GiB", "--context", "2k", "--licence", "apache*", "--limit", "100")
    (choice,) = [each for each in ask("models", "recommend", *wishes)["choices"] if each["name"] == NAME]
    (command,) = choice["commands"]
    words = shlex.split(command)
    at = words.index("--deploy")
    pull, how = words[:at], words[at + 2 :]
    assert (pull[:3], words[at + 1]) == (["corral", "models", "pull"], NAME), command
    told = corral(*pull[1:], "--deploy", "chat", *how)
    assert f"pulled {NAME}" in told and "chat is being started" in told
    corral("deploy", NAME, *how, "--name", "chat", "--wait")
    one = replica(1)
    said = answer()
    assert "llama" in said.lower()
    in_order(home=1)

    # A second version; the alias says whom it touches, and the deployment goes over when it is restarted.
    hub.repos[REPO] = {"small-135m-Q4_1.gguf": second}
    assert f"corral models alias {NAME} live 2" in corral(*pull[1:])
    diff = corral("models", "diff", f"{NAME}@1", f"{NAME}@2")
    assert "Smollm2 135M 8k Lc100K Mix1 Ep2" in diff and "Smollm2 135M 8k Lc100K Mix1 Ep3" in diff
    alias = ("models", "alias", NAME, "live", "2")
    assert "it means 1; touched: chat" in corral(*alias, "--dry-run")
    asks = corral(*alias, code=2)
    assert "will mean version 2; deployments that get it when they are next restarted: chat" in asks and "--yes" in asks
    assert "version 2; restart to go over: chat" in corral(*alias, "--yes")
    assert replica(1) == one
    corral("restart", "chat", "--wait")
    two = replica(2)
    assert (two != one, answer()) == (True, said)
    assert "done: 2 of 2 files" in corral("models", "verify")
    in_order(home=2)

    # Another file system, while it runs: the engine keeps the file that it has open until it is restarted.
    corral("tiers", "add", "fast", str(fast), "--capacity", "1GiB", "--no-speed")
    (old,) = mapped(two)
    assert f"moved {NAME}@2 from home to fast" in corral("models", "move", NAME, "--to", "fast")
    assert mapped(two) == {old + " (deleted)"} and replica(2) == two and answer() == said
    in_order(home=1, fast=1)
    corral("restart", "chat", "--wait")
    (new,) = mapped(replica(2))
    assert new.startswith(str(fast)) and answer() == said

    # A need: brought where it is needed before it starts there, and nobody moves it away.
    assert f"{NAME}@2 from fast to home" in corral("models", "move", NAME, "--to", "home")
    corral("deploy", f"{NAME}:live", *how, "--name", "chat", "--tier", "fast", "--replace", "--wait")
    assert mapped(replica(2)) == {new} and answer() == said
    assert "is needed on fast\n  by chat" in corral("models", "move", NAME, "--to", "home", code=1)
    in_order(home=1, fast=1)

    # What nobody has launched for long makes room; what runs stays.
    corral("models", "move", f"{NAME}@1", "--to", "fast")
    corral("tiers", "set", "fast", "--demote-after", "1", "--demote-to", "home")
    assert ask("tiers", "demote", "fast")["moved"] == []
    two_days_pass()
    assert ask("tiers", "demote", "fast")["moved"] == [f"{NAME}@1"]
    in_order(home=1, fast=1)

    # Not mounted: what runs runs on, what would start is told why not, and all is back with the disk.
    gone = fast.rename(fast.with_name(fast.name + ".gone"))
    try:
        until(lambda: "the tier fast is not there" in corral("models", "ls"))
        assert answer() == said and "the tier fast is not there" in corral("restart", "chat", code=1)
        assert "the tier fast is not there" in corral("models", "move", f"{NAME}@1", "--to", "fast", code=1)
    finally:
        gone.rename(fast)
    until(lambda: "is not there" not in corral("models", "ls"))
    in_order(home=1, fast=1)

    # What nothing needs goes, and its bytes with it.
    assert ask("models", "gc", "--dry-run")["gone"] == []
    assert f"{NAME}:previous means it" in corral("models", "gc", "--dry-run")
    corral("models", "alias", NAME, "previous", "--rm")
    would = ask("models", "gc", "--dry-run")
    assert ([each["name"] for each in would["gone"]], would["bytes"]) == ([f"{NAME}@1"], size)
    in_order(home=1, fast=1)
    (here,) = files(ask("tiers", "show", "home")["tier"])
    assert here.read_bytes() == first
    assert ask("models", "gc", "--yes")["bytes"] == size and not here.exists()
    in_order(home=0, fast=1)
    assert [each["version"] for each in ask("models", "versions", NAME)] == [2]
    assert answer() == said and ask("audit", "verify")["ok"]
