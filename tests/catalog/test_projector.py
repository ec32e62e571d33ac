"""What a projector of pictures takes: the formula beside towers that were measured, and one that is loaded here."""

from pathlib import Path

import architectures
import projectors
import pytest
import resident

from core.catalog import sizing
from core.catalog.sizing import Beside
from core.catalog.sizing.planning import whole
from core.catalog.sizing.projector import graph_bytes
from core.engines.registry import registry
from core.settings import EnginesTable

MIB = 1 << 20
MEASURED = {
    "gemma3-224": (63, 24), "gemma3-448": (67, 59), "gemma3-896": (80, 232), "gemma3-narrow": (33, 53),
    "gemma3-flat": (45, 114), "llava-224": (86, 29), "llava-336": (88, 63), "llava-672": (94, 212),
    "llava-narrow": (56, 98),
}  # fmt: skip
"""MiB of the file, and most beside it (as `bench_sizing.py --projectors` measures, here with two threads)."""


@pytest.mark.parametrize("name", MEASURED)
def test_the_formula_is_within_5_percent_of_a_measured_tower(name: str) -> None:
    file, beside = MEASURED[name]
    planned = graph_bytes(projectors.metadata(name), projectors.TOWERS[name].out) / MIB
    assert abs(planned - beside) <= max(24, 0.05 * (file + beside))


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("qwen2vl-560", 163), ("qwen2vl-1120", 426), ("qwen25vl-560", 252), ("qwen25vl-1120", 588),
        ("qwen3vl-512", 193), ("qwen3vl-1024", 507),
        ("smolvlm-whole", 66), ("smolvlm-2.2b", 129), ("smolvlm-256m", 269),
    ],
)  # fmt: skip
def test_pictures_in_their_own_size_and_in_tiles_have_a_bound(name: str, beside: int) -> None:
    assert graph_bytes(projectors.metadata(name), projectors.TOWERS[name].out) >= beside * MIB


def test_what_was_not_measured_and_what_is_absurd_is_left_to_the_allowance() -> None:
    known = projectors.metadata("gemma3-224")
    assert graph_bytes(known, 1152) > 0
    for other in (
        {"clip.projector_type": "resampler"},
        {"clip.vision.projector_type": "pixtral"},
        {"clip.has_audio_encoder": True},
        {"clip.vision.image_grid_pinpoints": [336, 672]},
        {"clip.vision.patch_size": 0},
        {"clip.vision.image_size": -224},
        {"clip.vision.image_size": 1 << 63},
        {"clip.vision.embedding_length": "1152"},
        {"clip.vision.feed_forward_length": None},
    ):
        assert graph_bytes(known | other, 1152) == 0
    tiled = projectors.metadata("smolvlm-256m")
    assert graph_bytes(tiled, 2048) > 0
    for other in ({"clip.vision.preproc_image_size": 0}, {"clip.vision.preproc_image_size": -5}):
        assert graph_bytes(tiled | other, 2048) == 0
    huge = {"clip.vision.patch_size": 1, "clip.vision.image_max_pixels": 1 << 32}
    assert graph_bytes(projectors.metadata("qwen25vl-560") | huge, 1536) == 0
    assert graph_bytes(tiled | {"clip.vision.image_size": 64, "clip.vision.preproc_image_size": 65536}, 1 << 31) == 0
    assert graph_bytes({}, 1152) == 0


def test_a_plan_says_whether_the_graph_is_known_or_allowed(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    architectures.write(model, "gemma3")
    known = resident.shape(model)
    told, just_ready = [], set()
    for graph, expected in ((40 * MIB, 40 * MIB), (0, 256 * MIB)):
        plan = sizing.plan(
            known, model="m", ctx=2048, parallel=1, cache_type="f16", cache_ram_mib=0, free_bytes=1 << 40,
            reserve_bytes=0, reserved_bytes=0, beside=Beside(projector=100 * MIB, graph=graph),
        )  # fmt: skip
        assert (plan.parts.projector, plan.parts.pictures) == (100 * MIB, expected)
        assert plan.full_bytes - plan.rss_bytes > 72 * 10**6  # a photograph that is read
        just_ready.add(plan.ready_bytes)
        assert plan.rss_bytes - plan.ready_bytes > expected
        told += [note for note in plan.notes if "projector" in note]
    assert "by its header" in told[0] and "was not measured" in told[1]
    assert len(just_ready) == 1  # nobody has shown it a picture yet


def test_a_picture_is_read_within_what_is_planned(tmp_path: Path) -> None:
    name = "gemma3-224"
    model, beside = tmp_path / "model.gguf", tmp_path / "projector.gguf"
    architectures.write(model, projectors.TOWERS[name].model)
    projectors.write(beside, name)
    engine, known, size = registry(EnginesTable()).get("xllamacpp"), resident.shape(model), beside.stat().st_size
    picture = projectors.picture(64, 48)
    found = resident.measure(engine, model, known, 2048, 1, "f16", projector=str(beside), picture=picture)
    graph = graph_bytes(projectors.metadata(name), known.n_embd)
    plan = whole(known, 2048, 1, "f16", engine=engine.abilities, beside=Beside(projector=size, graph=graph))
    alone = sizing.parts(known, 2048, 1, "f16", engine=engine.abilities)
    assert abs(found.ready - sizing.ready(alone) - size) < 24 * MIB
    assert found.used < found.full
    assert abs(sizing.resident(plan) - found.full) < 24 * MIB
