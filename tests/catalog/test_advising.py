"""What is weighed: stored models that the catalogue knows, those that it does not, and every file that it lists."""

import importlib.util
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hosts import SHAPE, host

from core.catalog import curated
from core.catalog.advising import Advisor, check, work_of
from core.catalog.curated import shape_for
from core.catalog.pull import hub
from core.catalog.work import of_shape
from core.errors import Invalid, NotFound
from core.nouns import USES, Catalogue, LoadTime, Model, Wishes

GIB = 1 << 30
LIST = curated.read(None)


def model(name: str, origin: str = "", **shape: object) -> Model:
    given = msgspec.structs.replace(SHAPE, **shape)
    return Model(
        name=name, version=1, sha256="a", files=(), bytes=given.tensor_bytes, shape=given, licence="mit", origin=origin,
        imported_at=0.0, imported_by="",
    )  # fmt: skip


class SpeedsDouble:
    host = host()

    async def work(self, model: Model) -> Any:
        return of_shape(model.shape)

    def seen(self, sha256: str, engine: str) -> list[Any]:
        return []


def advisor(entries: Catalogue = LIST) -> Advisor:
    async def room() -> int:
        return 16 * GIB

    async def threads() -> int:
        return 4

    async def catalogue() -> Catalogue:
        return entries

    async def loads(models: Sequence[Model]) -> dict[str, LoadTime]:
        return {each.reference: LoadTime(tier="home", here=True, bytes=each.bytes, cold_s=4.0) for each in models}

    speeds: Any = SpeedsDouble()
    return Advisor(speeds, node="local", catalogue=catalogue, room=room, threads=threads, loads=loads)


async def test_there_are_five_for_whatever_has_five_and_each_has_figures() -> None:
    for use in ("general", "code", "mathematics"):
        found = await advisor().recommend(Wishes(use=use, users=2), [])
        assert len(found.choices) >= 5 and found.choices[0].quality is not None
        assert any(each.speed.known for each in found.choices)
        for each in found.choices:
            assert each.speed.known or any("speed is not known" in words for words in each.reasons)


async def test_a_stored_model_stands_for_its_entry_and_one_that_nobody_knows_is_weighed_too() -> None:
    entry = next(each for each in LIST.entries if each.name == "llama-3.2-1b-instruct")
    shape = shape_for(entry, entry.files[0].quantization)
    assert shape is not None
    mine = msgspec.structs.replace(model("mine", f"hf:{entry.repo}:Q4_K_M"), shape=shape)
    typed = model("qwen3-14b")
    found = await advisor().recommend(Wishes(use="general", limit=100), [mine, model("unheard-of"), typed])
    names = {each.name: each for each in found.choices}
    assert names[mine.name].stored and names[mine.name].title == entry.title and entry.name not in names
    assert names["unheard-of"].quality is None and names["unheard-of"].load_s == 4.0
    assert any("loads in 4.0 s" in words for words in names["unheard-of"].reasons)
    assert names[typed.name].quality is None and "called as Qwen3 14B" in names[typed.name].reasons[0]


async def test_what_a_pull_needs_is_said_once_where_something_is_to_be_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    notes = (await advisor().recommend(Wishes(use="general"), [])).notes
    (said,) = [each for each in notes if "huggingface-hub" in each]
    assert hub.lacking() and hub.lacking() in said
    alone = (await advisor(Catalogue(entries=(), advice={})).recommend(Wishes(use="general"), [model("mine")])).notes
    monkeypatch.undo()
    there = (await advisor().recommend(Wishes(use="general"), [])).notes
    assert not any("huggingface-hub" in each for each in (*alone, *there))


def test_the_work_of_an_entry_is_that_of_its_tensors() -> None:
    """Nearly as many weights as parameters that a token passes."""
    checked = 0
    for entry in LIST.entries:
        for file in entry.files[:1]:
            shape = shape_for(entry, file.quantization)
            if shape is None or not entry.active_params:
                continue
            work = work_of(entry, file.quantization, shape)
            passed = sum(work.layers.values()) + sum(work.output.values())
            if work.exact and set(entry.uses).isdisjoint(("embedding", "rerank", "vision")):
                table = shape.n_vocab * shape.n_embd
                assert entry.active_params - 2 * table <= passed <= entry.active_params * 1.05 + table, entry.name
                checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (Wishes(use="poetry"), "no use"), (Wishes(users=0), "users is 0"), (Wishes(users=1000), "users is 1000"),
        (Wishes(ctx=1), "context is 1"), (Wishes(ctx=1 << 30), "it may be 256 to 16777216"),
        (Wishes(prompt=0), "prompt is 0"), (Wishes(limit=0), "limit is 0"),
        (Wishes(memory=-1), "memory is -1"), (Wishes(min_speed=-1.0), "min-speed is -1"),
    ],
)  # fmt: skip
def test_wishes_that_mean_nothing_are_refused(wishes: Wishes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check(wishes)


async def test_another_node_is_not_there() -> None:
    with pytest.raises(NotFound, match="no node 'elsewhere'"):
        await advisor().recommend(Wishes(node="elsewhere"), [])


async def test_every_use_is_answered() -> None:
    """What it takes is told by bench_speed.py."""
    asked = advisor()
    for use in USES:
        began = time.process_time()
        found = await asked.recommend(Wishes(use=use, users=8), [])
        print(use, len(found.choices), round((time.process_time() - began) * 1000), "ms")
        assert found.plain and (found.choices or found.nearest)
