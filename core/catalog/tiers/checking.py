"""A tier looked at closely: its folder, each object with its size and mode, and what nobody knows."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from core.catalog.objects import Objects
from core.catalog.sweep import kept, lying
from core.catalog.tiers import folder
from core.errors import Invalid
from core.nouns import HOME, Tier, TierChecked, TierFault

MODES = {"file": 0o444, "folder": 0o711}
"""Of what is stored: read-only, and passable for the engines' account."""


def check(
    tier: Tier, objects: Objects, sizes: dict[str, int], parts: dict[str, dict[str, int]], memory: Path, database: str,
    engines: tuple[int, int] | None, live: Collection[str],
) -> TierChecked:  # fmt: skip
    """In a thread. `sizes`: the objects that should lie there; `parts`: the files of those that are folders; `live`:
    what is on its way there."""
    path = Path(tier.path)
    if tier.state == "away":
        return TierChecked(tier=tier, faults=(_fault("away", path, tier.reason),), objects=0, bytes=0)
    faults = []
    if tier.state == "read-only":
        faults.append(_fault("read-only", path, tier.reason))
    if tier.name != HOME:
        try:
            folder.check(path, (), engines)
        except Invalid as error:
            faults.append(_fault("owner", path, str(error)))
        if engines and (why := folder.unreadable(path / folder.MARKER, engines)):
            faults.append(_fault("engines", path, f"engines cannot read what lies there: {why}"))
    if tier.capacity and tier.stored_bytes + tier.reserved_bytes + tier.aside_bytes > tier.capacity:
        faults.append(_fault("full", path, "it holds more than its capacity"))
    good = size = 0
    bad: set[str] = set()
    for sha256, expected in sorted(sizes.items()):
        place = objects.place(sha256, tier.name)
        wrong = list(_wrong(place, expected, parts.get(sha256)))
        faults += wrong
        if wrong:
            bad.add(sha256)
        else:
            good, size = good + 1, size + expected
    first = next((objects.place(sha256, tier.name) for sha256 in sorted(sizes) if sha256 not in bad), None)
    if engines and first is not None:  # of one object: all are put there in the same way
        file = min(first.iterdir(), default=first) if first.is_dir() else first
        if why := folder.unreadable(file, engines):
            faults.append(_fault("engines", file, f"engines cannot read it: {why}"))
    others = kept(memory, database)
    for each in sorted(lying(path)):
        if each.name not in sizes:
            words = (
                "another database's" if each.name in others else "no version is made of it, or it lies elsewhere too"
            )
            faults.append(_fault("stray", each, words))
    for below in (path / "incoming", path / "pulls"):
        for each in sorted(below.iterdir()) if below.is_dir() else ():
            if each.name.partition(".")[0] not in live:
                faults.append(_fault("stray", each, "the rest of something that broke off"))
    aside = sum(each.stat().st_size for each in objects.quarantine_of(tier.name).rglob("*") if each.is_file())
    return TierChecked(tier=tier, faults=tuple(faults), objects=good, bytes=size, aside_bytes=aside)


def lacking(objects: Objects, tier: str, sizes: dict[str, int], parts: dict[str, dict[str, int]]) -> list[str]:
    """In a thread: the files that should lie in a tier and do not, or with another size."""
    found = (
        each for sha256, size in sizes.items() for each in _wrong(objects.place(sha256, tier), size, parts.get(sha256))
    )
    return [each.path for each in found if each.what in ("missing", "size")]


def _wrong(place: Path, expected: int, parts: dict[str, int] | None) -> Iterator[TierFault]:
    """What is wrong with one object."""
    wanted = {place: expected} if parts is None else {place / name: size for name, size in parts.items()}
    if parts is not None:
        yield from _mode(place, "folder")
    for file, size in wanted.items():
        try:
            found = file.lstat()
        except OSError:
            yield _fault("missing", file, "its file is gone: import it again")
            continue
        if not stat.S_ISREG(found.st_mode):
            yield _fault("owner", file, "it is no file")
        elif found.st_size != size:
            yield _fault("size", file, f"it has {found.st_size} bytes and not {size}: verify it")
        else:
            yield from _mode(file, "file")


def _mode(path: Path, kind: str) -> Iterator[TierFault]:
    try:
        found = path.lstat()
    except OSError:
        return
    if found.st_uid not in (0, os.getuid()):
        yield _fault("owner", path, f"it belongs to uid {found.st_uid}")
    mode = stat.S_IMODE(found.st_mode)
    if mode != MODES[kind]:
        yield _fault("mode", path, f"its mode is {mode:04o} and not {MODES[kind]:04o}: chmod {MODES[kind]:o} {path}")


def _fault(what: str, path: Path, words: str) -> TierFault:
    return TierFault(what=what, path=str(path), words=words)
