"""Hours of the week: what is open when, and when it opens again, also where clocks change."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.hours import DAYS, Hours

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("text", "when", "opens"),
    [
        ("mon-fri 08:00-18:00", "2026-11-25 08:00", None),
        ("mon-fri 08:00-18:00", "2026-11-25 17:59:59", None),
        ("mon-fri 08:00-18:00", "2026-11-25 18:00", "2026-11-26 08:00"),
        ("mon-fri 08:00-18:00", "2026-11-27 18:00", "2026-11-30 08:00"),
        ("mon-fri 08:00-18:00, sat 09:00-12:00", "2026-11-27 18:00", "2026-11-28 09:00"),
        ("22:00-06:00", "2026-11-25 05:59", None),
        ("22:00-06:00", "2026-11-25 06:00", "2026-11-25 22:00"),
        ("fri 22:00-06:00", "2026-11-28 05:00", None),  # Saturday morning is Friday's
        ("fri 22:00-06:00", "2026-11-27 05:00", "2026-11-27 22:00"),
        ("sat-mon 00:00-24:00", "2026-11-29 23:59", None),
        ("sat-mon 00:00-24:00", "2026-12-01 00:00", "2026-12-05 00:00"),
        ("mon 10:00-11:00", "2026-11-30 11:00", "2026-12-07 10:00"),
        # Summer time begins on 29 March at 02:00, which is 03:00 then, and ends on 25 October at 03:00.
        ("sun 02:30-04:00", "2026-03-29 01:59", "2026-03-29 03:30"),
        ("sun 08:00-09:00", "2026-10-25 00:30", "2026-10-25 08:00"),
    ],
)
def test_what_is_closed_says_for_how_long(text: str, when: str, opens: str | None) -> None:
    hours = Hours(f"{text} Europe/Berlin")
    closed = hours.closed_for(at(when))
    assert closed == (0.0 if opens is None else at(opens) - at(when))


SPANS = st.lists(
    st.tuples(st.sampled_from(DAYS), st.integers(0, 23), st.integers(0, 59), st.integers(0, 23), st.integers(0, 59)),
    min_size=1, max_size=3,
)  # fmt: skip


@given(SPANS, st.integers(0, 366 * 24 * 60))
def test_it_is_open_when_it_said_that_it_opens_and_closed_until_then(
    spans: list[tuple[str, int, int, int, int]], minutes: int
) -> None:
    text = ", ".join(f"{day} {a:02}:{b:02}-{c:02}:{d:02}" for day, a, b, c, d in spans)
    hours = Hours(f"{text} UTC")
    now = at("2026-01-01 00:00", ZoneInfo("UTC")) + minutes * 60
    closed = hours.closed_for(now)
    assert 0 <= closed <= timedelta(days=8).total_seconds()
    assert Hours(f"{text} UTC").closed_for(now + closed) == 0
    if closed > 60:
        assert Hours(f"{text} UTC").closed_for(now + closed - 60) == 60


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "hours are like"),
        ("noon", "are no hours"),
        ("mon-fri", "are no hours"),
        ("mon-fry 08:00-09:00", "no day"),
        ("mon 8:00-9:00", "are no hours"),
        ("mon 24:00-24:00", "time of day"),
        ("mon 08:00-24:01", "time of day"),
        ("mon 08:00-09:00 Europe/Atlantis", "no time zone"),
        ("mon 08:00-09:00 ../../etc/passwd", "are no hours"),
        ("mon 08:00-09:00 Europe/../../etc", "is no time zone"),
        ("mon 08:00-09:00," * 60, "hours are like"),
    ],
)
def test_what_is_no_hours_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Hours(text)
