"""Quality by sourced scores: only what was measured by the same benchmark is compared.

    value of a model on a benchmark = quality of the model + ease of the benchmark        (least squares)

so that a model with an easy benchmark alone does not pass for a good one. Models are compared where benchmarks link
them; one whose benchmarks nobody else has is not known, and nobody's quality is guessed. Figures of different hands on
one benchmark are taken for the same, which they nearly are: see docs/choosing.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.nouns import Noun, Score

ROUNDS = 200
ALONE = 0.5
"""Of a score: by so much a model that has few is drawn to the middle."""


class Quality(Noun, frozen=True, kw_only=True):
    """Of one model for one use."""

    value: float
    """0 to 1: what it would score on the mean benchmark. Rounded here, so that whoever shows it shows the same."""
    scores: int
    others: int
    """Models with a benchmark that it has too."""


def qualities(scores: Mapping[str, Sequence[Score]], use: str) -> dict[str, Quality]:
    """By name, of those that can be compared."""
    table = {
        name: {each.benchmark: each.value / each.of for each in told if each.use == use and each.of > 0}
        for name, told in scores.items()
    }  # fmt: skip
    by_benchmark: dict[str, list[str]] = {}
    for name, row in table.items():
        for benchmark in row:
            by_benchmark.setdefault(benchmark, []).append(name)
    shared = {benchmark for benchmark, names in by_benchmark.items() if len(names) > 1}
    rows = {name: kept for name, row in table.items() if (kept := {b: v for b, v in row.items() if b in shared})}
    rows = _linked(rows)
    if not rows:
        return {}
    mean = sum(sum(row.values()) for row in rows.values()) / sum(map(len, rows.values()))
    quality = dict.fromkeys(rows, 0.0)
    for _ in range(ROUNDS):
        ease = {
            benchmark: sum(rows[name][benchmark] - quality[name] for name in names) / len(names)
            for benchmark in shared
            if (names := [name for name in by_benchmark[benchmark] if name in rows])
        }  # fmt: skip
        quality = {
            name: sum(value - ease[benchmark] for benchmark, value in row.items()) / (len(row) + ALONE)
            for name, row in rows.items()
        }
    return {
        name: Quality(
            value=round(min(1.0, max(0.0, mean + quality[name])), 3), scores=len(row),
            others=len({other for benchmark in row for other in by_benchmark[benchmark]} - {name}),
        )
        for name, row in rows.items()
    }  # fmt: skip


def _linked(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The largest set of models that benchmarks link: between two such sets nothing can be said."""
    left, best = set(rows), set[str]()
    while left:
        group, new = set[str](), {min(left)}
        while new:
            group |= new
            benchmarks = {benchmark for name in new for benchmark in rows[name]}
            new = {name for name in left - group if benchmarks & rows[name].keys()}
        left -= group
        if len(group) > len(best):
            best = group
    return {name: rows[name] for name in rows if name in best}
