"""Pulls end with a model that is what it should be, or with a reason, over every cut; nothing else is left."""

import asyncio
import hashlib
from pathlib import Path
from types import SimpleNamespace

import gguf_maker as maker
import msgspec
import pytest
from hub_double import Fault, HubDouble
from pullworld import BOB, ME, NAME, REPO, SOURCE, World, model

from core.catalog import files
from core.catalog.pull import download, later, rows
from core.catalog.tiers import ledger
from core.errors import Conflict, NoRoom, NotFound, StoreError
from core.nouns import ImportOptions
from core.settings import PullTable

pytestmark = pytest.mark.usefixtures("small_steps")


@pytest.fixture
def data(hub: HubDouble) -> bytes:
    """A model of 200 KB in a repository of its own, and on the plain server."""
    made = model(200_000)
    hub.repos[REPO] = {NAME: made, "README.md": b"hello"}
    hub.licence[REPO] = "apache-2.0"
    hub.files["tiny.gguf"] = made
    return made


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def first_range(hub: HubDouble, server: str = "cdn") -> int:
    """From which byte on the newest request for bytes asked, the look at a header left out."""
    asked = [each.range for each in hub.of(server) if not each.range.startswith("bytes=0-")]
    return int(asked[-1].removeprefix("bytes=").rstrip("-") or 0) if asked[-1] else 0


async def test_a_repository_becomes_a_model_with_its_origin_and_a_record(
    world: World, hub: HubDouble, data: bytes
) -> None:
    done = await world.pulled(SOURCE)
    assert done.state == "done", done.error
    stored = await world.catalog.get("m")
    assert stored.sha256 == sha(data)
    assert (stored.origin, stored.licence) == (f"{SOURCE}:Q4_0@{hub.commit(REPO)}", "apache-2.0")
    assert world.left_over() == [f"objects/{sha(data)[:2]}/{sha(data)}"]
    told = [r for r in await world.audit.ls() if r.verb == "models.pull"]
    assert [r.outcome for r in told] == ["intent", "done"]
    assert told[0].after["files"] == [{"name": NAME, "bytes": len(data), "sha256": sha(data)}]
    assert told[1].after == {"sha256": sha(data), "revision": hub.commit(REPO), "source": SOURCE}


async def test_a_file_of_another_quantisation_than_was_asked_for_is_said_and_shown_as_it_is(
    world: World, hub: HubDouble
) -> None:
    hub.repos[REPO] = {"tiny-Q8_0.gguf": model(2000, **{"general.file_type": 3})}
    done = await world.pulled(f"{SOURCE}:Q8_0")
    assert done.state == "done" and done.quantization == "Q4_1" and done.model is not None
    assert "it is named Q8_0, and its header says Q4_1" in done.model.flags
    assert done.model.origin == f"{SOURCE}:Q8_0@{hub.commit(REPO)}"


async def test_the_name_is_the_repositorys_and_a_licence_in_the_header_is_the_one(
    world: World, hub: HubDouble, data: bytes
) -> None:
    hub.licence[REPO] = "mit"
    done = await world.pulled(SOURCE, name=None)
    assert done.name == "tiny" and (await world.catalog.get("tiny")).licence == "apache-2.0"


async def test_a_cut_connection_is_gone_on_with_where_it_broke(world: World, hub: HubDouble, data: bytes) -> None:
    hub.faults += [Fault(cut=60_000), Fault(cut=20_000), Fault(cut=0)]
    done = await world.pulled(SOURCE)
    assert done.state == "done", done.error
    asked = [each for each in hub.of("cdn") if not each.range.startswith("bytes=0-")]
    assert [bool(each.range) for each in asked] == [False, True, True, True]
    assert all(each.if_range.startswith('"') for each in asked[1:])
    assert any("tried again" in note for note in done.notes)


