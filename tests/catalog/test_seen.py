"""What answers say of a model's speed: how many were answered at once, and what is no measurement."""

import msgspec
import pytest

from core.catalog.seen import Answered, Observation, fold, observe
from core.catalog.speed import bucket


def answered(began: float, first: float, ended: float, *, prompt: int = 100, answer: int = 41) -> Answered:
    """By moments: when it had its slot, its first token and its last; queued for a second before."""
    return Answered(
        ended=ended, total_s=ended - began + 1, queue_s=1.0, first_s=first - began + 1, prompt=prompt, cached=0,
        answer=answer,
    )  # fmt: skip


def by_what(found: list[Observation], what: str) -> list[tuple[float, int]]:
    return [(round(each.rate, 3), each.users) for each in found if each.what == what]


def test_one_alone_tells_both_rates_without_the_queue() -> None:
    found = observe([answered(0, 2, 6)])
    assert by_what(found, "decode") == [(10.0, 1)] and by_what(found, "prefill") == [(50.0, 1)]


def test_those_that_overlap_are_counted_as_users_and_tell_nothing_of_prompts() -> None:
    found = observe([answered(0, 2, 6), answered(0, 2, 6), answered(0, 2, 6)])
    assert by_what(found, "decode") == [(10.0, 3)] * 3 and by_what(found, "prefill") == []
    later = observe([answered(0, 2, 6), answered(7, 9, 13)])
    assert by_what(later, "decode") == [(10.0, 1)] * 2 and len(by_what(later, "prefill")) == 2


def test_short_ones_tell_nothing() -> None:
    assert observe([answered(0, 2, 6, prompt=10, answer=5)]) == []


def observation(rate: float) -> Observation:
    return Observation(what="decode", rate=rate, users=3, ctx=100, prompt=100, at=1.0)


def test_the_mean_follows_what_is_new_and_keeps_its_spread() -> None:
    told = {"sha256": "a", "engine": "x", "version": "1", "threads": 2}
    one = fold(None, observation(20.0), 10.0, **told)  # type: ignore[arg-type]
    assert one is not None and one.ratio == pytest.approx(2.0) and one.users == bucket(3) == 4
    two = fold(one, observation(5.0), 10.0, **told)  # type: ignore[arg-type]
    assert two is not None and two.ratio == pytest.approx(1.0) and two.count == 2 and two.spread > 0.2
    for _ in range(30):
        two = fold(two, observation(5.0), 10.0, **told)  # type: ignore[arg-type]
        assert two is not None
    assert two.ratio == pytest.approx(0.5, rel=0.01) and two.rate == pytest.approx(5.0, rel=0.01)


def test_a_measurement_counts_alone_and_what_it_is_off_is_the_spread() -> None:
    told = {"sha256": "a", "engine": "x", "version": "1", "threads": 2}
    one = fold(None, observation(10.0), 10.0, **told)  # type: ignore[arg-type]
    for _ in range(9):
        one = fold(one, observation(10.0), 10.0, **told)  # type: ignore[arg-type]
    measured = msgspec.structs.replace(observation(7.1), measured=True)
    new = fold(one, measured, 10.0, **told)  # type: ignore[arg-type]
    assert new is not None and (new.ratio, new.rate) == (pytest.approx(0.71), 7.1)
    assert new.spread == pytest.approx(0.29)


def test_what_is_far_off_is_kept_out_and_another_build_begins_anew() -> None:
    told = {"sha256": "a", "engine": "x", "version": "1", "threads": 2}
    assert fold(None, observation(1000.0), 10.0, **told) is None  # type: ignore[arg-type]
    one = fold(None, observation(20.0), 10.0, **told)  # type: ignore[arg-type]
    new = fold(one, observation(10.0), 10.0, **{**told, "version": "2"})  # type: ignore[arg-type]
    assert new is not None and new.count == 1 and new.ratio == pytest.approx(1.0)
