"""Locales, terminals and streams as sysadmins have them: a clear answer, and never a traceback."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ask, corral

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
CORRAL = [sys.executable, "-P", "-m", "tui"]
READING = (
    "ps", "status", "models ls", "models show nosuch", "deployments", "deployments ls", "engines", "engines ls",
    "audit ls", "audit verify", "chats ls", "chats show nosuch", "events", "version", "help", "help deploy",
    "fit nosuch", "explain nosuch", "logs nosuch", "stop nosuch", "scale nosuch 1", "rm nosuch", "deploy nosuch",
    "chat nosuch hi", "daemon --print-unit", "completion bash", "--version", "-h",
)  # fmt: skip


def on_terminal(*args: str, keys: bytes = b"", shows: bytes = b"", **env: str | None) -> tuple[int, bytes]:
    """What `corral` writes on a terminal; `keys` are typed when `shows` has come. None takes a variable away."""
    whole = {name: value for name, value in {**os.environ, **env}.items() if value is not None}
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*CORRAL, *args], stdin=theirs, stdout=theirs, stderr=theirs, env=whole, start_new_session=True,
        preexec_fn=lambda: os.login_tty(os.dup(0)),
    )  # fmt: skip
    os.close(theirs)
    text, deadline = b"", time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    data = os.read(ours, 65536)
                except OSError:
                    break
                if not data:
                    break
                text += data
            if keys and shows in text:
                os.write(ours, keys)
                keys = b""
        return process.wait(30), text
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


@pytest.mark.parametrize("term", ["dumb", "vt100", None])
def test_every_verb_answers_in_ascii_on_a_terminal_that_is_no_utf_8(home: Path, term: str | None) -> None:
    corral("ps")
    for verb in READING if term == "dumb" else READING[:3]:
        code, text = on_terminal(*verb.split(), TERM=term, LC_ALL="C")
        assert code in (0, 1, 2, 3), (verb, text)
        assert b"Traceback" not in text and text.isascii() and text.strip(), (verb, text)
    code, text = on_terminal("models", "show", "é✓", TERM=term, LC_ALL="C")
    assert (code, text.isascii()) == (3, True) and b"'??'" in text
    code, text = on_terminal("models", "show", "é✓", TERM=term, LC_ALL="C.UTF-8")
    assert "é✓" in text.decode()


def test_tables_fit_the_terminal_and_are_whole_elsewhere(home: Path) -> None:
    """A refused name of 300 letters made every row of `audit ls` as wide."""
    corral("deploy", "elsewhere", "--url", "http://127.0.0.1:9", "--name", "a" * 60)
    corral("deploy", "x" * 300, code=2)
    for verb in ("ps", "audit ls", "deployments ls", "explain " + "a" * 60):
        shown = on_terminal(*verb.split(), COLUMNS="80", LC_ALL="C.UTF-8")[1].decode().splitlines()
        rows = shown if "explain" not in verb else [each for each in shown if re.search("intent|refused|done", each)]
        assert rows and all(len(each) <= 80 for each in rows), (verb, shown)
        plain = on_terminal(*verb.split(), COLUMNS="80", LC_ALL="C")[1]
        assert plain.isascii() and b"?" not in plain
    assert "x" * 300 in corral("audit", "ls")
    assert b"x" * 300 in on_terminal("audit", "ls", "--wide", COLUMNS="80")[1]


def test_a_locale_without_the_letters_takes_and_gives_them_where_it_can(home: Path) -> None:
    env = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*CORRAL, "deploy", "é✓"], env=env, capture_output=True, timeout=60)
    assert done.returncode == 2 and b"is no name for a deployment" in done.stderr


@pytest.mark.parametrize(("args", "env"), [((), {}), (("--ascii",), {}), (("--no-mouse",), {"LC_ALL": "C"})])
@pytest.mark.parametrize("term", ["dumb", "unknown", "", None])
def test_the_console_says_which_terminal_it_cannot_draw_on(
    home: Path, args: tuple[str, ...], env: dict[str, str], term: str | None
) -> None:
    code, text = on_terminal(*args, TERM=term, **env)
    assert code == 2 and b"cannot place text" in text and b"\x1b" not in text
    assert (b"TERM is not set" if not term else b"TERM is '" + term.encode()) in text
    assert not list(home.glob("*/corral.sock"))


def test_the_console_draws_in_ascii_on_a_vt100(home: Path) -> None:
    corral("ps")
    code, text = on_terminal(TERM="vt100", LC_ALL="C", keys=b"\x11", shows=b"Overview")
    assert code == 0 and b"Traceback" not in text and text.isascii()


def test_a_refresh_that_cannot_be_is_refused_with_the_range(home: Path) -> None:
    for said in ("0", "nan", "inf", "-1", "61", "x", "0.1"):
        assert "no number from 0.2 to 60" in corral("--refresh", said, code=2)


def test_streams_that_are_closed_or_full_are_no_traceback(home: Path) -> None:
    corral("ps")
    for verb in ("ps", "status --json", "audit ls", "engines ls", "-h", "deploy nosuch", "chat nosuch hi", "uninstall"):
        for streams in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full"):
            done = subprocess.run(
                ["bash", "-c", f'"$0" -P -m tui {verb} {streams}', sys.executable], capture_output=True, timeout=60
            )
            assert done.returncode in (0, 1, 2, 3), (verb, streams, done.stderr)
            assert b"Traceback" not in done.stderr and b"Error:" not in done.stderr, (verb, streams, done.stderr)
    done = subprocess.run(
        ["bash", "-c", '"$0" -P -m tui ps >/dev/full', sys.executable], capture_output=True, timeout=60
    )
    assert done.returncode == 1 and b"could not be written: No space left" in done.stderr


def test_bytes_that_are_no_text_are_told_in_our_words(home: Path) -> None:
    corral("ps")
    for args in (
        ("audit", "ls", "--actor"), ("chats", "search"), ("events", "--since"), ("models", "show"), ("deploy",),
        ("fit",), ("chat", "nosuch"), ("scale",), (), ("logs", "x", "--since"), ("models", "import"),
    ):  # fmt: skip
        done = subprocess.run([*CORRAL, *args, b"\xff"], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        said = done.stdout + done.stderr
        assert done.returncode in (0, 2, 3) and b"Traceback" not in said and b"codec" not in said, (args, said)
    assert "the byte 0xff" in subprocess.run([*CORRAL, "deploy", b"\xff"], capture_output=True).stderr.decode()


def test_the_first_bytes_of_what_is_no_model_are_told_as_numbers(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"\x00root" * 20)
    told = corral("models", "import", str(file), code=1)
    assert "its first bytes are 00 72 6f 6f)" in told and "b'" not in told


@pytest.mark.parametrize(
    "args",
    [
        ("scale", "d", "-1"), ("scale", "-1", "d"), ("scale", "d", "65"), ("scale", "d", "2.5"),
        ("scale", "d", "9" * 30),
        ("logs", "d", "--replica", "-1"), ("audit", "ls", "--limit", "0"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_told_with_its_range(home: Path, args: tuple[str, ...]) -> None:
    assert re.search(r"is no whole number from \d+ to \d+", corral(*args, code=2))


def test_what_is_no_id_of_an_event_is_told(home: Path) -> None:
    """It was taken for one of a daemon before, and answered with a lone `resync`."""
    assert "is no id of an event" in corral("events", "--since", "5m", code=2)


def test_what_is_no_number_is_not_dropped_silently(home: Path) -> None:
    for option in ("--temperature", "--top-p"):
        for value in ("nan", "inf", "-1", "x"):
            assert "is no number from 0" in corral("chat", "d", "hi", option, value, code=2)


def test_an_empty_name_is_told(home: Path) -> None:
    for args in (("stop", ""), ("models", "show", ""), ("chats", "show", ""), ("rm", ""), ("logs", "")):
        assert "a name is empty" in corral(*args, code=2)


@pytest.mark.parametrize(
    "args",
    [
        ("deploy", "m", "--name", ""), ("deploy", "m", "--url", ""), ("deploy", "m", "--engine", ""),
        ("models", "import", ""), ("models", "import", "m.gguf", "--name", ""), ("models", "sample", "--name", ""),
        ("chat", "d", "hi", "--resume", ""), ("audit", "ls", "--actor", ""),
    ],
)  # fmt: skip
def test_what_is_given_and_empty_is_not_taken_for_left_out(home: Path, args: tuple[str, ...]) -> None:
    """A script's unset variable: `models import ""` took the current folder."""
    assert "it is empty" in corral(*args, code=2)


