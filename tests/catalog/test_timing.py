"""Rates from when tokens came."""

import pytest

from core.catalog import timing
from core.catalog.timing import each_rate, step_s
from core.engines.base import Endpoint
from core.engines.load import Timed


def timed(first: float, every: float, count: int, *, tokens: int = 0) -> Timed:
    stamps = tuple(first + n * every for n in range(count))
    return Timed(
        began=0.0, prompt_tokens=10, tokens=tokens or count, first_s=first, answer_s=stamps[-1] - first, stamps=stamps
    )


def test_one_alone_by_its_own_time() -> None:
    assert each_rate([timed(1.0, 0.1, 21)]) == pytest.approx(10)
    assert step_s([timed(1.0, 0.1, 21)]) == pytest.approx(0.1)


def test_several_by_the_time_in_which_all_were_answered() -> None:
    """The first one's tokens came quickly while the other's prompt was read; that does not count."""
    early = Timed(
        began=0.0, prompt_tokens=10, tokens=30, first_s=0.0, answer_s=0.0,
        stamps=tuple([n * 0.01 for n in range(20)] + [2.0 + n * 0.2 for n in range(10)]),
    )  # fmt: skip
    assert each_rate([early, timed(2.0, 0.2, 10)]) == pytest.approx(5, rel=0.15)


def test_tokens_that_came_without_text_are_counted() -> None:
    assert each_rate([timed(0.0, 0.2, 21, tokens=42), timed(0.0, 0.2, 21, tokens=42)]) == pytest.approx(10, rel=0.05)


def test_too_short_to_be_timed_is_no_rate() -> None:
    assert each_rate([timed(1.0, 0.1, 1)]) == 0.0 and step_s([]) == 0.0


async def test_several_at_once_are_asked_of_neighbouring_slots_where_that_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slots: list[int | None] = []

    async def asked(*args: object, slot: int | None = None, **more: object) -> Timed:
        slots.append(slot)
        return timed(0.0, 0.1, 4)

    monkeypatch.setattr(timing, "complete", asked)
    meter = timing.Meter(Endpoint())
    await meter.decode(3, 4, 8, side_by_side=True)
    await meter.decode(2, 4, 8)
    assert slots == [0, 1, 2, None, None]
