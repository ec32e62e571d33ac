"""Folders as tiers: which may be one, how one is known again, what it takes, and by which rules it is used."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from stores import ME, STRANGER, file, maker, opened, take
from tiered import add, copies, large, moved, sound

from core.catalog import Catalog
from core.catalog.taking import Source
from core.catalog.tiers import Away, Rules, cold, folder
from core.errors import Conflict, CorralError, Invalid, NotAllowed, NotFound
from core.nouns import HOME, Tier

ENGINES = (4242, 4242)
"""The account that opens models, in system mode."""


async def look(catalog: Catalog) -> None:
    """What the daemon does every two seconds."""
    for name in await catalog.tiers.names():
        await catalog.tiers.here(name)


# ------------------------------------------------------------------------------------------------ what may be one


async def test_home_is_there_from_the_first_moment_and_new_models_land_in_it(catalog: Catalog, tmp_path: Path) -> None:
    model = await take(catalog, file(tmp_path))
    (home,) = await catalog.tiers.ls()
    assert (home.name, home.state, home.landing, home.stored_bytes) == (HOME, "there", True, model.bytes)
    assert model.tier == HOME and home.capacity == 0 and home.free_bytes > 0


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path / "none", "is not there"),
        (lambda path: Path("relative"), "no full path"),
        (lambda path: path / "with\nnewline", "no full path"),
        (lambda path: _link(path), "leads elsewhere"),
        (lambda path: _made(path / "open", 0o777), "may be written by others"),
        (lambda path: _made(path / "below" / "in", 0o700, above=0o777), "may be written by others"),
        (lambda path: _made(path / "home" / "models" / "in", 0o700), "Corral's own folder"),
        (lambda path: path, "Corral's own folder"),
        (lambda path: _touched(path / "a-file"), "no folder"),
        (lambda path: Path("/usr"), "the system's own"),
        (lambda path: Path("/etc"), "the system's own"),
        (lambda path: Path("/etc/ssl"), "the system's own"),
        (lambda path: Path("/proc/1"), "the system's own"),
        (lambda path: Path("/sys"), "the system's own"),
        (lambda path: Path("/dev"), "the system's own"),
        (lambda path: _touched(_made(path / "full", 0o700) / "mine").parent, "in it lie mine"),
    ],
)
async def test_a_folder_that_is_not_safe_is_no_tier(catalog: Catalog, tmp_path: Path, make, why: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Invalid, match=why):
        await add(catalog, make(tmp_path))
    (refused,) = await catalog.audit.ls(verb="tiers.add")  # type: ignore[attr-defined]
    assert refused.outcome == "refused" and await catalog.tiers.names() == [HOME]


def _made(path: Path, mode: int, above: int = 0o700) -> Path:
    path.mkdir(parents=True)
    path.parent.chmod(above)
    path.chmod(mode)
    return path


def _link(path: Path) -> Path:
    (path / "real").mkdir(mode=0o700)
    (path / "link").symlink_to(path / "real")
    return path / "link"


def _touched(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
async def test_a_folder_of_somebody_else_is_no_tier(catalog: Catalog, fast: Path) -> None:
    os.chown(fast, 4242, 4242)
    with pytest.raises(Invalid, match="belongs to uid 4242"):
        await add(catalog, fast)


async def test_engines_of_another_account_must_be_able_to_pass_through(fast: Path) -> None:
    with pytest.raises(Invalid, match="engines may not pass through"):
        folder.check(fast, (), (4242, 4242))
    fast.chmod(0o711)
    folder.check(fast, (), (4242, 4242))


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another account")
async def test_what_lies_in_a_tier_is_read_by_the_engines_account(tmp_path: Path, fast: Path) -> None:
    """Also under the daemon's umask, and with all that a version may have."""
    import test_import

    fast.chmod(0o711)
    before = os.umask(0o077)
    try:
        async with opened(tmp_path, engines=ENGINES) as catalog:
            await add(catalog, fast, landing=True)
            eye = tmp_path / "eye.gguf"
            eye.write_bytes(maker.make({**maker.METADATA, "general.architecture": "clip"}))
            split = tmp_path / "split"
            split.mkdir()
            for n, part in enumerate(test_import.parts(2), 1):
                (split / f"big-{n:05d}-of-00002.gguf").write_bytes(part)
            await take(catalog, split, "big", projector=eye)
            found = await catalog.serving("big")
            for path in (found.path, found.projector):
                assert Path(path).is_relative_to(fast)
                become = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
                done = subprocess.run([*become, "head", "-c4", path], capture_output=True)
                assert done.stdout == b"GGUF", done.stderr
            assert (await catalog.tiers.check("fast")).faults == ()
            (fast / folder.MARKER).chmod(0o600)
            Path(found.projector).chmod(0o400)
            faults = (await catalog.tiers.check("fast")).faults
            assert {fault.what for fault in faults} == {"engines", "mode"}
            assert any("engines cannot read" in fault.words and "Permission denied" in fault.words for fault in faults)
    finally:
        os.umask(before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another account")
async def test_what_modes_do_not_say_is_tried_before_it_becomes_a_tier(
    tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount of one user's own, or a file server, refuses whom the modes let in: here the marker itself does."""
    fast.chmod(0o711)
    monkeypatch.setattr(folder.os, "fchmod", lambda fd, mode: os.chmod(fd, 0o600))
    async with opened(tmp_path, engines=ENGINES) as catalog:
        with pytest.raises(Invalid, match=r"engines cannot read what lies in .*uid 4242: Permission denied"):
            await add(catalog, fast)
        assert await catalog.tiers.names() == [HOME] and not list(fast.iterdir())
        last = (await catalog.audit.ls(verb="tiers.add"))[-1]  # type: ignore[attr-defined]
        assert last.outcome == "failed" and "Permission denied" in last.reason


async def test_a_tier_is_in_no_other_and_has_a_name_of_its_own(catalog: Catalog, fast: Path) -> None:
    await add(catalog, fast)
    (fast / "below").mkdir(mode=0o700)
    with pytest.raises(Invalid, match="the tier fast"):
        await add(catalog, fast / "below", "other")
    for name in (HOME, "../x", "A b", ""):
        with pytest.raises(Invalid):
            await add(catalog, fast / "below", name)
    with pytest.raises(NotAllowed):
        await catalog.tiers.add(STRANGER, "r", "other", str(fast), Rules())
    with pytest.raises(NotAllowed):  # of one that is there as of one that is not
        await catalog.tiers.change(STRANGER, "r", "fast", Rules(capacity=1))


# ------------------------------------------------------------------------------------------------ known again


async def test_an_empty_mount_point_is_no_empty_tier_and_the_tier_comes_back_by_itself(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    model = await take(catalog, file(tmp_path, 1))
    await moved(catalog, "m", "fast")
    gone = fast.with_name(fast.name + ".gone")
    fast.rename(gone)
    fast.mkdir(mode=0o700)
    try:
        await look(catalog)
        assert (await catalog.tiers.get("fast")).state == "away" and "no marker" in catalog.tiers.troubles()[0]
        assert (await catalog.get("m")).state == "away"
        with pytest.raises(Conflict, match="tier fast is not there"):
            await catalog.serving("m")
        with pytest.raises(Conflict, match="its tier fast is not there"):
            await catalog.moves.start(ME, "r", "m", HOME)
        await take(catalog, file(tmp_path, 2), "other")
        with pytest.raises(Away, match="mount it"):
            await catalog.moves.start(ME, "r", "other", "fast")
        await catalog.rm(ME, "r", "other")
        collected = await catalog.collecting.gc(ME, "r", dry_run=False)
        assert not collected.gone
        await catalog.verifying.start(ME, "r", [])
        await catalog.verifying._task  # type: ignore[misc]
        found = await catalog.verifying.last(ME)
        assert (found.state, found.objects_done, found.missing, found.rotten) == ("done", 0, (), ())
        assert not list(fast.iterdir())
    finally:
        fast.rmdir()
        gone.rename(fast)
    await look(catalog)
    assert (await catalog.get("m")).state == "stored" and not catalog.tiers.troubles()
    assert Path((await catalog.serving("m")).path).stat().st_size == model.bytes
    await sound(catalog)


async def test_what_came_into_being_while_a_tier_was_away_is_set_right_when_it_is_back(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    one, two = await take(catalog, file(tmp_path, 1), "one"), await take(catalog, file(tmp_path, 2), "two")
    await moved(catalog, "one", "fast")
    await moved(catalog, "two", "fast")
    gone = fast.with_name(fast.name + ".gone")
    fast.rename(gone)
    await look(catalog)
    await catalog.rm(ME, "r", "one")
    again = await take(catalog, file(tmp_path, 2), "two")  # the same bytes, from where they came
    assert (again.version, again.state, again.tier) == (two.version, "stored", HOME)
    gone.rename(fast)
    await look(catalog)
    assert copies(catalog, one.sha256) == [] and copies(catalog, two.sha256) == [HOME]
    await sound(catalog)


async def test_a_tier_of_another_database_is_taken_over_only_when_that_is_said(tmp_path: Path, fast: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with opened(tmp_path / "a") as first:
        await add(first, fast)
        model = await take(first, large(tmp_path))
        await moved(first, "m", "fast")
    async with opened(tmp_path / "b") as second:
        with pytest.raises(Conflict, match="is a tier already"):
            await add(second, fast)
        made = await second.tiers.add(ME, "r", "mine", str(fast), Rules(), take_over=True)
        assert (made.objects, made.stored_bytes, made.aside_bytes) == (0, 0, model.bytes)
        checked = await second.tiers.check("mine")
        assert [(each.what, each.words) for each in checked.faults] == [("stray", "another database's")]
    async with opened(tmp_path / "b") as second:
        assert copies(second, model.sha256) == ["mine"]
    async with opened(tmp_path / "a") as first:
        assert "another tier now" in (await first.tiers.get("fast")).reason


async def test_a_fresh_file_system_and_what_a_tier_left_may_be_one(catalog: Catalog, fast: Path) -> None:
    for name in ("lost+found", "objects"):
        (fast / name).mkdir()
    assert (await add(catalog, fast)).state == "there"


async def test_whoever_asks_for_a_tier_is_told_how_it_is_then(catalog: Catalog, fast: Path) -> None:
    await add(catalog, fast)
    (fast / folder.MARKER).rename(fast / "hidden")
    detail = await catalog.tier_detail("fast", lambda model: True)
    assert (detail.tier.state, detail.tier.disk_free) == ("away", 0)
    (fast / "hidden").rename(fast / folder.MARKER)
    await catalog.tiers.look()
    assert [tier.state for tier in await catalog.tiers.ls()] == ["there", "there"]


async def test_what_lands_nowhere_is_told_how_to_land_elsewhere(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    await add(catalog, fast, landing=True)
    (fast / folder.MARKER).unlink()
    job = await catalog.imports.start(ME, "r", Source(file(tmp_path), origin="x"), "m")
    job = await catalog.imports.ended(job.id)
    assert job.error is not None and "corral tiers set TIER --default" in job.error.todo


async def test_a_tier_is_not_taken_from_a_daemon_that_lives(tmp_path: Path, fast: Path) -> None:
    for each in "ab":
        (tmp_path / each).mkdir()
    async with opened(tmp_path / "b") as second:
        async with opened(tmp_path / "a") as first:
            await add(first, fast)
            with pytest.raises(Conflict, match="whose daemon runs"):
                await second.tiers.add(ME, "r", "mine", str(fast), Rules(), take_over=True)
            assert (await first.tiers.check("fast")).tier.state == "there"
        made = await second.tiers.add(ME, "r", "mine", str(fast), Rules(), take_over=True)
        assert made.state == "there"


@pytest.mark.parametrize("foreign", [False, True])
async def test_a_marker_that_is_lost_is_put_back_where_what_the_tier_holds_lies(
    catalog: Catalog, tmp_path: Path, fast: Path, foreign: bool
) -> None:
    await add(catalog, fast)
    model = await take(catalog, file(tmp_path))
    await moved(catalog, "m", "fast")

    async def again(take_over: bool = True) -> Tier:
        return await catalog.tiers.add(ME, "r", "fast", str(fast), Rules(), take_over=take_over)

    with pytest.raises(Conflict, match=r"lies in .* already"):
        await again()
    marker, objects = fast / folder.MARKER, fast / "objects"
    marker.unlink()
    if foreign:
        marker.write_text('{"id": "1", "name": "theirs", "database": "another"}')
    await look(catalog)
    objects.rename(fast / "hidden")
    with pytest.raises(Conflict, match="what should lie there does not"):
        await again()
    (fast / "hidden").rename(objects)
    with pytest.raises(Conflict, match="say --take-over") as asked:
        await again(take_over=False)
    assert asked.value.details["take_over"] == "lost"
    assert ("'theirs' of the database 'another'" in asked.value.why) is foreign
    assert (await again()).state == "there" and copies(catalog, model.sha256) == ["fast"]
    assert (await catalog.tiers.check("fast")).faults == ()
    await sound(catalog)


async def test_the_marker_of_a_tier_that_held_nothing_is_not_put_back(catalog: Catalog, fast: Path) -> None:
    """It may be an empty mount point."""
    await add(catalog, fast)
    (fast / folder.MARKER).unlink()
    await look(catalog)
    with pytest.raises(Conflict, match="it held nothing"):
        await catalog.tiers.add(ME, "r", "fast", str(fast), Rules(), take_over=True)


# ------------------------------------------------------------------------------------------------ rules


async def test_new_models_land_in_one_tier(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    await add(catalog, fast, landing=True)
    assert [each.landing for each in await catalog.tiers.ls()] == [False, True]
    model = await take(catalog, file(tmp_path, 1))
    assert model.tier == "fast" and copies(catalog, model.sha256) == ["fast"]
    with pytest.raises(Conflict, match="new models land in fast"):
        await catalog.tiers.change(ME, "r", "fast", Rules(landing=False))
    await catalog.rm(ME, "r", "m")
    await catalog.tiers.rm(ME, "r", "fast")
    assert (await catalog.tiers.get(HOME)).landing
    await sound(catalog)


@pytest.mark.parametrize(
    "rules",
    [
        Rules(spill="fast"), Rules(spill="none-there"), Rules(capacity=-1), Rules(demote_days=3), Rules(demote_to=HOME),
        Rules(demote_days=1e9, demote_to=HOME), Rules(capacity=5), Rules(spill=HOME),
        Rules(demote_days=1e-5, demote_to=HOME), Rules(demote_days=1.5, demote_to=HOME),
    ],
)  # fmt: skip
async def test_a_rule_that_means_nothing_is_refused(catalog: Catalog, tmp_path: Path, fast: Path, rules: Rules) -> None:
    await add(catalog, fast)
    await catalog.tiers.change(ME, "r", HOME, Rules(spill="fast"))
    await take(catalog, file(tmp_path))
    await moved(catalog, "m", "fast")

    async def now() -> Tier:
        """Without what others write on its disk."""
        return msgspec.structs.replace(await catalog.tiers.get("fast"), free_bytes=0, disk_free=0)

    before = await now()
    with pytest.raises((Invalid, Conflict, NotFound)):
        await catalog.tiers.change(ME, "r", "fast", rules)
    assert await now() == before


async def test_a_capacity_beyond_the_disk_is_taken_and_what_bounds_the_room_is_said(
    catalog: Catalog, fast: Path
) -> None:
    """A disk may grow."""
    has = shutil.disk_usage(fast).total
    tier = await add(catalog, fast, capacity=4 * has)
    assert (tier.capacity, tier.disk_bytes, tier.over, tier.bound) == (4 * has, has, True, "disk")
    assert tier.free_bytes <= has
    tier = await catalog.tiers.change(ME, "r", "fast", Rules(capacity=4096))
    assert (tier.free_bytes, tier.over, tier.bound) == (4096, False, "capacity")
    assert [(each.bound, each.over) for each in await catalog.tiers.ls() if each.name == HOME] == [("disk", False)]


async def test_a_tier_that_holds_something_stays_and_says_what(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    await add(catalog, fast)
    await take(catalog, file(tmp_path))
    await moved(catalog, "m", "fast")
    with pytest.raises(Conflict, match="holds m@1"):
        await catalog.tiers.rm(ME, "r", "fast")
    await moved(catalog, "m", HOME)
    await catalog.tiers.rm(ME, "r", "fast")
    assert await catalog.tiers.names() == [HOME] and not list(fast.iterdir())
    with pytest.raises(Conflict, match="home stays"):
        await catalog.tiers.rm(ME, "r", HOME)


# ------------------------------------------------------------------------------------------------ look closer


async def test_a_check_finds_what_is_not_as_it_should_be(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    await add(catalog, fast)
    made = [await take(catalog, file(tmp_path, n), f"m{n}") for n in range(4)]
    for model in made:
        await moved(catalog, model.name, "fast")
    assert not (await catalog.tiers.check("fast")).faults
    paths = [Path(catalog.path(await catalog.get(model.name))) for model in made]
    paths[0].unlink()
    paths[1].chmod(0o644)
    paths[1].write_bytes(b"x")
    paths[2].chmod(0o666)
    stray = fast / "objects" / "ab" / ("ab" + "0" * 62)
    stray.parent.mkdir(exist_ok=True)
    stray.touch()
    (fast / "incoming" / "rest").mkdir()
    fast.chmod(0o770)
    found = await catalog.tiers.check("fast")
    assert sorted(each.what for each in found.faults) == ["missing", "mode", "owner", "size", "stray", "stray"]
    assert (found.objects, found.bytes) == (1, made[3].bytes)


async def test_the_speed_is_measured_and_nothing_is_left(catalog: Catalog, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    if cold.in_memory(disk):
        pytest.skip("the tests' folder lies in memory")
    await add(catalog, disk, capacity=64 << 20)
    measured = await catalog.tiers.measure(ME, "r", "fast")
    assert measured.cold and measured.warm and measured.measured_at and not measured.reserved_bytes
    model = await take(catalog, large(tmp_path))
    await moved(catalog, "m", "fast")
    home, there = await catalog.loads.times("m", lambda name: True)
    assert (home.here, home.cold_s, there.here) == (False, None, True)
    assert there.cold_s == pytest.approx(model.bytes / measured.cold)
    await sound(catalog)


async def test_what_lies_in_memory_is_never_said_to_be_read_cold(tmp_path: Path, fast: Path) -> None:
    """Newer kernels open its files with O_DIRECT all the same, and an older program kept what came of it."""
    assert cold.in_memory(fast) and not cold.in_memory(Path("/proc"))
    async with opened(tmp_path) as catalog:
        await add(catalog, fast, capacity=64 << 20)
        measured = await catalog.tiers.measure(ME, "r", "fast")
        assert measured.memory and measured.cold is None and measured.warm and measured.measured_at
        model = await take(catalog, large(tmp_path))
        await moved(catalog, "m", "fast")
        _, there = await catalog.loads.times("m", lambda name: True)
        assert (there.cold_s, there.warm_s) == (None, pytest.approx(model.bytes / measured.warm))
        await catalog._store.transact(lambda db: db.execute("UPDATE tiers SET cold = 1e9 WHERE name = 'fast'"))
    async with opened(tmp_path) as catalog:
        assert (await catalog.tiers.get("fast")).cold is None
        _, there = await catalog.loads.times("m", lambda name: True)
        assert there.cold_s is None and there.warm_s
        await sound(catalog)


async def test_a_load_is_kept_beside_what_was_expected_and_says_what_was_cached(
    catalog: Catalog, tmp_path: Path
) -> None:
    await take(catalog, large(tmp_path))
    loading = await catalog.loads.begin("m@1")
    assert loading.cached == pytest.approx(1.0)
    await catalog.loads.ready(loading, 2.5, "e")
    (home,) = await catalog.loads.times("m", lambda name: True)
    assert (home.measured_s, home.measured_cached) == (2.5, loading.cached)
    (model,) = (await catalog.tier_detail(HOME, lambda model: True)).models
    assert model.reference == "m@1" and model.used_at is not None and model.load == home
    assert await catalog.loads.times("m", lambda name: False) == []


async def test_what_a_folder_looks_like_that_does_not_answer(
    catalog: Catalog, fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server that is gone: a look at it never comes back."""
    import threading

    await add(catalog, fast)
    hang = threading.Event()
    monkeypatch.setattr("core.catalog.tiers.watching.ANSWER_S", 0.05)
    monkeypatch.setattr("core.catalog.tiers.folder.look", lambda path, id: hang.wait(30) and "")
    try:
        assert "has not answered" in await catalog.tiers.here("fast")
        assert "has not answered" in await catalog.tiers.here("fast")  # and no second thread hangs there
    finally:
        hang.set()
    monkeypatch.setattr("core.catalog.tiers.watching.ANSWER_S", 5.0)
    assert await catalog.tiers.here("fast") == ""
    with pytest.raises(CorralError):
        await catalog.tiers.here("nothing")


async def test_an_import_removes_only_what_it_made_itself(catalog: Catalog, tmp_path: Path) -> None:
    """A file of a person's whose origin reads like that of an upload."""
    (tmp_path / "theirs").mkdir()
    source = file(tmp_path / "theirs")
    (source.parent / "more").touch()
    job = await catalog.imports.start(ME, "r", Source(source, origin="upload"), "m")
    assert (await catalog.imports.ended(job.id)).state == "done"
    assert sorted(each.name for each in source.parent.iterdir()) == [source.name, "more"]


async def test_what_comes_home_with_another_import_has_that_in_its_history(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    await take(catalog, file(tmp_path, 1))
    await moved(catalog, "m", "fast")
    gone = fast.with_name(fast.name + ".gone")
    fast.rename(gone)
    try:
        await look(catalog)
        await take(catalog, file(tmp_path, 1), "twin")
        assert ((await catalog.get("m")).state, (await catalog.get("m")).tier) == ("stored", HOME)
        newest = (await catalog.history("m"))[0]
        assert (newest.what, newest.version) == ("moved", 1)
        assert newest.detail == "from fast to home: the same bytes came again"
        assert [each.what for each in await catalog.history("twin")] == ["alias", "added"]
    finally:
        gone.rename(fast)
