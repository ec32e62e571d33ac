"""The accounts of system mode: what is refused, and what an account may reach."""

import grp
import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.access import accounts
from core.access.accounts import Account, Accounts, barrier, check_program, find
from core.errors import Failed
from core.settings import DaemonTable

USERS = {"corral-gw": (901, 901), "corral-run": (902, 902), "toor": (0, 0), "twin": (901, 903)}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """A host's accounts; a test may put one of them into more groups."""
    groups: dict[str, list[int]] = {}

    def user(name: str) -> SimpleNamespace:
        uid, gid = USERS[name]
        return SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=gid)

    monkeypatch.setattr(pwd, "getpwnam", user)
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid={"corral": 900}[name]))
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, *groups.get(name, [])])
    return groups


def test_accounts_are_found_with_their_groups(host: dict[str, list[int]]) -> None:
    host["corral-run"] = [44]
    found = find(DaemonTable())
    assert found.engine == Account("corral-run", 902, 902, (44,))
    assert (found.gateway.uid, found.group_gid) == (901, 900)


def test_without_the_group_root_alone_is_obeyed(host: dict[str, list[int]]) -> None:
    assert find(DaemonTable(group="nobody-made-it")).group_gid is None


def test_a_missing_account_is_told_with_the_line_that_makes_it(host: dict[str, list[int]]) -> None:
    with pytest.raises(Failed, match="no account gone") as told:
        find(DaemonTable(engine_user="gone"))
    assert told.value.todo.startswith("useradd --system") and told.value.todo.endswith(" gone")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (DaemonTable(engine_user="toor"), "would run as root"),
        (DaemonTable(engine_user="corral-gw"), "both run as"),
        (DaemonTable(engine_user="twin"), "both run as"),
    ],
)
def test_accounts_that_would_be_too_mighty(host: dict[str, list[int]], table: DaemonTable, why: str) -> None:
    with pytest.raises(Failed, match=why):
        find(table)


@pytest.mark.parametrize("who", ["corral-gw", "corral-run"])
def test_an_account_in_the_obeyed_group_is_refused(host: dict[str, list[int]], who: str) -> None:
    host[who] = [900]
    with pytest.raises(Failed, match=f"{who} is in the group corral"):
        find(DaemonTable())


def test_a_program_behind_a_closed_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "python"
    program.write_text("x")
    program.chmod(0o755)
    link = tmp_path / "python"
    link.symlink_to(program)
    nobody = Account("nobody", 65533, 65533, ())
    up = next((each for each in reversed(tmp_path.parents) if not each.stat().st_mode & 0o1), None)
    assert barrier(link, nobody) == (up or closed)
    assert barrier(link, Account("me", os.getuid(), os.getgid(), ())) is None
    with pytest.raises(Failed, match="cannot read the program"):
        check_program(Accounts(nobody, nobody, "corral", None), link)


def test_an_environment_of_a_python_that_others_may_not_read_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As pyenv's, in root's home: the environment itself lies where it should."""
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(accounts, "barrier", lambda path, account: closed)
    nobody = Account("nobody", 65533, 65533, ())
    with pytest.raises(Failed) as told:
        check_program(Accounts(nobody, nobody, "corral", None), tmp_path / "opt" / "corral" / "bin" / "python3")
    assert "a link in it leads to where" in told.value.why and "/usr/bin/python3" in told.value.todo


def test_a_member_of_a_folders_group_may_enter(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o750)
    file = folder / "f"
    file.write_text("x")
    file.chmod(0o640)
    gid = folder.stat().st_gid
    inside, outside = Account("in", 65533, 65533, (gid,)), Account("out", 65533, 65533, ())
    assert barrier(file, outside) is not None
    above = barrier(file, inside)
    assert above is None or above in folder.parents  # pytest's own folders are closed to others
