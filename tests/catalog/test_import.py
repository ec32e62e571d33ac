"""Imports end with a model or with a reason, and leave nothing else behind."""

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.access import Gate, Rights
from core.audit import Audit
from core.catalog import Catalog, Use, files
from core.catalog.imports import name_from
from core.catalog.references import check_name
from core.catalog.taking import Source
from core.deployments.capacity import _NAME as DEPLOYMENT
from core.errors import BadModel, Conflict, Failed, Invalid, NotAllowed, NotFound
from core.events import Bus
from core.nouns import Actor, Grant, ImportJob, Model, Subject
from core.paths import Paths
from core.store import Store

_spec = importlib.util.spec_from_file_location("gguf_maker", Path(__file__).with_name("gguf_maker.py"))
assert _spec is not None and _spec.loader is not None
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)

ME = Actor(uid=1234, name="ada", groups=(0,))
BOB = Actor(uid=1235, name="bob", groups=(0,))
STRANGER = Actor(uid=99, name="eve")


@contextlib.asynccontextmanager
async def daemon(folder: Path, *, idle_s: float = 60) -> AsyncIterator[Catalog]:
    """A catalog over the store in `folder`, as one daemon's life has it."""
    paths = Paths(folder / "home", folder / "corral.toml", "0badcafe")
    paths.state.mkdir(parents=True, exist_ok=True)
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.catalog"))
    audit = Audit(store, paths)
    all_below = Grant(id="g1", what="admin", subject=Subject(kind="group", name="root", id=0), by="root", at=0.0)
    gate = Gate(store, audit, Rights(mode="system", owner_uid=1234, grants=[all_below]))
    made = Catalog(store, gate, paths, Bus(), idle_s=idle_s)
    made.audit = audit  # type: ignore[attr-defined]
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        await store.close()


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with daemon(tmp_path) as made:
        yield made


async def ended(catalog: Catalog, job: ImportJob) -> ImportJob:
    task = catalog.imports._tasks.get(job.id)
    if task is not None:
        await asyncio.wait_for(asyncio.shield(task), 20)
    await asyncio.sleep(0)
    return catalog.imports.job(job.id)


async def take(catalog: Catalog, path: Path, name: str | None = "m") -> ImportJob:
    return await ended(catalog, await catalog.imports.start(ME, "r", Source(path, origin=str(path)), name))


def left(catalog: Catalog) -> list[str]:
    """Every file of a model, or of one on its way in."""
    return [str(each) for each in catalog._paths.models.rglob("*") if each.is_file()]


def parts(count: int, **changes: object) -> list[bytes]:
    """The parts of a split model; `changes` to what each says of itself, `n` in a text being its number from 0."""
    made = []
    for n in range(count):
        told = {"split.no": n, "split.count": count, "split.tensors.count": count, **changes}
        told = {key: value for key, value in told.items() if value is not None}
        made.append(maker.make({**maker.METADATA, **told}, tensors=[(f"blk.{n}", [64, 4], 0, None)]))
    return made


def split(folder: Path, made: list[bytes], name: str = "big") -> Path:
    folder.mkdir()
    for n, data in enumerate(made, 1):
        (folder / f"{name}-{n:05d}-of-{len(made):05d}.gguf").write_bytes(data)
    return folder


