"""The database: migrations, a full disk, a newer file, network file systems."""

import sqlite3
from pathlib import Path

import pytest

from core.errors import StoreError
from core.settings import Paths
from core.store import PACKAGES, Store, migrate


def paths_in(folder: Path) -> Paths:
    paths = Paths(folder, folder / "corral.toml", "0badcafe")
    paths.state.mkdir(exist_ok=True)
    return paths


async def test_a_function_that_raises_leaves_nothing(tmp_path: Path) -> None:
    store = await Store.open(paths_in(tmp_path), packages=("core.store",))

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO meta VALUES ('x', '1')")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        await store.transact(half)
    assert await store.read(lambda db: db.execute("SELECT count(*) FROM meta").fetchone()) == (1,)
    await store.close()


async def test_the_reader_cannot_write(tmp_path: Path) -> None:
    store = await Store.open(paths_in(tmp_path), packages=("core.store",))
    with pytest.raises(StoreError, match="readonly"):
        await store.read(lambda db: db.execute("DELETE FROM meta"))
    await store.close()


async def test_a_newer_database_is_refused_and_untouched(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    await (await Store.open(paths, packages=("core.store",))).close()
    db = sqlite3.connect(paths.database)
    db.execute("INSERT INTO migrations VALUES (9999, 'future', 0)")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="newer than this program"):
        await Store.open(paths, packages=("core.store",))


async def test_a_copy_is_made_before_a_migration(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    await (await Store.open(paths, packages=("core.store",))).close()
    assert not paths.backups.exists()
    await (await Store.open(paths, packages=("core.store", "core.audit"))).close()
    (copy,) = paths.backups.glob("*.db")
    assert copy.stat().st_mode & 0o777 == 0o600
    db = sqlite3.connect(copy)
    assert db.execute("SELECT count(*) FROM migrations").fetchone() == (1,)
    db.close()


def test_a_failing_migration_keeps_nothing() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(StoreError, match="migration 2"):
        migrate.migrate(db, [(1, "a", "CREATE TABLE a (x);"), (2, "b", "CREATE TABLE b (x); NONSENSE;")], 0)
    assert migrate.applied(db) == {1}
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'b'").fetchone() == (0,)
    db.close()


def test_the_numbers_of_all_migrations_are_unique() -> None:
    numbers = [number for number, _, _ in migrate.find([p for p in PACKAGES if p != "core.chats"])]
    assert numbers == sorted(set(numbers))


async def test_a_full_disk_takes_the_ballast_then_refuses(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    store = await Store.open(paths, packages=("core.store",))
    assert paths.ballast.stat().st_size == 8 << 20
    full = [2]

    def work(db: sqlite3.Connection) -> str:
        db.execute("INSERT INTO meta VALUES ('k', 'v')")
        if full[0]:
            full[0] -= 1
            raise sqlite3.OperationalError("database or disk is full")
        return "written"

    with pytest.raises(StoreError, match="disk with the database is full"):
        await store.transact(work)
    assert store.low and not paths.ballast.exists()
    assert await store.read(lambda db: db.execute("SELECT count(*) FROM meta").fetchone()) == (1,)
    assert await store.transact(work) == "written"
    await store.recover()
    assert not store.low and paths.ballast.exists()
    await store.close()
