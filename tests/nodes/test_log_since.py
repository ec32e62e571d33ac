"""A log read from a time on: every line of that time and after, and of those before only what shares a mark."""

import asyncio
import json
from pathlib import Path

import pytest

from core.keeper import keeper
from core.nodes.local import Local
from core.paths import Paths

LAUNCH = "aaaaaaaaaa"


class Written:
    """The keeper's log in a launch folder, with a clock that the test sets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, limit: int = 1 << 20) -> None:
        paths = Paths(folder, folder / "corral.toml", "0badcafe")
        self.folder = paths.launches / LAUNCH
        self.folder.mkdir(parents=True)
        self.node = Local(paths)
        self.now = 0.0
        self.lines: list[tuple[float, bytes]] = []
        monkeypatch.setattr(keeper.time, "time", lambda: self.now)
        self.log = keeper.Log(str(self.folder), limit, 3)

    def write(self, moment: float) -> None:
        self.now = moment
        self.lines.append((moment, b"line at %.2f\n" % moment))
        self.log.write(self.lines[-1][1])

    async def since(self, moment: float) -> bytes:
        start = await self.node.log_since(LAUNCH, moment)
        return (await self.node.read_log(LAUNCH, start, 1 << 20)).data

    def marks(self) -> list[list[int]]:
        return list(json.loads((self.folder / "log.json").read_text())["marks"])


async def test_a_time_gives_the_lines_of_that_second_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Written(tmp_path, monkeypatch)
    for moment in (1000.0, 1000.2, 1000.9, 1003.0, 4000.5):
        log.write(moment)
    assert len(log.marks()) == 3
    for since, lines in ((0, 5), (1000, 5), (1000.9, 5), (1001, 2), (1003, 2), (1004, 1), (4000.7, 1), (4001, 0)):
        assert await log.since(since) == b"".join(line for _, line in log.lines[5 - lines :]), since


async def test_marks_are_bounded_and_no_line_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Written(tmp_path, monkeypatch)
    for n in range(2000):
        log.write(1000.0 + n * 1.5)
        assert len(log.log.marks) <= keeper.MARKS
    for since in range(990, 4010, 37):
        text = await log.since(since)
        wanted = [line for moment, line in log.lines if moment >= since]
        assert text.endswith(b"".join(wanted))
        if since > 3900:  # the newest are still exact to the second
            assert len(text.splitlines()) <= len(wanted) + 4


async def test_over_rotated_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Written(tmp_path, monkeypatch, limit=4096)
    for n in range(1500):
        log.write(1000.0 + n)
    for since in (2400, 2450, 2499):
        text = await log.since(since)
        assert text.endswith(b"".join(line for moment, line in log.lines if moment >= since))
        assert text.startswith(b"line at ")
    oldest = await log.node.read_log(LAUNCH, 0, 1 << 20)
    assert await log.since(1000) == oldest.data and oldest.lost


@pytest.mark.parametrize("index", ["{}", '{"starts": [0]}', '{"marks": "no"}', '{"marks": [[1]]}', "torn"])
async def test_a_log_without_times_is_shown_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str
) -> None:
    log = Written(tmp_path, monkeypatch)
    log.write(1000.0)
    (log.folder / "log.json").write_text(index)
    assert await log.node.log_since(LAUNCH, 5000) == 0


async def test_a_disk_that_takes_no_index_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Written(tmp_path, monkeypatch)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeper, "write_whole", full)
    log.write(1000.0)
    await asyncio.sleep(0)
    assert await log.since(0) == log.lines[0][1]
