"""The sentence for a person who asks why a replica died."""

from core.deployments.ending import reason_of, signal_name
from core.engines.base import Failure
from core.nodes.base import ExitRecord

MIB = 1 << 20
KILLED = Failure(reason="it was killed (SIGKILL: out of memory, a limit, or by hand)")


def test_a_kill_is_told_with_the_kernels_line_and_the_memory_against_its_plan() -> None:
    exit = ExitRecord(signal=9, peak_rss_bytes=900 * MIB, oom_line="Out of memory: Killed process 7 (python3)")
    assert reason_of(exit, KILLED, 500 * MIB, 600 * MIB) == (
        "it was killed (SIGKILL: out of memory, a limit, or by hand); the kernel says: Out of memory: Killed process 7"
        " (python3) (memory at its peak 900 MiB, planned 500 MiB, limit 600 MiB)"
    )


def test_another_death_is_told_in_the_engines_words_alone() -> None:
    failure = Failure(reason="the model's file is no GGUF file", permanent=True)
    assert reason_of(ExitRecord(code=1, peak_rss_bytes=9 * MIB), failure, MIB, MIB) == failure.reason


def test_where_nobody_saw_the_end_the_keepers_reason_stands() -> None:
    lost = Failure(reason="nobody saw how it ended")
    assert reason_of(ExitRecord(reason="exec failed: x"), lost, MIB, MIB) == "exec failed: x"
    assert reason_of(ExitRecord(), lost, MIB, MIB) == lost.reason


def test_a_lost_keeper_is_told_as_what_happened() -> None:
    """Two words of ours were the whole reason that somebody was woken up with."""
    told = reason_of(ExitRecord(reason="keeper lost"), Failure(reason="nobody saw how it ended"), MIB, MIB)
    assert (
        told.startswith("keeper lost: the process that watched over the engine was killed") and "ended with it" in told
    )


def test_a_signal_has_its_name_where_the_host_has_one() -> None:
    assert (signal_name(9), signal_name(None), signal_name(222)) == ("SIGKILL", None, "222")
