"""The gateway's time: goes on evenly, whoever sets the host's clock; what a day and a month of a quota are."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

STEADY_S = 86400.0
"""A host's clock that was set is taken over when it has kept its difference for so long: a jump that is taken back by
then has changed nothing, and a clock that was mended for good is believed in the end."""
SAME_S = 2.0
"""Differences that differ by less are one."""


boottime: Callable[[], float] = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since the host's boot, those asleep too. Nobody can set them."""


def boot_id() -> str:
    """Which boot of the host this is; "" where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Date(NamedTuple):
    """`2026-11-25` and `2026-11`, in UTC. A clock's stays the same object for as long as it is true."""

    day: str
    month: str


class Clock:
    """`boot` and `wall` are clocks, seconds. What counts a minute counts it in `boot` seconds."""

    def __init__(self, boot: Callable[[], float] = boottime, wall: Callable[[], float] = time.time) -> None:
        self.boot = boot
        self._wall = wall
        self.offset = wall() - boot()
        """From seconds since the boot to unix time."""
        self.date = Date("", "")
        self.tick = 0
        """Another one when a second has passed since `now` was asked, or the date has changed."""
        self._turns = 0.0
        self.day_ends = self.month_ends = 0.0
        """In `boot` seconds."""
        self._begins = 0.0
        self._differs = self._since = 0.0
        self.now()

    def go_on(self, offset: float, moment: float, same_boot: bool) -> None:
        """Go on from the clock of the gateway before: its offset in the same boot; after another one the host's clock,
        but not before `moment` (unix time), where that gateway was."""
        now = self.boot()
        self.offset = offset if same_boot else max(self._wall() - now, moment - now)
        self._reckon(now)

    @property
    def day(self) -> str:
        return self.date.day

    @property
    def month(self) -> str:
        return self.date.month

    def unix(self, now: float) -> float:
        """Unix time of `now`, in `boot` seconds."""
        return now + self.offset

    def now(self) -> float:
        """Seconds since the boot; `date` and `tick` are of that moment. Asked several times a request."""
        now = self.boot()
        if now >= self._turns:
            if not self._begins <= now < self.day_ends:
                self._reckon(now)
            self._turns = min(int(now) + 1.0, self.day_ends)
            self.tick += 1
        return now

    def look(self) -> None:
        """Called each second: take over a difference to the host's clock that has lasted."""
        now = self.boot()
        differs = self._wall() - now - self.offset
        if abs(differs) < SAME_S:
            self._since = 0.0
        elif not self._since or abs(differs - self._differs) >= SAME_S:
            self._differs, self._since = differs, now
        elif now - self._since >= STEADY_S:
            self.offset += differs
            self._since = 0.0
            self._reckon(now)

    def _reckon(self, now: float) -> None:
        moment = datetime.fromtimestamp(now + self.offset, UTC)
        today = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
        self.date = Date(today.date().isoformat(), today.date().isoformat()[:7])
        self._begins = today.timestamp() - self.offset
        self.day_ends = (today + timedelta(days=1)).timestamp() - self.offset
        self.month_ends = following.timestamp() - self.offset
        self._turns = 0.0
