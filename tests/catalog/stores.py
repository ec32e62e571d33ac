"""A catalog over a real store and trail, as one daemon's life has it, and files for it."""

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from core.access import Gate, Rights
from core.audit import Audit
from core.catalog import Catalog
from core.catalog.taking import Source
from core.events import Bus
from core.nouns import NO_OPTIONS, Actor, Grant, ImportOptions, Model, Subject
from core.paths import Paths
from core.store import Store

_spec = importlib.util.spec_from_file_location("gguf_maker", Path(__file__).with_name("gguf_maker.py"))
assert _spec is not None and _spec.loader is not None
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)

ME = Actor(uid=1234, name="ada", groups=(0,))
STRANGER = Actor(uid=99, name="eve")


@contextlib.asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Catalog]:
    """One daemon's life over what lies in `folder`."""
    paths = Paths(folder / "home", folder / "corral.toml", "0badcafe")
    paths.state.mkdir(parents=True, exist_ok=True)
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.catalog"))
    audit = Audit(store, paths)
    admin = Grant(id="g1", what="admin", subject=Subject(kind="group", name="root", id=0), by="root", at=0.0)
    gate = Gate(store, audit, Rights(mode="system", owner_uid=1234, grants=[admin]))
    made = Catalog(store, gate, paths, Bus(), **options)
    made.audit = audit  # type: ignore[attr-defined]
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        await store.close()


async def take(
    catalog: Catalog, path: Path, name: str = "m", options: ImportOptions = NO_OPTIONS, **beside: Any
) -> Model:
    """Import a file; the version that it became."""
    job = await catalog.imports.start(ME, "r", Source(path, origin=str(path), **beside), name, options)
    job = await asyncio.wait_for(catalog.imports.ended(job.id), 20)
    assert job.state == "done" and job.model is not None, job.error
    return job.model


def file(folder: Path, n: int = 0, *, template: str = "", **metadata: Any) -> Path:
    """A model's file; each `n` is another content."""
    told = {**maker.METADATA, **{key.replace("__", "."): value for key, value in metadata.items()}}
    if template:
        told["tokenizer.chat_template"] = template
    path = folder / f"file-{n}.gguf"
    path.write_bytes(maker.make(told, fill=bytes([n])))
    return path


def stored(catalog: Catalog) -> list[str]:
    """Every file that lies in the store."""
    return sorted(str(each) for each in catalog.objects.home.rglob("*") if each.is_file())


def rot(path: str) -> None:
    """Change the last byte of a stored file."""
    Path(path).chmod(0o644)
    with Path(path).open("r+b") as out:
        out.seek(-1, 2)
        out.write(b"\xff")
    Path(path).chmod(0o444)


async def until(check: Callable[[], Any]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.005)