async def test_a_daemon_that_ends_is_gone_on_with_by_the_next(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await world.stands(SOURCE)
    await world.close()
    world.flows()
    await world.open()
    done = await world.ended(pull)
    assert done.state == "done", done.error
    assert first_range(hub) >= 80_000
    outcomes = [r.outcome for r in await world.audit.ls() if r.verb == "models.pull"]
    assert outcomes == ["intent", "interrupted", "intent", "done"]


async def test_what_was_not_synced_does_not_count(world: World, hub: HubDouble, data: bytes) -> None:
    """A host that lost power has holes where bytes should be."""
    pull = await world.stands(SOURCE)
    await world.close()
    part = world.paths.models / "pulls" / pull.id / NAME
    kept = download.read_kept(part)
    assert kept is not None
    with part.open("r+b") as file:
        file.truncate(30_000)
        file.truncate(150_000)
    download.write_kept(part, msgspec.structs.replace(kept, synced=30_000))
    world.flows()
    await world.open()
    assert (await world.ended(pull)).state == "done"
    assert first_range(hub) == 30_000


async def test_bytes_that_rotted_meanwhile_are_fetched_once_more(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await world.stands(SOURCE)
    await world.close()
    part = world.paths.models / "pulls" / pull.id / NAME
    with part.open("r+b") as file:
        file.seek(50_000)
        file.write(b"rot")
    world.flows()
    await world.open()
    done = await world.ended(pull)
    assert done.state == "done" and "begins anew" in " ".join(done.notes)
    assert (await world.catalog.get("m")).sha256 == sha(data)


async def test_a_file_that_changed_in_the_repository_begins_anew_and_says_so(
    world: World, hub: HubDouble, data: bytes
) -> None:
    pull = await world.stands(SOURCE)
    await world.pulls.pause(ME, "request2", pull.id)
    new = hub.repos[REPO][NAME] = model(220_000, b"\2")
    world.flows()
    await world.pulls.resume(ME, "request3", pull.id)
    done = await world.ended(pull)
    assert done.state == "done", done.error
    assert "changed on the server" in " ".join(done.notes)
    assert done.revision == hub.commit(REPO)
    assert done.bytes_done == done.bytes_total == len(new)
    assert (await world.catalog.get("m")).sha256 == sha(new)


async def test_a_file_that_was_taken_away_ends_the_pull(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await world.stands(SOURCE)
    await world.pulls.pause(ME, "request2", pull.id)
    hub.repos[REPO] = {"other-Q8_0.gguf": model(1000)}
    world.flows()
    await world.pulls.resume(ME, "request3", pull.id)
    done = await world.ended(pull)
    assert done.state == "failed" and done.error is not None and "has no Q4_0" in done.error.what
    assert world.left_over() == []


@pytest.mark.parametrize("size", [200_000, 240_000])
async def test_an_address_whose_file_changed_begins_anew_and_says_so(
    world: World, hub: HubDouble, data: bytes, size: int
) -> None:
    pull = await world.stands(f"{hub.url}/files/tiny.gguf")
    await world.pulls.pause(ME, "request2", pull.id)
    new = hub.files["tiny.gguf"] = model(size, b"\2")
    world.flows()
    await world.pulls.resume(ME, "request3", pull.id)
    done = await world.ended(pull)
    assert done.state == "done", done.error
    assert "changed on the server" in " ".join(done.notes)
    assert (await world.catalog.get("m")).sha256 == sha(new)


@pytest.mark.parametrize("without", ["ranges", "etags"])
async def test_a_server_that_cannot_go_on_begins_anew_and_says_so(
    world: World, hub: HubDouble, data: bytes, without: str
) -> None:
    """Without an ETag and a hash nobody knows whether the rest belongs to what is here."""
    setattr(hub, without, False)
    hub.faults += [Fault(cut=60_000)]
    done = await world.pulled(f"{hub.url}/files/tiny.gguf")
    assert done.state == "done", done.error
    assert "begins anew" in " ".join(done.notes)
    assert (await world.catalog.get("m")).sha256 == sha(data)


async def test_a_range_that_begins_elsewhere_is_not_put_behind_what_is_here(
    world: World, hub: HubDouble, data: bytes
) -> None:
    hub.faults += [Fault(cut=60_000), Fault(shift=1)]
    done = await world.pulled(SOURCE)
    assert done.state == "done" and "another piece" in " ".join(done.notes)
    assert (await world.catalog.get("m")).sha256 == sha(data)


@pytest.mark.parametrize("fault", [Fault(length=100), Fault(extra=b"x" * 10)])
async def test_a_server_that_contradicts_the_hub_about_the_length_is_not_believed(
    world: World, hub: HubDouble, data: bytes, fault: Fault
) -> None:
    hub.faults += [fault] * 5
    done = await world.pulled(SOURCE)
    assert done.state == "failed" and done.error is not None
    assert "contradicts itself" in done.error.what, done.error
    assert world.left_over() == []


async def test_bytes_that_are_not_those_the_hub_vouches_for_are_no_model(
    world: World, hub: HubDouble, data: bytes
) -> None:
    hub.lies[NAME] = sha(b"another")
    done = await world.pulled(SOURCE)
    assert done.state == "failed" and done.error is not None
    assert done.error.code == "bad_model" and "not what it should be" in done.error.what
    assert world.left_over() == []
    assert await world.catalog.ls() == []


async def test_a_hash_that_was_given_with_an_address_is_held_to(world: World, hub: HubDouble, data: bytes) -> None:
    address = f"{hub.url}/files/tiny.gguf"
    assert (await world.pulled(address, sha256=sha(data))).state == "done"
    done = await world.pulled(address, sha256=sha(b"other"), name="n")
    assert done.state == "failed" and done.error is not None and "SHA-256" in done.error.why


@pytest.mark.parametrize(
    ("begins", "said"),
    [(b"<!DOCTYPE html><p>log in", "web page"), (b"PK\x03\x04aaaa", "pickle"), (b"\x80\x04aaa", "pickle"),
     (b"version https://git-lfs.github.com", "pointer"), (b"nothing", "does not begin")],
)  # fmt: skip
async def test_what_is_no_gguf_is_refused_by_its_first_bytes(
    world: World, hub: HubDouble, begins: bytes, said: str
) -> None:
    hub.files["x.gguf"] = begins * 100
    with pytest.raises(Exception, match="no GGUF") as told:
        await world.pull(f"{hub.url}/files/x.gguf")
    assert said in str(told.value)
    hub.repos[REPO] = {NAME: begins * 100}
    done = await world.pulled(SOURCE, name="n")  # the hub's word for its size is enough to begin
    assert done.state == "failed" and done.error is not None and said in done.error.why
    assert world.left_over() == []


async def test_429_waits_as_it_is_told_and_5xx_is_tried_again(world: World, hub: HubDouble, data: bytes) -> None:
    hub.faults += [Fault(status=429, retry_after="37"), Fault(status=503), Fault(status=500), Fault(cut=50_000)]
    done = await world.pulled(SOURCE)
    assert done.state == "done", done.error
    assert world.waits[0] == 37.0 and len(world.waits) == 4
    assert any("429" in note and "37 s" in note for note in done.notes)


async def test_a_server_that_never_comes_back_leaves_the_pull_paused_with_its_bytes(
    world: World, hub: HubDouble, data: bytes
) -> None:
    pull = await world.stands(SOURCE)
    await world.pulls.pause(ME, "request2", pull.id)
    hub.faults += [Fault(status=503)] * 3000
    world.flows()
    await world.pulls.resume(ME, "request3", pull.id)
    done = await world.ended(pull)
    assert done.state == "paused" and done.error is not None and "answers 503" in done.error.what
    assert sum(world.waits) > 3600
    hub.faults.clear()
    await world.pulls.resume(ME, "request4", pull.id)
    assert (await world.ended(pull)).state == "done"
    assert first_range(hub) > 50_000


async def test_a_split_model_is_pulled_in_all_its_parts(world: World, hub: HubDouble) -> None:
    import test_import

    made = test_import.parts(2)
    hub.repos[REPO] = {f"Q4_0/big-Q4_0-{n:05d}-of-00002.gguf": each for n, each in enumerate(made, 1)}
    done = await world.pulled(SOURCE)
    assert done.state == "done", done.error
    stored = await world.catalog.get("m")
    assert [each.name for each in stored.files] == ["big-Q4_0-00001-of-00002.gguf", "big-Q4_0-00002-of-00002.gguf"]
    for n, each in enumerate(made, 1):
        hub.files[f"w-{n:05d}-of-00002.gguf"] = each
    done = await world.pulled(f"{hub.url}/files/w-00001-of-00002.gguf", name="w")
    assert done.state == "done", done.error
    assert (await world.catalog.get("w")).sha256 == stored.sha256


async def test_a_cancelled_pull_leaves_nothing_at_once(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await world.stands(SOURCE)
    assert world.left_over()
    ended = await world.pulls.cancel(ME, "request2", pull.id)
    assert ended.state == "cancelled" and world.left_over() == []
    assert (await world.pulls.cancel(ME, "request3", pull.id)).state == "cancelled"
    told = [(r.verb, r.outcome) for r in await world.audit.ls() if r.verb.startswith("models.pull")]
    assert told == [("models.pull", "intent"), ("models.pull", "interrupted"), ("models.pull-cancel", "done")]


async def test_one_that_is_cancelled_as_it_begins_does_not_begin_again(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []

    async def intent(*args: object, **fields: object) -> None:
        begun.append(args)
        await asyncio.sleep(3600)

    monkeypatch.setattr(world.gate, "intent", intent)
    pull = await world.pull(SOURCE)
    async with asyncio.timeout(20):
        while not begun:
            await asyncio.sleep(0)
    assert (await world.pulls.cancel(ME, "request2", pull.id)).state == "cancelled"
    assert len(begun) == 1 and not world.pulls._running.tasks and world.left_over() == []


async def test_a_cancelled_one_is_gone_though_the_daemon_died_before_its_bytes_went(
    world: World, hub: HubDouble, data: bytes
) -> None:
    pull = await world.stands(SOURCE)
    await world.pulls.cancel(ME, "request2", pull.id)
    folder = world.paths.models / "pulls" / pull.id
    folder.mkdir()
    (folder / NAME).write_bytes(b"left")
    await world.again()
    assert world.left_over() == []


async def test_a_paused_pull_stays_so_over_a_restart_and_keeps_its_bytes(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SYNC", 1 << 30)  # so that the pause itself does
    pull = await world.stands(SOURCE)
    await world.pulls.pause(ME, "request2", pull.id)
    world.flows()
    await world.again()
    there = world.pulls.get(pull.id)
    assert there.state == "paused" and there.bytes_done > 50_000
    await world.pulls.resume(ME, "request3", pull.id)
    assert (await world.ended(pull)).state == "done"


async def test_slow_bytes_can_be_cancelled(world: World, hub: HubDouble, data: bytes) -> None:
    hub.faults += [Fault(slow_s=0.05)]
    pull = await world.pull(SOURCE)
    await world.until(pull.id, lambda now: now.state == "pulling")
    assert (await world.pulls.cancel(ME, "request2", pull.id)).state == "cancelled"


async def test_as_many_run_as_the_settings_say_the_oldest_first(world: World, hub: HubDouble, data: bytes) -> None:
    world.settings = PullTable(hub=hub.url, at_once=1)
    first = await world.stands(SOURCE)
    second = await world.pull(SOURCE, name="n")
    assert second.state == "waiting" and list(world.pulls._running.tasks) == [first.id]
    world.flows()
    assert (await world.ended(first)).state == "done"
    assert (await world.ended(second)).state == "done"


async def test_the_same_twice_is_refused_while_it_is_on_its_way(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await world.stands(SOURCE)
    with pytest.raises(Conflict, match=f"being pulled.*cancel {pull.id}"):
        await world.pull(SOURCE)
    await world.pulls.pause(ME, "request2", pull.id)
    with pytest.raises(Conflict, match=f"ada began it.*paused.*resume {pull.id}"):
        await world.pull(SOURCE, BOB)


async def test_of_a_name_that_is_there_it_makes_a_new_version_as_it_is_told(
    world: World, hub: HubDouble, data: bytes
) -> None:
    await world.pulled(SOURCE)
    hub.repos[REPO][NAME] = new = model(3000, b"\2")
    done = await world.pulled(SOURCE, options=ImportOptions(label="second", live=True))
    assert done.state == "done" and done.model is not None, done.error
    assert (done.model.version, done.model.label) == (2, "second")
    assert (await world.catalog.get("m")).sha256 == sha(new)


async def test_two_who_pull_the_same_at_once_have_its_bytes_once(world: World, hub: HubDouble, data: bytes) -> None:
    pulls = [await world.pull(SOURCE, name="a"), await world.pull(SOURCE, BOB, name="b")]
    assert [(await world.ended(each)).state for each in pulls] == ["done", "done"]
    assert len(world.left_over()) == 1


async def test_no_room_is_said_before_the_first_byte(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SPARE", 1 << 60)
    with pytest.raises(NoRoom):
        await world.pull(SOURCE)
    with pytest.raises(NoRoom, match="no room"):
        await world.pull(f"{SOURCE}:Q4_0")
    assert world.left_over() == [] and [each.range for each in hub.of("cdn")] == ["bytes=0-67108863"] * 2


async def test_room_that_other_pulls_will_take_is_not_given_twice(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = await world.stands(SOURCE)
    promised = world.catalog.tiers.ledger.of(pull.id)
    assert promised is not None and 0 < promised.left < len(data)
    free = SimpleNamespace(free=promised.left + len(data) - 1, total=1 << 40)
    monkeypatch.setattr(ledger.shutil, "disk_usage", lambda path: free)
    with pytest.raises(NoRoom, match="no room for n") as told:
        await world.pull(f"{SOURCE}:Q4_0", name="n")
    assert told.value.details == {"tier": "home", "bytes": len(data), "left": len(data) - 1}
    free.free += 1
    assert (await world.pull(f"{SOURCE}:Q4_0", name="n")).name == "n"


async def test_a_disk_that_fills_up_meanwhile_pauses_it(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = await world.stands(SOURCE, after=50_000)
    monkeypatch.setattr(files, "SPARE", 1 << 61)
    world.flows()
    done = await world.ended(pull)
    assert done.state == "paused" and done.error is not None and done.error.code == "no_room"
    assert done.error.todo.endswith("corral models pulls resume " + done.id)
    await world.pulls.mend()
    assert world.pulls.get(pull.id).state == "paused", "room that somebody made may be meant for something else"
    monkeypatch.setattr(files, "SPARE", 0)
    await world.pulls.resume(ME, "request2", pull.id)
    assert (await world.ended(pull)).state == "done"


async def test_one_that_ended_between_its_model_and_its_row_is_done(world: World, hub: HubDouble, data: bytes) -> None:
    done = await world.pulled(SOURCE)
    row = world.pulls._running.row(done.id)
    half = msgspec.structs.replace(row, pull=msgspec.structs.replace(done, state="storing", model=None, ended_at=None))
    await world.store.transact(lambda db: rows.put(db, half))
    (world.paths.models / "pulls" / done.id).mkdir()
    await world.again()
    again = await world.ended(done)
    assert again.state == "done" and again.model is not None
    assert len(await world.catalog.ls()) == 1 and len(world.left_over()) == 1


async def test_the_daemons_end_while_it_stores_is_no_end_of_it(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, real = asyncio.Event(), files.take_in
    loop = asyncio.get_running_loop()

    def slow(fd: int, source: Path, target: Path, progress: object) -> str:
        loop.call_soon_threadsafe(began.set)
        while True:  # until the progress says that it is cancelled
            real(fd, source, target.with_suffix(".x"), progress)  # type: ignore[arg-type]
            target.with_suffix(".x").unlink()

    monkeypatch.setattr(files, "take_in", slow)
    pull = await world.pull(SOURCE)
    await asyncio.wait_for(began.wait(), 20)
    await world.close()
    monkeypatch.setattr(files, "take_in", real)
    before = len(hub.asked)
    await world.open()
    assert (await world.ended(pull)).state == "done"
    assert len(hub.asked) == before, "all was here"


async def test_the_cap_is_kept_to_and_may_be_changed_on_the_way(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await world.pull(SOURCE, limit=20_000)
    now = await world.until(pull.id, lambda now: now.rate > 0)
    assert now.rate < 60_000 and now.left_s is not None
    await world.pulls.resume(ME, "request2", pull.id, limit=0)
    assert (await world.ended(pull)).state == "done"


async def test_an_unknown_pull_is_not_found(world: World) -> None:
    for verb in (world.pulls.pause, world.pulls.resume, world.pulls.cancel):
        with pytest.raises(NotFound, match="no pull 'x'"):
            await verb(ME, "request1", "x")


async def test_a_database_that_takes_nothing_lets_the_pull_rest_until_it_takes_records_again(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = await world.stands(SOURCE)
    real = world.store.transact

    async def full(work: object) -> object:
        raise StoreError("the database cannot be written")

    monkeypatch.setattr(world.store, "transact", full)
    world.flows()
    done = await world.ended(pull)
    assert done.state == "paused" and done.error is not None and done.error.code == "store"
    assert "goes on by itself" in done.error.todo
    monkeypatch.setattr(later, "PAUSES_S", (0.0,))
    world.pulls._running.later.put(pull.id)
    await world.pulls.mend()
    assert world.pulls.get(pull.id).state == "paused", "the disk takes nothing yet"
    monkeypatch.setattr(world.store, "transact", real)
    await world.pulls.mend()
    assert (await world.until(pull.id, lambda now: now.state == "done")).error is None


async def test_the_last_row_of_a_stored_one_is_written_when_it_can_be(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "PAUSES_S", (0.0,))
    real, put = world.store.transact, rows.put

    def full(db: object, row: rows.Row) -> None:
        if row.pull.state in ("done", "paused"):
            raise StoreError("the database cannot be written")
        put(db, row)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "put", full)
    pull = await world.pulled(SOURCE)
    assert pull.state == "paused" and len(await world.catalog.ls()) == 1
    sent = hub.sent
    await world.pulls.mend()
    assert (await world.ended(pull)).state == "paused"
    monkeypatch.setattr(rows, "put", put)
    await world.pulls.mend()
    done = await world.until(pull.id, lambda now: now.state == "done")
    assert done.model is not None and done.model.version == 1 and hub.sent == sent
    assert len(await world.catalog.all()) == 1 and real == world.store.transact


async def test_one_that_stands_for_the_disks_sake_goes_on_with_the_next_daemon(
    world: World, hub: HubDouble, data: bytes
) -> None:
    pull = await world.stands()
    await world.pulls.pause(ME, "request2", pull.id)
    row = world.pulls._running.row(pull.id)
    stood = msgspec.structs.replace(row, pull=msgspec.structs.replace(row.pull, error=StoreError("full").body()))
    await world.store.transact(lambda db: rows.put(db, stood))
    world.flows()
    await world.again()
    assert (await world.until(pull.id, lambda now: now.state == "done")).model is not None


async def test_a_projector_is_taken_along_if_it_is_asked_for(world: World, hub: HubDouble, data: bytes) -> None:
    eye = maker.make({**maker.METADATA, "general.architecture": "clip"})
    hub.repos[REPO] |= {"mmproj-F32.gguf": eye + b"\0" * 32, "mmproj-model-f16.gguf": eye, "x.imatrix.gguf": b"GGUF"}
    plan = await world.pulls.plan(ME, "request1", SOURCE, secret="", endpoint="", ctx=0)
    assert [each.name for each in plan.projectors] == ["mmproj-model-f16.gguf", "mmproj-F32.gguf"]
    with pytest.raises(NotFound, match=r"mmproj-model-f16\.gguf, mmproj-F32\.gguf"):
        await world.pull(SOURCE, projector="mmproj-Q4_0.gguf")
    done = await world.pulled(SOURCE, projector="auto")
    assert done.state == "done" and done.model is not None, done.error
    assert done.model.projector is not None and done.model.projector.sha256 == sha(eye)
    assert [each.kind for each in done.files] == ["", "projector"]
