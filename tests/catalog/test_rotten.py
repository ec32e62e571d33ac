"""All stored bytes are read again: what has rotted is set aside and told, and the next daemon goes on with it."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from stores import ME, STRANGER, file, opened, rot, stored, take, until
from tiered import add, disk, moved, sound

from core.catalog import Catalog, Use, files, verifying
from core.errors import Conflict, NotAllowed, NotFound, StoreError
from core.nouns import HOME, ImportOptions, Verified


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with opened(tmp_path) as made:
        yield made


async def verified(catalog: Catalog, *names: str) -> Verified:
    await catalog.verifying.start(ME, "r", names)
    await until(lambda: catalog.verifying._task is None or catalog.verifying._task.done())
    return await catalog.verifying.last(ME)


async def test_whole_bytes_are_found_whole(catalog: Catalog, tmp_path: Path) -> None:
    for n in (1, 2):
        await take(catalog, file(tmp_path, n), f"m{n}")
    found = await verified(catalog)
    assert (found.state, found.objects_done, found.objects_total, found.rotten) == ("done", 2, 2, ())
    assert found.bytes_done == found.bytes_total > 0 and found.started_by == "ada"


async def test_rotten_bytes_are_set_aside_and_come_back_with_an_import(catalog: Catalog, tmp_path: Path) -> None:
    one = await take(catalog, file(tmp_path, 1))
    await take(catalog, file(tmp_path, 1), "twin")
    await take(catalog, file(tmp_path, 2), "well")
    catalog._uses.all = lambda db: [Use("chat", "m", 1)]
    rot(catalog.path(one))
    found = await verified(catalog)
    assert [each.versions for each in found.rotten] == [("m@1", "twin@1")]
    assert found.rotten[0].deployments == ("chat",)
    assert not Path(catalog.path(one)).exists() and len(list(catalog.objects.quarantine.iterdir())) == 1
    assert [(m.name, m.state) for m in await catalog.ls()] == [
        ("m", "quarantined"), ("twin", "quarantined"), ("well", "stored"),
    ]  # fmt: skip
    with pytest.raises(Conflict, match="set aside"):
        await catalog.serving("m")
    records = await catalog.audit.ls(verb="models.quarantine")  # type: ignore[attr-defined]
    assert sorted(record.object for record in records) == ["model:m", "model:twin"]
    passed = await verified(catalog)
    assert [(each.version, each.state) for each in passed.unread] == [("m@1", "quarantined"), ("twin@1", "quarantined")]
    again = await take(catalog, file(tmp_path, 1))
    assert (again.version, again.state) == (1, "stored")
    assert {m.state for m in await catalog.ls()} == {"stored"}
    assert (await verified(catalog)).rotten == ()


async def test_what_was_set_aside_goes_when_it_is_whole_again(catalog: Catalog, tmp_path: Path) -> None:
    """Nothing listed it, and no verb removed it."""
    one, other = await take(catalog, file(tmp_path, 1)), await take(catalog, file(tmp_path, 2), "other")
    for each in (one, other):
        rot(catalog.path(each))
    await verified(catalog)
    checked = await catalog.tiers.check(HOME)
    assert checked.aside_bytes == one.bytes + other.bytes == checked.tier.aside_bytes
    waiting = await catalog.collecting.gc(ME, "r", dry_run=False)
    assert not waiting.gone and [each.what for each in waiting.kept if each.name != "m@1"].count("quarantined") == 2
    await take(catalog, file(tmp_path, 1))
    told = await catalog.collecting.gc(ME, "r", dry_run=True)
    (gone,) = told.gone
    assert gone.name.startswith(one.sha256) and gone.bytes == one.bytes and "whole again" in gone.why
    assert (await catalog.collecting.gc(ME, "r", dry_run=False)).gone == told.gone
    assert [each.name.partition("-")[0] for each in catalog.objects.quarantine.iterdir()] == [other.sha256]
    assert (await catalog.get("m")).state == "stored" and Path(catalog.path(one)).exists()
    assert (await catalog.tiers.check(HOME)).aside_bytes == other.bytes


async def test_nobody_hears_of_models_that_he_may_not_see(catalog: Catalog, tmp_path: Path) -> None:
    """Neither their names, nor the deployments that use them, nor how many there are and how large."""
    one = await take(catalog, file(tmp_path, 1), "open")
    await take(catalog, file(tmp_path, 1), "secret-twin")
    two = await take(catalog, file(tmp_path, 2), "secret")
    catalog._uses.all = lambda db: [Use("chat", "open", 1), Use("hidden", "open", 1)]
    for each in (one, two):
        rot(catalog.path(each))
    whole = await verified(catalog)
    assert whole.objects_total == 2 and len(whole.rotten) == 2

    allowed = {("models.read", "model:open"), ("deployments.read", "deployment:chat")}
    may = catalog.verifying._gate.may
    catalog.verifying._gate.may = (  # type: ignore[method-assign]
        lambda actor, what, on: (what, on) in allowed if actor is STRANGER else may(actor, what, on)
    )
    seen = await catalog.verifying.last(STRANGER)
    assert (seen.objects_total, seen.bytes_total) == (1, one.bytes)
    assert [(each.versions, each.deployments) for each in seen.rotten] == [(("open@1",), ("chat",))]
    assert catalog.verifying.concerns(STRANGER)
    await verified(catalog, "secret")
    assert not catalog.verifying.concerns(STRANGER) and catalog.verifying.concerns(ME)
    assert (await catalog.verifying.last(STRANGER)).rotten == seen.rotten  # the run before, which was about his too
    allowed.clear()
    with pytest.raises(NotFound):
        await catalog.verifying.last(STRANGER)


async def test_that_it_goes_on_is_told_and_nothing_else(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "TELL_S", 0.0)
    await take(catalog, file(tmp_path, 1), "secret")
    told = []
    publish = catalog.verifying._bus.publish
    monkeypatch.setattr(catalog.verifying._bus, "publish", lambda *a, **k: told.append(a) or publish(*a, **k))
    await verified(catalog)
    assert len(told) > 2 and set(told) == {("verify", "model:*")}


async def test_a_file_that_is_gone_is_told(catalog: Catalog, tmp_path: Path) -> None:
    one = await take(catalog, file(tmp_path, 1))
    Path(catalog.path(one)).unlink()
    found = await verified(catalog)
    assert [each.versions for each in found.missing] == [("m@1",)] and found.rotten == ()
    assert (await catalog.get("m")).state == "missing"
    assert not found.missing[0].healed and found.unread == ()
    await take(catalog, file(tmp_path, 1))
    assert (await catalog.verifying.last(ME)).missing[0].healed


async def test_what_was_removed_since_is_nothing_to_heal(catalog: Catalog, tmp_path: Path) -> None:
    one = await take(catalog, file(tmp_path, 1), "m")
    await take(catalog, file(tmp_path, 1), "twin")
    rot(catalog.path(one))
    (found,) = (await verified(catalog)).rotten
    assert set(found.versions) == {"m@1", "twin@1"} and not found.settled
    await catalog.rm(ME, "r", "twin")
    (found,) = (await catalog.verifying.last(ME)).rotten
    assert found.versions == ("m@1",) and not found.settled
    await catalog.rm(ME, "r", "m")
    (found,) = (await catalog.verifying.last(ME)).rotten
    assert found.removed and found.settled and not found.healed and found.versions == ("m@1", "twin@1")
    await take(catalog, file(tmp_path, 1), "m")
    (found,) = (await catalog.verifying.last(ME)).rotten
    assert found.healed and not found.removed


async def test_one_model_alone_is_verified_and_one_run_at_a_time(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in (1, 2):
        await take(catalog, file(tmp_path, n), f"m{n}")
    assert (await verified(catalog, "m1")).objects_total == 1
    await catalog.verifying.start(ME, "r", [])
    with pytest.raises(Conflict, match="on its way"):
        await catalog.verifying.start(ME, "r", [])
    await until(lambda: catalog.verifying._task is not None and catalog.verifying._task.done())
    with pytest.raises(NotFound):
        await catalog.verifying.cancel(ME, "r")
    with pytest.raises(NotFound):
        await catalog.verifying.start(ME, "r", ["none"])
    with pytest.raises(NotAllowed):
        await catalog.verifying.start(STRANGER, "r", [])


async def test_a_cancelled_run_says_so(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await take(catalog, file(tmp_path, 1))
    monkeypatch.setattr(files, "CHUNK", 1)
    await catalog.verifying.start(ME, "r", [])
    assert (await catalog.verifying.cancel(ME, "r")).state == "cancelled"


async def test_nobody_ends_a_run_about_models_that_he_may_not_verify(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, name in enumerate(("his", "other")):
        await take(catalog, file(tmp_path, n), name)
    monkeypatch.setattr(files, "CHUNK", 1)
    gate, may = catalog.verifying._gate, catalog.verifying._gate.may
    monkeypatch.setattr(gate, "anywhere", lambda actor, what: True)
    monkeypatch.setattr(
        gate, "may", lambda actor, what, on: on == "model:his" if actor is STRANGER else may(actor, what, on)
    )
    await catalog.verifying.start(ME, "r", [])
    with pytest.raises(NotAllowed, match="not yours to end"):
        await catalog.verifying.cancel(STRANGER, "r")
    assert (await catalog.verifying.cancel(ME, "r")).state == "cancelled"
    await catalog.verifying.start(ME, "r", ["his"])
    assert (await catalog.verifying.cancel(STRANGER, "r")).state == "cancelled"


async def test_the_next_daemon_goes_on_with_what_was_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as catalog:
        for n in (1, 2, 3):
            await take(catalog, file(tmp_path, n), f"m{n}")
        look, looked = catalog.verifying._look, []

        def slow(sha256: str, parts: object) -> str:
            looked.append(sha256)
            if len(looked) == 2:
                catalog.verifying._stop.wait(20)  # the daemon ends while this is read
                raise SystemExit
            return look(sha256, parts)  # type: ignore[arg-type]

        monkeypatch.setattr(catalog.verifying, "_look", slow)
        await catalog.verifying.start(ME, "r", [])
        await until(lambda: len(looked) == 2)
    async with opened(tmp_path) as catalog:
        await until(lambda: catalog.verifying._task is not None and catalog.verifying._task.done())
        found = await catalog.verifying.last(ME)
        assert (found.state, found.objects_done, found.objects_total) == ("done", 3, 3)
        assert len(stored(catalog)) == 3


async def test_of_a_read_only_tier_rotten_bytes_are_served_to_nobody_and_go_when_it_takes_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with disk(tmp_path.parent / f"{tmp_path.name}-ro", "40m") as place:
        async with opened(tmp_path) as catalog:
            monkeypatch.setattr("core.catalog.tiers.watching.LOOK_S", 0.01)
            watch = asyncio.create_task(catalog.tiers.run())
            await add(catalog, place, landing=True, spill=HOME)
            one = await take(catalog, file(tmp_path, 1), "one")
            two = await take(catalog, file(tmp_path, 2), "two")
            await take(catalog, file(tmp_path, 3), "old")
            await take(catalog, file(tmp_path, 4), "old", ImportOptions(live=True))
            await catalog.drop_alias(ME, "r", "old", "previous")
            for each in (one, two):
                rot(catalog.path(each))
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
            found = await verified(catalog)
            assert found.state == "done" and {each.versions for each in found.rotten} == {("one@1",), ("two@1",)}
            with pytest.raises(Conflict, match="not what they were"):
                await catalog.serving("one")
            again = await take(catalog, file(tmp_path, 1), "one")  # spills: its tier takes nothing
            assert (again.version, again.state, again.tier) == (1, "stored", HOME)
            gone = await catalog.collecting.gc(ME, "r", dry_run=False)
            assert [each.name for each in gone.gone] == ["old@1"]
            assert len(list(place.glob("objects/*/*"))) == 4
            subprocess.run(["mount", "-o", "remount,rw", place], check=True)
            await until(lambda: len(list(place.glob("objects/*/*"))) == 1)
            assert [each.name.partition("-")[0] for each in (place / "quarantine").iterdir()] == [two.sha256]
            assert (await catalog.tiers.get("fast")).aside_bytes == two.bytes
            await take(catalog, file(tmp_path, 2), "two")
            watch.cancel()
            await sound(catalog)


async def test_what_was_set_aside_long_ago_stays_while_its_tier_takes_no_changes(tmp_path: Path) -> None:
    now = [1e9]
    with disk(tmp_path.parent / f"{tmp_path.name}-ro", "40m") as place:
        async with opened(tmp_path, clock=lambda: now[0]) as catalog:
            await add(catalog, place, landing=True)
            one = await take(catalog, file(tmp_path, 1), "one")
            rot(catalog.path(one))
            await verified(catalog)
            now[0] = time.time() + 31 * 86400
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
            assert (await catalog.collecting.gc(ME, "r", dry_run=False)).bytes == 0
            subprocess.run(["mount", "-o", "remount,rw", place], check=True)
            assert (await catalog.collecting.gc(ME, "r", dry_run=False)).bytes == one.bytes
            assert not list((place / "quarantine").iterdir())


async def test_a_database_that_takes_nothing_ends_it_with_that_reason_and_the_next_daemon_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as catalog:
        await take(catalog, file(tmp_path, 1))
        plain, begun = catalog._store.transact, list[object]()

        async def full(work: Any) -> Any:
            begun.append(work)
            if len(begun) > 1:
                raise StoreError("the change was not made", "the disk with the database is full")
            return await plain(work)

        with monkeypatch.context() as patch:
            patch.setattr(catalog._store, "transact", full)
            found = await verified(catalog)
        assert found.state == "failed" and found.ended_at is not None
        assert found.error is not None and "is full" in found.error.why
    async with opened(tmp_path) as catalog:
        await until(lambda: catalog.verifying._task is None or catalog.verifying._task.done())
        found = await catalog.verifying.last(ME)
        assert (found.state, found.objects_done, found.error) == ("done", 1, None)


async def test_what_was_found_rotten_as_its_daemon_was_killed_is_set_aside_and_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two: between the record and the file's end in quarantine."""
    async with opened(tmp_path) as catalog:
        one = await take(catalog, file(tmp_path, 1))
        place = Path(catalog.path(one))
        rot(str(place))
        with monkeypatch.context() as patch:
            patch.setattr(catalog.verifying, "_concerns", dies)
            found = await verified(catalog)
        assert found.state == "failed" and place.exists(), "nothing is set aside that is not recorded"
        with monkeypatch.context() as patch:
            patch.setattr(catalog.objects, "set_aside", dies)
            await verified(catalog)
        assert place.exists() and (await catalog.get("m")).state == "quarantined"
    async with opened(tmp_path) as catalog:
        assert not place.exists() and len(list(catalog.objects.quarantine.iterdir())) == 1
        assert (await catalog.get("m")).state == "quarantined"
        await sound(catalog)


