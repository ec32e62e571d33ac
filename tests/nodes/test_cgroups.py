"""What cgroups leave of a host: trees of files stand for the kernel's, for no test may bound the process it runs in."""

import os
from pathlib import Path

import pytest

from core.nodes import cgroups

GIB = 1 << 30


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """/proc/self/cgroup of a process in a pod's container, by cgroups v2."""
    file = tmp_path / "own"
    file.write_text("0::/pod/box\n")
    return file


def test_the_tightest_limit_above_us_counts(tmp_path: Path, own: Path) -> None:
    root = tmp_path / "fs"
    write(root / "pod/box", memory__max="max", memory__current=GIB, memory__stat="anon 5")
    write(root / "pod", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat="anon 5")
    write(root, memory__stat="anon 5")
    assert cgroups.memory_left(root, own) == GIB
    write(root / "pod/box", memory__max=GIB + 100)
    assert cgroups.memory_left(root, own) == 100


def test_cache_that_the_kernel_can_drop_is_free(tmp_path: Path, own: Path) -> None:
    root = tmp_path / "fs"
    stat = "anon 9\ninactive_file 300\nactive_file 200\nslab_reclaimable 7"
    write(root / "pod/box", memory__max=1000, memory__current=900, memory__stat=stat)
    assert cgroups.memory_left(root, own) == 600
    write(root / "pod/box", memory__current=5000, memory__stat="nonsense")
    assert cgroups.memory_left(root, own) == 0


def test_a_limit_that_only_slows_down_is_a_limit(tmp_path: Path, own: Path) -> None:
    """Above memory.high the kernel holds a process up until it has given memory back: an engine would stand still."""
    root = tmp_path / "fs"
    write(root / "pod/box", memory__max=4 * GIB, memory__high=2 * GIB, memory__current=GIB)
    assert cgroups.memory_left(root, own) == GIB
    write(root / "pod/box", memory__high="max")
    assert cgroups.memory_left(root, own) == 3 * GIB


def test_cgroups_v1_and_a_path_that_is_not_seen_from_inside(tmp_path: Path, own: Path) -> None:
    root = tmp_path / "fs"
    own.write_text("5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n")
    stat = "total_inactive_file 30\ntotal_active_file 20"
    write(root / "memory", memory__limit_in_bytes=1000, memory__usage_in_bytes=700, memory__stat=stat)
    write(root / "cpu,cpuacct")
    write(root / "unified")
    assert cgroups.memory_left(root, own) == 350
    write(root / "memory", memory__limit_in_bytes=9223372036854771712)
    assert cgroups.memory_left(root, own) == cgroups.UNLIMITED


def test_where_there_are_none_nothing_is_limited(tmp_path: Path, own: Path) -> None:
    assert cgroups.memory_left(tmp_path / "fs", own) == cgroups.UNLIMITED
    assert cgroups.memory_left(tmp_path / "fs", tmp_path / "nothing") == cgroups.UNLIMITED
    assert cgroups.cores(tmp_path / "fs", tmp_path / "nothing") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("mask", "quota", "above", "cores"),
    [
        (8, "max 100000", "max 100000", 8),
        (8, "350000 100000", "max 100000", 3),
        (8, "800000 100000", "200000 100000", 2),
        (2, "800000 100000", "max 100000", 2),
        (8, "50000 100000", "max 100000", 1),
        (8, "garbled", "400000 100000", 4),
    ],
)  # fmt: skip
def test_cores_are_those_of_mask_and_quota(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch, mask: int, quota: str, above: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(mask)))
    root = tmp_path / "fs"
    write(root / "pod/box", cpu__max=quota)
    write(root / "pod", cpu__max=above)
    assert cgroups.cores(root, own) == cores


def test_a_quota_of_cgroups_v1(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    own.write_text("3:cpu:/\n")
    write(tmp_path / "fs/cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert cgroups.cores(tmp_path / "fs", own) == 8
    write(tmp_path / "fs/cpu", cpu__cfs_quota_us=250000)
    assert cgroups.cores(tmp_path / "fs", own) == 2
