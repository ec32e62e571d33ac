"""`corral daemon --print-unit`: what must stand in it, and what systemd itself says of it where it is installed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tui.cli import cli
from tui.verbs import program

ANALYZE = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
UNITS = [("daemon", "--print-unit"), ("daemon", "--print-unit", "--user")]


def printed(*args: str) -> str:
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == 0, done.output
    return done.output


def settings(unit: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.splitlines() if re.match(r"[A-Z]\w+=", line))


@pytest.mark.parametrize("args", UNITS)
def test_nothing_that_the_daemon_leaves_running_is_ended_with_it(args: tuple[str, ...]) -> None:
    found = settings(printed(*args))
    assert found["KillMode"] == "process" and found["OOMPolicy"] == "continue" and found["Delegate"] == "yes"
    assert found["PrivateTmp"] == "no" and "MemoryMax" not in found
    assert found["NoNewPrivileges"] == "yes" and found["UMask"] == "0077" and found["Restart"] == "on-failure"
    assert found["ExecStart"].startswith(f"{sys.executable} -P -m core --foreground")
    assert found["ExecStart"].endswith("--system") == ("--user" not in args)
    assert found["WantedBy"] == ("default.target" if "--user" in args else "multi-user.target"), "after a reboot too"


def test_the_sockets_of_the_shared_daemon_stay_while_it_is_away() -> None:
    found = settings(printed("daemon", "--print-unit"))
    assert found["RuntimeDirectory"] == "corral" and found["RuntimeDirectoryPreserve"] == "yes"
    assert found["RuntimeDirectoryMode"] == "0755" and found["ProtectSystem"] == "strict"
    assert found["CapabilityBoundingSet"].split() == list(program.CAPABILITIES)


@pytest.mark.parametrize(("where", "home"), [("/opt/corral", "yes"), ("/home/alice/corral", "read-only")])
def test_home_folders_are_hidden_unless_the_program_lies_there(
    monkeypatch: pytest.MonkeyPatch, where: str, home: str
) -> None:
    monkeypatch.setattr(program, "__file__", f"{where}/tui/verbs/program.py")
    for name in ("executable", "prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, f"{where}/bin/python")
    assert settings(printed("daemon", "--print-unit"))["ProtectHome"] == home


@ANALYZE
@pytest.mark.parametrize(("args", "most"), [(UNITS[0], 4.5), (UNITS[1], 7.0)])
def test_systemd_takes_it_and_finds_it_hardened(args: tuple[str, ...], most: float, tmp_path: Path) -> None:
    unit = tmp_path / "corral.service"
    unit.write_text(printed(*args))
    taken = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert taken.returncode == 0 and "corral.service" not in taken.stderr, taken.stderr
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(unit)], capture_output=True, text=True, timeout=60
    )
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)
    if exposure is None:
        pytest.skip(f"no security analysis here: {found.stderr.strip()}")
    assert float(exposure[1]) <= most, found.stdout
