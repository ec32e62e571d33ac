"""A whole day in the audit trail: all that people did, all that happened by itself, each effect with its outcome."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import fleet
import pytest
from command import ask, corral, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

PEOPLE = {
    ("models.import", "intent"): 1, ("models.import", "done"): 1, ("models.add", "done"): 1,
    ("models.rm", "refused"): 1, ("models.rm", "done"): 1,
    ("deployments.create", "done"): 2, ("deployments.create", "refused"): 1, ("deployments.scale", "done"): 1,
    ("deployments.restart", "done"): 1, ("deployments.stop", "done"): 1, ("deployments.start", "done"): 1,
    ("deployments.rm", "done"): 1,
    ("chats.create", "done"): 1, ("chats.ask", "done"): 1, ("chats.update", "done"): 1, ("chats.rm", "done"): 1,
    ("daemon.reload", "done"): 1, ("daemon.reload", "refused"): 1, ("daemon.shutdown", "done"): 1,
}  # fmt: skip
ITSELF = {
    ("daemon.start", "done"): 3, ("daemon.stop", "done"): 1, ("daemon.died", "done"): 1,
    ("gateway.start", "intent"): 2, ("gateway.start", "done"): 2, ("gateway.died", "done"): 1,
    ("gateway.stop", "intent"): 1, ("gateway.stop", "done"): 1, ("gateway.ended", "done"): 1,
    ("replica.died", "done"): 1, ("audit.key-made", "done"): 1,
    ("chats.key", "done"): 1,
}  # fmt: skip
"""Beside the starts and stops of replicas, whose number is a matter of moments."""


def ready(count: int) -> None:
    until(lambda: [each["state"] for each in ask("ps")] == ["ready"] * count)


def test_a_day_is_in_the_trail_with_nothing_more_and_nothing_less(home: Path, tmp_path: Path) -> None:
    fleet.install(home)
    first = fleet.deployed(tmp_path)
    corral("models", "rm", "tiny", "--yes", code=1)
    corral("scale", "one", "2")
    ready(2)
    fleet.kill(first["pid"])
    until(lambda: first["pid"] not in [each["pid"] for each in ask("ps")])
    ready(2)
    fleet.kill(ask("status")["gateway_status"]["pid"])
    until(lambda: ask("audit", "ls", "--verb", "gateway.died"))
    until(lambda: ask("status")["gateway_status"]["state"] == "ready")
    corral("chat", "one", "Hi")
    (chat,) = ask("chats", "ls")
    corral("chats", "rename", chat["id"], "other")
    corral("chats", "rm", chat["id"], "--yes")
    corral("restart", "one", "--wait")
    corral("stop", "one", "--wait")
    corral("start", "one", "--wait")
    fleet.deploy("--ctx", "512", "--replace", "--wait")
    corral("deploy", "nosuch", code=3)
    corral("rm", "one", "--yes")
    until(lambda: not ask("ps"))
    corral("models", "rm", "tiny", "--yes")
    corral("reload")
    (home / "corral.toml").write_text("x = 1\n")
    corral("reload", code=2)
    (home / "corral.toml").unlink()
    fleet.kill(ask("status")["daemon"]["pid"])
    corral("ps")
    corral("shutdown", "--all")
    until(lambda: len(ask("audit", "ls", "--verb", "gateway.start")) == 4)  # of the next daemon

    records = ask("audit", "ls", "--limit", "1000")
    assert [each["seq"] for each in records] == list(range(1, len(records) + 1))
    replicas = [each for each in records if each["verb"] in ("replica.start", "replica.stop")]
    listens = [each for each in records if each["verb"] == "gateway.listens"]  # once more where its port was taken
    rest = Counter((each["verb"], each["outcome"]) for each in records if each not in replicas + listens)
    assert rest == Counter(PEOPLE) + Counter(ITSELF)
    assert {each["verb"] for each in replicas} == {"replica.start", "replica.stop"}
    told(records)


def told(records: list[dict[str, Any]]) -> None:
    """Each effect has an intent, then one outcome, with one request; every record says who, through what, for what."""
    effects: dict[str, list[dict[str, Any]]] = {}
    for each in records:
        itself = each["verb"].split(".")[0] in ("replica", "gateway") or each["verb"] in (
            "daemon.start", "daemon.stop", "daemon.died", "audit.key-made", "chats.key",
        )  # fmt: skip
        assert (each["uid"] == -1, each["actor"] == "corral", each["through"] == "daemon") == (itself,) * 3, each
        assert itself or each["through"] == "cli"
        assert each["request"] and ":" in each["object"] and each["time"].endswith("Z") and len(each["time"]) == 27
        assert each["reason"] or each["outcome"] != "refused"
        if each["effect"]:
            effects.setdefault(each["effect"], []).append(each)
        else:
            assert each["outcome"] in ("done", "refused"), each
    assert len(effects) > 10
    for pair in effects.values():
        assert [each["outcome"] for each in pair] == ["intent", "done"], json.dumps(pair)
        assert len({(each["verb"], each["object"], each["request"]) for each in pair}) == 1
    changed = ("deployments.scale", "deployments.restart", "deployments.stop", "deployments.start", "daemon.reload")
    for each in records:
        if each["verb"] in changed and each["outcome"] == "done":
            assert each["before"] is not None and each["after"] is not None, each
        if each["verb"].endswith(".rm") and each["outcome"] == "done":
            assert each["before"] is not None and each["after"] is None, each