def dies(*args: object) -> None:
    raise MemoryError("killed here")


@pytest.mark.parametrize("how", ["removed", "moved"])
async def test_what_is_removed_or_moved_as_it_is_told_is_no_fault_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    async with opened(tmp_path) as catalog:
        await add(catalog, other)
        await take(catalog, file(tmp_path, 1))
        await take(catalog, file(tmp_path, 2), "n")
        real = catalog.verifying._told

        async def late(sha256: str, said: str, tier: str) -> None:
            if (await catalog.get("n")).sha256 == sha256 and tier == HOME:
                if how == "removed":
                    await catalog.rm(ME, "r", "n")
                else:
                    await moved(catalog, "n", "fast")
                said = "missing"
                monkeypatch.setattr(catalog.verifying, "_told", real)
            await real(sha256, said, tier)

        monkeypatch.setattr(catalog.verifying, "_told", late)
        found = await verified(catalog)
        assert (found.state, found.missing, found.rotten, found.error) == ("done", (), (), None)
        assert {each.state for each in await catalog.ls()} == {"stored"}
        await sound(catalog)


async def test_what_was_to_mend_it_in_another_tier_and_was_not_recorded_is_set_aside_there(tmp_path: Path) -> None:
    """Killed between the new file and its row: it lies where nothing knows of it, and nothing would ever remove it."""
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    async with opened(tmp_path) as catalog:
        await add(catalog, other)
        one = await take(catalog, file(tmp_path, 1))
        data = Path(catalog.path(one)).read_bytes()
        await moved(catalog, "m", "fast")
        rot(catalog.path(await catalog.get("m")))
        await verified(catalog)
    left = catalog.objects.place(one.sha256)
    left.write_bytes(data)
    async with opened(tmp_path) as catalog:
        assert not left.exists() and (await catalog.tiers.get(HOME)).aside_bytes == len(data)
        await sound(catalog)
