"""What Corral believes about logouts, and what it tells systemd. Folders of the test stand in for systemd's own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from core import starting, systemd
from core.errors import NoDaemon
from core.paths import Paths
from core.systemd import Places

SCOPE = "0::/user.slice/user-1000.slice/session-7.scope\n"
MANAGER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u1.scope\n"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A host under systemd with one session, whose user's systemd runs."""
    found = Places(*(tmp_path / name for name in ("lib", "etc", "run", "user", "linger", "cgroup")))
    for folder in (found.lib, found.etc, found.run / "system", found.user / str(os.getuid()) / "systemd", found.linger):
        folder.mkdir(parents=True)
    (found.user / str(os.getuid()) / "systemd/private").touch()
    found.cgroup.write_text(SCOPE)
    return found


def kill(places: Places, text: str = "KillUserProcesses=yes", where: str = "etc", name: str = "x.conf") -> None:
    folder: Path = getattr(places, where) / "logind.conf.d"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"[Login]\n{text}\n")


def test_a_session_that_logind_leaves_alone_needs_no_word(places: Places) -> None:
    (places.etc / "logind.conf").write_text("[Login]\n#KillUserProcesses=yes\n")
    assert systemd.logout_ends("ann", places) == ""
    assert systemd.outside(["corral"], "ann", dict(os.environ), places) == ["corral"]


def test_lingering_alone_does_not_save_what_lives_in_a_session(places: Places) -> None:
    kill(places)
    assert "loginctl enable-linger ann" in systemd.logout_ends("ann", places)
    (places.linger / "ann").touch()
    said = systemd.logout_ends("ann", places)
    assert "will end the daemon" in said
    assert "corral shutdown" in said
    assert "enable-linger" not in said


def test_what_the_users_systemd_holds_lives_as_long_as_that(places: Places) -> None:
    places.cgroup.write_text(MANAGER)
    assert "loginctl enable-linger ann" in systemd.logout_ends("ann", places)
    (places.linger / "ann").touch()
    assert systemd.logout_ends("ann", places) == ""


@pytest.mark.parametrize("where", ["lib", "run", "etc"])
def test_every_folder_of_logind_counts_and_the_nearest_wins(places: Places, where: str) -> None:
    kill(places, where=where)
    assert systemd.logout_ends("ann", places)
    kill(places, "KillUserProcesses=no", where="etc", name="x.conf")
    assert systemd.logout_ends("ann", places) == ""


@pytest.mark.parametrize(
    ("more", "user", "ends"),
    [
        ("", "root", False),
        ("KillExcludeUsers=ann", "ann", False),
        ("KillExcludeUsers=", "root", True),
        ("KillOnlyUsers=bob", "ann", False),
        ("KillOnlyUsers=bob ann", "ann", True),
    ],
)
def test_users_whom_logind_spares(places: Places, more: str, user: str, ends: bool) -> None:
    kill(places, f"KillUserProcesses=1\n{more}")
    assert bool(systemd.logout_ends(user, places)) is ends


@pytest.mark.parametrize("text", ["", "garbage", "0::/\n", "1:name=systemd:/\n0::/\n"])
def test_without_systemd_in_charge_nothing_is_said(places: Places, text: str) -> None:
    kill(places)
    places.cgroup.write_text(text if text != "garbage" else "0::nothing known\n")
    assert systemd.logout_ends("ann", places) == ""


def test_the_daemon_starts_outside_of_a_session_that_would_take_it_along(places: Places, tmp_path: Path) -> None:
    program = tmp_path / "bin/systemd-run"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    env = {"PATH": str(program.parent)}
    kill(places)
    argv = systemd.outside(["python", "-m", "core"], "ann", env, places)
    assert argv[:3] == [str(program), "--user", "--scope"]
    assert argv[-4:] == ["--", "python", "-m", "core"]
    (places.user / str(os.getuid()) / "systemd/private").unlink()
    assert systemd.outside(["python"], "ann", env, places) == ["python"], "no systemd of the user's own runs"
    assert systemd.with_manager({}, places) == {}


def test_an_installed_unit_of_ones_own_is_what_starts_the_daemon(places: Places, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\n")
    (tmp_path / "bin/systemctl").chmod(0o755)
    env = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home")}
    assert systemd.user_unit(env, places) == []
    unit = tmp_path / "home/.config/systemd/user/corral.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    assert systemd.user_unit(env, places) == [str(tmp_path / "bin/systemctl"), "--user", "start", "corral.service"]
    assert systemd.user_unit(env | {"CORRAL_HOME": "/elsewhere"}, places) == [], "the unit knows nothing of that home"


def test_systemd_is_told_once_the_daemon_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        systemd.tell("READY=1")
        assert notify.recv(100) == b"READY=1"
    systemd.tell("READY=1")  # nobody listens any more
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1")
    systemd.tell("READY=1")


@pytest.mark.parametrize(("left", "todo"), [
    ("unit", "systemctl start corral"), ("socket", "corral daemon --system"), ("state", "corral daemon --system"),
])  # fmt: skip
async def test_a_shared_daemon_that_is_down_is_said_and_not_covered_by_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: str, todo: str
) -> None:
    """Also one that root began by hand, and that was killed or ended: a script would deploy into a daemon of its own,
    beside rights, limits and trail."""
    monkeypatch.delenv("CORRAL_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(starting, "SYSTEM_SOCKET", tmp_path / "corral.sock")
    monkeypatch.setattr(starting, "RESTART_S", 0.1)
    monkeypatch.setattr(systemd, "system_unit", lambda: left == "unit")
    shared = Paths(tmp_path / "lib", tmp_path / "corral.toml", "0badcafe", "system")
    monkeypatch.setattr(starting, "system_paths", lambda: shared)
    if left == "socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "corral.sock"))
    if left == "state":
        shared.state.mkdir(parents=True)
    with pytest.raises(NoDaemon, match="shared daemon of this host does not run") as caught:
        await starting.find(start=True, user=False)
    assert todo in caught.value.todo
    assert not (tmp_path / ".local").exists(), "no daemon of one's own was begun"
