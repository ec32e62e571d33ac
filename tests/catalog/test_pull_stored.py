"""What is stored already is not fetched again: it gets another name at once, unless it is rotten, away or hidden."""

import asyncio
import hashlib
from pathlib import Path

import gguf_maker as maker
import pytest
import test_import
from hub_double import HubDouble
from pullworld import ME, REPO, SOURCE, World, model
from stores import rot, until

from core.catalog import files
from core.catalog.pull.shelf import Shelf
from core.catalog.taking import Source
from core.catalog.tiers import Rules
from core.nouns import Actor, Grant, ImportJob, Pull, Subject

pytestmark = pytest.mark.usefixtures("small_steps")
GUESSER = Actor(uid=1400, name="gus")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def imported(world: World, path: Path, name: str, actor: Actor = ME, *, own: bool = False) -> ImportJob:
    job = await world.catalog.imports.start(actor, "r", Source(path, origin=str(path), own=own), name)
    return await asyncio.wait_for(world.catalog.imports.ended(job.id), 20)


def unfetched(hub: HubDouble, done: Pull) -> None:
    """A pull came to its end, and no byte but those of a look at the header over the network."""
    assert done.state == "done", done.error
    assert hub.sent == 0 and "stored already" in " ".join(done.notes)
    assert done.bytes_done == done.bytes_total > 0 and all(file.stored for file in done.files)


async def test_what_is_stored_gets_another_name_at_once_and_nothing_is_fetched(
    world: World, hub: HubDouble, data: bytes
) -> None:
    first = await world.pulled(SOURCE)
    hub.sent = 0
    plan = await world.pulls.plan(ME, "r", SOURCE, secret="", endpoint="", ctx=0)
    assert "stored already" in plan.choices[0].why and plan.choices[0].files[0].stored
    done = await world.pulled(SOURCE, name="n")
    unfetched(hub, done)
    assert first.model is not None and done.model is not None
    one, two = await world.catalog.get("m"), await world.catalog.get("n")
    assert (one.sha256, one.shape, one.licence, one.template_sha256) == (
        two.sha256, two.shape, two.licence, two.template_sha256,
    )  # fmt: skip
    assert two.origin == f"{SOURCE}:Q4_0@{hub.commit(REPO)}" and one.files[0].name == two.files[0].name
    assert world.left_over() == [f"objects/{sha(data)[:2]}/{sha(data)}"]
    told = [r for r in await world.audit.ls() if r.verb == "models.add"]
    assert [r.after.get("stored") for r in told] == [None, len(data)]


async def test_no_room_is_needed_for_what_is_stored_and_it_stays_in_its_tier(
    world: World, hub: HubDouble, data: bytes, tmp_path: Path
) -> None:
    fast = tmp_path / "fast"
    fast.mkdir(mode=0o700)
    await world.catalog.tiers.add(ME, "r", "fast", str(fast), Rules(capacity=1 << 20))
    await world.pulled(SOURCE)
    job = await world.catalog.moves.start(ME, "r", "m", "fast")
    assert (await world.catalog.moves.ended(job.id)).state == "done"
    await world.catalog.tiers.change(ME, "r", "home", Rules(capacity=1000))
    hub.sent = 0
    done = await world.pulled(SOURCE, name="n")
    unfetched(hub, done)
    assert (done.tier, (await world.catalog.get("n")).tier) == ("fast", "fast")


async def test_only_what_of_a_model_is_not_stored_is_fetched(world: World, hub: HubDouble) -> None:
    eye = maker.make({**maker.METADATA, "general.architecture": "clip"})
    made = test_import.parts(2)
    hub.repos[REPO] = {f"Q4_0/big-Q4_0-{n:05d}-of-00002.gguf": each for n, each in enumerate(made, 1)}
    await world.pulled(SOURCE)
    hub.repos[REPO]["mmproj-F16.gguf"] = eye
    hub.sent = 0
    done = await world.pulled(SOURCE, name="n", projector="auto")
    assert done.state == "done" and done.model is not None, done.error
    assert hub.sent == len(eye)
    assert [file.stored for file in done.files] == [True, True, False]
    assert done.model.projector is not None and done.model.projector.sha256 == sha(eye)
    both = await world.catalog.serving("n")
    assert Path(both.path).read_bytes() == made[0] and Path(both.projector).read_bytes() == eye
    hub.sent = 0
    unfetched(hub, await world.pulled(SOURCE, name="o", projector="auto"))


