"""What sizing learns from launches: from enough that agree, within a bound, and only until somebody revokes it."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.access import Gate, Rights
from core.audit import Audit
from core.catalog import corrections, sizing
from core.catalog.corrections import MOST, Corrections, Kind, learn
from core.errors import Conflict, NotAllowed, NotFound
from core.nouns import Actor, Grant, ModelShape, Subject
from core.paths import Paths
from core.store import Store

KIND = Kind("llama", "xllamacpp", "2026.1")
ANN, BOB = Actor(uid=1000, name="ann"), Actor(uid=1001, name="bob")
MIB = 1 << 20


def test_two_launches_teach_nothing_and_three_do() -> None:
    assert learn([1.1, 1.1]).correction == 0.0
    assert learn([1.1, 1.1, 1.1]).correction == pytest.approx(0.1)
    assert learn([0.9, 0.92, 0.91]).correction == pytest.approx(-0.09)


def test_what_is_within_a_hundredth_is_no_correction() -> None:
    assert learn([1.005] * 9).correction == 0.0


def test_a_correction_is_bounded_and_says_so() -> None:
    assert learn([1.4, 1.41, 1.42]) == (MOST, True, ())
    assert learn([0.5, 0.5, 0.5]) == (-MOST, True, ())


def test_an_outlier_is_kept_out_and_told() -> None:
    found = learn([1.03, 1.031, 2.5, 1.029])
    assert found.outliers == (2,)
    assert found.correction == pytest.approx(0.03)
    assert learn([1.03, 1.031, 2.5]).correction == 0.0  # two are too few


@given(st.lists(st.floats(0.01, 100), max_size=60))
def test_whatever_was_seen_the_correction_is_within_its_bound(ratios: list[float]) -> None:
    found = learn(ratios)
    assert -MOST <= found.correction <= MOST
    assert len(found.outliers) <= len(ratios) / 2


class House:
    """The service over a store, and what it recorded."""

    def __init__(self, store: Store, audit: Audit, gate: Gate) -> None:
        self.store, self.audit = store, audit
        self.corrections = Corrections(store, gate, clock=lambda: 1000.0)

    async def launch(self, number: int, measured: int, planned: int = 1000 * MIB, kind: Kind = KIND) -> None:
        def work(db: sqlite3.Connection) -> None:
            corrections.planned(db, f"l{number}", kind, "chat", planned, 10.0 + number)
            corrections.measured(db, f"l{number}", measured, 10.5 + number)

        await self.store.transact(work)
        await self.corrections.refresh()

    def now(self) -> float:
        return self.corrections.of(*KIND)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    paths = Paths(tmp_path / "home", tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir(parents=True, exist_ok=True)
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.catalog"))
    audit = Audit(store, paths)
    grant = Grant(id="g1", what="admin", subject=Subject(kind="user", name="ann", id=ANN.uid), by="root", at=0.0)
    yield House(store, audit, Gate(store, audit, Rights(mode="system", owner_uid=1, grants=[grant])))
    await store.close()


async def test_it_learns_by_architecture_and_build_and_from_what_the_formula_alone_said(house: House) -> None:
    for number in range(3):
        assert house.now() == 0.0
        await house.launch(number, 1100 * MIB)
    assert house.now() == pytest.approx(0.1)
    assert house.corrections.of("llama", "xllamacpp", "2026.2") == 0.0
    assert house.corrections.of("qwen2", "xllamacpp", "2026.1") == 0.0
    (found,) = house.corrections.ls()
    assert [each.launch for each in found.seen] == ["l2", "l1", "l0"]


async def test_a_small_launch_within_what_the_formula_promises_says_nothing_of_large_ones(house: House) -> None:
    """10 MiB of 200 are nothing, and 5 % of a model of 40 GiB are two more that admission would hold."""
    for number in range(5):
        await house.launch(number, 210 * MIB, planned=200 * MIB)
    assert house.now() == 0.0
    for number in range(5, 8):  # of a large one the same share is seen, and those of the small ones don't outvote it
        await house.launch(number, 2100 * MIB, planned=2000 * MIB)
    assert house.now() == pytest.approx(0.05)
    (found,) = house.corrections.ls()
    assert [each.small for each in found.seen] == [False] * 3 + [True] * 5
    assert not any(each.outlier for each in found.seen)
    assert "as 3 launches" in house.corrections.told("l7")
    for number in range(8, 20):  # what is more than it promises is wrong, however small the model
        await house.launch(number, 240 * MIB, planned=200 * MIB)
    assert house.now() == corrections.MOST


async def test_a_launch_counts_once_and_one_that_was_never_ready_not_at_all(house: House) -> None:
    await house.launch(1, 1100 * MIB)
    assert not await house.store.transact(lambda db: corrections.measured(db, "l1", 5000 * MIB, 50.0))
    assert not await house.store.transact(lambda db: corrections.measured(db, "stranger", MIB, 50.0))
    await house.launch(2, 0)
    (found,) = house.corrections.ls()
    assert [(each.launch, each.measured) for each in found.seen] == [("l1", 1100 * MIB)]


async def test_only_the_newest_launches_are_kept_and_those_of_others_stay(house: House) -> None:
    await house.launch(0, 1000 * MIB, kind=Kind("qwen2", "xllamacpp", "2026.1"))
    for number in range(1, corrections.KEPT + 8):
        await house.launch(number, (1500 if number < 8 else 900) * MIB)
    llama, other = house.corrections.ls()
    assert len(llama.seen) == corrections.KEPT and len(other.seen) == 1
    assert llama.correction == pytest.approx(-0.1) and not any(each.outlier for each in llama.seen)


async def test_what_was_revoked_is_not_used_until_it_is_restored_and_both_are_recorded(house: House) -> None:
    for number in range(3):
        await house.launch(number, 1100 * MIB)
    found = await house.corrections.revoke(ANN, "r1", KIND)
    assert (found.revoked_by, found.correction) == ("ann", pytest.approx(0.1))
    assert house.now() == 0.0
    await house.launch(3, 1100 * MIB)
    assert house.now() == 0.0
    with pytest.raises(Conflict, match="was revoked by ann"):
        await house.corrections.revoke(ANN, "r2", KIND)
    await house.corrections.restore(ANN, "r3", KIND)
    assert house.now() == pytest.approx(0.1)
    records = [each for each in await house.audit.ls() if each.verb == "models.corrections"]
    assert [each.outcome for each in sorted(records, key=lambda each: each.seq)] == ["done", "refused", "done"]


async def test_who_may_not_is_refused_and_what_is_not_there_is_not_found(house: House) -> None:
    for number in range(3):
        await house.launch(number, 1100 * MIB)
    with pytest.raises(NotAllowed):
        await house.corrections.revoke(BOB, "r", KIND)
    assert house.now() == pytest.approx(0.1)
    with pytest.raises(NotFound, match="nothing was learned"):
        await house.corrections.revoke(ANN, "r", Kind("novel", "xllamacpp", "2026.1"))


async def test_explain_says_what_a_launch_taught(house: House) -> None:
    for number, took in enumerate((1100, 1110, 1120, 3000)):
        await house.launch(number, took * MIB)
    assert "changed by +11.0%, as 3 launches" in house.corrections.told("l0")
    assert "does not learn from it (+200.0% of the formula)" in house.corrections.told("l3")
    assert house.corrections.told("unknown") == ""


def test_a_plan_holds_what_was_learned_in_all_its_figures() -> None:
    shape = ModelShape(
        arch="llama", n_layer=2, n_embd=64, n_ff=128, n_head=4, n_head_kv=(2, 2), key_length=16, value_length=16,
        n_vocab=100, ctx_train=4096, tensor_bytes=1000 * MIB,
    )  # fmt: skip
    asked = {"model": "m", "ctx": 4096, "parallel": 1, "cache_type": "f16", "cache_ram_mib": 0, "free_bytes": 8 << 30}
    asked |= {"reserve_bytes": 0, "reserved_bytes": 0}
    plain = sizing.plan(shape, **asked)
    changed = sizing.plan(shape, **asked, beside=sizing.Beside(correction=0.1))
    assert changed.parts.learned == round(0.1 * plain.ready_bytes)
    for figure in ("ready_bytes", "rss_bytes", "full_bytes"):
        assert getattr(changed, figure) - getattr(plain, figure) == changed.parts.learned
    assert changed.plan_bytes > plain.plan_bytes
    assert changed.correction == 0.1 and any("+10.0%" in note for note in changed.notes)
    assert changed.ready_bytes - changed.parts.learned == plain.ready_bytes  # what the next launch is compared with


def test_a_plan_holds_what_is_loaded_beside_the_model() -> None:
    shape = ModelShape(
        arch="llama", n_layer=2, n_embd=64, n_ff=128, n_head=4, n_head_kv=(2, 2), key_length=16, value_length=16,
        n_vocab=100, ctx_train=4096, tensor_bytes=1000 * MIB,
    )  # fmt: skip
    asked = {"model": "m", "ctx": 4096, "parallel": 1, "cache_type": "f16", "cache_ram_mib": 0, "free_bytes": 8 << 30}
    asked |= {"reserve_bytes": 0, "reserved_bytes": 0}
    plain = sizing.plan(shape, **asked)
    more = sizing.plan(shape, **asked, beside=sizing.Beside(projector=50 * MIB, adapters=7 * MIB))
    assert more.ready_bytes - plain.ready_bytes >= 57 * MIB
    assert any("projector" in note for note in more.notes)