def test_the_unit_is_a_document_too(home: Path) -> None:
    assert ask("daemon", "--print-unit") == {"unit": corral("daemon", "--print-unit")}
    assert ask("daemon", "--print-unit", "--user") == {"unit": corral("daemon", "--print-unit", "--user")}


def test_nouns_are_listed_with_ls_too(home: Path, sample: Path) -> None:
    corral("models", "sample")
    assert "nothing is deployed" in corral("deployments", "ls") and corral("deployments", "ls", "-q") == ""
    corral("deploy", "smollm2-135m", "--name", "d", "--replicas", "0", "--ctx", "512")
    assert ask("deployments", "ls")[0]["spec"] == ask("deployments")[0]["spec"]
    assert (
        corral("deployments", "ls", "-q") == corral("deployments", "-q") == corral("-q", "deployments", "ls") == "d\n"
    )
    head, row = corral("deployments", "ls").splitlines()
    assert head.split()[:6] == ["NAME", "STATE", "SINCE", "DESIRED", "READY", "MODEL"]
    assert row.split()[0] == "d" and "smollm2-135m" in row
    found = ask("engines", "ls")
    assert {"name", "found", "version", "path", "reason"} == set(found[0])
    usable = [each["name"] for each in found if each["found"]]
    assert corral("engines", "ls", "-q").split() == corral("engines", "-q").split() == usable
    assert "WHERE" in corral("engines") and "did you mean `corral engines ls`" in corral("engines", "lss", code=2)
    assert "ls" in corral("help", "deployments") and "ls" in corral("engines", "-h")


def test_every_noun_without_a_verb_lists(home: Path, sample: Path) -> None:
    """Two of the five did, and the other three showed their help."""
    corral("models", "sample")
    for noun in ("models", "chats", "audit", "deployments", "engines"):
        assert corral(noun) == corral(noun, "ls")
        assert ask(noun) == ask(noun, "ls")
        assert corral(noun, "-q") == corral(noun, "ls", "-q")


def test_the_status_of_a_daemon_that_is_stopped_says_so_within_seconds(home: Path) -> None:
    corral("ps")
    pid = ask("status")["daemon"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        said = corral("status", code=1)
        assert time.monotonic() - begun < 15
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "did not answer within 5 s" in said and f"its process {pid} is stopped: `kill -CONT {pid}`" in said
    assert ask("status")["daemon"]["pid"] == pid