async def test_the_same_under_the_same_name_is_told_without_fetching_it(
    world: World, hub: HubDouble, data: bytes
) -> None:
    await world.pulled(SOURCE)
    hub.sent = 0
    done = await world.pulled(SOURCE)
    assert done.state == "failed" and done.error is not None and "m@1 is the same already" in done.error.what
    assert hub.sent == 0


async def test_quarantined_bytes_are_fetched_anew_which_heals_them(world: World, hub: HubDouble, data: bytes) -> None:
    await world.pulled(SOURCE)
    rot(world.catalog.path(await world.catalog.get("m")))
    await world.catalog.verifying.start(ME, "r", ())
    await until(lambda: world.catalog.verifying._task is None or world.catalog.verifying._task.done())
    assert (await world.catalog.get("m")).state == "quarantined"
    hub.sent = 0
    done = await world.pulled(SOURCE, name="n")
    assert done.state == "done" and hub.sent == len(data), done.error
    assert "quarantined" in " ".join(done.notes) and "mends" in " ".join(done.notes)
    for name in ("m", "n"):
        healed = await world.catalog.get(name)
        assert healed.state == "stored" and Path(world.catalog.path(healed)).read_bytes() == data


async def test_a_file_that_lost_its_end_is_not_taken_for_what_it_was(world: World, hub: HubDouble, data: bytes) -> None:
    await world.pulled(SOURCE)
    place = Path(world.catalog.path(await world.catalog.get("m")))
    place.chmod(0o600)
    with place.open("r+b") as file:
        file.truncate(1000)
    hub.sent = 0
    assert (await world.pulled(SOURCE, name="n")).state == "done"
    assert hub.sent == len(data) and place.read_bytes() == data


async def test_what_lies_in_a_tier_that_is_away_is_fetched_and_said_to_be(
    world: World, hub: HubDouble, data: bytes, tmp_path: Path
) -> None:
    fast = tmp_path / "fast"
    fast.mkdir(mode=0o700)
    await world.catalog.tiers.add(ME, "r", "fast", str(fast), Rules())
    await world.pulled(SOURCE)
    job = await world.catalog.moves.start(ME, "r", "m", "fast")
    assert (await world.catalog.moves.ended(job.id)).state == "done"
    fast.rename(tmp_path / "gone")
    assert await world.catalog.tiers.here("fast")
    hub.sent = 0
    done = await world.pulled(SOURCE, name="n")
    assert done.state == "done" and hub.sent == len(data), done.error
    assert "on fast, which is away" in " ".join(done.notes)
    assert [(await world.catalog.get(name)).tier for name in ("m", "n")] == ["home", "home"]
    (tmp_path / "gone").rename(fast)
    assert not await world.catalog.tiers.here("fast")
    assert not list(fast.glob("objects/*/*")), "one copy is enough"


