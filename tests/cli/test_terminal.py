"""On a terminal, and when things end: ctrl+c, what asks, a killed daemon, completion, an upload that breaks off.

The engine is a double of llama-server (ready at once); where they are to be stopped its pieces come slowly enough.
"""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command import ask, corral, until
from stores import file

from core.nodes import proc

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
DOUBLE = Path(__file__).parents[1] / "journeys/engine_double.py"
CORRAL = [sys.executable, "-P", "-m", "tui"]
BIG = 1 << 30
"""Bytes of a model that takes seconds to import."""


@pytest.fixture
def deployed(home: Path, sample: Path, tmp_path: Path) -> Path:
    """`d` on the double, which answers 24 words and logs each question."""
    return deploy(home, tmp_path, "0.01")


@pytest.fixture
def slow(home: Path, sample: Path, tmp_path: Path) -> Path:
    """As `deployed`, and its 24 words take 2 s."""
    return deploy(home, tmp_path, "0.08")


def deploy(home: Path, folder: Path, pause: str) -> Path:
    text = DOUBLE.read_text().replace('"DOUBLE_PAUSE_S", "0.01"', f'"DOUBLE_PAUSE_S", "{pause}"')
    text = text.replace('    assert asked["stream"]', '    print("asked " * 4, flush=True)')
    program = folder / "llama-server"
    program.write_text(f"#!{sys.executable} -IS\n{text}")
    program.chmod(0o755)
    (home / "corral.toml").write_text(f'[engines]\nllama_server = "{program}"\n')
    corral("models", "sample")
    corral("deploy", "smollm2-135m", "--name", "d", "--engine", "llama-server", "--ctx", "512", "--wait")
    return program


@pytest.fixture
def big(tmp_path: Path, sample: Path) -> Path:
    """A model with a long tail: the sample's header and tensors, and nothing after them."""
    file = tmp_path / "big.gguf"
    shutil.copyfile(sample, file)
    os.truncate(file, BIG)
    return file


class Screen:
    """`corral` on a terminal of its own."""

    def __init__(self, *args: str, program: list[str] = CORRAL) -> None:
        ours, theirs = os.openpty()
        self.process = subprocess.Popen(
            [*program, *args], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: os.login_tty(os.dup(0)), env={**os.environ, "TERM": "dumb"},
        )  # fmt: skip
        os.close(theirs)
        self._fd = ours
        self.text = ""

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)

    def sees(self, pattern: str, seconds: float = 30) -> str:
        """Read until `pattern` came; what came up to there is forgotten."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text, re.S)):
            assert time.monotonic() < deadline, self.text
            assert self._more() or re.search(pattern, self.text, re.S), f"it ended: {self.text}"
        before, self.text = self.text[: found.end()], self.text[found.end() :]
        return before

    def _more(self) -> bool:
        """False at the end of what it writes."""
        if not select.select([self._fd], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def interrupted(self) -> int:
        """Press ctrl+c until it ends: CPython loses one that comes between a prompt and the read after it."""
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            self.type("\x03")
            for _ in range(5):
                self._more()
        return self.ends()

    def ends(self) -> int:
        while self._more():
            pass
        return self.process.wait(30)


def left(home: Path) -> list[str]:
    return [str(path) for path in home.glob("*/models/**/*") if path.is_file()]


def test_ctrl_c_in_an_import_leaves_nothing(home: Path, big: Path) -> None:
    with Screen("models", "import", str(big)) as screen:
        screen.sees(r"import big \[.*%")
        screen.type("\x03")
        screen.sees("the import of big was cancelled: nothing of it is kept")
        assert screen.ends() == 130
        assert "Traceback" not in screen.text
    assert ask("models", "ls") == []
    until(lambda: left(home) == [])
    until(lambda: [r["outcome"] for r in ask("audit", "ls", "--verb", "models.import")] == ["intent", "interrupted"])


def test_ctrl_c_in_a_conversation_stops_the_answer_and_goes_on(slow: Path) -> None:
    with Screen("chat", "d") as screen:
        screen.sees("> ")
        screen.type("one\r")
        screen.sees("w3")
        screen.type("\x03")
        screen.sees("stopped; what came is kept")
        screen.sees("> ")
        screen.type("two\r")
        screen.sees("w23")
        screen.sees("> ")
        screen.type("\x04")
        assert screen.ends() == 0
        assert "Traceback" not in screen.text
    (chat,) = ask("chats", "ls")
    first, second = ask("chats", "show", chat["id"])["messages"]
    assert (first["state"], second["state"]) == ("stopped", "done")
    assert first["answer"].startswith("w0 w1 ") and "w23" not in first["answer"]


def test_a_question_that_waits_says_so_until_its_answer_comes(deployed: Path, tmp_path: Path) -> None:
    """The answer to a question stays at its fourth word until there is a file of the question's name."""
    held = f"""            while made == 4 and not os.path.exists(f"{tmp_path}/" + asked["messages"][-1]["content"]):
                time.sleep(0.01)
"""
    deployed.write_text(deployed.read_text().replace("            time.sleep(PAUSE_S)\n", held))
    corral("restart", "d", "--wait")
    with Screen("chat", "d", "one") as first:
        first.sees("w3")
        with Screen("chat", "d", "two") as second:
            second.sees(r"\(queued, place 1: every slot is taken.*\)")
            assert [each["queued"] for each in (*ask("ps"), *ask("deployments"))] == [1, 1]
            assert ask("status")["gateway_status"]["queued"] == 1
            assert re.search(r"SLOTS.*[01]/1 \+1", corral("ps"), re.S) and "1 queued" in corral("status")
            with Screen("chat", "d", "three") as third:
                third.sees(r"\(queued, place 2[^)]*\)")
                (tmp_path / "one").touch()
                assert "w0" not in second.sees(r"\r +\r")  # it goes before the first word
                third.sees(r"\(queued, place 1, about \d+ s: [^)]*\)")  # the first was answered: it is known by now
                (tmp_path / "two").touch()
                second.sees("w23")
                assert second.ends() == 0
                (tmp_path / "three").touch()
                third.sees("w23")
                assert third.ends() == 0


