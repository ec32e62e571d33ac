"""Imports end with a model or with a reason, and leave nothing else behind."""

import asyncio
import hashlib
import importlib.util
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.access import Gate
from core.audit import Audit
from core.catalog import Catalog, files
from core.errors import Conflict, Invalid, NotAllowed, NotFound
from core.events import Bus
from core.nouns import Actor, ImportJob
from core.settings import Paths
from core.store import Store

_spec = importlib.util.spec_from_file_location("gguf_maker", Path(__file__).with_name("gguf_maker.py"))
assert _spec is not None and _spec.loader is not None
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)

ME = Actor(uid=1234, name="ada")
STRANGER = Actor(uid=99, name="eve")


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    paths = Paths(tmp_path / "home", tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir(parents=True)
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.catalog"))
    audit = Audit(store, paths)
    made = Catalog(store, Gate(store, audit, mode="user", owner_uid=1234, group="corral"), paths, Bus())
    made.audit = audit  # type: ignore[attr-defined]
    yield made
    await made.close()
    await store.close()


async def ended(catalog: Catalog, job: ImportJob) -> ImportJob:
    task = catalog._tasks.get(job.id)
    if task is not None:
        await asyncio.wait_for(asyncio.shield(task), 20)
    await asyncio.sleep(0)
    return catalog.job(job.id)


async def take(catalog: Catalog, path: Path, name: str | None = "m") -> ImportJob:
    return await ended(catalog, await catalog.start_import(ME, "r", str(path), name))


def left(catalog: Catalog) -> list[str]:
    return [str(each) for each in catalog._paths.models.rglob("*") if each.is_file()]


async def test_a_file_becomes_a_model_of_its_own(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "Tiny.Model.gguf"
    file.write_bytes(maker.make())
    job = await take(catalog, file, None)
    assert job.state == "done", job.error
    model = await catalog.get("tiny.model")
    stored = Path(catalog.path(model))
    assert model.sha256 == hashlib.sha256(file.read_bytes()).hexdigest() == stored.name
    assert stored.stat().st_mode & 0o777 == 0o444
    assert stored.stat().st_ino != file.stat().st_ino
    assert (model.licence, model.origin, model.imported_by) == ("apache-2.0", str(file), "ada")
    assert model.shape.repack_bytes == 64 * 64 // 32 * 18
    assert left(catalog) == [str(stored)]
    records = await catalog.audit.ls()  # type: ignore[attr-defined]
    assert [(r.verb, r.outcome) for r in records] == [
        ("models.import", "intent"), ("models.add", "done"), ("models.import", "done"),
    ]  # fmt: skip


async def test_split_files_are_one_model_with_its_parts_side_by_side(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    for n in (1, 2):
        data = maker.make(tensors=[(f"blk.{n}", [64, 4], 0, None)])
        (folder / f"big-0000{n}-of-00002.gguf").write_bytes(data)
    assert (await take(catalog, folder)).state == "done"
    model = await catalog.get("m")
    first = Path(catalog.path(model))
    assert sorted(each.name for each in first.parent.iterdir()) == [each.name for each in model.files]
    assert first.name == "big-00001-of-00002.gguf"


def bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    good = maker.make()

    def file(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    def lot(name: str, *names: str) -> Path:
        (folder / name).mkdir()
        for each in names:
            (folder / name / each).write_bytes(good)
        return folder / name

    os.mkfifo(folder / "pipe.gguf")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "s.gguf"))
    clip = {**maker.METADATA, "general.architecture": "clip"}
    return {
        "missing": (folder / "none.gguf", "not there"),
        "empty": (file("e.gguf", b""), "empty"),
        "truncated": (file("t.gguf", good[:-100]), "truncated"),
        "random": (file("r.gguf", b"x" * 999), "no GGUF file"),
        "pipe": (folder / "pipe.gguf", "named pipe"),
        "socket": (folder / "s.gguf", "socket"),
        "device": (Path("/dev/zero"), "device"),
        "no model": (lot("none"), "exactly one model"),
        "two models": (lot("two", "a.gguf", "b.gguf"), "exactly one model"),
        "incomplete": (lot("part", "a-00001-of-00002.gguf"), "missing: a-00002-of-00002.gguf"),
        "projector": (file("mmproj.gguf", maker.make(clip)), "no language model"),
        "no tensors": (file("v.gguf", maker.make(tensors=[])), "no tensors"),
        "no architecture": (file("a.gguf", maker.make({})), "no architecture"),
    }


async def test_bad_inputs_are_refused_with_a_reason_and_leave_nothing(catalog: Catalog, tmp_path: Path) -> None:
    for case, (path, reason) in bad_inputs(tmp_path).items():
        job = await take(catalog, path)
        assert job.state == "failed", case
        assert job.error is not None
        assert reason in f"{job.error.what} {job.error.why}", case
        assert left(catalog) == [], case
    assert await catalog.ls() == []


async def test_a_file_changed_while_read_is_refused(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(maker.make())
    real = files._write

    def write(fd: int, data: bytes) -> None:
        real(fd, data)
        os.utime(file, ns=(1, 1))

    monkeypatch.setattr(files, "_write", write)
    job = await take(catalog, file)
    assert job.error is not None and "changed while it was read" in job.error.what
    assert left(catalog) == []


async def test_no_room_is_said_before_anything_is_copied(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_bytes(maker.make())
    monkeypatch.setattr(files, "SPARE", 1 << 60)
    job = await take(catalog, tmp_path / "m.gguf")
    assert job.error is not None and job.error.code == "no_room"
    assert left(catalog) == []


async def test_a_cancelled_import_leaves_nothing(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_bytes(maker.make())
    monkeypatch.setattr(files, "CHUNK", 64)
    job = await catalog.start_import(ME, "r", str(tmp_path / "m.gguf"), "m")
    await catalog.cancel(job.id)
    assert catalog.job(job.id).state == "cancelled"
    assert left(catalog) == []


async def test_two_imports_of_one_name_leave_one_model(catalog: Catalog, tmp_path: Path) -> None:
    for name, fill in (("a", b"\1"), ("b", b"\2")):
        (tmp_path / f"{name}.gguf").write_bytes(maker.make(fill=fill))
    jobs = [await catalog.start_import(ME, "r", str(tmp_path / f"{n}.gguf"), "same") for n in "ab"]
    states = sorted([(await ended(catalog, job)).state for job in jobs])
    assert states == ["done", "failed"]
    assert left(catalog) == [catalog.path(await catalog.get("same"))]


async def test_a_stranger_is_refused_before_anything_is_read(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(NotAllowed):
        await catalog.start_import(STRANGER, "r", str(tmp_path), "m")
    assert [r.outcome for r in await catalog.audit.ls()] == ["refused"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", "Big", "../x", "a b", "x" * 65, ".hidden", "a\n"])
async def test_bad_names_are_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(Invalid):
        catalog._name(name)


async def test_removal_waits_for_the_deployments_and_takes_the_file(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(maker.make())
    await take(catalog, tmp_path / "m.gguf")
    with pytest.raises(Conflict, match="in use"):
        await catalog.rm(ME, "r", "m", lambda db, name: ["chat"])
    await catalog.rm(ME, "r", "m", lambda db, name: [])
    assert left(catalog) == []
    with pytest.raises(NotFound):
        await catalog.get("m")


async def test_an_upload_becomes_a_model(catalog: Catalog) -> None:
    data = maker.make()

    async def pieces() -> AsyncIterator[bytes]:
        yield data[:100]
        yield data[100:]

    job = await catalog.start_upload(ME, "r", "up", [("up.gguf", len(data))])
    await catalog.write(job.id, 0, pieces())
    assert (await ended(catalog, job)).state == "done"
    assert (await catalog.get("up")).sha256 == hashlib.sha256(data).hexdigest()


async def test_a_sample_that_is_not_the_known_one_is_refused(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "swapped.gguf"
    file.write_bytes(maker.make())
    monkeypatch.setattr("core.catalog.service.sample_path", lambda: file)
    job = await ended(catalog, await catalog.start_sample(ME, "r", None))
    assert job.state == "failed" and job.error is not None and "not the one it should be" in job.error.what
    assert not left(catalog) and await catalog.ls() == []
