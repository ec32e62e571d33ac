"""A projector of pictures in the default engine: it loads, it sees, and it takes no more than its plan allows."""

from pathlib import Path

import architectures
import projectors
import resident

from core.catalog import sizing
from core.catalog.sizing import Beside
from core.catalog.sizing.planning import whole
from core.engines.registry import registry
from core.settings import EnginesTable

MIB = 1 << 20


def test_a_picture_is_read_within_what_the_plan_allows(tmp_path: Path) -> None:
    model, beside = tmp_path / "model.gguf", tmp_path / "projector.gguf"
    architectures.write(model, projectors.TOWERS["small"].model)
    projectors.write(beside, "small")
    engine, known, size = registry(EnginesTable()).get("xllamacpp"), resident.shape(model), beside.stat().st_size
    picture = projectors.picture(64, 48)
    found = resident.measure(engine, model, known, 2048, 1, "f16", projector=str(beside), picture=picture)
    plan = whole(known, 2048, 1, "f16", engine=engine.abilities, beside=Beside(projector=size))
    alone = sizing.parts(known, 2048, 1, "f16", engine=engine.abilities)
    assert abs(found.ready - sizing.ready(alone) - size) < 24 * MIB
    assert found.used < found.full < sizing.resident(plan)
