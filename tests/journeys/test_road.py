"""The whole road with the real daemon, engine and sample model, through the command: and what kill -9 may not break."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import fleet
import pytest
from command import ask, corral, deployed, ready, until

from core.nodes import proc

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


def test_without_a_daemon_status_exits_6_and_starts_none(home: Path) -> None:
    corral("status", code=6)
    corral("shutdown", code=6)
    assert not list(home.glob("*/corral.sock"))


def test_two_terminals_at_once_get_one_daemon(home: Path, sample: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-P", "-m", "tui", "ps"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for each in both:
        out, err = each.communicate(timeout=60)
        assert each.returncode == 0, err
        assert b"nothing is deployed" in out
    starts = ask("audit", "ls", "--verb", "daemon.start")
    assert len(starts) == 1


def test_the_road(home: Path, sample: Path) -> None:
    replica = deployed()
    assert os.path.exists(replica["socket"]) and replica["port"] is None
    assert ask("models", "show", "smollm2-135m")["origin"] == "sample"
    (again,) = ask("ps", "--pss")
    assert again["pid"] == replica["pid"] and 0 < again["pss_bytes"] <= again["rss_bytes"] * 1.01
    planned, measured = replica["rss_planned"], again["rss_bytes"]
    assert abs(planned - measured) < 0.10 * measured
    assert "llama" in corral("chat", "chat", "What is a llama?", "--max-tokens", "24", "--temperature", "0").lower()
    corral("deploy", "smollm2-135m", "--name", "chat", "--ctx", "1024", code=2)
    assert ask("deployments")[0]["spec"]["ctx"] == 2048
    assert "was loaded" in corral("logs", "chat") or "model loaded" in corral("logs", "chat")
    corral("models", "rm", "smollm2-135m", "--yes", code=1)
    corral("deploy", "nosuch", code=3)
    corral("deploy", "smollm2-135m", "--name", "big", "--ctx", "8192", "--parallel", "1", "--memory", "64M", code=5)
    report = ask("audit", "verify")
    assert report["ok"]
    assert ask("audit", "ls", "--outcome", "refused")
    corral("rm", "chat", "--yes")
    until(lambda: not ask("ps"))
    assert proc.start_time(replica["pid"]) is None
    corral("models", "rm", "smollm2-135m", "--yes")
    assert not [p for p in home.glob("*/models/objects/*/*") if p.is_file()]


def test_a_killed_daemon_loses_nothing_and_the_model_runs_on(home: Path, sample: Path) -> None:
    before = deployed()
    daemon = ask("status")["daemon"]["pid"]
    os.kill(daemon, signal.SIGKILL)
    until(lambda: proc.start_time(daemon) is None)
    assert proc.start_time(before["pid"]) is not None
    after = until(ready)
    assert (after["pid"], after["launch"]) == (before["pid"], before["launch"])
    assert corral("chat", "chat", "Hi", "--max-tokens", "4").strip()
    assert ask("audit", "ls", "--verb", "daemon.died")
    assert ask("audit", "verify")["ok"]


def test_an_orderly_shutdown_leaves_the_model_and_all_of_it_ends_with_all(home: Path, sample: Path) -> None:
    before = deployed()
    corral("shutdown")
    assert proc.start_time(before["pid"]) is not None
    corral("status", code=6)
    assert until(ready)["pid"] == before["pid"]
    gateway = ask("status")["gateway_status"]["pid"]
    corral("shutdown", "--all")
    assert proc.start_time(before["pid"]) is None
    until(lambda: proc.start_time(gateway) is None)


def test_the_sample_once_more_changes_nothing(home: Path, sample: Path) -> None:
    corral("models", "sample")
    before = ask("audit", "ls")
    assert "is here already" in corral("models", "sample")
    assert ask("models", "sample")["name"] == "smollm2-135m"
    assert ask("audit", "ls") == before


def test_all_ends_also_what_a_lost_database_no_longer_wants(home: Path, sample: Path) -> None:
    engine = deployed()["pid"]
    corral("shutdown")
    with next(home.glob("*/corral.db")).open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 20_000)
    assert "ps" in corral("shutdown", "--all", code=6), "models may run on: it says how to end them"
    (stray,) = ask("ps")
    assert (stray["pid"], stray["state"]) == (engine, "unknown")
    corral("shutdown", "--all")
    assert proc.start_time(engine) is None
    with sqlite3.connect(next(home.glob("*/corral.db"))) as database:
        told = database.execute("SELECT outcome FROM audit WHERE verb = 'replica.stop' ORDER BY seq").fetchall()
    assert told == [("intent",), ("done",)]


def test_a_killed_engine_comes_back_with_its_reason(home: Path, sample: Path) -> None:
    before = deployed()
    os.kill(before["pid"], signal.SIGKILL)
    after = until(lambda: (r := ready()) and r["pid"] != before["pid"] and r)
    assert after["restarts"] == 1
    (died,) = ask("audit", "ls", "--verb", "replica.died")
    assert "SIGKILL" in died["reason"]
    assert "SIGKILL" in corral("explain", "chat")


def test_a_killed_keeper_takes_its_engine_along_and_the_replica_comes_back(home: Path, sample: Path) -> None:
    before = deployed()
    (record,) = home.glob(f"*/r/{before['launch']}/launch.json")
    os.kill(json.loads(record.read_text())["keeper_pid"], signal.SIGKILL)
    until(lambda: proc.start_time(before["pid"]) is None)
    until(lambda: (r := ready()) and r["pid"] != before["pid"])
    assert ask("audit", "ls", "--verb", "replica.died")[0]["reason"].startswith("keeper lost: ")


def test_a_killed_gateway_comes_back_and_serves(home: Path, sample: Path) -> None:
    deployed()
    before = ask("status")
    gateway = before["gateway_status"]["pid"]
    os.kill(gateway, signal.SIGKILL)
    until(lambda: ask("status")["gateway_status"]["pid"] not in (gateway, None))
    assert ask("status")["daemon"]["pid"] == before["daemon"]["pid"], "the daemon died with the gateway"
    (death,) = ask("audit", "ls", "--verb", "gateway.died")
    assert "SIGKILL" in death["reason"]
    assert until(lambda: corral("chat", "chat", "Hi", "--max-tokens", "4").strip())


def test_a_broken_model_file_is_refused_and_leaves_nothing(home: Path, sample: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(sample.read_bytes()[:2_000_000])
    assert "truncated" in corral("models", "import", str(cut), code=1)
    assert ask("models", "ls") == []
    assert not [p for p in home.glob("*/models/**/*") if p.is_file()]


def test_the_question_comes_on_standard_input_and_the_chat_is_kept(home: Path, sample: Path) -> None:
    deployed()
    corral("chat", "chat", "--max-tokens", "4", stdin="Say hello to the corral")
    (chat,) = ask("chats", "ls")
    assert chat["title"] == "Say hello to the corral"
    assert ask("chats", "search", "the corral")[0]["id"] == chat["id"]
    assert "## Question" in corral("chats", "export", chat["id"])
    corral("chats", "rm", chat["id"], "--yes")
    assert ask("chats", "ls") == []
    hits = [p for p in home.rglob("*") if p.is_file() and b"hello to the corral" in p.read_bytes()]
    assert hits == []


def test_a_stream_goes_on_through_a_killed_daemon(home: Path, sample: Path) -> None:
    deployed()
    status = ask("status")
    body = {
        "model": "chat", "stream": True, "max_tokens": 150, "temperature": 0,
        "messages": [{"role": "user", "content": "Count from one to one hundred in words."}],
    }  # fmt: skip
    raw = json.dumps(body).encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(status["gateway_socket"])
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: corral\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(raw) + raw
        )
        first = client.recv(65536)
        os.kill(status["daemon"]["pid"], signal.SIGKILL)
        data = first
        while piece := client.recv(65536):
            data += piece
    assert data.startswith(b"HTTP/1.1 200")
    assert b"[DONE]" in data and b'"error"' not in data
    assert str(home).encode() not in data


def test_an_answer_is_finished_by_the_next_daemon_and_the_terminal_shows_all_of_it(home: Path, sample: Path) -> None:
    deployed()
    daemon = ask("status")["daemon"]["pid"]
    asking = subprocess.Popen(
        [sys.executable, "-P", "-m", "tui", "chat", "chat", "Write a long story about a llama.", "--max-tokens", "200"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert asking.stdout is not None
    printed = asking.stdout.read(1)
    fleet.kill(daemon)
    (chat,) = ask("chats", "ls")  # starts the next daemon
    printed += asking.stdout.read()
    asking.stdout.close()
    assert asking.wait(60) == 0
    (turn,) = ask("chats", "show", chat["id"])["messages"]
    assert (turn["state"], turn["finish"]) in (("done", "length"), ("done", "stop"))
    assert turn["answer_tokens"] > 40 and "\ufffd" not in turn["answer"]
    assert printed.decode() == turn["answer"] + "\n"


def test_two_deploys_at_once_are_not_given_the_same_room(home: Path, sample: Path) -> None:
    corral("models", "sample")
    plan = ask("fit", "smollm2-135m", "--ctx", "2048")
    # Room for one and a half: the host's reserve takes the rest.
    reserve = plan["free_bytes"] - plan["plan_bytes"] * 3 // 2
    (home / "corral.toml").write_text(f"[capacity]\nreserve_bytes = {reserve}\n")
    corral("reload")
    both = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "tui", "deploy", "smollm2-135m", "--name", name, "--ctx", "2048"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    ended = [(each.communicate(timeout=60)[1], each.returncode) for each in both]
    assert sorted(code for _, code in ended) == [0, 5], ended
    assert "is left beside" in next(err for err, code in ended if code == 5)
    (admitted,) = ask("deployments")
    corral("scale", admitted["spec"]["name"], "2", code=5)
    assert ask("deployments")[0]["spec"]["replicas"] == 1
    assert len(ask("audit", "ls", "--outcome", "refused")) == 2


def test_restart_with_wait_returns_with_a_new_process(home: Path, sample: Path) -> None:
    before = deployed()
    corral("restart", "chat", "--wait")
    (after,) = ask("ps")
    assert after["state"] == "ready" and after["pid"] != before["pid"]
    corral("deploy", "smollm2-135m", "--name", "chat", "--ctx", "1024", "--replace", "--wait")
    (changed,) = ask("ps")
    assert (changed["state"], changed["ctx"]) == ("ready", 1024)
    assert changed["pid"] != after["pid"] and proc.start_time(after["pid"]) is None


def test_a_chain_that_does_not_verify_is_said_and_stops_nothing(home: Path) -> None:
    corral("ps")
    corral("shutdown", "--all")
    (database,) = home.glob("*/corral.db")
    db = sqlite3.connect(database)
    db.executescript("DROP TRIGGER audit_keeps_content; UPDATE audit SET actor = 'nobody' WHERE seq = 1")
    db.close()
    corral("ps")
    until(lambda: not ask("status")["audit_ok"])
    assert any("record 1 was changed" in warning for warning in ask("status")["daemon"]["warnings"])
    assert "record 1 was changed" in corral("audit", "verify", code=1)