async def test_what_is_removed_before_it_is_taken_is_fetched_after_all(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.pulled(SOURCE)
    real, hub.sent = Shelf.places, 0

    async def late(self: Shelf, *args: object) -> object:
        found = await real(self, *args)  # type: ignore[arg-type]
        if [each.name for each in await world.catalog.ls()] == ["m"]:
            await world.catalog.rm(ME, "r", "m")
        return found

    monkeypatch.setattr(Shelf, "places", late)
    done = await world.pulled(SOURCE, name="n")
    assert done.state == "done" and hub.sent == len(data), done.error
    assert Path(world.catalog.path(await world.catalog.get("n"))).read_bytes() == data


async def test_what_goes_under_the_hand_of_its_import_is_fetched_and_an_import_of_a_file_says_so(
    world: World, hub: HubDouble, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, path = world.catalog.imports._keep, tmp_path / "here.gguf"
    path.write_bytes(data)

    async def late(*args: object) -> object:
        if "m" in [each.name for each in await world.catalog.ls()]:
            await world.catalog.rm(ME, "r", "m")
        return await real(*args)  # type: ignore[arg-type]

    await world.pulled(SOURCE)
    monkeypatch.setattr(world.catalog.imports, "_keep", late)
    job = await imported(world, path, "n")
    assert job.error is not None and "moved or removed meanwhile" in job.error.what and job.error.todo
    assert await world.catalog.ls() == [] and world.left_over() == []
    monkeypatch.setattr(world.catalog.imports, "_keep", real)
    await world.pulled(SOURCE)
    monkeypatch.setattr(world.catalog.imports, "_keep", late)
    hub.sent = 0
    done = await world.pulled(SOURCE, name="n")
    assert done.state == "done" and hub.sent == len(data), done.error


@pytest.mark.parametrize("how", ["mirror", "address", "gated"])
async def test_who_only_knows_a_hash_does_not_get_the_bytes_for_it(
    world: World, hub: HubDouble, data: bytes, how: str
) -> None:
    """A hub of one's own may say any hash. He sees no model that is made of these bytes, so they are his when he has
    sent them himself."""
    await world.pulled(SOURCE)
    may = [("models.import", "model:own-*"), ("models.read", "model:own-*"), ("models.pull-private", "*")]
    world.grants += [
        Grant(id=f"g{n}", what=what, scope=scope, subject=Subject(kind="user", name="gus", id=1400), by="root", at=0.0)
        for n, (what, scope) in enumerate(may, 2)
    ]
    await world.again()
    hub.sent = 0
    fields = {"name": "own-one", "actor": GUESSER}
    if how == "mirror":
        pull = await world.pull(SOURCE, endpoint=hub.url.replace("127.0.0.1", "localhost"), **fields)
    elif how == "address":
        pull = await world.pull(f"{hub.url}/files/tiny.gguf", sha256=sha(data), **fields)
    else:
        hub.gated, hub.token = {REPO}, "hf_token"
        pull = await world.pull(SOURCE, secret="hf_token", **fields)
    done = await world.ended(pull)
    assert done.state == "done" and hub.sent == len(data), done.error
    assert not any("stored" in note for note in done.notes)
    hub.sent = 0
    again = await world.pulled(f"{hub.url}/files/tiny.gguf", sha256=sha(data), name="own-two", actor=GUESSER)
    unfetched(hub, again)  # by now he sees one that is made of them


async def test_a_file_of_this_host_that_is_stored_needs_no_room_and_leaves_no_copy(
    world: World, hub: HubDouble, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.pulled(SOURCE)
    await world.catalog.tiers.change(ME, "r", "home", Rules(capacity=len(data)))
    monkeypatch.setattr(files, "copy_in", lambda *args: pytest.fail("it was copied"))
    path = tmp_path / "here.gguf"
    path.write_bytes(data)
    job = await imported(world, path, "n")
    assert job.state == "done" and job.model is not None, job.error
    assert (job.model.sha256, job.stored_bytes) == (sha(data), len(data))
    assert world.left_over() == [f"objects/{sha(data)[:2]}/{sha(data)}"]
    assert not await world.store.read(lambda db: db.execute("SELECT * FROM tier_reservations").fetchall())


async def test_what_was_sent_here_is_kept_once_too_and_who_sees_no_other_is_not_told_of_it(
    world: World, hub: HubDouble, data: bytes, tmp_path: Path
) -> None:
    await world.pulled(SOURCE)
    world.grants.append(
        Grant(
            id="g2", what="models.*", scope="model:own-*", subject=Subject(kind="user", name="gus", id=1400), by="root",
            at=0.0,
        )
    )  # fmt: skip
    await world.again()
    for n, (actor, told) in enumerate(((ME, len(data)), (GUESSER, 0), (GUESSER, len(data)))):
        path = tmp_path / f"sent-{n}.gguf"
        path.write_bytes(data)
        job = await imported(world, path, f"own-{n}" if actor is GUESSER else "n", actor, own=actor is ME)
        assert job.state == "done" and job.stored_bytes == told, (n, job)
    assert len(world.left_over()) == 1
    told_of = [r for r in await world.audit.ls() if r.verb == "models.add"]
    assert [r.after.get("stored") for r in told_of] == [None, *[len(data)] * 3], "who reads the trail is told all"


async def test_another_file_of_the_same_size_is_stored_as_ever(
    world: World, hub: HubDouble, data: bytes, tmp_path: Path
) -> None:
    await world.pulled(SOURCE)
    path = tmp_path / "here.gguf"
    path.write_bytes(model(200_000, b"\2"))
    assert path.stat().st_size == len(data)
    job = await imported(world, path, "n")
    assert job.state == "done" and job.stored_bytes == 0 and len(world.left_over()) == 2
