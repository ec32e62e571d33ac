"""Measurements as jobs: real launches of a double of an engine, admitted, one at a time, cancelled, kept."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hosts import SHAPE, host

from core.access import Gate, Rights
from core.audit import Audit
from core.catalog import hostbench, trial
from core.catalog.bench import ENDED, Benches, Grid
from core.catalog.service import Serving
from core.catalog.speeds import Speeds
from core.engines.base import Command, EngineRegistry, LaunchPlan
from core.engines.xllamacpp import XLlamaCpp
from core.errors import Conflict, CorralError, Invalid, NoRoom, NotFound
from core.events import Bus
from core.nodes.local import Local
from core.nodes.proc import start_time
from core.nouns import Actor, BenchJob, HostBench, Model, Seen
from core.paths import Paths
from core.settings import EnginesTable
from core.store import Store

EVE = Actor(uid=99, name="eve")
ME = Actor(uid=1234, name="ada", groups=(0,))
MODEL = Model(
    name="m", version=1, sha256="abc", files=(), bytes=1, shape=SHAPE, licence="", origin="", imported_at=0.0,
    imported_by="",
)  # fmt: skip
ENGINE = str(Path(__file__).with_name("speaking_engine.py"))


class Speaking(XLlamaCpp):
    """Started as the real one, and it is the double."""

    env: dict[str, str] = {}

    def command(self, plan: LaunchPlan) -> Command:
        return Command(argv=(sys.executable, "-I", ENGINE), env={"PATH": "/usr/bin:/bin", **self.env})


class CatalogDouble:
    async def get(self, name: str) -> Model:
        if name != MODEL.name:
            raise NotFound(f"no model {name!r}")
        return MODEL

    async def serving(self, name: str) -> Serving:
        return Serving(await self.get(name), "/nonexistent/m.gguf", "", (), "")

    def path(self, model: Model) -> str:
        return "/nonexistent/m.gguf"


class House:
    """A daemon's measurements."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder, folder / "corral.toml", "0badcafe")
        for each in (self.paths.state, self.paths.launches, self.paths.records, self.paths.models):
            each.mkdir(parents=True, exist_ok=True)
        self.node = Local(self.paths)
        self.engine = Speaking(EnginesTable())
        self.room = 1 << 40
        self.lent: list[int] = []

    @contextlib.asynccontextmanager
    async def lend(self, need: int, what: str) -> AsyncIterator[None]:
        if need > self.room:
            raise NoRoom(f"{what} does not fit", "it is too large")
        self.lent.append(need)
        yield

    async def open(self) -> None:
        packages = ("core.store", "core.audit", "core.catalog", "core.telemetry")
        self.store = await Store.open(self.paths, packages=packages)
        self.audit = Audit(self.store, self.paths)
        gate = Gate(self.store, self.audit, Rights(mode="user", owner_uid=ME.uid))
        catalog: object = CatalogDouble()
        self.speeds = Speeds(
            self.store, catalog, "local", version=lambda engine: "1", served=lambda launch: None
        )  # fmt: skip
        await self.speeds.start()
        self.benches = Benches(
            self.store, gate, Bus(), self.node, EngineRegistry([self.engine]), catalog, self.speeds,
            folder=self.paths.models / "probes", lend=self.lend, running=lambda: 2, ready_s=lambda: 20.0,
        )  # fmt: skip
        await self.benches.start()
        self.watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for _ in self.node.watch():
            pass

    async def close(self) -> None:
        await self.benches.close()
        self.watching.cancel()
        await asyncio.gather(self.watching, return_exceptions=True)
        await self.store.close()

    async def ended(self, job: BenchJob) -> BenchJob:
        async with asyncio.timeout(60):
            while self.benches.job(job.id).state not in ENDED:
                await asyncio.sleep(0.01)
        return self.benches.job(job.id)

    async def measure(self, **grid: object) -> BenchJob:
        given = {"threads": (1,), "parallel": (1, 2), "ctx": (256,)} | grid
        return await self.ended(await self.benches.measure_model(ME, "r", "m", Grid(**given)))

    async def outcomes(self, verb: str) -> list[str]:
        return [each.outcome for each in await self.audit.ls(limit=100) if each.verb == verb]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_a_curve_is_measured_kept_recorded_and_leaves_nothing(house: House) -> None:
    job = await house.measure()
    assert job.state == "done" and job.error is None, job.error
    assert job.bench is not None and [(each.parallel, each.ctx) for each in job.bench.points] == [(1, 256), (2, 256)]
    for each in job.bench.points:
        assert (
            each.filled > 100
            and 0 < each.each < 1001
            and each.total == pytest.approx(each.parallel * each.each, abs=0.1)
        )
        assert each.ttft_s > 0 and each.prefill > 0
    assert job.bench.replicas == 2 and await house.speeds.benches("abc") == [job.bench]
    assert await house.node.launches() == [] and len(house.lent) == 2
    assert sorted(await house.outcomes("models.bench")) == ["done", "intent"]


