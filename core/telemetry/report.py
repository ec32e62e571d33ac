"""Asks usage: whole days from the sums by day, whole hours from those by hour, the rest from the lines.

What is committed and not summed up yet is taken from the lines, so an answer is never behind. All of it is read in one
transaction: a piece that is summed up meanwhile is neither missed nor counted twice.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from core.errors import Invalid
from core.nouns import UsageReport, UsageRow, UsageSums
from core.telemetry import times
from core.telemetry.prices import Prices
from core.telemetry.rollups import DAY, HOUR, KEPT_FROM, LINE_COLUMNS, ROLLED, SUMS, Sums, state

WORDS = {
    "user": "user", "uid": "uid", "group": "groupname", "key": "key", "deployment": "deployment", "model": "model",
    "version": "version", "replica": "replica", "node": "node", "outcome": "outcome", "day": "", "hour": "",
}  # fmt: skip
"""What usage can be asked by, and its column."""
FILTERS = tuple(word for word in WORDS if word not in ("uid", "version", "day", "hour"))
GOOD = ("ok", "client-gone")
"""Outcomes that are no errors."""
END = 1 << 62
ROWS = 10_000


class Asked(NamedTuple):
    """What is asked. `since` and `until` are epoch seconds, from and before; `only` has texts for words of `FILTERS`, a
    star at their end only; `own` = (uid, name) of whose usage alone it is, with that of `also`: his service accounts,
    by the names that usage has for them."""

    by: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    own: tuple[int, str] | None = None
    also: tuple[str, ...] = ()
    limit: int = ROWS


class _Stretch(NamedTuple):
    """From `start` on, before `end`; `span` 0 = the lines themselves, of which only the ones up to `seq` count, or with
    `after` only the ones after it."""

    span: int
    start: float
    end: float
    after: bool = False


def report(db: sqlite3.Connection, asked: Asked, prices: Prices, currency: str = "") -> UsageReport:
    """The answer, read in one transaction. Raises `Invalid` for an unknown word."""
    for word in asked.by:
        if word not in WORDS:
            raise Invalid(f"usage is not kept by {word!r}", f"there are: {', '.join(WORDS)}")
    for word, _ in asked.only:
        if word not in FILTERS:
            raise Invalid(f"usage cannot be chosen by {word!r}", f"there are: {', '.join(FILTERS)}")
    by = _whole(asked.by)
    db.execute("BEGIN")
    try:
        rolled = state(db, ROLLED) or 0
        since, until = _bounds(asked, state(db, KEPT_FROM) or -END)
        hourly = "hour" in by
        groups: dict[tuple[Any, ...], Sums] = defaultdict(Sums)
        for stretch in _stretches(since, until, hourly):
            _add(db, groups, stretch, _Choice(by, asked), rolled)
    finally:
        db.execute("ROLLBACK")
    return _made(asked, by, since, until, groups, prices, currency)


def _whole(by: Sequence[str]) -> tuple[str, ...]:
    """Without repeats. A version is one of a model, and users of one name that had two uids are two."""
    out: list[str] = []
    for word in by:
        before = {"version": "model"}.get(word)
        out += [each for each in (before, word) if each is not None and each not in out]
        if word == "user" and "uid" not in out:
            out.append("uid")
    return tuple(out)


def _bounds(asked: Asked, kept_from: int) -> tuple[float, float]:
    """Where the lines of an hour are gone, the hour is taken whole."""
    since = -float(END) if asked.since is None else asked.since
    until = float(END) if asked.until is None else asked.until
    if since > -END and since // HOUR * HOUR < kept_from:
        since = since // HOUR * HOUR
    if until < END and until // HOUR * HOUR < kept_from:
        until = math.ceil(until / HOUR) * HOUR
    return since, until


def _stretches(since: float, until: float, hourly: bool) -> Iterator[_Stretch]:
    first, last = math.ceil(since / HOUR) * HOUR, int(until // HOUR) * HOUR
    if first >= last:
        yield _Stretch(0, since, until)
    else:
        yield _Stretch(0, since, first)
        yield _Stretch(0, last, until)
        day, end = math.ceil(first / DAY) * DAY, last // DAY * DAY
        if hourly or day >= end:
            yield _Stretch(HOUR, first, last)
        else:
            yield _Stretch(HOUR, first, day)
            yield _Stretch(DAY, day, end)
            yield _Stretch(HOUR, end, last)
    yield _Stretch(0, since, until, after=True)


class _Choice:
    """The part of the SQL that is the same for lines and sums."""

    def __init__(self, by: Sequence[str], asked: Asked) -> None:
        self.by = by
        self.where: list[str] = []
        self.values: list[Any] = []
        if asked.own is not None:
            accounts = "".join(", ?" for _ in asked.also)
            self.where.append(f"((uid = ? AND user = ?) OR (uid < 0 AND user IN (''{accounts})))")
            self.values += (*asked.own, *asked.also)
        for word, texts in asked.only:
            self.where.append("(" + " OR ".join(self._one(WORDS[word], text) for text in texts) + ")")

    def _one(self, column: str, text: str) -> str:
        if not text.endswith("*"):
            self.values.append(text)
            return f"{column} = ?"
        self.values += (len(text) - 1, text[:-1])
        return f"substr({column}, 1, ?) = ?"

    def group(self, second: str) -> list[str]:
        """SQL of what is grouped by: the words, then model and outcome, which prices and errors go by."""
        times = {"day": f"{second} / {DAY} * {DAY}", "hour": f"{second} / {HOUR} * {HOUR}"}
        return [times.get(word) or WORDS[word] for word in self.by] + ["model", "outcome"]


_DECODE = msgspec.json.Decoder(list[dict[int, int]]).decode


def _add(
    db: sqlite3.Connection, groups: dict[tuple[Any, ...], Sums], stretch: _Stretch, choice: _Choice, rolled: int
) -> None:
    """Add a stretch to the groups."""
    if stretch.start >= stretch.end:
        return
    if stretch.span:
        group = choice.group("start")
        where = " AND ".join(["span = ? AND start >= ? AND start < ?", *choice.where])
        sums = ", ".join(f"sum({name})" for name in SUMS)
        lists = ", ".join(f"'[' || group_concat({name}) || ']'" for name in ("first_token", "total"))
        numbers = ", ".join(str(n + 1) for n in range(len(group)))
        sql = f"SELECT {', '.join(group)}, {sums}, {lists} FROM usage_rollups WHERE {where} GROUP BY {numbers}"  # noqa: S608
        for row in db.execute(sql, (stretch.span, stretch.start, stretch.end, *choice.values)):
            found = groups[row[: len(group)]]
            for name, value in zip(SUMS, row[len(group) :], strict=False):
                setattr(found, name, getattr(found, name) + value)
            for counts, text in ((found.first_token, row[-2]), (found.total, row[-1])):
                for each in _DECODE(text):
                    for bucket, count in each.items():
                        counts[bucket] += count
        return
    group = choice.group("CAST(time AS INTEGER)")
    seq = "seq > ?" if stretch.after else "seq <= ?"
    where = " AND ".join([f"{seq} AND time >= ? AND time < ?", *choice.where])
    sql = f"SELECT {', '.join(group)}, {', '.join(LINE_COLUMNS)} FROM usage_lines WHERE {where}"  # noqa: S608
    for row in db.execute(sql, (rolled, stretch.start, stretch.end, *choice.values)):
        groups[row[: len(group)]].line(row[len(group) :])


def _made(
    asked: Asked, by: tuple[str, ...], since: float, until: float, groups: dict[tuple[Any, ...], Sums],
    prices: Prices, currency: str,
) -> UsageReport:  # fmt: skip
    rows: dict[tuple[Any, ...], list[tuple[str, str, Sums]]] = defaultdict(list)
    for key, sums in groups.items():
        rows[key[: len(by)]].append((key[-2], key[-1], sums))
    order = _order(by, rows)
    shown = [
        UsageRow(group={word: _shown(word, value) for word, value in zip(by, key, strict=True)},
                 sums=_sums(rows[key], prices))
        for key in order[: asked.limit]
    ]  # fmt: skip
    return UsageReport(
        since=None if since <= -END else since, until=None if until >= END else until, by=by, currency=currency,
        mine=asked.own is not None, rows=tuple(shown) if by else (),
        total=_sums([each for parts in rows.values() for each in parts], prices),
        left_out=max(0, len(order) - asked.limit) if by else 0,
    )  # fmt: skip


def _order(by: Sequence[str], rows: dict[tuple[Any, ...], list[tuple[str, str, Sums]]]) -> list[tuple[Any, ...]]:
    """By time where there is one, and else by tokens, most first."""
    dated = [at for at, word in enumerate(by) if word in ("day", "hour")]

    def rank(key: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens = sum(sums.prompt_tokens + sums.answer_tokens for _, _, sums in rows[key])
        requests = sum(sums.requests for _, _, sums in rows[key])
        return (*(key[at] for at in dated), -tokens, -requests, tuple(str(each) for each in key))

    return sorted(rows, key=rank)


def _shown(word: str, value: Any) -> str | int:
    """Days and hours as text, in UTC."""
    if word not in ("day", "hour"):
        return str(value) if not isinstance(value, int) else value
    try:
        at = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):  # what a clock said that was very wrong
        return str(value)
    return f"{at:%Y-%m-%d}" if word == "day" else f"{at:%Y-%m-%dT%H:00Z}"


def _sums(parts: Iterable[tuple[str, str, Sums]], prices: Prices) -> UsageSums:
    whole = Sums()
    errors = unpriced = 0
    costs: list[float] = []
    for model, outcome, sums in parts:
        for name in SUMS:
            setattr(whole, name, getattr(whole, name) + getattr(sums, name))
        whole.first_token.update(sums.first_token)
        whole.total.update(sums.total)
        errors += 0 if outcome in GOOD else sums.requests
        cost = prices.cost(model, sums)
        if cost is not None:
            costs.append(cost)
        elif sums.prompt_tokens or sums.answer_tokens:
            unpriced += sums.requests
    quantiles = {
        f"{name}_p{int(q * 100)}_s": None if (found := times.quantile(buckets, q)) is None else round(found, 6)
        for name, buckets in (("first_token", whole.first_token), ("total", whole.total))
        for q in (0.5, 0.95)
    }
    return UsageSums(
        requests=whole.requests, errors=errors, prompt_tokens=whole.prompt_tokens, cached_tokens=whole.cached_tokens,
        answer_tokens=whole.answer_tokens, estimated=whole.estimated, queue_s=whole.queue_us / 1e6,
        core_hours=round(whole.core_us / 3.6e9, 6), cost=round(math.fsum(costs), 6) if costs else None,
        unpriced=unpriced, **quantiles,
    )  # fmt: skip
