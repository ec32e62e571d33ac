"""The daemon's own log: its level and its size, at the start and after a reload."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Failed
from core.logfile import LogFile
from core.settings import DaemonTable


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    level = logging.getLogger().level
    yield tmp_path / "daemon.log"
    logging.getLogger().setLevel(level)


@pytest.fixture
def logfile(path: Path) -> Iterator[LogFile]:
    found = LogFile(path)
    yield found
    found.end()


@pytest.mark.parametrize("name", ["corral", "core.store.database"])
def test_the_level_of_every_part_follows_the_settings(logfile: LogFile, path: Path, name: str) -> None:
    logfile.begin(DaemonTable(log_level="warning"))
    logging.getLogger(name).info("one")
    logfile.follow(DaemonTable(log_level="debug"))
    logging.getLogger(name).debug("two")
    logfile.follow(DaemonTable(log_level="error"))
    logging.getLogger(name).warning("three")
    assert [line.rsplit(" ", 1)[1] for line in path.read_text().splitlines()] == ["two"]


def test_it_is_rotated_and_the_oldest_goes(logfile: LogFile, path: Path) -> None:
    logfile.begin(DaemonTable(log_bytes=65536, log_files=2))
    for n in range(40):
        logging.getLogger("core").info("%d %s", n, "x" * 9000)
    names = {"daemon.log", "daemon.log.1", "daemon.log.2"}
    assert {each.name for each in path.parent.iterdir()} == names
    assert all(each.stat().st_size <= 65536 for each in path.parent.iterdir())
    assert " 39 x" in path.read_text() and " 0 x" not in (path.parent / "daemon.log.2").read_text()


def test_a_smaller_size_counts_from_the_next_line_on(logfile: LogFile, path: Path) -> None:
    logfile.begin(DaemonTable(log_bytes=1 << 20, log_files=1))
    for _ in range(20):
        logging.getLogger("core").info("x" * 9000)
    assert not path.with_name("daemon.log.1").exists()
    logfile.follow(DaemonTable(log_bytes=65536, log_files=1))
    logging.getLogger("core").info("after")
    assert path.read_text().endswith("after\n") and path.stat().st_size < 100


def test_a_file_that_cannot_be_written_is_a_sentence(path: Path) -> None:
    path.mkdir()
    with pytest.raises(Failed, match=r"daemon\.log cannot be written"):
        LogFile(path).begin(DaemonTable())