async def pieces(*data: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    """A body as it comes; `then` is how it breaks off."""
    for each in data:
        yield each
    if then is not None:
        raise then


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
    folder = split(tmp_path / "split", parts(2))
    assert (await take(catalog, folder)).state == "done"
    model = await catalog.get("m")
    first = Path(catalog.path(model))
    assert sorted(each.name for each in first.parent.iterdir()) == [each.name for each in model.files]
    assert first.name == "big-00001-of-00002.gguf"
    assert (await take(catalog, folder / "big-00002-of-00002.gguf", "again")).state == "done"  # any part names the set
    assert (await catalog.get("again")).sha256 == model.sha256


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"split.count": 3}, "part 1 of 3"), ({"split.count": None}, "part 1 of 1"),
        ({"split.no": 1}, "part 2 of 2"), ({"split.tensors.count": 7}, "2 tensors and says 7"),
        ({"split.count": "two"}, "'two'"), ({"split.no": "x"}, "part 'x'"),
    ],
)  # fmt: skip
async def test_parts_that_say_something_else_of_themselves_are_refused(
    catalog: Catalog, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    job = await take(catalog, split(tmp_path / "split", parts(2, **changes)))
    assert job.error is not None and reason in job.error.why, job.error
    assert left(catalog) == []


async def test_a_part_under_another_name_is_no_model(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "renamed.gguf").write_bytes(parts(2)[0])
    job = await take(catalog, tmp_path / "renamed.gguf")
    assert job.error is not None and "a part of a split model" in job.error.what


@pytest.mark.parametrize("count", ["99999", "00000", "01001"])
def test_an_absurd_count_in_a_name_looks_for_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    file = tmp_path / f"m-00001-of-{count}.gguf"
    file.write_bytes(b"")
    looked: list[Path] = []
    monkeypatch.setattr(Path, "is_file", lambda path: looked.append(path) or True)
    for each in (file, tmp_path):
        with pytest.raises(BadModel, match="absurd count"):
            files.find_set(each)
    assert looked == []


OWN, OTHER = ("<", ">") if sys.byteorder == "little" else (">", "<")


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
        "two counts": (lot("counts", "a-00001-of-00002.gguf", "a-00001-of-00003.gguf"), "exactly one model"),
        "two models": (lot("two", "a.gguf", "b.gguf"), "exactly one model"),
        "incomplete": (lot("part", "a-00001-of-00002.gguf"), "missing: a-00002-of-00002.gguf"),
        "projector": (file("mmproj.gguf", maker.make(clip)), "no language model"),
        "adapter": (file("l.gguf", maker.make({**maker.METADATA, "general.type": "adapter"})), "an adapter (LoRA)"),
        "other machine": (file("be.gguf", maker.make(form=maker.Format(3, OTHER))), "-endian"),
        "of 2023": (file("v1.gguf", maker.make(form=maker.Format(1, OWN))), "GGUF version 1"),
        "no tensors": (file("v.gguf", maker.make(tensors=[])), "no tensors"),
        "pickle": (file("model.bin", b"\x80\x02}q\x00."), "runs whatever code it holds"),
        "safetensors": (file("m.safetensors", b"\x02\0\0\0\0\0\0\0{}"), "no engine that Corral starts reads"),
        "of another kind": (lot("other", "a.safetensors", "b.bin"), "1 .bin, 1 .safetensors are not taken"),
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


async def test_a_projector_that_is_not_there_is_said_to_be_missing(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(maker.make())
    source = Source(tmp_path / "m.gguf", origin="x", projector=tmp_path / "none.gguf")
    error = (await ended(catalog, await catalog.imports.start(ME, "r", source, "m"))).error
    assert error is not None and "none.gguf is not there" in error.what and "mode" not in error.todo


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
    job = await catalog.imports.start(ME, "r", Source(tmp_path / "m.gguf", origin=str(tmp_path / "m.gguf")), "m")
    await catalog.imports.cancel(job.id)
    assert catalog.imports.job(job.id).state == "cancelled"
    assert left(catalog) == []


async def test_two_imports_of_one_name_at_once_are_two_versions(catalog: Catalog, tmp_path: Path) -> None:
    for name, fill in (("a", b"\1"), ("b", b"\2")):
        (tmp_path / f"{name}.gguf").write_bytes(maker.make(fill=fill))
    jobs = [
        await catalog.imports.start(ME, "r", Source(tmp_path / f"{n}.gguf", origin=str(tmp_path / f"{n}.gguf")), "same")
        for n in "ab"
    ]
    states = sorted([(await ended(catalog, job)).state for job in jobs])
    assert states == ["done", "done"]
    found = await catalog.versions("same")
    assert [model.version for model in found] == [1, 2] and found[0].aliases == ("live",)
    assert sorted(left(catalog)) == sorted(catalog.path(model) for model in found)


async def test_a_stranger_is_refused_before_anything_is_read(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(NotAllowed):
        await catalog.imports.start(STRANGER, "r", Source(tmp_path, origin=str(tmp_path)), "m")
    assert [r.outcome for r in await catalog.audit.ls()] == ["refused"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", "Big", "../x", "a b", "x" * 64, ".hidden", "a\n"])
async def test_bad_names_are_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)


async def test_removal_waits_for_the_deployments_and_takes_the_file(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(maker.make())
    await take(catalog, tmp_path / "m.gguf")
    catalog._uses.all = lambda db: [Use("chat", "m", 1)]
    with pytest.raises(Conflict, match="in use"):
        await catalog.rm(ME, "r", "m")
    catalog._uses.all = lambda db: []
    await catalog.rm(ME, "r", "m")
    assert left(catalog) == []
    with pytest.raises(NotFound):
        await catalog.get("m")


async def test_an_upload_becomes_a_model(catalog: Catalog) -> None:
    data = maker.make()
    job = await catalog.imports.start_upload(ME, "r", "up", [("up.gguf", len(data))])
    await catalog.imports.write(ME, job.id, 0, pieces(data[:100], data[100:]))
    assert (await ended(catalog, job)).state == "done"
    assert (await catalog.get("up")).sha256 == hashlib.sha256(data).hexdigest()
    assert left(catalog) == [catalog.path(await catalog.get("up"))]


async def test_a_split_upload_comes_in_any_order(catalog: Catalog) -> None:
    made = parts(3)
    names = [f"big-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]
    job = await catalog.imports.start_upload(
        ME, "r", None, [(name, len(data)) for name, data in zip(names, made, strict=True)]
    )
    for n in (2, 0, 1):
        await catalog.imports.write(ME, job.id, n, pieces(made[n]))
    assert (await ended(catalog, job)).state == "done"
    assert [file.name for file in (await catalog.get("big")).files] == names


async def test_only_who_began_an_upload_may_write_to_it(catalog: Catalog) -> None:
    data = maker.make()
    job = await catalog.imports.start_upload(ME, "r", "up", [("up.gguf", len(data))])
    with pytest.raises(NotAllowed, match="ada"):
        await catalog.imports.write(BOB, job.id, 0, pieces(data))
    await catalog.imports.write(ME, job.id, 0, pieces(data))
    assert (await ended(catalog, job)).state == "done"


async def test_an_upload_that_nothing_comes_of_is_dropped_and_its_folder_removed(tmp_path: Path) -> None:
    async with daemon(tmp_path, idle_s=0.2) as catalog:
        job = await catalog.imports.start_upload(ME, "r", "up", [("up.gguf", 10)])
        async with asyncio.timeout(10):
            while catalog.imports.job(job.id).state == "waiting":
                await asyncio.sleep(0.02)
            while left(catalog) or list((catalog._paths.models / "incoming").iterdir()):
                await asyncio.sleep(0.02)
        dropped = catalog.imports.job(job.id)
        assert dropped.state == "failed" and dropped.error is not None
        assert "nothing more of it came" in dropped.error.why
        with pytest.raises(NotFound):
            await catalog.imports.write(ME, job.id, 0, pieces(b"x" * 10))
        (record,) = await catalog.audit.ls()  # type: ignore[attr-defined]
        assert (record.verb, record.outcome, record.actor) == ("models.import", "failed", "ada")


async def test_an_upload_from_which_bytes_come_is_not_dropped(tmp_path: Path) -> None:
    data = maker.make()

    async def slow() -> AsyncIterator[bytes]:
        for byte in range(0, len(data), len(data) // 8):
            await asyncio.sleep(0.1)
            yield data[byte : byte + len(data) // 8]

    async with daemon(tmp_path, idle_s=0.5) as catalog:
        job = await catalog.imports.start_upload(ME, "r", "up", [("up.gguf", len(data))])
        await catalog.imports.write(ME, job.id, 0, slow())
        assert (await ended(catalog, job)).state == "done"


async def test_a_file_that_broke_off_may_be_sent_again_and_not_twice_at_once(catalog: Catalog) -> None:
    data = maker.make()
    job = await catalog.imports.start_upload(ME, "r", "up", [("up.gguf", len(data))])
    with pytest.raises(Failed, match="broke off"):
        await catalog.imports.write(ME, job.id, 0, pieces(data[:50], then=ConnectionResetError("gone")))
    assert left(catalog) == []
    for wrong in (data + b"x", data[:-1]):
        with pytest.raises(Invalid, match="another size"):
            await catalog.imports.write(ME, job.id, 0, pieces(wrong))
    go = asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        yield data[:50]
        await go.wait()
        yield data[50:]

    first = asyncio.create_task(catalog.imports.write(ME, job.id, 0, held()))
    await asyncio.sleep(0)
    with pytest.raises(Invalid, match="not expected"):
        await catalog.imports.write(ME, job.id, 0, pieces(data))
    go.set()
    await first
    assert (await ended(catalog, job)).state == "done"


async def test_an_upload_that_is_cancelled_while_it_comes_leaves_nothing(catalog: Catalog) -> None:
    go, sent = asyncio.Event(), 0

    async def held() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"x" * 50
        await go.wait()
        for sent in range(1, 51):  # noqa: B007 - its bytes would take room that nobody has promised
            yield b"x"

    job = await catalog.imports.start_upload(ME, "r", "up", [("up.gguf", 100)])
    coming = asyncio.create_task(catalog.imports.write(ME, job.id, 0, held()))
    while not left(catalog):
        await asyncio.sleep(0.01)
    await catalog.imports.cancel(job.id)
    go.set()
    with pytest.raises(NotFound):
        await coming
    assert catalog.imports.job(job.id).state == "cancelled" and sent == 1
    assert left(catalog) == []


@pytest.mark.parametrize(
    "told",
    [
        [], [("../x.gguf", 1)], [(".x.gguf", 1)], [("x.bin", 1)], [("x.gguf", 0)], [("x.gguf", 1), ("x.gguf", 1)],
        [("x.gguf", 1), ("y.gguf", 1)], [("x-00001-of-00002.gguf", 1)], [("a\0.gguf", 1)], [("x" * 300 + ".gguf", 1)],
        [("x-00001-of-99999.gguf", 1)],
    ],
)  # fmt: skip
async def test_an_upload_that_can_be_no_model_is_refused_before_a_byte_is_sent(
    catalog: Catalog, told: list[tuple[str, int]]
) -> None:
    with pytest.raises(Invalid):
        await catalog.imports.start_upload(ME, "r", "up", told)
    assert left(catalog) == []


async def test_objects_without_a_model_go_at_the_next_start(tmp_path: Path) -> None:
    async with daemon(tmp_path) as catalog:
        (tmp_path / "m.gguf").write_bytes(maker.make())
        await take(catalog, tmp_path / "m.gguf")
        await take(catalog, split(tmp_path / "split", parts(2)), "two")
        stored = sorted(left(catalog))
        objects = catalog._paths.models / "objects"
        for sha256 in ("ab" * 32, "cd" * 32):  # as a daemon leaves them that is killed before the commit
            (objects / sha256[:2]).mkdir(exist_ok=True)
        (objects / "ab" / ("ab" * 32)).write_bytes(b"orphan")
        (objects / "cd" / ("cd" * 32)).mkdir()
        (objects / "cd" / ("cd" * 32) / "a-00001-of-00002.gguf").write_bytes(b"orphan")
        (catalog._paths.models / "incoming/x").mkdir(parents=True)
        (catalog._paths.models / "incoming/x/half").write_bytes(b"orphan")
    async with daemon(tmp_path) as catalog:
        assert sorted(left(catalog)) == stored
        assert [model.name for model in await catalog.ls()] == ["m", "two"]


async def test_a_new_database_keeps_the_objects_of_the_one_before(tmp_path: Path) -> None:
    """Set aside as corrupt, its models would be lost twice."""
    async with daemon(tmp_path) as catalog:
        (tmp_path / "m.gguf").write_bytes(maker.make())
        await take(catalog, tmp_path / "m.gguf")
        stored, state = left(catalog), catalog._paths.state
    for file in state.glob("corral.db*"):
        file.unlink()
    for _ in range(2):
        async with daemon(tmp_path) as catalog:
            assert await catalog.ls() == []
            assert left(catalog) == stored
    async with daemon(tmp_path) as catalog:
        await take(catalog, tmp_path / "m.gguf", "again")
        assert left(catalog) == stored
        await catalog.rm(ME, "r", "again")
        assert left(catalog) == []


async def test_a_removal_beside_an_import_of_the_same_content_leaves_a_whole_model(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_bytes(maker.make())
    await take(catalog, tmp_path / "m.gguf", "old")
    real = catalog.imports._commit
    removal: list[asyncio.Task[list[Model]]] = []

    async def commit(*args: object) -> Model:
        """The removal is asked for when the import has found the object there, and has no row yet."""
        removal.append(asyncio.create_task(catalog.rm(ME, "r", "old")))
        await catalog._store.transact(lambda db: None)
        return await real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog.imports, "_commit", commit)
    assert (await take(catalog, tmp_path / "m.gguf", "new")).state == "done"
    await removal[0]
    assert [model.name for model in await catalog.ls()] == ["new"]
    assert Path(catalog.path(await catalog.get("new"))).read_bytes() == maker.make()


async def test_a_sample_that_is_not_the_known_one_is_refused(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "swapped.gguf"
    file.write_bytes(maker.make())
    monkeypatch.setattr("core.catalog.sample.sample_path", lambda: file)
    job = await ended(catalog, await catalog.imports.start_sample(ME, "r", None))
    assert job.state == "failed" and job.error is not None and "not the one it should be" in job.error.what
    assert not left(catalog) and await catalog.ls() == []


def test_a_long_file_name_gives_a_name_that_a_deployment_may_have(tmp_path: Path) -> None:
    """`next: corral deploy aaaa…` was refused."""
    for name in ("a" * 100, "a" * 62 + "-" + "b" * 9, "a" * 61 + "..b"):
        made = name_from(tmp_path / f"{name}.gguf")
        assert DEPLOYMENT.fullmatch(made) and made[-1] not in "-._"


def test_of_many_models_in_a_folder_the_first_are_named_and_the_others_counted() -> None:
    names = {f"{letter}.gguf" for letter in "abcdefgh"}
    with pytest.raises(BadModel) as caught:
        files.one_set(names, "the folder")
    assert caught.value.why == "it holds a.gguf, b.gguf, c.gguf, d.gguf, e.gguf and 3 more"
    with pytest.raises(BadModel) as caught:
        files.one_set({"a.gguf", "b.gguf"}, "the folder")
    assert caught.value.why == "it holds a.gguf, b.gguf"


def test_a_name_with_a_line_end_stays_on_its_line() -> None:
    with pytest.raises(BadModel) as caught:
        files.one_set({"a\nb.gguf", "c.gguf"}, "the folder")
    assert "\n" not in caught.value.why and "a\\nb.gguf" in caught.value.why
