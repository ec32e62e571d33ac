"""Moves between tiers: one good copy at any moment, space that is never given out twice, nobody without a file."""

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from stores import ME, STRANGER, file, opened, take, until
from tiered import add, copies, disk, large, moved, sound

from core.catalog import Catalog, Use
from core.catalog.taking import Source
from core.catalog.tiers import Away, Rules, folder
from core.catalog.tiers.copying import Copying
from core.errors import Conflict, CorralError, NoRoom, NotFound
from core.nouns import HOME, MoveJob
from core.starts import record_start

MIB = 1 << 20


def slowed(monkeypatch: pytest.MonkeyPatch, when: str, hold: Callable[[], None]) -> None:
    """Have each copy call `hold` in its thread when it comes to `when`."""
    plain = Copying._tell

    def tell(self: Copying, state: str, count: int) -> None:
        if state == when:
            hold()
        plain(self, state, count)

    monkeypatch.setattr(Copying, "_tell", tell)


async def test_a_version_is_copied_read_back_switched_and_then_the_old_copy_goes(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    model = await take(catalog, large(tmp_path))
    with Path(catalog.path(model)).open("rb") as running:
        job = await moved(catalog, "m", "fast")
        assert (job.state, job.from_tier, job.to_tier, job.error) == ("done", HOME, "fast", None)
        assert len(running.read()) == model.bytes  # what runs keeps the old file
    found = await catalog.get("m")
    assert found.tier == "fast" and Path(catalog.path(found)).stat().st_mode & 0o777 == 0o444
    assert (fast / "objects").stat().st_mode & 0o777 == 0o711
    records = await catalog.audit.ls(object="model:m")  # type: ignore[attr-defined]
    assert [(each.verb, each.outcome) for each in records][-3:] == [
        ("models.move", "intent"), ("models.tier", "done"), ("models.move", "done"),
    ]  # fmt: skip
    assert (await catalog.history("m"))[0].what == "moved"
    await sound(catalog)
    with pytest.raises(Conflict, match="is on fast already"):
        await catalog.moves.start(ME, "r", "m", "fast")


@pytest.mark.parametrize("broken", [False, True])
async def test_whoever_hears_that_a_move_has_ended_may_move_it_again_at_once(
    catalog: Catalog, tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    await add(catalog, fast)
    await take(catalog, file(tmp_path))
    plain, heard = catalog.moves._publish, list[tuple[str, bool]]()

    def publish(job: MoveJob) -> None:
        heard.append((job.state, bool(catalog.moves._busy or catalog.tiers.ledger.live)))
        plain(job)

    monkeypatch.setattr(catalog.moves, "_publish", publish)
    if broken:
        monkeypatch.setattr("core.catalog.tiers.copying.cold.pieces", lambda path: iter([memoryview(b"other")]))
    await moved(catalog, "m", "fast")
    assert heard[-1] == ("failed" if broken else "done", False)


async def test_how_fast_a_move_goes_and_what_time_it_takes_yet_is_told_while_it_goes(
    catalog: Catalog, tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(catalog, fast)
    await take(catalog, large(tmp_path, mib=16))
    told, plain = list[MoveJob](), catalog.moves._publish
    monkeypatch.setattr("core.catalog.tiers.moving.PROGRESS_S", 0.0)
    monkeypatch.setattr(catalog.moves, "_publish", lambda job: [told.append(job), plain(job)])
    job = await moved(catalog, "m", "fast")
    for state in ("copying", "verifying"):
        going = [each for each in told if each.state == state]
        assert going[0].rate == 0 and going[0].left_s is None
        assert going[-1].rate > 0 and going[-1].left_s == 0 and going[-1].bytes_done == job.bytes_total
    assert (job.state, job.rate, job.left_s) == ("done", 0, None)


async def test_a_split_model_and_a_projector_that_two_share_move_whole(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    projector = file(tmp_path, 9, general__type="mmproj", general__architecture="clip")
    one = await take(catalog, file(tmp_path, 1), "one", projector=projector)
    await take(catalog, file(tmp_path, 2), "two", projector=projector)
    assert one.projector is not None
    assert (await moved(catalog, "one", "fast")).beside == (f"projector {one.projector.name}",)
    serving = await catalog.serving("two")
    assert serving.model.tier == HOME and serving.projector.startswith(str(fast)) and Path(serving.projector).exists()
    await sound(catalog)


async def test_what_others_made_of_the_same_bytes_takes_their_right_too(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    await take(catalog, file(tmp_path, 1), "one")
    await take(catalog, file(tmp_path, 1), "two")
    with pytest.raises(CorralError) as refused:
        await catalog.moves.start(STRANGER, "r", "one", "fast")
    assert isinstance(refused.value, NotFound)
    plan = await catalog.moves.plan(ME, "r", "one", "fast")
    assert (plan.state, plan.touches, plan.to_tier) == ("planned", ("two@1",), "fast")
    assert (await catalog.get("one")).tier == HOME and not catalog.moves.ls() and not catalog.tiers.ledger.live
    job = await moved(catalog, "one", "fast")
    assert job.touches == ("two@1",) and (await catalog.get("two")).tier == "fast"
    with pytest.raises(Conflict, match="on fast already"):
        await catalog.moves.plan(ME, "r", "one", "fast")
    last = (await catalog.audit.ls(verb="models.move"))[-1]  # type: ignore[attr-defined]
    assert (last.outcome, last.object) == ("refused", "model:one")


async def test_what_was_moved_is_told_by_the_history_of_each_after_the_daemons_end(tmp_path: Path, fast: Path) -> None:
    async with opened(tmp_path) as catalog:
        await add(catalog, fast)
        await take(catalog, file(tmp_path, 1), "one")
        await take(catalog, file(tmp_path, 1), "two")
        await moved(catalog, "one", "fast")
        assert [job.state for job in catalog.moves.ls()] == ["done"]
    async with opened(tmp_path) as catalog:
        assert catalog.moves.ls() == []
        for name in ("one", "two"):
            newest = (await catalog.history(name))[0]
            assert (newest.what, newest.version, newest.detail) == ("moved", 1, "from home to fast")


# ------------------------------------------------------------------------------------------------ what goes wrong


async def test_a_disk_that_gives_back_something_else_is_not_trusted(
    catalog: Catalog, tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(catalog, fast)
    model = await take(catalog, large(tmp_path))
    monkeypatch.setattr("core.catalog.tiers.copying.cold.pieces", lambda path: iter([memoryview(b"something else")]))
    job = await moved(catalog, "m", "fast")
    assert job.state == "failed" and job.error is not None and "not what was written" in job.error.what
    assert copies(catalog, model.sha256) == [HOME] and (await catalog.get("m")).tier == HOME
    await sound(catalog)


async def test_a_tier_that_goes_away_on_the_way_is_what_a_move_tells_and_nothing_is_left_of_it(
    catalog: Catalog, tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(catalog, fast)
    model = await take(catalog, large(tmp_path))
    gone = fast.with_name(fast.name + ".gone")
    with monkeypatch.context() as patch:
        plain = Copying._verify

        def verify(self: Copying, *args: object) -> None:
            fast.rename(gone)
            plain(self, *args)  # type: ignore[arg-type]

        patch.setattr(Copying, "_verify", verify)
        job = await moved(catalog, "m", "fast")
    try:
        assert job.error is not None and job.error.what == "the tier fast went away while m@1 was moved"
        assert (job.state, (await catalog.get("m")).tier, copies(catalog, model.sha256)) == ("failed", HOME, [HOME])
    finally:
        gone.rename(fast)
    assert not await catalog.tiers.here("fast")
    await sound(catalog)


async def test_a_file_that_has_rotted_is_not_carried_on(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    await add(catalog, fast)
    path = Path(catalog.path(await take(catalog, file(tmp_path))))
    path.chmod(0o600)
    with path.open("r+b") as rotten:
        rotten.seek(-1, os.SEEK_END)
        rotten.write(b"\xff")
    job = await moved(catalog, "m", "fast")
    assert job.error is not None and "not what it was" in job.error.what and (await catalog.get("m")).tier == HOME
    assert not list(fast.glob("objects/*/*")) and not list((fast / "incoming").iterdir())


@pytest.mark.parametrize("stage", ["copying", "verifying"])
async def test_a_cancelled_move_leaves_all_as_it_was(
    catalog: Catalog, tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    await add(catalog, fast)
    await take(catalog, large(tmp_path))
    slowed(monkeypatch, stage, lambda: catalog.moves._stop[job.id].set())
    job = await catalog.moves.start(ME, "r", "m", "fast")
    job = await catalog.moves.ended(job.id)
    assert job.state == "cancelled" and (await catalog.get("m")).tier == HOME
    records = await catalog.audit.ls(verb="models.move")  # type: ignore[attr-defined]
    assert [each.outcome for each in records] == ["intent", "interrupted"]
    await sound(catalog)


async def test_a_model_that_is_removed_on_its_way_leaves_nothing(
    catalog: Catalog, tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(catalog, fast)
    model = await take(catalog, large(tmp_path))
    there, go = threading.Event(), threading.Event()

    def hold() -> None:
        there.set()
        go.wait(20)

    slowed(monkeypatch, "verifying", hold)
    job = await catalog.moves.start(ME, "r", "m", "fast")
    with pytest.raises(Conflict, match="is on its way"):
        await catalog.moves.start(ME, "r", "m", "fast")
    await asyncio.to_thread(there.wait, 20)
    await catalog.rm(ME, "r", "m")
    go.set()
    job = await catalog.moves.ended(job.id)
    assert job.state == "failed" and copies(catalog, model.sha256) == []
    await sound(catalog)


async def test_the_old_copy_waits_for_an_engine_that_is_about_to_open_it(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    model = await take(catalog, file(tmp_path))
    opening = {"m@1"}
    catalog.moves.loading = lambda: opening
    job = await catalog.moves.start(ME, "r", "m", "fast")
    await until(lambda: catalog.moves.job(job.id).state == "freeing")
    assert copies(catalog, model.sha256) == ["fast", HOME] and (await catalog.get("m")).tier == "fast"
    opening.clear()
    assert (await catalog.moves.ended(job.id)).state == "done"
    await sound(catalog)


async def test_the_last_copy_stays_while_the_one_that_counts_is_out_of_reach(tmp_path: Path, fast: Path) -> None:
    """A kill between the switch and the end of the old copy, and then the new tier is not mounted."""
    async with opened(tmp_path) as catalog:
        await add(catalog, fast)
        model = await take(catalog, file(tmp_path))
        old = Path(catalog.path(model))
        data = old.read_bytes()
        await moved(catalog, "m", "fast")
    old.write_bytes(data)
    gone = fast.with_name(fast.name + ".gone")
    fast.rename(gone)
    async with opened(tmp_path) as catalog:
        assert old.exists()
        gone.rename(fast)
        assert not await catalog.tiers.here("fast")
        assert not old.exists(), "one copy is enough, as soon as that is seen"
        await sound(catalog)


# ------------------------------------------------------------------------------------------------ space


async def test_a_tier_without_room_refuses_or_spills(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    slow = fast / "slow"
    slow.mkdir(mode=0o700)
    (fast / "quick").mkdir(mode=0o700)
    await add(catalog, fast / "quick", capacity=5 * MIB)
    await take(catalog, large(tmp_path, 1), "one")
    await take(catalog, large(tmp_path, 2), "two")
    assert (await moved(catalog, "one", "fast")).state == "done"
    with pytest.raises(NoRoom, match="of 5 MiB of fast"):
        await catalog.moves.start(ME, "r", "two", "fast")
    await catalog.tiers.change(ME, "r", "fast", Rules(spill=HOME))
    with pytest.raises(NoRoom, match=r"of 5 MiB of fast .*; home, to which it spills, is where two@1 lies"):
        await catalog.moves.start(ME, "r", "two", "fast")
    await add(catalog, slow, "slow")
    await catalog.tiers.change(ME, "r", "fast", Rules(spill="slow"))
    job = await moved(catalog, "two", "fast")
    assert (job.asked, job.to_tier, (await catalog.get("two")).tier) == ("fast", "slow", "slow")
    assert len(job.spilled) == 1 and "of 5 MiB of fast" in job.spilled[0]
    await sound(catalog)


async def test_a_tier_that_is_away_is_not_told_to_be_full(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    for name in ("slow", "next"):
        (fast / name).mkdir(mode=0o700)
    await add(catalog, fast / "next", "next")
    await add(catalog, fast / "slow", "slow", spill=HOME, landing=True)
    (fast / "slow" / folder.MARKER).unlink()
    job = await catalog.imports.start(ME, "r", Source(file(tmp_path), origin="f"), "m")
    job = await catalog.imports.ended(job.id)
    assert job.model is not None and job.model.tier == HOME
    assert job.spilled[0].startswith("the tier slow is not there (")
    uploaded = await catalog.imports.start_upload(ME, "r", "up", [("a.gguf", MIB)])
    assert uploaded.spilled == job.spilled
    await catalog.imports.cancel(uploaded.id)
    with pytest.raises(Away, match=r"the tier slow is not there; .*home, to which it spills, is where m@1 lies; mount"):
        await catalog.moves.start(ME, "r", "m", "slow")
    await catalog.tiers.change(ME, "r", "slow", Rules(spill="next"))
    plan = await catalog.moves.plan(ME, "r", "m", "slow")
    assert plan.to_tier == "next" and plan.spilled == job.spilled
    await catalog.tiers.change(ME, "r", "next", Rules(capacity=1000))
    with pytest.raises(Away, match=r"the tier slow is not there; .*of 1000 B of next 0 B are stored"):
        await catalog.moves.start(ME, "r", "m", "slow")
    await sound(catalog)


async def test_an_import_lands_where_the_rule_says_and_spills_too(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    await add(catalog, fast, landing=True, capacity=5 * MIB)
    assert (await take(catalog, large(tmp_path, 1), "one")).tier == "fast"
    job = await catalog.imports.start(ME, "r", Source(large(tmp_path, 2), origin="f"), "two")
    job = await catalog.imports.ended(job.id)
    assert job.state == "failed" and job.error is not None and job.error.code == "no_room"
    with pytest.raises(NoRoom):
        await catalog.imports.start_upload(ME, "r", "three", [("a.gguf", MIB)])
    await catalog.tiers.change(ME, "r", "fast", Rules(spill=HOME))
    job = await catalog.imports.start(ME, "r", Source(large(tmp_path, 2), origin="f"), "two")
    job = await catalog.imports.ended(job.id)
    assert job.model is not None and job.model.tier == HOME
    assert len(job.spilled) == 1 and "of 5 MiB of fast" in job.spilled[0]
    await sound(catalog)


async def test_an_upload_is_promised_its_room_once_and_gives_it_back(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast, landing=True, capacity=5 * MIB)
    data = large(tmp_path).read_bytes()

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    job = await catalog.imports.start_upload(ME, "r", "up", [("a.gguf", len(data))])
    assert (await catalog.tiers.get("fast")).reserved_bytes == len(data)
    await catalog.imports.write(ME, job.id, 0, pieces())
    job = await catalog.imports.ended(job.id)
    assert job.state == "done" and job.model is not None and job.model.tier == "fast"
    await catalog.rm(ME, "r", "up")
    other = await catalog.imports.start_upload(ME, "r", "up", [("a.gguf", len(data))])
    await catalog.imports.cancel(other.id)
    await sound(catalog)


async def test_two_users_import_the_same_file_at_once(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    """One from a file that the daemon reads, the other's `corral` sends it; both under one name, and once more."""
    bob = msgspec.structs.replace(ME, uid=1235, name="bob")
    await add(catalog, fast, landing=True)
    source = large(tmp_path)
    data = source.read_bytes()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), MIB):
            yield data[at : at + MIB]

    sent = await catalog.imports.start_upload(bob, "r2", "one", [("large-0.gguf", len(data))])
    read = [await catalog.imports.start(ME, "r1", Source(source, origin="f"), name) for name in ("one", "two")]
    await catalog.imports.write(bob, sent.id, 0, pieces())
    done = [await catalog.imports.ended(job.id) for job in (sent, *read)]
    assert sorted(job.state for job in done) == ["done", "done", "failed"]
    (failed,) = [job for job in done if job.state == "failed"]
    assert failed.name == "one" and failed.error is not None and "is the same already" in failed.error.what
    assert (await catalog.tiers.get("fast")).objects == 1
    told = await catalog.audit.ls(verb="models.import")  # type: ignore[attr-defined]
    assert sorted((each.actor, each.outcome) for each in told if each.outcome == "intent") == [
        ("ada", "intent"), ("ada", "intent"), ("bob", "intent"),
    ]  # fmt: skip
    await sound(catalog)


async def test_promises_hold_against_each_other_on_one_disk(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    ledger = catalog.tiers.ledger
    await add(catalog, fast, capacity=10 * MIB)
    first = await ledger.reserve("fast", 6 * MIB, "a", "a")
    with pytest.raises(NoRoom, match="6 MiB promised"):
        await ledger.reserve("fast", 6 * MIB, "b", "b")
    await ledger.release(first)
    await ledger.release(await ledger.reserve("fast", 6 * MIB, "b", "b"))
    free = (await catalog.tiers.get(HOME)).free_bytes
    most = await ledger.reserve(HOME, free * 3 // 4, "c", "c")
    with pytest.raises(NoRoom, match="the disk of home"):
        await ledger.reserve(HOME, free * 3 // 4, "d", "d")
    most.wrote = most.bytes
    await ledger.release(most)


async def test_a_disk_that_fills_up_on_the_way_ends_a_move_and_leaves_nothing(catalog: Catalog, tmp_path: Path) -> None:
    with disk(tmp_path.parent / f"{tmp_path.name}-small", "6m") as small:
        await add(catalog, small)
        await take(catalog, large(tmp_path))
        plain = Copying._write

        def write(self: Copying, source: Path, target: Path) -> None:
            (small / "somebody-elses").write_bytes(b"x" * (4 * MIB))
            plain(self, source, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Copying, "_write", write)
            job = await moved(catalog, "m", "fast")
        assert job.state == "failed" and job.error is not None and job.error.code == "no_room"
        assert (await catalog.get("m")).tier == HOME and not list(small.glob("incoming/*"))
        with pytest.raises(NoRoom, match="the disk of fast has"):
            await catalog.moves.start(ME, "r", "m", "fast")
        (small / "somebody-elses").unlink()
        assert (await moved(catalog, "m", "fast")).state == "done"
        await sound(catalog)
        await moved(catalog, "m", HOME)


async def test_a_read_only_tier_is_read_and_takes_nothing(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.catalog.tiers.watching.LOOK_S", 0.01)
    watch = asyncio.create_task(catalog.tiers.run())
    with disk(tmp_path.parent / f"{tmp_path.name}-ro", "40m") as place:
        await add(catalog, place)
        model = await take(catalog, file(tmp_path, 1), "one")
        await take(catalog, file(tmp_path, 2), "two")
        await moved(catalog, "one", "fast")
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        assert (await catalog.tiers.get("fast")).state == "read-only"
        assert Path((await catalog.serving("one")).path).exists()
        with pytest.raises(Conflict, match="takes no changes"):
            await catalog.moves.start(ME, "r", "two", "fast")
        assert (await catalog.tiers.check("fast")).faults[0].what == "read-only"
        job = await moved(catalog, "one", HOME)
        assert job.state == "done" and copies(catalog, model.sha256) == ["fast", HOME]
        assert job.left_bytes == model.bytes
        await asyncio.sleep(0.3)
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        async with asyncio.timeout(20):
            while copies(catalog, model.sha256) != [HOME]:
                await asyncio.sleep(0.02)
        watch.cancel()
        await sound(catalog)


async def test_a_tier_that_is_forgotten_tells_what_stays_in_it(catalog: Catalog, tmp_path: Path) -> None:
    with disk(tmp_path.parent / f"{tmp_path.name}-ro", "40m") as place:
        await add(catalog, place)
        model = await take(catalog, file(tmp_path, 1), "one")
        assert (await moved(catalog, "one", "fast")).left_bytes == 0
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        await moved(catalog, "one", HOME)
        assert await catalog.tiers.rm(ME, "r", "fast") == model.bytes


# ------------------------------------------------------------------------------------------------ what is unused


async def test_what_nobody_has_launched_for_long_makes_room(tmp_path: Path, fast: Path) -> None:
    now = [1e9]
    async with opened(tmp_path, clock=lambda: now[0]) as catalog:
        await add(catalog, fast, landing=True)
        for n, name in enumerate(("idle", "used", "runs", "young")):
            if name == "young":
                now[0] += 29 * 86400
            await take(catalog, file(tmp_path, n), name)
        with pytest.raises(Conflict, match="no rule"):
            await catalog.demoting.demote(ME, "r", "fast", dry_run=True)
        await catalog.tiers.change(ME, "r", "fast", Rules(demote_days=30, demote_to=HOME))
        await catalog.loads.begin("used@1")
        catalog._uses.all = lambda db: [Use("d", "runs", 1)]
        now[0] += 2 * 86400
        assert (await catalog.demoting.demote(ME, "r", "fast", dry_run=True)).moved == ("idle@1",)
        await catalog.demoting.look()
        assert {m.name: m.tier for m in await catalog.ls() if m.tier == HOME} == {"idle": HOME}
        (record,) = await catalog.audit.ls(verb="tiers.demote")  # type: ignore[attr-defined]
        assert record.outcome == "done" and record.actor == "corral"
        await catalog.demoting.look()  # once a day
        assert len(await catalog.audit.ls(verb="tiers.demote")) == 1  # type: ignore[attr-defined]
        await sound(catalog)


# ------------------------------------------------------------------------------------------------ any order


class Ledger(RuleBasedStateMachine):
    """Whatever is stored, moved, removed, promised and unmounted in whatever order, and whenever a daemon begins anew:
    no tier holds or promises more than it takes, and each version has its last copy."""

    folder: Path
    other: Path

    @initialize()
    def begin(self) -> None:
        for path in (self.folder, self.other):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o700)
        (self.folder / "fast").mkdir(mode=0o700)
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.promised: list[object] = []
        self.catalog = self.do(self.stack.enter_async_context(opened(self.folder / "state")))
        self.size = file(self.folder, 0).stat().st_size
        self.do(add(self.catalog, self.other, "slow", capacity=3 * self.size))
        self.do(add(self.catalog, self.folder / "fast", capacity=2 * self.size, spill="slow"))

    def do(self, work):  # type: ignore[no-untyped-def]
        return self.loop.run_until_complete(work)

    def attempt(self, work) -> None:  # type: ignore[no-untyped-def]
        with suppress(CorralError):
            self.do(work)

    @rule(n=st.integers(0, 4), landing=st.sampled_from(["fast", "slow", HOME]))
    def store(self, n: int, landing: str) -> None:
        async def work() -> None:
            await self.catalog.tiers.change(ME, "r", landing, Rules(landing=True))
            job = await self.catalog.imports.start(ME, "r", Source(file(self.folder, n), origin="f"), f"m{n}")
            await self.catalog.imports.ended(job.id)

        self.attempt(work())

    @rule(n=st.integers(0, 4), to=st.sampled_from(["fast", "slow", HOME]))
    def move(self, n: int, to: str) -> None:
        self.attempt(moved(self.catalog, f"m{n}", to))

    @rule(n=st.integers(0, 4))
    def remove(self, n: int) -> None:
        self.attempt(self.catalog.rm(ME, "r", f"m{n}"))

    @rule(tier=st.sampled_from(["fast", "slow"]), share=st.sampled_from([0.3, 1.0, 1.5]))
    def promise(self, tier: str, share: float) -> None:
        async def work() -> None:
            id = f"p{len(self.promised)}"
            self.promised.append(await self.catalog.tiers.ledger.find(tier, int(share * self.size), id, "it"))

        self.attempt(work())

    @rule()
    def give_back(self) -> None:
        if self.promised:
            self.do(self.catalog.tiers.ledger.release(self.promised.pop()))  # type: ignore[arg-type]

    @rule()
    def unmount(self) -> None:
        gone = self.other.with_name(self.other.name + ".gone")
        if self.other.exists():
            self.other.rename(gone)
        else:
            gone.rename(self.other)
        self.do(self.catalog.tiers.here("slow"))

    @rule()
    def begin_anew(self) -> None:
        self.do(self.stack.aclose())
        self.promised.clear()
        self.stack = AsyncExitStack()
        self.catalog = self.do(self.stack.enter_async_context(opened(self.folder / "state")))

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "catalog"):
            return
        for tier in self.do(self.catalog.tiers.ls()):
            assert not tier.capacity or tier.stored_bytes + tier.reserved_bytes + tier.aside_bytes <= tier.capacity
        for model in self.do(self.catalog.all()):
            if model.state != "away":
                assert Path(self.catalog.path(model)).stat().st_size == model.bytes
                assert copies(self.catalog, model.sha256) == [model.tier]

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.do(self.stack.aclose())
            self.loop.close()
            gone = self.other.with_name(self.other.name + ".gone")
            shutil.rmtree(gone, ignore_errors=True)


def test_no_tier_is_overcommitted_and_no_last_copy_lost_in_any_order(tmp_path: Path, fast: Path) -> None:
    class Here(Ledger):
        folder, other = tmp_path / "here", fast / "other"

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Here, settings=settings(max_examples=12, stateful_step_count=12, suppress_health_check=list(HealthCheck))
    )


async def test_the_history_tells_of_a_move_that_the_end_of_a_daemon_interrupted(tmp_path: Path) -> None:
    """Once, and not of one that had switched over, which stands there as moved. One of a model that was removed since
    keeps no daemon from its start."""
    async with opened(tmp_path) as catalog:
        await take(catalog, file(tmp_path, 1))
        start = partial(record_start, catalog._store, catalog._gate, catalog.audit, catalog._paths)  # type: ignore[attr-defined]
        await start()
        for name, tier in (("m", "fast"), ("m", HOME), ("gone", "fast")):
            await catalog._gate.intent(
                ME, "models.move", f"model:{name}", "r", before={"version": 1, "tier": HOME},
                after={"version": 1, "tier": tier, "bytes": 1},
            )  # fmt: skip
        await start()
        await start()
        told = [each for each in await catalog.history("m") if each.what == "interrupted"]
        assert [(each.by, each.version) for each in told] == [("ada", 1)]
        assert told[0].detail == "the move from home to fast: the daemon ended; it stays where it was"