async def test_what_was_measured_is_learned_of_and_known_to_the_next_daemon(house: House) -> None:
    await house.store.transact(lambda db: house.speeds.put_host(db, host()))
    job = await house.measure()
    assert job.bench is not None and job.bench.points[0].expected > 0
    seen = house.speeds.all_seen()
    rates = {each.users: each.rate for each in seen if each.what == "decode"}
    for point in job.bench.points:  # a double may be so fast that it lies beyond what is taken for a measurement
        assert rates.get(point.parallel, point.each) == point.each
    again = Speeds(house.store, house.speeds._catalog, "local", version=lambda engine: "1", served=lambda launch: None)
    await again.start()
    assert again.host == host() and again.all_seen() == seen


async def test_a_new_measurement_of_the_host_forgets_what_was_compared_with_the_old_one(house: House) -> None:
    await house.measure()
    assert {each.what for each in house.speeds.all_seen()} == {"decode", "prefill"}
    await house.store.transact(lambda db: house.speeds.put_host(db, host()))
    assert house.speeds.all_seen() == [] and house.speeds.host == host()


async def test_what_does_not_fit_is_left_out_and_said_and_where_nothing_fits_it_fails(house: House) -> None:
    house.room = 330 << 20
    job = await house.measure(parallel=(1, 64), ctx=(8192,))
    assert job.state == "failed" and job.error is not None and job.error.code == "no_room"
    job = await house.measure(parallel=(1, 64), ctx=(256,))
    assert job.bench is not None and [each.parallel for each in job.bench.points] == [1]
    assert "64 at once" in job.bench.left_out[0]
    assert "failed" in await house.outcomes("models.bench")


async def test_one_at_a_time_and_a_cancelled_one_leaves_nothing(house: House) -> None:
    house.engine.env = {"DOUBLE_TOKEN_S": "5"}
    job = await house.benches.measure_model(ME, "r", "m", Grid(threads=(1,), ctx=(256,)))
    with pytest.raises(Conflict, match="measured already"):
        await house.benches.measure_model(ME, "r", "m", Grid(threads=(1,), ctx=(256,)))
    with pytest.raises(Conflict, match="corral models bench m --cancel"):
        await house.benches.measure_host(ME, "r")
    with pytest.raises(Conflict) as told:
        await house.benches.measure_host(EVE, "r")
    assert "model:m" not in str(told.value), "whoever may not see it hears no name"
    async with asyncio.timeout(30):
        while not await house.node.launches():
            await asyncio.sleep(0.01)
    assert (await house.benches.cancel(ME, job.id)).state == "cancelled"
    async with asyncio.timeout(30):
        while await house.node.launches():
            await asyncio.sleep(0.01)
    assert await house.speeds.benches("abc") == [] and "interrupted" in await house.outcomes("models.bench")
    assert "ada cancelled it" in [each.reason for each in await house.audit.ls(limit=100)]
    assert (await house.benches.cancel(ME, job.id)).state == "cancelled"  # an ended one stays as it is


async def test_the_points_of_a_cancelled_one_teach_nothing(house: House) -> None:
    job = await house.benches.measure_model(ME, "r", "m", Grid(threads=(1,), parallel=(1, 2, 4), ctx=(256,)))
    async with asyncio.timeout(30):
        while house.benches.job(job.id).done < 1:  # one of its points was measured
            await asyncio.sleep(0.01)
    assert (await house.benches.cancel(ME, job.id)).state == "cancelled"
    assert house.speeds.all_seen() == [] and await house.speeds.benches("abc") == []


