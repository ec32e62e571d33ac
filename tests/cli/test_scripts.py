"""What a script sees when something is wrong: exit codes, one document, quiet pipes. The daemon is the real one."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import run as corral
from command import until

from core.nodes import proc
from core.paths import user_paths

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("stop", "nosuch"), 3), (("models", "show", "nosuch"), 3), (("deploy", "nosuch"), 3), (("nosuch",), 2),
        (("fit", "m", "--memory", "plenty"), 2), (("audit", "ls", "--since", "yesterday"), 2),
        (("models", "import", "/nosuch.gguf"), 3),
    ],
)  # fmt: skip
def test_an_error_is_one_document_with_its_exit_code(home: Path, args: tuple[str, ...], code: int) -> None:
    done = corral(*args, "--json")
    assert corral("--json", *args).stderr == done.stderr, "before the verb it counts too"
    told = json.loads(done.stderr)
    assert done.stdout == ""
    assert told["exit_code"] == done.returncode
    assert told["error"] and "reason" in told and "do" in told
    if args[0] != "models" or args[1] != "import":
        assert done.returncode == code


def test_a_model_of_the_catalogue_that_is_not_stored_is_weighed_and_told_how_to_pull(home: Path) -> None:
    told = json.loads(corral("fit", "qwen3-30b-a3b", "--json").stderr)
    assert told["exit_code"] == 3 and told["error"] == "no model 'qwen3-30b-a3b'"
    assert "is in the catalogue and" in told["do"] and "corral models pull hf:" in told["do"]
    assert "catalogue" not in json.loads(corral("fit", "nosuch", "--json").stderr)["do"]


def test_what_asks_names_yes_without_a_terminal(home: Path) -> None:
    assert corral("rm", "chat").returncode == 3  # said before anything is asked
    done = corral("uninstall")
    assert done.returncode == 2
    assert "--yes" in done.stderr


def test_a_closed_pipe_is_quiet(home: Path) -> None:
    corral("ps")
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} -P -m tui audit ls | head -c 0; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.stderr == ""
    assert ended.returncode in (0, 128 + signal.SIGPIPE)


def test_a_wrong_verb_is_told_the_right_one(home: Path) -> None:
    assert "deploy" in corral("deplyo").stderr
    assert corral("help", "models", "import").stdout.startswith("Usage: corral models import")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("get", ["ps", "deployments ls"]), ("delete x", ["rm", "models rm"]), ("inspect x", ["explain", "models show"]),
        ("show", ["explain", "models show", "chats show"]), ("create", ["deploy"]), ("is-active x", ["ps", "status"]),
        ("pull x", ["models pull"]), ("models get", ["models ls", "models show"]),
        ("chats delete x", ["chats rm"]), ("audit list", ["audit ls"]), ("engine ls", ["engines"]),
        ("deployments describe", []),
    ],
)  # fmt: skip
def test_verbs_of_other_programs_are_told_ours(home: Path, typed: str, meant: list[str]) -> None:
    """And none that ends the daemon: `show` is near `shutdown`."""
    done = corral(*typed.split())
    assert (done.returncode, done.stdout) == (2, "")
    first = done.stderr.splitlines()[0]
    assert re.findall("`corral ([^`]+)`", first) == meant
    for each in meant:
        assert corral("help", *each.split()).returncode == 0
    assert not list(home.glob("*/corral.sock"))


def test_a_deployment_that_is_not_there_is_told_with_those_that_are(home: Path) -> None:
    corral("deploy", "elsewhere", "--url", "http://127.0.0.1:9")
    for args in (("stop", "elswhere"), ("start", "elswhere"), ("scale", "elswhere", "1"), ("logs", "elswhere")):
        done = corral(*args)
        assert done.returncode == 3
        assert "there are: elsewhere" in done.stderr


def test_a_replica_is_explained_with_its_deployment_and_not_stopped_alone(home: Path) -> None:
    """`ps` shows chat/0 and `logs` takes it."""
    corral("deploy", "elsewhere", "--url", "http://127.0.0.1:9")
    assert corral("explain", "elsewhere/0").stdout.startswith("elsewhere has been ")
    for args in (("stop", "elsewhere/0"), ("restart", "elsewhere/0"), ("rm", "elsewhere/0", "--yes")):
        done = corral(*args)
        assert done.returncode == 3 and "as a whole" in done.stderr and "corral scale elsewhere N" in done.stderr
    assert "there are: elsewhere" in corral("explain", "elsewere/0").stderr


def test_what_starts_nothing_says_what_is_missing(home: Path) -> None:
    corral("deploy", "elsewhere", "--url", "http://127.0.0.1:9", "--replicas", "0")
    assert "`corral scale elsewhere 1` runs one" in corral("start", "elsewhere").stderr
    corral("stop", "elsewhere", "--wait")
    assert "`corral start elsewhere` runs its 1 replica" in corral("scale", "elsewhere", "1").stderr
    assert corral("scale", "elsewhere", "1", "-q").stderr == "" == corral("scale", "elsewhere", "0").stderr


def test_a_home_that_cannot_be_is_told_by_what_speaks_to_no_daemon_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_HOME", "here")
    for args in (("uninstall",), ("ps",)):
        done = corral(*args)
        assert done.returncode == 2 and done.stderr.startswith("corral: CORRAL_HOME is 'here'\n")
    assert '"code": "invalid"' in corral("uninstall", "--json").stderr


@pytest.mark.parametrize(
    "noun", ["", "models", "chats", "chats hold", "deployments", "engines", "audit", "audit key", "access", "limits"]
)
def test_the_list_of_verbs_has_whole_sentences_in_80_columns(
    home: Path, noun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = corral(*noun.split(), "--help").stdout.partition("Commands:")[2]
    verbs = re.split(r"\n  (?=\S)", listed.rstrip())[1:]
    assert verbs and all(len(line) <= 80 for line in listed.splitlines())
    for each in verbs:
        assert each.endswith(".") and not each.endswith("..."), each


def test_version_without_a_daemon_and_status_exit_codes(home: Path) -> None:
    assert json.loads(corral("version", "--json").stdout)["daemon"] is None
    assert corral("status").returncode == 6


def test_uninstall_stops_what_runs_without_a_daemon_and_starts_none_where_nothing_does(home: Path) -> None:
    assert corral("ps").returncode == 0
    gateway = until(lambda: json.loads(corral("status", "--json").stdout)["gateway_status"]["pid"])
    assert corral("shutdown").returncode == 0
    assert proc.start_time(gateway) is not None
    assert corral("uninstall", "--yes").returncode == 0
    assert proc.start_time(gateway) is None and not user_paths().state.exists()

    assert corral("ps").returncode == 0
    assert corral("shutdown", "--all").returncode == 0
    (home / "corral.toml").write_text("[daemon\n")  # none could start
    done = corral("uninstall", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert not user_paths().state.exists() and not (home / "corral.toml").exists()


def test_uninstall_takes_a_users_own_unit_along_and_asks_systemd_to_forget_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = home / "told"
    for name in ("systemctl", "systemd-run"):
        program = home / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
        program.chmod(0o755)
    unit = home / "config/systemd/user/corral.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    (home / "config/corral").mkdir()
    (home / "config/corral/corral.toml").touch()
    monkeypatch.delenv("CORRAL_HOME")
    for name, value in {"HOME": home, "XDG_STATE_HOME": home / "s", "XDG_CONFIG_HOME": home / "config"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PATH", str(home / "bin"), prepend=":")
    assert corral("--user", "ps").returncode == 0
    asked = corral("--user", "uninstall")
    assert asked.returncode == 2 and str(unit) in asked.stdout and unit.exists()
    done = corral("--user", "uninstall", "--yes", "--json")
    assert done.returncode == 0
    assert str(unit) in json.loads(done.stdout)["removed"]
    assert not unit.exists() and not (home / "s/corral").exists() and not (home / "config/corral").exists()
    assert told.read_text().splitlines() == ["--user disable --now corral.service", "--user daemon-reload"]
