"""Sizes and moments as people type them, and as options of the command line."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

import click

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LARGEST = 1 << 62


def size_of(text: str) -> int:
    """Bytes from `512M`, `2G`, `1.5GiB` or a number; units are binary. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    amount = int(float(found[1]) * _UNITS[found[2]]) if found else -1
    if not 0 <= amount <= _LARGEST:
        raise ValueError(f"{text!r} is no size; say 512M or 2G")
    return amount


def moment_of(text: str, now: float) -> float:
    """Seconds since the epoch from a span back (`10m`, `2h`, `1d`, `1h30m`), a time of day (`14:03`, `14:03:30`: the
    last time that it was so) or an ISO 8601 time; times are local unless they name a zone. Raises ValueError."""
    clean = text.strip()
    spans = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", clean)
    if spans and "".join(number + unit for number, unit in spans) == clean:
        return max(0.0, now - sum(float(number) * _SPANS[unit] for number, unit in spans))
    if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", clean):
        return _last_time(clean, now)
    try:
        return datetime.fromisoformat(clean).timestamp()  # one without a zone counts as local
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no time; say 10m, 2h, 1d, 14:03 or 2026-11-24T03:00") from None


def _last_time(clock: str, now: float) -> float:
    today = datetime.fromtimestamp(now)
    hour, minute, second = (int(part) for part in (clock + ":0").split(":")[:3])
    try:
        then = today.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError:
        raise ValueError(f"{clock!r} is no time of day") from None
    return (then if then <= today else then - timedelta(days=1)).timestamp()


class Size(click.ParamType[int]):
    """An option's bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return size_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[float]):
    """An option's time, in seconds since the epoch."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return moment_of(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)
