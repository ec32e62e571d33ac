"""The space of tiers: promised before the first byte is written, so that no capacity and no disk is given out twice.

What is promised to imports and moves stands in the database beside what is stored, and an object is stored in the same
transaction in which its reservation ends. Reservations end with their daemon: what it was doing begins anew. Only pulls
outlive it, and so do their promises: each is made again before anything else may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from core.amounts import size_said
from core.catalog import files, sweep
from core.catalog.objects import Objects
from core.catalog.tiers import folder, tables
from core.errors import Conflict, CorralError, NoRoom, StoreError
from core.nouns import HOME
from core.store import Store

log = logging.getLogger(__name__)


class Away(Conflict):
    """The tier is not there, or takes no changes."""


class Reservation:
    """`bytes` of a tier for one thing. `wrote` may be set from any thread: what is written of them counts on the disk
    already."""

    def __init__(self, id: str, tier: str, bytes: int, device: int, wrote: int = 0) -> None:
        self.id, self.tier, self.bytes, self.device, self.wrote = id, tier, bytes, device, wrote
        self.passed: list[CorralError] = []
        """Why the tiers before it, which spill to it, did not take these bytes."""

    @property
    def spilled(self) -> tuple[str, ...]:
        """The same as sentences: away, or full with the figures."""
        return tuple(map(reason, self.passed))

    @property
    def left(self) -> int:
        """Bytes that it will still take of its disk."""
        return max(0, self.bytes - self.wrote)


class Disk(NamedTuple):
    """What a tier's disk has, in all and free. `aside`: bytes in the tier that no model needs."""

    device: int
    total: int
    free: int
    aside: int


