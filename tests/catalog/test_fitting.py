"""Which models fit: what is stored and what the curated list has, against the same room."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec

from core.catalog import sizing
from core.catalog.curated import load, shape_for
from core.catalog.fitting import COARSE, fits, listed_as, need
from core.nouns import Model

GIB = 1 << 30

_spec = importlib.util.spec_from_file_location("stores_of_fitting", Path(__file__).with_name("stores.py"))
assert _spec is not None and _spec.loader is not None
stores = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stores)


async def stored(folder: Path, name: str, origin: str = "") -> Model:
    """A model as an import makes it."""
    async with stores.opened(folder) as catalog:
        made = await stores.take(catalog, stores.file(folder), name)
        found: Model = msgspec.structs.replace(made, origin=origin or made.origin)
        return found


async def test_a_stored_model_needs_what_its_plan_reserves(tmp_path: Path) -> None:
    model = await stored(tmp_path, "m")
    takes = need(model.shape)
    ctx = sizing.default_ctx(model.shape, 1)
    plan = sizing.plan(
        model.shape, model="m", ctx=ctx, parallel=1, cache_type="f16", cache_ram_mib=256, free_bytes=GIB,
        reserve_bytes=0, reserved_bytes=0,
    )  # fmt: skip
    assert takes == plan.plan_bytes
    for room, does in ((takes, True), (takes - 1, False)):
        (found,) = fits([model], [], room).models
        assert (found.stored, found.fits, found.plan_bytes) == (True, does, takes)


async def test_what_is_out_of_reach_and_what_is_copied_for_the_cpu_stand_beside_what_fits(tmp_path: Path) -> None:
    model = await stored(tmp_path, "m")
    away = msgspec.structs.replace(
        model, state="away", tier="fast", shape=msgspec.structs.replace(model.shape, repack_bytes=4096)
    )
    here, gone = fits([model, away], [], GIB).models
    assert (here.fits, here.there, here.repack_bytes) == (True, True, model.shape.repack_bytes)
    assert (gone.fits, gone.there, gone.state, gone.tier, gone.repack_bytes) == (True, False, "away", "fast", 4096)
    listed = [each for each in fits([], load(), GIB).models if each.quantization == "Q4_K_M"]
    assert all(each.there for each in listed)


async def test_a_stored_model_is_known_as_its_entry_by_where_it_came_from_and_not_by_its_name(tmp_path: Path) -> None:
    entries = load()
    entry = next(each for each in entries if each.repo and each.params and each.header)
    model = await stored(tmp_path, "anything", f"hf:{entry.repo}:Q4_K_M")
    model = msgspec.structs.replace(model, shape=shape_for(entry, "F16"), files=())
    assert fits([model], entries, GIB).models[0].entry == entry.name
    named = msgspec.structs.replace(model, name=entry.name, origin="/tmp/x.gguf")
    assert fits([named], entries, GIB).models[0].entry == ""


def test_an_entry_is_weighed_by_the_largest_file_that_fits_and_else_by_the_smallest() -> None:
    entries = load()
    for room in (1 * GIB, 8 * GIB, 1024 * GIB):
        for entry, found in zip(entries, fits([], entries, room).models, strict=True):
            assert found.name == entry.name and not found.stored
            takes = {
                each.quantization: need(shape) if (shape := shape_for(entry, each.quantization)) is not None else 0
                for each in entry.files
            }
            fitting = [each for each in entry.files if 0 < takes[each.quantization] <= room]
            assert found.fits == bool(fitting)
            if fitting:
                fine = [each for each in fitting if not each.quantization.startswith(COARSE)]
                assert found.bytes == max(each.bytes for each in fine or fitting)
            elif entry.files:
                assert found.bytes == min(each.bytes for each in entry.files)


def test_more_room_never_takes_one_away() -> None:
    entries = load()
    before: set[str] = set()
    for gib in (0, 1, 2, 4, 8, 16, 64, 2048):
        now = {each.name for each in fits([], entries, gib * GIB).models if each.fits}
        assert before <= now
        before = now
    assert len(before) > 20


def test_a_name_that_is_not_stored_is_told_with_what_the_catalogue_has_of_it() -> None:
    entry = next(each for each in load() if each.name == "qwen3-30b-a3b")
    (large,) = fits([], [entry], 1024 * GIB).models
    told = listed_as(entry.name, load(), 1024 * GIB)
    assert "is in the catalogue and fits: " in told and sizing.human(large.plan_bytes) in told
    assert told.endswith(f"corral models pull hf:{entry.repo}:{large.quantization} --name {entry.name}")
    assert "does not fit" in listed_as(entry.name, load(), GIB)
    assert listed_as("nosuch", load(), GIB) == ""
    assert "catalogue show" in listed_as(entry.name, [msgspec.structs.replace(entry, repo="")], GIB)
