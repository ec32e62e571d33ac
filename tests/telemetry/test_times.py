"""Durations by bucket: added up, and told within 5 %."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.telemetry import times

DURATIONS = st.lists(st.floats(1e-5, 1e6), min_size=1, max_size=200)


@given(DURATIONS, st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_is_within_5_percent_of_the_true_one(durations: list[float], q: float) -> None:
    found = times.quantile(Counter(times.bucket_of(each) for each in durations), q)
    rank = max(1, -(-q * len(durations) // 1))
    true = sorted(durations)[int(rank) - 1]
    assert found is not None and abs(found - true) <= 0.05 * true


@given(DURATIONS)
def test_what_is_written_is_read(durations: list[float]) -> None:
    buckets = Counter(times.bucket_of(each) for each in durations)
    assert times.read(times.write(buckets)) == buckets


def test_nothing_has_no_median_and_a_clock_s_mistake_is_no_error() -> None:
    assert times.quantile({}, 0.5) is None
    assert times.bucket_of(0.0) == times.bucket_of(-5.0) == 0
