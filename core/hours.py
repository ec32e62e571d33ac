"""Hours of the week at which something is allowed: `mon-fri 08:00-18:00, sat 09:00-12:00 Europe/Berlin`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LENGTH = 400
"""Characters of what one may write."""
_SPAN = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+)?"
    r"(?P<from_h>[0-9]{2}):(?P<from_m>[0-5][0-9])-(?P<to_h>[0-9]{2}):(?P<to_m>[0-5][0-9])"
)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")


class _Span(NamedTuple):
    """Minutes of a day. One that ends before it begins goes on into the next day."""

    days: frozenset[int]
    start: int
    end: int


class Hours:
    """`text` as it was written. Raises ValueError with a sentence for what is no such text.

    Times are the host's, unless a zone of the time zone database stands at the end. A span without days is of every
    day; one that ends at or before its beginning ends on the next day, and belongs to the day on which it begins.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        clean = text.strip().lower()
        if not clean or len(text) > LENGTH:
            raise ValueError("hours are like mon-fri 08:00-18:00, sat 09:00-12:00")
        self._zone, clean = _zone(text.strip())
        self._spans = tuple(_span(each.strip().lower()) for each in clean.split(","))
        self._looked = -1
        self._closed = 0.0

    def closed_for(self, now: float) -> float:
        """Seconds from `now` (unix time) until it is open; 0 while it is. Looked up once a minute."""
        minute = int(now // 60)
        if minute != self._looked:
            self._looked = minute
            self._closed = self._opens(minute * 60.0)
        return max(0.0, self._closed - now)

    def _opens(self, now: float) -> float:
        """When it is open from, unix time; 0 if it is open in the minute that begins at `now`."""
        here = self._local(now)
        today = here.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        minute, weekday = here.hour * 60 + here.minute, here.weekday()
        for days, start, end in self._spans:
            if end > start:
                if weekday in days and start <= minute < end:
                    return 0.0
            elif (weekday in days and minute >= start) or ((weekday - 1) % 7 in days and minute < end):
                return 0.0
        found = []
        for ahead in range(9):
            day = today + timedelta(days=ahead)
            for days, start, _ in self._spans:
                if day.weekday() in days:
                    # A moment that the change to summer time leaves out is the one that comes in its place.
                    at = day.replace(hour=start // 60, minute=start % 60).timestamp()
                    if at > now:
                        found.append(at)
            if found:
                break
        return min(found)

    def _local(self, now: float) -> datetime:
        return datetime.fromtimestamp(now) if self._zone is None else datetime.fromtimestamp(now, self._zone)


def _zone(text: str) -> tuple[ZoneInfo | None, str]:
    """The zone at the end of `text`, and the rest."""
    rest, _, last = text.rpartition(" ")
    if not rest or not last[:1].isalpha():
        return None, text
    if not _ZONE.fullmatch(last):
        raise ValueError(f"{last!r} is no time zone; say for example Europe/Berlin or UTC")
    try:
        return ZoneInfo(last), rest
    except (ValueError, OSError, KeyError):  # not found is a KeyError
        raise ValueError(f"this host knows no time zone {last!r}; say for example Europe/Berlin or UTC") from None


def _span(text: str) -> _Span:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} are no hours; say mon-fri 08:00-18:00")
    days: frozenset[int] = frozenset(range(7))
    if match["first"]:
        names = [match["first"], match["last"] or match["first"]]
        for name in names:
            if name not in DAYS:
                raise ValueError(f"{name!r} is no day; there are {' '.join(DAYS)}")
        first, last = (DAYS.index(name) for name in names)
        days = frozenset((first + n) % 7 for n in range((last - first) % 7 + 1))
    start, end = int(match["from_h"]) * 60 + int(match["from_m"]), int(match["to_h"]) * 60 + int(match["to_m"])
    if start >= 1440 or end > 1440:
        raise ValueError(f"{text!r} is no time of day: from 00:00 to 24:00")
    return _Span(days, start, end)
