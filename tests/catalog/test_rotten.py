"""All stored bytes are read again: what has rotted is set aside and told, and the next daemon goes on with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stores import ME, STRANGER, file, opened, stored, take, until

from core.catalog import Catalog, Use, files
from core.errors import Conflict, NotAllowed, NotFound
from core.nouns import Verified


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with opened(tmp_path) as made:
        yield made


async def verified(catalog: Catalog, *names: str) -> Verified:
    await catalog.verifying.start(ME, "r", names)
    await until(lambda: catalog.verifying._task is None or catalog.verifying._task.done())
    return await catalog.verifying.last(lambda model: True)


def rot(path: str) -> None:
    Path(path).chmod(0o644)
    with Path(path).open("r+b") as out:
        out.seek(-1, 2)
        out.write(b"\xff")
    Path(path).chmod(0o444)


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
    again = await take(catalog, file(tmp_path, 1))
    assert (again.version, again.state) == (1, "stored")
    assert {m.state for m in await catalog.ls()} == {"stored"}
    assert (await verified(catalog)).rotten == ()


async def test_a_file_that_is_gone_is_told(catalog: Catalog, tmp_path: Path) -> None:
    one = await take(catalog, file(tmp_path, 1))
    Path(catalog.path(one)).unlink()
    found = await verified(catalog)
    assert [each.versions for each in found.missing] == [("m@1",)] and found.rotten == ()
    assert (await catalog.get("m")).state == "missing"


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
        found = await catalog.verifying.last(lambda model: True)
        assert (found.state, found.objects_done, found.objects_total) == ("done", 3, 3)
        assert len(stored(catalog)) == 3