def test_a_question_that_is_no_text_leaves_no_chat(deployed: Path) -> None:
    done = subprocess.run([*CORRAL, "chat", "d", b"\xff"], capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 2 and b"is not UTF-8" in done.stderr
    done = subprocess.run([*CORRAL, "chat", "d"], capture_output=True, input=b"caf\xe9", timeout=60)
    assert done.returncode == 2 and b"is not UTF-8" in done.stderr
    assert ask("chats", "ls") == []


def test_a_conversation_without_a_question_leaves_no_chat(deployed: Path) -> None:
    with Screen("chat", "d") as screen:
        screen.sees("> ")
        screen.type("\x04")
        assert screen.ends() == 0
    with Screen("chat", "nosuch") as screen:
        screen.sees("no deployment")
        assert screen.ends() == 3
    assert ask("chats", "ls") == []


def test_ctrl_c_in_a_question_ends_with_130_and_the_part_is_kept(slow: Path) -> None:
    asking = subprocess.Popen(
        [*CORRAL, "chat", "d", "hello"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert asking.stdout is not None and asking.stdout.read(4)
    os.killpg(asking.pid, signal.SIGINT)
    assert "kept" in asking.communicate(timeout=30)[1].decode()
    assert asking.returncode == 130
    (chat,) = ask("chats", "ls")
    assert ask("chats", "show", chat["id"])["messages"][0]["state"] == "stopped"


def test_an_answer_that_was_stopped_or_cut_goes_on_by_a_verb(slow: Path) -> None:
    with Screen("chat", "d", "one") as screen:
        screen.sees("w3")
        screen.type("\x03")
        told = screen.sees(r"corral chats go-on \w+")
        assert screen.ends() == 130
    chat = told.split()[-1]
    (before,) = ask("chats", "show", chat)["messages"]
    said = corral("chats", "go-on", chat)
    assert said.startswith("w0 ") and said.count("w23") == 1  # the double begins anew; what was there is not repeated
    (after,) = ask("chats", "show", chat)["messages"]
    assert (after["state"], after["answer"]) == ("done", before["answer"] + said.rstrip("\n"))
    assert "there is nothing to go on with" in corral("chats", "go-on", chat, code=1)
    with Screen("chat", "d", "two") as screen:
        screen.sees("w3")
        os.kill(ask("ps")[0]["pid"], signal.SIGKILL)
        chat = screen.sees(r"the answer was cut.*corral chats go-on \w+").split()[-1]
        assert screen.ends() == 1
    assert "w23" in corral("chats", "go-on", chat)  # it waits for the replica that is started again


def test_ctrl_c_in_a_wait_ends_the_waiting_and_nothing_else(deployed: Path) -> None:
    deployed.write_text(f"#!{sys.executable} -IS\nimport time\ntime.sleep(600)\n")
    with Screen(
        "deploy", "smollm2-135m", "--name", "e", "--engine", "llama-server", "--ctx", "512", "--wait"
    ) as screen:
        until(lambda: [r for r in ask("ps") if r["id"] == "e/0" and r["state"] == "loading"])
        screen.type("\x03")
        screen.sees("goes on")
        assert screen.ends() == 130
    assert [d["wanted"] for d in ask("deployments") if d["spec"]["name"] == "e"] == ["running"]
    assert [r["outcome"] for r in ask("audit", "ls", "--object", "deployment:e")] == ["done"]


def test_what_asks_is_asked_once_on_a_terminal(deployed: Path) -> None:
    for typed, code in (("n\r", 1), ("\r", 1), ("\x03", 130)):
        with Screen("rm", "d") as screen:
            screen.sees(r"Remove the deployment d\?")
            if typed == "\x03":
                assert screen.interrupted() == code
                continue
            screen.type(typed)
            assert screen.ends() == code
    assert len(ask("deployments")) == 1
    with Screen("rm", "d") as screen:
        screen.sees(r"\[y/N\]")
        screen.type("y\r")
        screen.sees("removed d")
        assert screen.ends() == 0
    assert ask("deployments") == []


def test_ctrl_c_says_what_becomes_of_the_work(home: Path, big: Path, tmp_path: Path) -> None:
    corral("models", "import", str(big))
    slow = tmp_path / "slow"
    slow.mkdir(mode=0o700)
    corral("tiers", "add", "slow", str(slow))
    for verb, begun, says in (
        (
            ("models", "verify"),
            r"verify \[",
            "the verification goes on in the daemon: `corral models verify",
        ),
        (("models", "move", "big", "--to", "slow"), r"big@1 copying \[", "the move of big@1 was cancelled: .*on home"),
        (("tiers", "check", "slow", "--speed"), "reading slow", "the daemon measures slow to its end: corral tiers"),
    ):
        with Screen(*verb) as screen:
            screen.sees(begun)
            screen.type("\x03")
            screen.sees(says)
            assert screen.ends() == 130 and "Traceback" not in screen.text
        corral("models", "verify", "--cancel") if verb[1] == "verify" else None
    assert ask("models", "show", "big")["tier"] == "home"


def test_a_yes_is_for_what_was_shown(deployed: Path, tmp_path: Path) -> None:
    def add(n: int) -> None:
        corral("models", "import", str(file(tmp_path, n)), "--name", "m")

    add(1)
    add(2)
    with Screen("models", "gc") as screen:
        screen.sees(r"Remove m@2, which frees [0-9.]+ [KMG]iB\?")
        add(3)
        screen.type("y\r")
        screen.sees(r"nothing was removed: .*m@3 would go too.*Remove m@2 and m@3, which frees")
        screen.type("n\r")
        assert screen.ends() == 1
    with Screen("models", "rm", "m") as screen:
        screen.sees(r"Remove the model m \(@1, @2 and @3\) and its files of [0-9.]+ [KMG]iB\?")
        add(4)
        screen.type("y\r")
        screen.sees(r"m@4 would go too.*@3 and @4\) and its files")
        screen.type("n\r")
        assert screen.ends() == 1
    assert [each["version"] for each in ask("models", "versions", "m")] == [4, 3, 2, 1]
    corral("models", "alias", "m", "live", "2", "--yes")
    corral("deploy", "m", "--name", "e", "--engine", "llama-server", "--ctx", "256")
    with Screen("models", "alias", "m", "live", "previous") as screen:
        screen.sees(r"m:live will mean version 1.*Go on\?")
        corral("models", "alias", "m", "live", "3", "--yes")
        screen.type("y\r")
        screen.sees("m:live means version 3 now")
        assert screen.ends() == 1
    assert ask("models", "show", "m")["version"] == 3
    assert "m:live means version 2" in corral("models", "alias", "m", "live", "previous", "--yes")
    assert "removed 2, freed" in corral("models", "gc", "--yes")


def test_replacing_shows_the_difference_and_asks_on_a_terminal(deployed: Path) -> None:
    same = ("deploy", "smollm2-135m", "--name", "d", "--engine", "llama-server")
    for typed, code, ctx in (("n\r", 1, 512), ("y\r", 0, 1024)):
        with Screen(*same, "--ctx", "1024") as screen:
            screen.sees(r"FIELD.*ctx +512 +1024.*Replace it\? \[y/N\]")
            screen.type(typed)
            assert screen.ends() == code
        assert ask("deployments")[0]["spec"]["ctx"] == ctx
    with Screen(*same, "--ctx", "512", "--yes") as screen:
        screen.sees("--replace")
        assert screen.ends() == 2
    with Screen(*same, "--ctx", "512", "--replace") as screen:
        assert screen.ends() == 0
        assert "Replace" not in screen.text
    assert ask("deployments")[0]["spec"]["ctx"] == 512


def test_when_a_chat_goes_is_shown_and_the_daemon_removes_it(deployed: Path, home: Path) -> None:
    chat = ask("chat", "d", "a secret word")["chat"]
    assert "GOES" not in corral("chats", "ls")
    settings = home / "corral.toml"
    settings.write_text(settings.read_text() + "[chats]\nkeep_days = 30\n")
    corral("reload")
    assert re.search(r"GOES.*\n.*in 29d", corral("chats", "ls"))
    corral("shutdown")
    (database,) = home.glob("*/corral.db")
    db = sqlite3.connect(database)
    db.executescript("UPDATE turns SET asked_at = asked_at - 31 * 86400")
    db.close()
    until(lambda: ask("chats", "ls") == [])
    (record,) = ask("audit", "ls", "--verb", "chats.expire")
    assert (record["before"], record["actor"]) == ({"chats": 1, "turns": 1}, "corral")
    assert "secret" not in json.dumps(record) and chat not in json.dumps(record)


def test_logs_since_a_time(deployed: Path) -> None:
    corral("chat", "d", "hi")
    hour_ago = datetime.now() - timedelta(hours=1)
    for since in ("1h", hour_ago.strftime("%H:%M"), hour_ago.isoformat()):
        told = corral("logs", "d", "--since", since)
        assert "the double is ready" in told and "asked" in told
    later = (datetime.now() + timedelta(seconds=2)).isoformat()
    assert corral("logs", "d", "--since", later) == ""
    found = ask("logs", "d", "--since", later)
    assert (found["text"], found["start"]) == ("", found["end"])
    assert "no time" in corral("logs", "d", "--since", "65536", code=2)


def test_a_full_context_is_asked_about(deployed: Path) -> None:
    long = "x" * 1200
    turn = ask("chat", "d", "first")
    told = json.loads(corral("chat", "d", long, "--resume", turn["chat"], "--json", code=2))
    assert "--yes" in told["do"] and told["details"]["context_full"] is True
    assert len(ask("chats", "show", turn["chat"])["messages"]) == 1
    for choice in ("--yes", "--forget-oldest"):
        assert ask("chat", "d", long, "--resume", turn["chat"], choice)["state"] == "done"
    with Screen("chat", "d", long, "--resume", turn["chat"]) as screen:
        screen.sees(r"Forget the oldest turns and go on\?")
        screen.type("n\r")
        assert screen.ends() == 1
    with Screen("chat", "d", long, "--resume", turn["chat"]) as screen:
        screen.sees(r"Forget the oldest turns and go on\?")
        screen.type("y\r")
        screen.sees("w23")
        assert screen.ends() == 0
    assert len(ask("chats", "show", turn["chat"])["messages"]) == 4


@pytest.mark.parametrize(
    ("prompt", "says"),
    [(487, "the context is full (512 tokens): the answer ends here"), (4, "--max-tokens gives it more")],
)
def test_an_answer_that_is_cut_off_says_by_what(deployed: Path, prompt: int, says: str) -> None:
    text = deployed.read_text().replace('"finish_reason": "stop"', '"finish_reason": "length"')
    deployed.write_text(text.replace('"prompt_tokens": 4', f'"prompt_tokens": {prompt}'))
    corral("restart", "d", "--wait")
    assert says in corral("chat", "d", "hi")
    assert "corral:" not in corral("chat", "d", "hi", "-q")
    with Screen("chat", "d", "hi") as screen:
        screen.sees(rf"{prompt} tokens in, 24 out, context {prompt + 24} of 512\)")


def test_a_closed_terminal_loses_nothing(slow: Path) -> None:
    with Screen("chat", "d", "hi") as screen:
        screen.sees("w3")
    (chat,) = ask("chats", "ls")
    turn = until(lambda: (found := ask("chats", "show", chat["id"])["messages"][0])["state"] == "done" and found)
    assert turn["answer"].split() == [f"w{n}" for n in range(24)]


def test_no_escape_sequence_leaves_with_an_export(deployed: Path) -> None:
    evil = "red \x1b[31m title \x1b]0;owned\x07 \x9b5m \u202e end"
    chat = ask("chat", "d", evil)["chat"]
    corral("chats", "rename", chat, evil)
    for args in ((), ("--format", "json"), ("--json",)):
        text = corral("chats", "export", chat, *args)
        assert "end" in text and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert json.loads(text)["messages"][0]["question"] == evil


@contextlib.contextmanager
def following(*args: str) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    """A verb that goes on, and what it has written; `news` reads without waiting."""
    process = subprocess.Popen(
        [*CORRAL, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    for pipe in (process.stdout, process.stderr):
        os.set_blocking(pipe.fileno(), False)
    try:
        yield process, []
    finally:
        process.kill()
        process.communicate()


def news(pipe: Any) -> str:
    try:
        return os.read(pipe.fileno(), 1 << 20).decode()
    except BlockingIOError:
        return ""


@pytest.mark.parametrize(
    ("args", "shows"),
    [
        (("events", "-f"), "chat:"), (("logs", "d", "-f"), "asked"),
        (("audit", "ls", "--follow", "--json"), '"verb":"chats.ask"'),
    ],
)  # fmt: skip
def test_what_follows_goes_on_through_a_killed_daemon(deployed: Path, args: tuple[str, ...], shows: str) -> None:
    corral("chat", "d", "before")
    with following(*args) as (process, seen):
        said: list[str] = []

        def shown(text: str) -> bool:
            seen.append(news(process.stdout))
            return text in "".join(seen)

        def told(text: str) -> bool:
            said.append(news(process.stderr))
            return text in "".join(said)

        corral("chat", "d", "now")
        until(lambda: shown(shows))
        daemon = ask("status")["daemon"]["pid"]
        os.kill(daemon, signal.SIGKILL)
        until(lambda: proc.start_time(daemon) is None)
        until(lambda: told("went away"))
        corral("ps")  # the next daemon
        until(lambda: told("is back") or not corral("chat", "d", "after"))
        seen.clear()
        corral("chat", "d", "and more")
        until(lambda: shown(shows))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in "".join(said) + news(process.stderr)
        if "--json" in args:
            assert all(json.loads(line) for line in "".join(seen).splitlines()[:-1])


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`corral` as a shell finds it."""
    script = tmp_path / "bin/corral"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m tui "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


def test_bash_completes_verbs_and_options_and_starts_no_daemon(home: Path, on_path: None) -> None:
    script = """
        eval "$(corral completion bash)" || exit 9
        for words in "corral mod" "corral models im" "corral deploy --par" "corral audit ls --outcome ref"; do
            COMP_WORDS=($words); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
            COMPREPLY=(); _corral_completion corral; echo "${COMPREPLY[@]}"
        done
        complete -p corral
    """
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:4] == ["models", "import", "--parallel", "refused"]
    assert "_corral_completion corral" in lines[4]
    assert not list(home.glob("*/corral.sock"))


def test_names_are_completed_where_a_daemon_runs(deployed: Path, on_path: None) -> None:
    chat = ask("chat", "d", "hi")["chat"]
    for words, found in (
        ("stop ", "d"), ("chat d", "d"), ("stop x", ""), ("models rm smol", "smollm2-135m"), ("fit ", "smollm2-135m"),
        ("chats show ", chat), ("models import ", ""),
    ):  # fmt: skip
        env = {**os.environ, "_CORRAL_COMPLETE": "bash_complete", "COMP_WORDS": f"corral {words}"}
        env["COMP_CWORD"] = str(len(words.split(" ")))
        done = subprocess.run(["corral"], env=env, capture_output=True, text=True, timeout=60)
        lines = [line.partition(",")[2] for line in done.stdout.splitlines() if line.startswith("plain")]
        assert (lines, done.stderr) == ([found] if found else [], ""), words


WORDS = (
    ("corral mod", "corral models"), ("corral models im", "corral models import"),
    ("corral deploy --par", "corral deploy --parallel"),
    ("corral audit ls --outcome ref", "corral audit ls --outcome refused"),
    ("corral models rm smol", "corral models rm smollm2-135m"), ("corral logs ", "corral logs d"),
    ("corral deploy m --engine llama-s", "corral deploy m --engine llama-server"),
)  # fmt: skip
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(corral completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -Uz compinit && compinit -u && eval "$(corral completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "corral completion fish | source"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_takes_its_script_and_completes_on_a_terminal(
    deployed: Path, on_path: None, shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell itself, with the tab key pressed: what it makes of the line is run."""
    text = corral("completion", shell)
    assert "_CORRAL_COMPLETE" in text and "corral" in text and sys.executable not in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program, take = SHELLS[shell]
    for name in ("HOME", "ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    carried_out = tmp_path / "carried-out"
    # what the tab key made of a line is what the shell runs
    script = Path(shutil.which("corral") or "")
    shown = f'[ "$_CORRAL_COMPLETE" ] || [ "$1" = completion ] || exec echo "$@" >>{carried_out}'
    script.write_text(script.read_text().replace("exec", f"{shown}\nexec"))
    with Screen(program=program) as screen:
        screen.type(f"{take}\recho tak''en\r")
        screen.sees("taken")
        for n, (begun, _) in enumerate(WORDS, 1):
            screen.type(f"{begun}\t")
            screen.type(f"\recho ran''-{n}\r")
            screen.sees(f"ran-{n}")
    assert [line.strip() for line in carried_out.read_text().splitlines()] == [
        whole.removeprefix("corral ") for _, whole in WORDS
    ]


STRANGER = [sys.executable, "-P", "-c", "import os; os.getuid = lambda: 4242; from tui.__main__ import main; main()"]
"""A stand-in for a caller of another uid, whom this daemon would not obey: the client sends the file instead."""


def sent(*args: str, code: int = 0) -> str:
    done = subprocess.run([*STRANGER, *args], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_file_is_sent_to_the_daemon_of_another_user(home: Path, sample: Path, tmp_path: Path) -> None:
    assert "imported m" in sent("models", "import", str(sample), "--name", "m")
    found = ask("models", "show", "m")
    assert (found["bytes"], found["origin"]) == (sample.stat().st_size, "upload")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(sample.read_bytes()[:2_000_000])
    os.mkfifo(tmp_path / "pipe.gguf")
    for path, code, reason in (
        (cut, 1, "truncated"), (tmp_path / "none.gguf", 3, "not there"), (tmp_path / "pipe.gguf", 1, "no file"),
        (Path("/dev/zero"), 1, "no file"), (tmp_path / "bin", 3, "not there"),
    ):  # fmt: skip
        assert reason in sent("models", "import", str(path), "--name", "x", code=code)
    assert len(left(home)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_upload_that_is_stopped_or_killed_leaves_nothing(home: Path, big: Path, number: signal.Signals) -> None:
    with Screen("models", "import", str(big), program=STRANGER) as screen:
        screen.sees(r"send big.gguf \[.*%")
        os.killpg(screen.process.pid, number)
        assert screen.ends() in (130, -signal.SIGKILL)
    until(lambda: left(home) == [])
    if number == signal.SIGINT:
        until(lambda: not list(home.glob("*/models/incoming/*")))
    (log,) = home.glob("*/daemon.log")
    assert "Traceback" not in log.read_text()
    assert ask("models", "ls") == []
