"""Limits with the real daemon, gateway and engine: set by command, kept in the console and for programs, and exact
through kill -9 of the daemon and of the gateway, also while no daemon is there."""

from __future__ import annotations

import getpass
import json
import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest
from command import ask, corral, deployed, free_port, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]

QUESTION: Any = [{"role": "user", "content": "Say hello."}]
ME = f"user:{getpass.getuser()}"


def used(kind: str, subject: str = ME, whose: str = ME) -> int:
    """What the gateway says is used of it."""
    left = until(lambda: ask("limits", "show", subject)["left"])
    return int(next(each["used"] for each in left if (each["subject"], each["kind"]) == (whose, kind)))


def test_quotas_are_exact_through_kill_9_of_daemon_and_gateway(home: Path, sample: Path) -> None:
    (home / "corral.toml").write_text(f'[gateway]\nlisten = "127.0.0.1:{free_port()}"\n')
    deployed()
    secret = ask("keys", "create", "ci")["key"]
    corral("limits", "set", "each:user", "--daily-tokens", "100000", "--monthly-out", "90000", "--reason", "fair")
    corral("limits", "set", "deployment:chat", "--daily-tokens", "100000")
    status = ask("status")
    client = openai.OpenAI(base_url=f"{status['gateway']}/v1", api_key=secret, max_retries=0, timeout=60)
    counted = {"all": 0, "out": 0}

    def one() -> None:
        answer = client.chat.completions.create(model="chat", messages=QUESTION, max_tokens=6)
        assert answer.usage
        counted["all"] += answer.usage.total_tokens
        counted["out"] += answer.usage.completion_tokens

    def kept() -> bool:
        """The file has it: what the gateway writes each second."""
        file = next(home.rglob("counts.json"), None)
        uses = json.loads(file.read_bytes())["uses"] if file else {}
        return bool(uses.get("deployment:chat", {}).get("tokens") == counted["all"])

    one()
    assert (used("daily_tokens"), used("monthly_out")) == (counted["all"], counted["out"])

    os.kill(status["daemon"]["pid"], signal.SIGKILL)
    one()  # the gateway decides alone
    until(kept)
    os.kill(status["gateway_status"]["pid"], signal.SIGKILL)  # and its keeper starts it again, without a daemon

    def again() -> bool:
        try:
            one()
        except openai.APIConnectionError:
            return False
        return True

    until(again)
    assert (used("daily_tokens"), used("monthly_out")) == (counted["all"], counted["out"])
    assert used("daily_tokens", "deployment:chat", "deployment:chat") == counted["all"]
    trail = ask("audit", "ls", "--verb", "limits.set")
    assert [(each["object"], each["reason"]) for each in trail] == [
        ("limit:each/user", "fair"), ("limit:deployment/chat", "")
    ]  # fmt: skip


def test_chats_are_limited_as_programs_are_and_whoami_says_what_is_left(home: Path, sample: Path) -> None:
    deployed()
    corral("limits", "set", ME, "--rpm", "2", "--longest-answer", "5")
    assert corral("chat", "chat", "Hi").strip()
    assert "1 of 2 requests/min" in corral("whoami")
    assert "max_tokens is too large" in corral("chat", "chat", "Hi", "--max-tokens", "9", code=1)
    corral("chat", "chat", "Hi", "--max-tokens", "4")
    assert "has reached its limit of 2 requests a minute" in corral("chat", "chat", "Hi", code=1)
    corral("limits", "rm", ME, "--yes")
    assert corral("chat", "chat", "Hi", "--max-tokens", "4").strip()
    assert "no limit is set" in corral("limits")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("set", "each:user"), 2, "say what to limit"),
        (("set", "everybody", "--rpm", "3"), 2, "nobody and nothing"),
        (("set", "each:user", "--rpm", "few"), 2, "whole number"),
        (("set", "each:user", "--rpm", "unlimited"), 2, "cannot be unlimited"),
        (("set", "each:user", "--hours", "noon"), 2, "not understood"),
        (("set", "deployment:none", "--rpm", "3"), 3, "no deployment none"),
        (("set", "user:no-such-user-here", "--rpm", "3"), 3, "knows no"),
        (("show", "each:user"), 3, "no limit is set"),
        (("rm", "each:user"), 2, "--yes"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(home: Path, args: tuple[str, ...], code: int, words: str) -> None:
    assert words in corral("limits", *args, code=code)