async def test_who_cancels_one_that_is_being_kept_comes_too_late(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    keep, at = house.speeds.keep_bench, asyncio.Event()

    async def slowly(*given: Any) -> None:
        at.set()
        await asyncio.sleep(0.05)
        await keep(*given)

    monkeypatch.setattr(house.speeds, "keep_bench", slowly)
    job = await house.benches.measure_model(ME, "r", "m", Grid(threads=(1,), parallel=(1,), ctx=(256,)))
    async with asyncio.timeout(30):
        await at.wait()
    assert (await house.benches.cancel(ME, job.id)).state == "done"
    assert len(await house.speeds.benches("abc")) == 1 and house.speeds.all_seen()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (host(hidden=(0.5, -2.0, 0.5)), "hindered each other beyond belief"),
        (msgspec.structs.replace(host(), load=2.2, beside=tuple(
            msgspec.structs.replace(row, spread=18.63) for row in host().beside)), "lay 1863% apart with 1 threads"),
        (msgspec.structs.replace(host(), rates=tuple(
            msgspec.structs.replace(row, one=row.one / (50 if row.kind == "F16" else 1)) for row in host().rates
        )), "50-fold apart"),
    ],
)  # fmt: skip
async def test_a_measurement_of_which_nothing_can_be_reckoned_is_kept_by_force_alone(
    house: House, monkeypatch: pytest.MonkeyPatch, made: HostBench, words: str
) -> None:
    async def measure(*given: object, **more: object) -> HostBench:
        return made

    monkeypatch.setattr(hostbench, "measure", measure)
    await house.store.transact(lambda db: house.speeds.put_host(db, host()))
    job = await house.ended(await house.benches.measure_host(ME, "r"))
    assert job.state == "failed" and job.error is not None and words in job.error.why
    assert "--force" in job.error.todo and house.speeds.host == host()
    job = await house.ended(await house.benches.measure_host(ME, "r", force=True))
    assert job.state == "done" and house.speeds.host == made


async def test_an_engine_that_does_not_start_says_why(house: House) -> None:
    house.engine.env = {"DOUBLE_FAILS": "1"}
    job = await house.measure()
    assert job.state == "failed" and job.error is not None
    assert "cheese" in job.error.why and await house.node.launches() == []


async def test_the_next_daemon_ends_what_a_killed_one_left(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.engine.env = {"DOUBLE_TOKEN_S": "5"}
    await house.benches.measure_model(ME, "r", "m", Grid(threads=(1,), ctx=(256,)))
    async with asyncio.timeout(30):
        while not (found := await house.node.launches()) or found[0].pid is None:
            await asyncio.sleep(0.01)
    monkeypatch.setattr(trial, "_finish", _nothing)  # as a killed daemon: nobody ends anything
    await house.benches.close()
    (left,) = await house.node.launches()
    assert left.pid is not None and house.node.lives(left.id)
    (house.paths.models / "probes").mkdir()
    await house.benches.start()
    assert await house.node.launches() == [] and not (house.paths.models / "probes").exists()
    assert start_time(left.pid) is None


async def _nothing(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid(threads=(0,)), "threads is 0"), (Grid(threads=(4096,)), "threads is 4096"),
        (Grid(parallel=(65,)), "parallel is 65"), (Grid(ctx=(100,)), "ctx is 100"), (Grid(ctx=(1 << 20,)), "ctx is"),
        (Grid(parallel=()), "0 points"),
        (Grid(parallel=tuple(range(1, 65)), threads=(1,), ctx=(256, 512)), "128 points"),
        (Grid(engine="nosuch"), "no engine"),
    ],
)  # fmt: skip
async def test_a_grid_that_cannot_be_measured_is_refused(house: House, grid: Grid, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await house.benches.measure_model(ME, "r", "m", grid)
    with pytest.raises(CorralError):
        await house.benches.measure_model(ME, "r", "another", Grid())


async def test_seen_of_another_build_corrects_nothing(house: House) -> None:
    await house.measure()
    (one, *_) = house.speeds.all_seen()
    assert isinstance(one, Seen) and house.speeds.seen("abc", "xllamacpp")
    house.speeds._builds.clear()
    house.speeds._version = lambda engine: "2"
    assert house.speeds.seen("abc", "xllamacpp") == []
    assert msgspec.structs.replace(one, version="2") != one
