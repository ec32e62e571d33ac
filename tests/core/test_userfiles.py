"""The host's own list of users is looked at by stat alone, and a change of it ends a long pause."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import userfiles
from core.userfiles import GLANCE_S, UserChanges, stamp


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    passwd = tmp_path / "passwd"
    passwd.write_text("ann:x:7:7::/:/bin/sh\n")
    monkeypatch.setattr(userfiles, "FILES", (passwd, tmp_path / "group"))
    return passwd


def put(passwd: Path, words: str) -> None:
    """As userdel and useradd do: a new file takes the place of the old one."""
    new = passwd.with_name("passwd+")
    new.write_text(words)
    new.rename(passwd)


def test_a_file_that_was_replaced_by_one_of_the_same_length_has_changed(files: Path) -> None:
    before = stamp()
    assert stamp() == before
    put(files, "eve:x:7:7::/:/bin/sh\n")
    assert stamp() != before
    files.unlink()
    assert stamp() == ((), ())


async def test_a_pause_ends_at_a_change_also_at_one_between_two_pauses(files: Path) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            put(files, "eve:x:7:7::/:/bin/sh\n")

    changes = UserChanges(sleep)
    await changes.within(60.0)
    assert slept == [GLANCE_S] * 2
    await changes.within(2.5)
    assert slept[2:] == [GLANCE_S, GLANCE_S, 0.5]
    put(files, "bob:x:7:7::/:/bin/sh\n")
    await changes.within(60.0)
    assert slept[5:] == [GLANCE_S]
