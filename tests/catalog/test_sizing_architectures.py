"""The plan of each architecture against the real engine: small files with random weights, in the real layout.

A few here; `make soak` and `bench_sizing.py` go through all of them, and the bench makes the table of docs/sizing.md.
"""

import architectures
import pytest
from bench_sizing import off, one_architecture

from core.catalog import sizing
from core.engines.xllamacpp import XLlamaCpp
from core.settings import EnginesTable

pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.journey, pytest.mark.xdist_group("measures")]


def check(name: str, kind: str = "Q8_0", cache: sizing.CacheType = "f16", fill: bool = False) -> None:
    """At most 5 % or 24 MiB off, whichever is larger; what is only bounded is not below. A host short of memory takes
    pages of the file back that were counted: one that seems to take less is measured once more."""
    for _ in range(2):
        known, plan, most, found = one_architecture(
            XLlamaCpp(EnginesTable()), name, kind, 2048 if fill else 8192, cache=cache, fill=fill
        )
        bound = known.margin > 0
        if bound or not off(sizing.ready(plan), found.ready, bound):
            break
    assert not off(sizing.ready(plan), found.ready, bound), (name, sizing.ready(plan), found)
    assert not off(sizing.resident(plan), found.used, bound), (name, sizing.resident(plan), found)
    assert not fill or most >= found.full * 0.95, (name, most, found)


@pytest.mark.parametrize(
    ("name", "kind", "cache"),
    [
        ("granitemoe", "Q8_0", "f16"), ("nemotron_h", "Q8_0", "q8_0"), ("mamba2", "Q4_0", "f16"),
        ("modern-bert", "Q8_0", "f16"), ("minicpm3", "Q4_0", "q4_0"),
    ],
)  # fmt: skip
def test_the_plan_holds_for_mixtures_states_hybrids_and_encoders(name: str, kind: str, cache: sizing.CacheType) -> None:
    check(name, kind, cache)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", list(architectures.described()))
def test_the_plan_holds_for_every_architecture_that_the_formula_knows(name: str, kind: str) -> None:
    check(name, kind)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["gpt-oss", "deepseek2", "granitehybrid", "qwen3next", "rwkv7", "lfm2", "gemma4"])
def test_with_all_slots_full_no_architecture_takes_more_than_was_planned_at_most(name: str) -> None:
    check(name, fill=True)
