"""A measured curve of a model as lines: tokens a second over threads, slots and context, each as a chart of bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from core.nouns import Bench, BenchPoint
from tui.columns import fitted
from tui.plain import line
from tui.words import moment, plural

LEVELS = ("▁▂▃▄▅▆▇█", ".:-=+*%#")
"""Of a mark that is one cell wide, and the same in ASCII."""
WIDEST = 40
"""Cells of a bar at most."""
LEAST = 8


class Axis(NamedTuple):
    """What is changed while the rest stays: an attribute of a point, and how that is said."""

    key: str
    words: str
    held: str
    """As it is said of what stays: `{}` is its value."""


AXES = (
    Axis("parallel", "conversations at once", "{} at once"),
    Axis("threads", "threads", "{} threads"),
    Axis("ctx", "cells of each conversation", "{} cells each"),
)


def along(points: Sequence[BenchPoint], axis: Axis) -> list[BenchPoint]:
    """The points that differ from the fastest one in this axis alone, in its order; [] where that is no curve."""
    best = max(points, key=lambda each: each.total, default=None)
    if best is None:
        return []
    others = [each.key for each in AXES if each.key != axis.key]
    found = [each for each in points if all(getattr(each, key) == getattr(best, key) for key in others)]
    return sorted(found, key=lambda each: int(getattr(each, axis.key))) if len(found) > 1 else []


def brief(found: Bench | None, ascii: bool = False) -> list[str]:
    """One line an axis, for where there is little room."""
    if found is None or not found.points:
        return []
    most = max(each.total for each in found.points) or 1.0
    levels, out = LEVELS[ascii], []
    for axis in AXES:
        marks = [
            f"{getattr(at, axis.key)} {levels[round((len(levels) - 1) * at.total / most)]} {at.total:.1f}"
            for at in along(found.points, axis)
        ]
        if marks:
            out.append(f"tokens/s by {axis.words}: {', '.join(marks)} ({_rest(found.points, axis)})")
    best = max(found.points, key=lambda each: each.total)
    return out or [f"measured: {best.total:.1f} tokens/s ({', '.join(_said(best, axis) for axis in AXES)})"]


def chart(found: Bench, width: int, ascii: bool = False) -> list[str]:
    """All of it: a chart for each axis, then every point."""
    out = [
        f"Measured {moment(found.at)} on {found.node} by {found.by}: {found.model}, {found.engine} {found.version},"
        f" cache {found.cache_type}",
    ]
    for axis in AXES:
        points = along(found.points, axis)
        if points:
            out += ["", f"All together, tokens/s by {axis.words} ({_rest(found.points, axis)})"]
            out += _bars(points, axis, width, ascii)
    out += ["", *_table(found.points, width, ascii)]
    out += [f"left out: {each}" for each in found.left_out]
    if found.replicas:
        out.append(f"{found.replicas} {plural(found.replicas, 'replica')} ran beside it")
    return [line(each) for each in out]


def _bars(points: Sequence[BenchPoint], axis: Axis, width: int, ascii: bool) -> Iterator[str]:
    most = max(each.total for each in points) or 1.0
    told = [f"{at.total:7.1f}, each {at.each:.1f}, first token {at.ttft_s:.2f} s" for at in points]
    names = [str(getattr(at, axis.key)) for at in points]
    label, tail = max(map(len, names)) + 2, max(map(len, told))
    cells = max(LEAST, min(WIDEST, width - label - tail - 2))
    for name, at, words in zip(names, points, told, strict=True):
        full = max(1, round(cells * at.total / most))
        yield f"{name:>{label}} {('#' if ascii else '█') * full}{' ' * (cells - full)} {words}"


def _table(points: Sequence[BenchPoint], width: int, ascii: bool) -> list[str]:
    rows = [["threads", "at once", "context", "each", "total", "expected", "prompt/s", "first"]]
    for at in points:
        expected = f"{at.expected:.1f}" if at.expected else "-"
        rows.append(
            [str(at.threads), str(at.parallel), str(at.ctx), f"{at.each:.1f}", f"{at.total:.1f}", expected,
             f"{at.prefill:.0f}", f"{at.ttft_s:.2f} s"]
        )  # fmt: skip
    return fitted(rows, width, ("expected", "prompt/s"), "..." if ascii else "…")


def _rest(points: Sequence[BenchPoint], axis: Axis) -> str:
    """What stays while this axis is gone along."""
    best = max(points, key=lambda each: each.total)
    return ", ".join(_said(best, each) for each in AXES if each.key != axis.key)


def _said(point: BenchPoint, axis: Axis) -> str:
    value = getattr(point, axis.key)
    words = axis.held.format(value)
    return words.replace("threads", "thread") if axis.key == "threads" and value == 1 else words
