"""The plan against the resident set of the real engine, when it is ready and after a prompt of a whole batch.

`bench_sizing.py` goes through the whole grid; here are the points at which the plan is tightest.
"""

from pathlib import Path

import gemma
import pytest
from resident import measure, shape

from core.catalog import sample_path, sizing
from core.engines.xllamacpp import XLlamaCpp
from core.settings import EnginesTable

pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.journey, pytest.mark.xdist_group("measures")]


def check(model: Path | None, absent: str, ctx: int, parallel: int, kind: sizing.CacheType) -> None:
    if model is None:
        pytest.skip(absent)
    engine, known = XLlamaCpp(EnginesTable()), shape(model)
    plan = sizing.parts(known, ctx, parallel, kind, engine=engine.abilities)
    found = measure(engine, model, known, ctx, parallel, kind)
    assert sizing.ready(plan) == pytest.approx(found.ready, rel=0.05)
    assert sizing.resident(plan) == pytest.approx(found.used, rel=0.05)


@pytest.mark.parametrize(
    ("ctx", "parallel", "kind"),
    [(256, 1, "f16"), (512, 1, "q4_0"), (700, 1, "q4_0"), (4096, 16, "q4_0"), (8192, 4, "f16"), (65536, 8, "q8_0")],
)
def test_the_plan_is_within_5_percent_of_the_engine(ctx: int, parallel: int, kind: sizing.CacheType) -> None:
    check(sample_path(), "the sample model is not installed", ctx, parallel, kind)


@pytest.mark.parametrize(("ctx", "parallel", "kind"), [(512, 2, "q4_0"), (2048, 1, "f16"), (32768, 16, "q8_0")])
def test_the_plan_holds_for_a_model_of_another_shape(ctx: int, parallel: int, kind: sizing.CacheType) -> None:
    """Sliding windows, wide queries, a vocabulary of 262,144."""
    check(gemma.cached(), "gemma-3-270m is not here: `make bench` fetches it", ctx, parallel, kind)


@pytest.mark.timeout(300)
def test_with_all_slots_full_it_takes_no_more_than_was_planned_at_most() -> None:
    """gemma's conversations keep states of the layers that see a window: unbounded, 15 MiB more with each turn, which
    with two slots is 1.07 of what is planned after the third one."""
    model = gemma.cached()
    if model is None:
        pytest.skip("gemma-3-270m is not here: `make bench` fetches it")
    engine, known = XLlamaCpp(EnginesTable()), shape(model)
    plan = sizing.parts(known, 1536, 2, "f16", engine=engine.abilities)
    found = measure(engine, model, known, 1536, 2, "f16", fill=True)
    assert found.full < 1.05 * sizing.full(plan, known, 1536, 2, engine=engine.abilities)
