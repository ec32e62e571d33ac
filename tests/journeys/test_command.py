"""What the tests run as `corral` does what a started one does."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import command
import psutil
import pytest
from command import Forks, run, started, until

from core.nodes import proc
from core.paths import user_paths


@pytest.mark.parametrize(
    "args",
    [("status",), ("nosuch",), ("deploy", "x" * 300), ("models", "import", "here"), ("help", "ps"), ("--version",),
     ("keys", "create", "é✓\n", "--rpm", "-1"), ("audit", "verify", "here"), ()],
)  # fmt: skip
def test_a_fork_says_and_returns_what_a_started_one_does(
    home: Path, args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    Path("here").write_text("no model and no trail")
    forked, other = run(*args), started(args)
    assert (forked.returncode, forked.stdout, forked.stderr) == (other.returncode, other.stdout, other.stderr)


def test_what_a_process_takes_notice_of_at_its_start_has_one_started(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--version")
    monkeypatch.setattr(Forks, "run", lambda *_: pytest.fail("a fork would not take notice of it"))
    for name in ("LC_ALL", "TZ", "LD_PRELOAD", "PYTHONUTF8"):
        with monkeypatch.context() as set_for_one:
            set_for_one.setenv(name, "" if name == "LD_PRELOAD" else "0" if name == "PYTHONUTF8" else "C")
            assert run("--version").returncode == 0


@pytest.fixture
def forks(home: Path) -> Iterator[Forks]:
    made = Forks()
    made.run(("ps",))
    yield made
    made.end()


def commands(forks: Forks) -> list[psutil.Process]:
    """Its forks but for the first, which is there for daemons."""
    return sorted(psutil.Process(forks.pid).children(), key=psutil.Process.create_time)[1:]


def test_a_command_that_does_not_end_is_ended(forks: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LIMIT_S", 0.5)
    with pytest.raises(TimeoutError):
        forks.run(("events", "-f"))
    until(lambda: not commands(forks))


def test_nothing_runs_on_when_nobody_is_left_to_ask(forks: Forks) -> None:
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(forks.run, ("events", "-f"))
        (running,) = until(lambda: commands(forks))
        forks.end()
        with pytest.raises(RuntimeError):
            asking.result(30)
    until(lambda: not running.is_running())


def test_a_daemon_by_a_fork_stands_alone_as_a_started_one_does(forks: Forks, home: Path) -> None:
    pid = json.loads(user_paths().daemon_lock.read_bytes())["pid"]
    files = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    assert not [each for each in files if each.startswith("pipe:")], "it holds nothing of who started it"
    assert os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/cwd") == "/" and os.devnull in files
    forks.run(("shutdown", "--all"))
    until(lambda: proc.start_time(pid) is None)
    (home / "corral.toml").write_text("[nonsense\n")
    done, other = forks.run(("ps",)), started(("ps",))
    assert (done.returncode, done.stderr) == (6, other.stderr) and "not valid TOML" in done.stderr


def test_a_process_that_forks_no_more_is_told_with_its_last_words(forks: Forks) -> None:
    os.kill(forks.pid, signal.SIGINT)
    until(lambda: proc.start_time(forks.pid) is None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
            forks.run(("ps",))
