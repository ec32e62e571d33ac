"""What replicas answer corrects what is reckoned: read once, when their replica is idle, whatever else was asked."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hosts import SHAPE, host

from core.catalog import speeds as module
from core.catalog.speed import Seat
from core.catalog.speeds import Served, Speeds
from core.nouns import Model
from core.paths import Paths
from core.store import Store
from core.telemetry.usage import COLUMNS

MODEL = Model(
    name="m", version=1, sha256="abc", files=(), bytes=1, shape=SHAPE, licence="", origin="", imported_at=0.0,
    imported_by="",
)  # fmt: skip
SEAT = Seat(threads=1, parallel=4)
LINE: dict[str, Any] = {
    "id": "r", "time": 100.0, "uid": 1, "user": "ada", "groupname": "", "key": "", "deployment": "d", "model": "m",
    "version": 1, "node": "local", "replica": "d/0", "launch": "one", "path": "/v1/chat/completions", "status": 200,
    "outcome": "ok", "requests": 1, "prompt_tokens": 200, "cached_tokens": 0, "answer_tokens": 41, "estimated": 0,
    "queue_s": 0.0, "first_byte_s": 1.0, "first_token_s": 1.0, "total_s": 3.0, "core_s": 1.0,
}  # fmt: skip


class CatalogDouble:
    async def get(self, name: str) -> Model:
        return MODEL

    def path(self, model: Model) -> str:
        return "/nonexistent"


class Learner(Speeds):
    """Of one replica, which is busy when the test says so."""

    busy = False

    def __init__(self, store: Store) -> None:
        catalog: Any = CatalogDouble()
        super().__init__(store, catalog, "local", version=lambda engine: "1", served=self._says)

    def _says(self, launch: str) -> Served | None:
        if launch != "one":
            return None
        return Served(model="m", engine="xllamacpp", threads=1, parallel=4, cache_type="f16", busy=self.busy)

    async def answered(self, **changes: object) -> None:
        def put(db: sqlite3.Connection) -> None:
            marks = ", ".join("?" * len(COLUMNS))
            values = [(LINE | changes)[name] for name in COLUMNS]
            db.execute(f"INSERT INTO usage_lines ({', '.join(COLUMNS)}) VALUES ({marks})", values)

        await self._store.transact(put)


@pytest.fixture
async def learner(tmp_path: Path) -> AsyncIterator[Learner]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir(parents=True)
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.catalog", "core.telemetry"))
    made = Learner(store)
    await made.start()
    await store.transact(lambda db: made.put_host(db, host()))
    yield made
    await store.close()


async def test_an_answer_corrects_both_rates_once(learner: Learner) -> None:
    before = await learner.expect(MODEL, "xllamacpp", SEAT, users=1, ctx=220, prompt=200)
    await learner.answered()
    await learner.look()
    await learner.look()
    assert {(each.what, each.count) for each in learner.all_seen()} == {("decode", 1), ("prefill", 1)}
    after = await learner.expect(MODEL, "xllamacpp", SEAT, users=1, ctx=220, prompt=200)
    assert after.decode == pytest.approx(20.0, rel=0.02) and after.decode < before.decode
    assert after.prefill == pytest.approx(200.0, rel=0.1) and after.error < before.error


async def test_answers_of_a_busy_replica_wait_until_it_is_known_how_many_there_were(learner: Learner) -> None:
    learner.busy = True
    await learner.answered(id="a")
    await learner.look()
    assert learner.all_seen() == []
    learner.busy = False
    await learner.answered(id="b")
    await learner.look()
    assert [(each.what, each.users, each.count) for each in learner.all_seen()] == [("decode", 2, 2)]


async def test_what_tells_nothing_is_passed_over_and_not_read_again(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in (
        {"outcome": "error"}, {"estimated": 1}, {"first_token_s": None}, {"requests": 5}, {"launch": "gone"},
        {"answer_tokens": None},
    ):  # fmt: skip
        await learner.answered(**changes)
    await learner.look()
    assert learner.all_seen() == [] and learner._mark == 6 and learner._pending == {}
    monkeypatch.setattr(module, "AT_ONCE", 2)
    for n in range(5):
        await learner.answered(id=str(n), time=100.0 + 10 * n)
    for _ in range(3):
        await learner.look()
    assert {each.count for each in learner.all_seen()} == {5} and learner._mark == 11


async def test_the_next_daemon_knows_what_was_learned_and_begins_after_it(learner: Learner) -> None:
    await learner.answered()
    await learner.look()
    again = Learner(learner._store)
    await again.start()
    await again.look()
    assert again.all_seen() == learner.all_seen() and len(again.all_seen()) == 2
    assert msgspec.json.encode(again.host) == msgspec.json.encode(learner.host)
