"""Launch records that somebody or something has spoiled: each is explained, none hides the others."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.nodes.local import Local
from core.paths import user_paths

FIELDS = (
    "kind", "owner", "boot_id", "keeper_pid", "keeper_start", "pid", "start", "started_at", "runs", "spec",
    "code", "signal", "peak_rss_bytes", "time", "reason",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def record(node_home: Path, name: str, launch: bytes, ended: bytes) -> None:
    folder = node_home / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lock").touch()
    (folder / "launch.json").write_bytes(launch)
    (folder / "exit.json").write_bytes(ended)


@pytest.mark.parametrize("age", [0.0, 3600.0])
async def test_a_record_that_is_written_again_is_read_again(home: Path, age: float) -> None:
    """Also where both were written within one tick of the clock, as long as that was just now."""
    paths = user_paths()
    node = Local(paths)
    told = {"kind": "gateway", "owner": "gateway", "pid": 1 << 22, "start": 1, "runs": 1}
    written = time.time_ns() - int(age * 1e9)
    for run in (1, 2):
        record(paths.records, "aaaaaaaaaa", json.dumps(told | {"runs": run}).encode(), b"")
        at = written + (run * 1000 if age else 0)
        os.utime(paths.records / "aaaaaaaaaa/launch.json", ns=(at, at))
        for _ in range(2):
            assert [each.runs for each in await node.launches()] == [run]


async def test_a_record_that_is_old_is_read_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = user_paths()
    record(paths.records, "aaaaaaaaaa", json.dumps({"kind": "replica", "pid": 1 << 22, "start": 1}).encode(), b"")
    os.utime(paths.records / "aaaaaaaaaa/launch.json", (1, 1))
    reads, read = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self.name) or read(self))
    for _ in range(20):
        await Local(paths).launches()
    assert reads.count("launch.json") == 1


@pytest.mark.parametrize("name", ["launch", "exit"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON), junk=st.binary(max_size=40) | st.none())
@example(fields={"pid": -1}, junk=None)
async def test_a_spoiled_record_hides_no_other(home: Path, name: str, fields: dict, junk: bytes | None) -> None:
    paths = user_paths()
    node = Local(paths)
    good = json.dumps({"kind": "replica", "owner": "chat/0", "pid": 1 << 22, "start": 1, "spec": {}}).encode()
    ended = json.dumps({"code": 1, "time": 5.0, "version": 1}).encode()
    record(paths.records, "aaaaaaaaaa", good, ended)
    bad = junk if junk is not None else json.dumps(fields).encode()
    record(paths.records, "bbbbbbbbbb", bad if name == "launch" else good, bad if name == "exit" else ended)
    found = {each.id: each for each in await node.launches()}
    assert found["aaaaaaaaaa"].exit is not None and found["aaaaaaaaaa"].exit.code == 1
    assert not found["bbbbbbbbbb"].alive and found["bbbbbbbbbb"].exit is not None
    assert await node.samples(list(found)) == []
    assert not await node.signal("bbbbbbbbbb", 0)
