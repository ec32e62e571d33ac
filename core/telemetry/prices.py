"""What usage costs: [usage.prices] of corral.toml has tables by patterns of models; the longest that fits counts."""

from __future__ import annotations

from collections.abc import Mapping

from core.settings import PriceTable
from core.telemetry.rollups import Sums


class Prices:
    """Looked up once a model."""

    def __init__(self, tables: Mapping[str, PriceTable]) -> None:
        self._tables = sorted(tables.items(), key=lambda each: -len(each[0].removesuffix("*")))
        self._found: dict[str, PriceTable | None] = {}

    def of(self, model: str) -> PriceTable | None:
        """The price of a model, None where no pattern fits. A star stands at the end of a pattern."""
        if model not in self._found:
            self._found[model] = next((table for pattern, table in self._tables if _fits(pattern, model)), None)
        return self._found[model]

    def cost(self, model: str, sums: Sums) -> float | None:
        """In the currency of the prices. Cached tokens are a part of those read and have a price of their own."""
        price = self.of(model)
        if price is None:
            return None
        cached = price.per_million_cached if price.per_million_cached >= 0 else price.per_million_in
        tokens = (
            (sums.prompt_tokens - sums.cached_tokens) * price.per_million_in
            + sums.cached_tokens * cached
            + sums.answer_tokens * price.per_million_out
        )
        return tokens / 1e6 + sums.core_us / 3.6e9 * price.per_core_hour


def _fits(pattern: str, model: str) -> bool:
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern
