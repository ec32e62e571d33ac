"""Signals: SIGHUP reads corral.toml again, whole or not at all; SIGTERM ends in order, also while the daemon starts."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command import ask, corral, until

from core.paths import user_paths

pytestmark = pytest.mark.journey


def records(count: int) -> list[dict[str, Any]]:
    """Those of reloads, once there are so many."""
    return list(until(lambda: len(found := ask("audit", "ls", "--verb", "daemon.reload")) == count and found))


def llama_server() -> str:
    return str(next(each["path"] for each in ask("engines") if each["name"] == "llama-server"))


def test_a_hangup_puts_the_new_file_in_force_and_refuses_a_wrong_one_whole(home: Path) -> None:
    paths = user_paths()
    corral("ps")
    pid = ask("status")["daemon"]["pid"]
    first, second = home / "first", home / "second"
    for each in (first, second):
        each.write_text("#!/bin/sh\necho version: 1\n")
        each.chmod(0o755)
    paths.config.write_text(f'[engines]\nllama_server = "{first}"\n[daemon]\nlog_level = "debug"\n')
    os.kill(pid, signal.SIGHUP)
    (done,) = records(1)
    assert (done["actor"], done["outcome"]) == ("corral", "done")
    assert done["before"]["engines"]["llama_server"] == "" and done["after"]["engines"]["llama_server"] == str(first)
    assert llama_server() == str(first)

    paths.config.write_text(f'[engines]\nllama_server = "{second}"\n[capacity]\nreserve_bites = 1\n')
    os.kill(pid, signal.SIGHUP)
    refused = records(2)[1]
    assert refused["outcome"] == "refused" and 'corral.toml:4: unknown key "reserve_bites"' in refused["reason"]
    until(lambda: "corral.toml was refused whole: " in paths.daemon_log.read_text())
    assert llama_server() == str(first), "nothing of a wrong file counts"
    assert "unknown key" in corral("reload", code=2)
    assert ask("status")["daemon"]["pid"] == pid


def test_it_is_said_which_file_is_in_force_or_that_none_is_there(home: Path) -> None:
    file = user_paths().config
    corral("ps")
    absent = f"there is no {file}: the defaults are in force"
    assert absent in corral("status") and absent in corral("reload")
    file.write_text("[chats]\nkeep_days = 9\n")
    assert absent in corral("status"), "it has not been read"
    assert f"{file} is in force" in corral("reload")
    daemon = ask("status")["daemon"]
    assert (daemon["config"], daemon["defaults"]) == (str(file), False)
    assert f"{ask('status')['gateway']}/v1, with an API key" in corral("status")
    assert "say one of them" in corral("usage", "--csv", "--json", code=2)
    file.unlink()
    assert ask("reload") == {"reloaded": True, "config": str(file), "defaults": True}


def test_an_engine_that_is_not_where_the_file_says_is_told_and_the_rest_is_in_force(home: Path) -> None:
    user_paths().config.write_text('[engines]\nllama_server = "/nonexist"\n[chats]\nkeep_days = 9\n')
    corral("ps")
    said = corral("reload")
    assert "in force" in said and "llama-server cannot be started: /nonexist is not there" in said
    assert "nonexist" not in corral("reload", "-q")


def test_samples_follow_their_settings(home: Path) -> None:
    corral("ps")
    before = ask("status")["nodes"][0]["time"]
    user_paths().config.write_text("[samples]\nevery_s = 3600\n")
    corral("reload")
    until(lambda: ask("status")["nodes"][0]["time"] > before)
    told = ask("status")["nodes"][0]["time"]
    user_paths().config.write_text("[samples]\nevery_s = 0.2\n")
    corral("reload")
    until(lambda: ask("status")["nodes"][0]["time"] > told)


TOLD_TO_END = """
import os, signal, sys
from core import __main__, daemon
opens, starts = daemon.Store.open, daemon.record_start
async def opening(*args, **more):
    os.kill(os.getpid(), signal.SIGHUP)
    return await opens(*args, **more)
async def starting(*args, **more):
    told = await starts(*args, **more)
    os.kill(os.getpid(), signal.SIGTERM)
    return told
daemon.Store.open, daemon.record_start = opening, starting
sys.argv = ["core", "--foreground"]
sys.exit(__main__.main())
"""


def test_a_daemon_that_is_told_to_end_while_it_starts_ends_in_order(home: Path) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", TOLD_TO_END], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    with closing(sqlite3.connect(f"file:{user_paths().database}?mode=ro", uri=True)) as db:
        verbs = [row[0] for row in db.execute("SELECT verb FROM audit WHERE object = 'daemon:local' ORDER BY seq")]
    assert verbs[0] == "daemon.start" and verbs[-1] == "daemon.stop"
    corral("ps")
    assert not ask("audit", "ls", "--verb", "daemon.died")
