"""What a daemon's life does over and over until it is killed: `python lives.py FOLDER WHAT [HUB]`, its own process.

With the address of a stand-in for a hub it pulls `p` from there meanwhile.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

from pullworld import World
from stores import ME, maker, take

from core.catalog import Catalog, curated
from core.nouns import HOME, ImportOptions

MIB = 1 << 20


def split(folder: Path, n: int, count: int = 4) -> Path:
    """A folder with a split model of so many files; each `n` is another content."""
    made = folder / f"split-{n}"
    made.mkdir(exist_ok=True)
    for part in range(count):
        told = {**maker.METADATA, "split.no": part, "split.count": count, "split.tensors.count": count}
        data = maker.make(told, tensors=[(f"blk.{part}", [64, 4], 0, None)], fill=bytes([n + 1]))
        (made / f"big-{part + 1:05d}-of-{count:05d}.gguf").write_bytes(data)
    return made


async def names(catalog: Catalog) -> set[str]:
    return {model.name for model in await catalog.ls()}


async def moving(catalog: Catalog, folder: Path) -> None:
    """The version `m` to and fro."""
    to = "fast" if (await catalog.get("m")).tier == HOME else HOME
    job = await catalog.moves.start(ME, "r", "m", to)
    await catalog.moves.ended(job.id)


async def importing(catalog: Catalog, folder: Path) -> None:
    """A file and a split model in, each with the room that it needs, and out again."""
    for name in await names(catalog) - {"p"}:
        await catalog.rm(ME, "r", name)
    await take(catalog, folder / "large-0.gguf", "m")
    await take(catalog, folder / "split-0", "s")


async def collecting(catalog: Catalog, folder: Path) -> None:
    """Three versions, of which nothing needs two: they go."""
    for name in await names(catalog) - {"p"}:
        await catalog.rm(ME, "r", name)
    for n in range(3):
        await take(catalog, folder / f"split-{n}", "s", ImportOptions(live=True))
    await catalog.drop_alias(ME, "r", "s", "previous")
    found = await catalog.collecting.gc(ME, "r", dry_run=False)
    assert [each.what for each in found.gone] == ["version", "version"]


WORK: dict[str, Callable[[Catalog, Path], Awaitable[None]]] = {
    "moving": moving, "importing": importing, "collecting": collecting,
}  # fmt: skip


async def pulling(world: World, hub: str) -> None:
    """A model from an address, again and again; what a life before left of one is gone on with first."""
    while True:
        for pull in world.pulls.ls():
            await world.ended(pull)
        if "p" in await names(world.catalog):
            await world.catalog.rm(ME, "r", "p")
        await world.pull(f"{hub}/files/p.gguf", name="p")


async def main(folder: Path, what: str, hub: str = "") -> None:
    world = World(folder, SimpleNamespace(url=hub))  # type: ignore[arg-type]
    await world.open()
    curated.templates("m", "")  # the first import would read them, which takes longer than it lives
    print("ready", flush=True)
    async with asyncio.TaskGroup() as group:
        if hub:
            group.create_task(pulling(world, hub))
        while True:
            await WORK[what](world.catalog, folder)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
