"""Sizes and moments as people type them, and as options of the command line."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime, timedelta

import click

from core.amounts import size_of

_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


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


def moment_ahead(text: str, now: float) -> float:
    """Seconds since the epoch from a span ahead (`8h`, `30d`) or an ISO 8601 time. Raises ValueError."""
    clean = text.strip()
    spans = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", clean)
    if spans and "".join(number + unit for number, unit in spans) == clean:
        return now + sum(float(number) * _SPANS[unit] for number, unit in spans)
    try:
        return datetime.fromisoformat(clean).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no time ahead; say 8h, 30d or 2027-01-31T18:00") from None


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
        if value == "":
            self.fail("it is empty", param, ctx)
        try:
            return size_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Tokens(click.ParamType[int]):
    """An option's tokens: `8192`, or `8k`, which is 8 x 1024."""

    name = "tokens"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        try:
            return _tokens(text)
        except ValueError:
            self.fail(f"{text!r} is no number of tokens; say 8192 or 8k", param, ctx)


def _tokens(text: str) -> int:
    """Raises `ValueError`; `8kb` would be bytes."""
    return size_of(text if text[-1:].lower() != "b" else "-")


class Counts(click.ParamType[tuple[int, ...]]):
    """An option's list of whole numbers: `1,2,4`; of `tokens` also `8k`."""

    name = "numbers"

    def __init__(self, *, tokens: bool = False) -> None:
        self.tokens = tokens

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        whole = str(value)
        pieces = [each.strip() for each in whole.split(",")]
        if not self.tokens and not all(re.fullmatch("[0-9]{1,9}", each) for each in pieces):
            self.fail(f"{whole!r} is no list of whole numbers; say 2, or 1,2,4", param, ctx)
        try:
            return tuple(map(_tokens, pieces))
        except ValueError:
            self.fail(f"{whole!r} is no list of whole numbers; say 512, or 512,4k (4k is 4096)", param, ctx)


class Moment(click.ParamType[float]):
    """An option's time, in seconds since the epoch."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return moment_of(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Span(click.ParamType[float]):
    """An option's length of time, seconds: `30m`, `2d`, `1h30m`."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        spans = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", str(value))
        if not spans or "".join(number + unit for number, unit in spans) != str(value):
            self.fail(f"{value!r} is no length of time; say 30m, 2h or 1d", param, ctx)
        return sum(float(number) * _SPANS[unit] for number, unit in spans)


class MomentAhead(click.ParamType[float]):
    """An option's moment in the time to come, seconds since the epoch."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return moment_ahead(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Number(click.ParamType[float]):
    """A number from `low` to `high`; neither nan nor infinite."""

    name = "number"

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high:
            self.fail(f"{value!r} is no number from {self.low:g} to {self.high:g}", param, ctx)
        return number


class Whole(click.ParamType[int]):
    """A whole number from `low` to `high`."""

    name = "whole number"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text) or not self.low <= int(text) <= self.high:
            self.fail(f"{value!r} is no whole number from {self.low} to {self.high}", param, ctx)
        return int(text)


class Signed(click.Command):
    """A command whose arguments may be negative numbers: `-1` is no option there."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" not in args:
            numbers = [each for each in args if re.fullmatch(r"-[0-9.]+", each)]
            if numbers:
                args = [each for each in args if each not in numbers] + ["--", *numbers]
        return super().parse_args(ctx, args)
