"""Sizes and moments as people type them."""

from datetime import UTC, datetime

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.amounts import size_of
from tui.amounts import Counts, moment_of


@given(st.integers(0, 1 << 20), st.sampled_from([("", 1), ("K", 1 << 10), ("MiB", 1 << 20), ("g", 1 << 30)]))
def test_a_size_is_its_number_and_its_unit(number: int, unit: tuple[str, int]) -> None:
    assert size_of(f" {number}{unit[0]} ") == number * unit[1]


def test_a_part_of_a_byte_is_no_size_since_none_may_mean_all() -> None:
    assert (size_of("0"), size_of("0.0G"), size_of("0.5K")) == (0, 0, 512)
    with pytest.raises(ValueError, match="no size"):
        size_of("0.5")


@given(st.text())
def test_no_text_gives_anything_but_bytes_or_a_reason(text: str) -> None:
    try:
        assert 0 <= size_of(text) <= 1 << 62
    except ValueError as error:
        assert "no size" in str(error)


@pytest.mark.parametrize(("text", "back"), [("10m", 600), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("90s", 90)])
def test_a_span_counts_back_from_now(text: str, back: int) -> None:
    assert moment_of(text, 1_000_000.0) == 1_000_000.0 - back


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("14:03", "2026-11-24 14:03:00"), ("0:00", "2026-11-24 00:00:00"), ("15:30", "2026-11-24 15:30:00"),
        ("15:30:01", "2026-11-23 15:30:01"), ("23:59", "2026-11-23 23:59:00"),
    ],
)  # fmt: skip
def test_a_time_of_day_is_the_last_time_that_it_was_so(text: str, said: str) -> None:
    now = datetime(2026, 11, 24, 15, 30, 0, 500_000).timestamp()
    assert datetime.fromtimestamp(moment_of(text, now)).isoformat(" ") == said


@pytest.mark.parametrize("text", ["24:00", "12:60", "1:2", "12:00:61", "-10m", "65536", "", "yesterday"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        moment_of(text, 1e9)


@given(st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_an_iso_time_with_its_zone_is_that_moment(when: datetime) -> None:
    assert moment_of(when.isoformat(), 0.0) == pytest.approx(when.timestamp())


@given(st.text())
def test_no_text_gives_anything_but_a_moment_or_a_reason(text: str) -> None:
    try:
        moment_of(text, 1e9)
    except ValueError as error:
        assert "no time" in str(error)


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("text", ["1,a", "1,-2", "2b", "1;2", "", ",", "abc"])
def test_a_list_of_numbers_that_is_none_is_named_whole(text: str, tokens: bool) -> None:
    with pytest.raises(click.BadParameter, match=f"'{text}' is no list of whole numbers; say"):
        Counts(tokens=tokens).convert(text, None, None)
    assert Counts(tokens=tokens).convert("1, 2", None, None) == (1, 2)


def test_only_a_list_of_tokens_has_thousands() -> None:
    assert Counts(tokens=True).convert("1, 2,8k", None, None) == (1, 2, 8192)
    with pytest.raises(click.BadParameter):
        Counts().convert("8k", None, None)
