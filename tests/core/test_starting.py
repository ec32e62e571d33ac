"""What a terminal makes before it starts the daemon, and what it says when that ended at once."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from core import starting


@pytest.mark.journey
def test_all_of_a_users_own_daemon_is_closed_to_others_whatever_the_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        for name in ("CORRAL_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", folder)

        def corral(*args: str) -> None:
            done = subprocess.run(
                ["sh", "-c", 'umask 0; exec "$@"', "sh", sys.executable, "-P", "-m", "tui", "--user", *args],
                capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

        try:
            corral("ps")
            root = Path(folder) / ".local/state/corral"
            assert (root / next(iter(os.listdir(root))) / "corral.db").exists()
            there = [root, *root.rglob("*")]
            assert len(there) > 10
            opened = {str(each): oct(each.lstat().st_mode) for each in there if each.lstat().st_mode & 0o077}
            assert not opened
        finally:
            corral("shutdown", "--all")


def test_its_last_words_are_read_though_its_log_was_rotated(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    path.write_text("from before\n")
    log = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        assert starting._last_words(log, path.stat().st_size) == ""
        mark = path.stat().st_size
        path.rename(tmp_path / "daemon.log.1")
        path.write_text("x")
        os.write(log, b"corral: the database is newer than this program\n")
        assert starting._last_words(log, mark) == "the database is newer than this program"
    finally:
        os.close(log)
