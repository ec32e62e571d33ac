"""Where a deployment needs a version to lie (`--tier`): it is moved there, and stays there while that should run."""

import asyncio
import threading
from pathlib import Path

import pytest
from stores import ME, file, take
from tiered import add, copies, large, moved, sound

from core.catalog import Catalog, Use
from core.catalog.tiers.copying import Copying
from core.errors import Conflict, NoRoom
from core.nouns import HOME

MIB = 1 << 20


async def test_what_runs_where_it_must_lie_is_not_moved_away(catalog: Catalog, tmp_path: Path, fast: Path) -> None:
    await add(catalog, fast)
    model = await take(catalog, file(tmp_path))
    catalog._uses.all = lambda db: [Use("chat", "m", 1, "fast", True)]
    assert "is on fast" in await catalog.moves.ensure("m@1", "fast", "chat")
    (job,) = catalog.moves.ls()
    assert (job.by, job.why) == ("corral", "the deployment chat needs it there")
    await catalog.moves.ended(job.id)
    assert await catalog.moves.ensure("m@1", "fast", "chat") == ""
    with pytest.raises(Conflict, match="is needed on fast"):
        await catalog.moves.start(ME, "r", "m", HOME)
    await catalog.moves.check(ME, await catalog.get("m"), HOME, "chat")  # its own need may change
    with pytest.raises(Conflict, match="by chat"):
        await catalog.moves.check(ME, await catalog.get("m"), HOME, "other")
    catalog._uses.all = lambda db: [Use("chat", "m", 1, "fast", False)]
    await moved(catalog, "m", HOME)
    assert copies(catalog, model.sha256) == [HOME]


async def test_a_need_without_room_is_said_and_not_tried_all_the_time(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast, capacity=MIB, spill=HOME)
    model = await take(catalog, large(tmp_path))
    for _ in range(3):
        assert "there is no room for m@1" in await catalog.moves.ensure("m@1", "fast", "chat")
    assert len(await catalog.audit.ls(verb="models.move")) == 1  # type: ignore[attr-defined]
    with pytest.raises(NoRoom):
        await catalog.moves.check(ME, model, "fast", "chat")


async def test_the_same_bytes_under_another_name_stay_where_a_deployment_needs_them(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    await take(catalog, file(tmp_path), "one")
    await take(catalog, file(tmp_path), "two")
    await moved(catalog, "one", "fast")
    catalog._uses.all = lambda db: [Use("chat", "two", 1, "fast", True)]
    for ask in (catalog.moves.plan, catalog.moves.start):
        with pytest.raises(Conflict, match="two@1 is needed on fast") as refused:
            await ask(ME, "r", "one@1", HOME)
        assert refused.value.why == "by chat"
    assert (await catalog.get("two")).tier == "fast"


async def test_a_projector_that_two_share_stays_where_a_deployment_of_one_needs_it(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    projector = file(tmp_path, 9, general__type="mmproj", general__architecture="clip")
    for n, name in enumerate(("one", "two")):
        await take(catalog, file(tmp_path, n), name, projector=projector)
        await moved(catalog, name, "fast")
    catalog._uses.all = lambda db: [Use("chat", "two:live", 1, "fast", True)]
    with pytest.raises(Conflict, match="two@1 is needed on fast"):
        await catalog.moves.start(ME, "r", "one", HOME)
    assert await catalog.moves.ensure("two@1", "fast", "chat") == ""


async def test_what_a_deployment_waits_for_is_moved_nowhere_else_nor_spills_there(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    """From the moment that it is deployed: it would be moved back at once, and nobody would say so."""
    for name in ("quick", "slow"):
        (fast / name).mkdir(mode=0o700)
    await add(catalog, fast / "slow", "slow")
    await add(catalog, fast / "quick", "quick", capacity=MIB, spill="slow")
    await take(catalog, large(tmp_path))
    catalog._uses.all = lambda db: [Use("chat", "m", 1, "quick", True)]
    for to in ("slow", "quick"):
        with pytest.raises(Conflict, match="m@1 is needed on quick"):
            await catalog.moves.start(ME, "r", "m@1", to)
    assert (await catalog.get("m")).tier == HOME and not catalog.tiers.ledger.live
    await sound(catalog)


async def test_what_is_deployed_while_it_is_on_its_way_stays(
    catalog: Catalog, tmp_path: Path, fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(catalog, fast)
    model = await take(catalog, large(tmp_path))
    await moved(catalog, "m", "fast")
    there, go, plain = threading.Event(), threading.Event(), Copying._tell

    def tell(self: Copying, state: str, count: int) -> None:
        there.set()
        go.wait(20)
        plain(self, state, count)

    monkeypatch.setattr(Copying, "_tell", tell)
    job = await catalog.moves.start(ME, "r", "m", HOME)
    await asyncio.to_thread(there.wait, 20)
    await catalog.moves.check(ME, await catalog.get("m"), "fast", "chat")  # as a deploy does
    catalog._uses.all = lambda db: [Use("chat", "m", 1, "fast", True)]
    go.set()
    job = await catalog.moves.ended(job.id)
    assert job.state == "failed" and job.error is not None
    assert (job.error.what, job.error.why) == ("m@1 is needed on fast", "by chat")
    assert copies(catalog, model.sha256) == ["fast"] and (await catalog.get("m")).tier == "fast"
    records = await catalog.audit.ls(object="model:m")  # type: ignore[attr-defined]
    assert [(each.verb, each.outcome) for each in records][-3:] == [
        ("models.move", "intent"), ("models.tier", "refused"), ("models.move", "failed"),
    ]  # fmt: skip
    await sound(catalog)


async def test_who_moves_what_a_stopped_deployment_needs_is_told_that_its_start_moves_it_back(
    catalog: Catalog, tmp_path: Path, fast: Path
) -> None:
    await add(catalog, fast)
    await take(catalog, file(tmp_path))
    await moved(catalog, "m", "fast")
    catalog._uses.all = lambda db: [Use("chat", "m", 1, "fast", False), Use("other", "m", 1, "", True)]
    assert (await catalog.moves.plan(ME, "r", "m", HOME)).back == ("chat",)
    assert (await moved(catalog, "m", HOME)).back == ("chat",)
    assert (await catalog.moves.plan(ME, "r", "m", "fast")).back == ()