class Ledger:
    """Only the tiers make one."""

    def __init__(
        self, store: Store, objects: Objects, memory: Callable[[str], Path], clock: Callable[[], float]
    ) -> None:
        self._store, self._objects, self._memory, self._clock = store, objects, memory, clock
        self._live: dict[str, Reservation] = {}
        self.lent: set[str] = set()
        """Jobs that fill what another was promised."""
        self._owed: list[str] = []
        """Reservations that ended while the database took nothing."""
        self._lock = asyncio.Lock()

    @property
    def live(self) -> set[str]:
        """The ids of what is on its way."""
        return {*self._live, *self.lent}

    def disk(self, tier: str) -> Disk:
        """In a thread. Raises OSError."""
        path = self._objects.folders[tier]
        aside = sum(_size(each) for each in _below(self._objects.quarantine_of(tier)))
        for sha256 in sweep.kept(self._memory(tier), self._store.database_id):
            aside += _size(self._objects.place(sha256, tier))
        has = shutil.disk_usage(path)
        return Disk(path.stat().st_dev, has.total, has.free, aside)

    def left(self, disk: Disk) -> int:
        """What a disk still takes beside what is promised on it; on the one with the database some is kept."""
        promised = sum(each.left for each in self._live.values() if each.device == disk.device)
        spare = files.SPARE if self._has_database(disk) else 0
        return max(0, disk.free - promised - spare)

    # ---------------------------------------------------------------------------------------- promise

    async def find(self, first: str, size: int, id: str, what: str, *, lies_on: int = -1) -> Reservation:
        """Reserve in `first`, or in the tier to which it spills. Raises `NoRoom` and `Away` of the first one."""
        tier, tried, failed = first, set[str](), list[CorralError]()
        while tier and tier not in tried:
            tried.add(tier)
            try:
                made = await self.reserve(tier, size, id, what, lies_on=lies_on)
                made.passed = failed
                return made
            except (NoRoom, Away) as error:
                failed.append(error)
            tier = await self._store.read(lambda db, name=tier: tables.one(db, name).spill)  # type: ignore[misc]
        failed[0].why = "; ".join([failed[0].why, *map(reason, failed[1:])])
        raise failed[0]

    async def reserve(self, tier: str, size: int, id: str, what: str, *, lies_on: int = -1) -> Reservation:
        """Promise `size` bytes. `lies_on`: the device that has these bytes already, for what is only given another
        place. Raises `NoRoom`, `Away`, `NotFound`."""
        work = asyncio.ensure_future(self._reserve(tier, size, id, what, lies_on))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:  # it may have been promised by then, to nobody
            with contextlib.suppress(CorralError):
                await self.release(await work)
            raise

    async def _reserve(self, tier: str, size: int, id: str, what: str, lies_on: int) -> Reservation:
        async with self._lock:
            row = await self._store.read(lambda db: tables.one(db, tier))
            disk = await asyncio.to_thread(self._look, row)
            wrote = size if disk.device == lies_on else 0
            self._check_disk(row.name, size - wrote, disk, what)
            owed, self._owed = self._owed, []

            def put(db: sqlite3.Connection) -> None:
                for each in owed:
                    tables.release(db, each)
                check_capacity(db, tables.one(db, tier), size, disk.aside, what)
                tables.reserve(db, id, tier, size, what, self._clock())

            await self._store.transact(put)
            made = self._live[id] = Reservation(id, tier, size, disk.device, wrote)
            return made

    async def again(self, tier: str, size: int, id: str, what: str, wrote: int) -> Reservation:
        """What a daemon before had promised to a job that goes on: nothing is refused, since it lies there already."""
        async with self._lock:
            path = self._objects.folders.get(tier)
            away = await self._store.read(lambda db: tables.one(db, tier).away)
            device = -1 if away or path is None else await asyncio.to_thread(_device, path)
            await self._store.transact(lambda db: tables.reserve(db, id, tier, size, what, self._clock()))
            made = self._live[id] = Reservation(id, tier, size, device, wrote)
            return made

    async def resize(self, reservation: Reservation, size: int, what: str) -> None:
        """Promise more or less to what is on its way, where its tier is there. Raises `NoRoom`, `Away`."""
        async with self._lock:
            row = await self._store.read(lambda db: tables.one(db, reservation.tier))
            disk = await asyncio.to_thread(self._look, row)
            more = size - reservation.bytes
            if more > 0:
                self._check_disk(row.name, more, disk, what)

            def put(db: sqlite3.Connection) -> None:
                if more > 0:
                    check_capacity(db, tables.one(db, row.name), more, disk.aside, what)
                tables.release(db, reservation.id)
                tables.reserve(db, reservation.id, row.name, size, what, self._clock())

            if more:
                await self._store.transact(put)
            reservation.bytes, reservation.device = size, disk.device

    async def usable(self, tier: str) -> None:
        """Raises `Away` for a tier that is not there or takes no changes, `NotFound`."""
        row = await self._store.read(lambda db: tables.one(db, tier))
        await asyncio.to_thread(self._look, row)

    def of(self, id: str) -> Reservation | None:
        """What is promised to a job."""
        return self._live.get(id)

    def spare(self, reservation: Reservation) -> int:
        """Bytes that are kept free on the disk of what is on its way: on the one with the database."""
        return files.SPARE if reservation.device == self._objects.home.parent.stat().st_dev else 0

    async def release(self, reservation: Reservation) -> None:
        """What it was for is stored, or given up."""
        self._live.pop(reservation.id, None)
        try:
            await self._store.transact(lambda db: tables.release(db, reservation.id))
        except StoreError as error:
            self._owed.append(reservation.id)
            log.error("the space of %s in %s is not given back yet: %s", reservation.id, reservation.tier, error)

    def _look(self, row: tables.Row) -> Disk:
        """In a thread. Raises `Away`."""
        path = self._objects.folders[row.name]
        try:
            if row.name == HOME:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif why := folder.look(path, row.id):
                raise Away(f"the tier {row.name} is not there", why, f"mount it, or {_elsewhere(row)}")
            if folder.read_only(path):
                raise Away(f"the tier {row.name} takes no changes", f"{path} is read-only", _elsewhere(row))
            disk = self.disk(row.name)
            for each in list(self._live.values()):  # of one that was away when it was promised nobody knew the disk
                if each.tier == row.name:
                    each.device = disk.device
            return disk
        except OSError as error:
            raise Away(f"the tier {row.name} cannot be used", error.strerror or str(error)) from error

    def _check_disk(self, tier: str, size: int, disk: Disk, what: str) -> None:
        left = self.left(disk)
        if size > left:
            kept = f" beside {size_said(files.SPARE)} that are kept" if self._has_database(disk) else ""
            raise NoRoom(
                f"there is no room for {what}",
                f"it takes {size_said(size)}, and the disk of {tier} has {size_said(left)} left{kept}",
                "remove or move a model, or make room on the disk", tier=tier, bytes=size, left=left,
            )  # fmt: skip

    def _has_database(self, disk: Disk) -> bool:
        return disk.device == self._objects.home.parent.stat().st_dev


def reason(error: CorralError) -> str:
    """Why a tier does not take something, in one sentence."""
    return f"{error.what} ({error.why})" if isinstance(error, Away) else error.why


def check_capacity(db: sqlite3.Connection, row: tables.Row, size: int, aside: int, what: str) -> None:
    """Raises `NoRoom` if a tier's capacity does not take `size` more bytes."""
    if not row.capacity:
        return
    held, promised = tables.stored(db, row.name)[1], tables.reserved(db, row.name)
    left = max(0, row.capacity - held - promised - aside)
    if size > left:
        raise NoRoom(
            f"there is no room for {what}",
            f"it takes {size_said(size)}; of {size_said(row.capacity)} of {row.name} {size_said(held)} are stored,"
            f" {size_said(promised)} promised and {size_said(aside)} set aside",
            f"move a model out of it, or say `corral tiers set {row.name} --capacity SIZE`",
            tier=row.name, bytes=size, left=left,
        )  # fmt: skip


def _elsewhere(row: tables.Row) -> str:
    """What to do where a tier cannot be written: imports and pulls name none."""
    other = "have new models land elsewhere (corral tiers set TIER --default)"
    return f"{other}, or name another tier to a move" if row.landing else "name another tier"


def _device(path: Path) -> int:
    try:
        return path.stat().st_dev
    except OSError:
        return -1


def _below(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except FileNotFoundError:
        return []


def _size(path: Path) -> int:
    """Of a file, or of the files in a folder; 0 for what has gone."""
    try:
        if path.is_dir():
            return sum(each.lstat().st_size for each in path.iterdir())
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
