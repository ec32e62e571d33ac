"""What is left on a host, and how cores are shared."""

from hypothesis import given
from hypothesis import strategies as st

from core.budgets import default_reserve, room, threads_for
from core.budgets.admission import Holding
from core.nouns import NodeFacts, NodeSample
from core.settings import CapacityTable

GIB = 1 << 30


def sample(free: int, total: int) -> NodeSample:
    return NodeSample(
        time=0, node="local", cpu_percent=0, load1=0, memory_bytes=total, free_bytes=free, pressure=0,
        disk_free_bytes=0, disk_bytes=0,
    )  # fmt: skip


def facts(cores: int) -> NodeFacts:
    return NodeFacts(name="local", boot_id="", machine="x86_64", system="Linux", cores=cores, memory_bytes=GIB)


def test_what_replicas_have_not_touched_yet_is_not_given_out_twice() -> None:
    held = [Holding(plan_bytes=4 * GIB, anon_bytes=GIB), Holding(plan_bytes=GIB, anon_bytes=2 * GIB)]
    left = room(sample(10 * GIB, 16 * GIB), CapacityTable(reserve_bytes=GIB), held)
    assert left.reserved_bytes == 3 * GIB
    assert left.left == 6 * GIB


def test_the_reserve_is_a_tenth_within_bounds() -> None:
    assert default_reserve(GIB) == 512 << 20
    assert default_reserve(40 * GIB) == 4 * GIB
    assert default_reserve(1000 * GIB) == 8 * GIB


@given(st.integers(1, 256), st.integers(0, 300), st.integers(0, 300))
def test_threads_never_exceed_the_cores_and_are_never_none(cores: int, running: int, setting: int) -> None:
    threads = threads_for(facts(cores), CapacityTable(threads=setting), running)
    assert 1 <= threads <= cores


def test_one_core_is_left_to_the_host() -> None:
    assert threads_for(facts(8), CapacityTable(), 0) == 7
    assert threads_for(facts(8), CapacityTable(), 1) == 3
