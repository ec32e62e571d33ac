"""The database: errors as sentences, migrations, copies, deletions for good, a full disk, what a crash leaves."""

import asyncio
import errno
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.errors import StoreError
from core.paths import Paths
from core.store import PACKAGES, Store, copies, database, faults, migrate
from core.store.check import check


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


async def test_what_is_committed_is_on_the_disk_and_refers_to_what_is_there(tmp_path: Path) -> None:
    store = await Store.open(paths_in(tmp_path))
    wanted = {"journal_mode": "wal", "foreign_keys": 1}
    writer = {"synchronous": 2, "secure_delete": 1, "query_only": 0}
    for connection, more in ((store._writer, writer), (store._reader, {"query_only": 1})):
        for name, value in (wanted | more).items():
            found = await connection.run(lambda db, name=name: db.execute(f"PRAGMA {name}").fetchone()[0])
            assert found == value, name
    await store.close()
    assert stat.S_IMODE(paths_in(tmp_path).database.stat().st_mode) == 0o600


async def test_the_reader_cannot_write(tmp_path: Path) -> None:
    store = await Store.open(paths_in(tmp_path), packages=("core.store",))
    with pytest.raises(StoreError, match="readonly"):
        await store.read(lambda db: db.execute("DELETE FROM meta"))
    await store.close()


@pytest.mark.parametrize(
    ("sql", "words"),
    [("DROP TABLE chats", "lacks the table chats"), ("ALTER TABLE turns DROP figures", r"lacks turns\.figures")],
)
async def test_a_database_in_which_somebody_dropped_something_is_refused_whole(
    tmp_path: Path, sql: str, words: str
) -> None:
    paths = paths_in(tmp_path)
    await (await Store.open(paths)).close()
    with closing(sqlite3.connect(paths.database)) as db:
        db.execute(sql)
    before = paths.database.read_bytes()
    with pytest.raises(StoreError, match=rf"{words}.*somebody has dropped it.*put back a copy"):
        await Store.open(paths)
    assert paths.database.read_bytes() == before


async def test_a_newer_database_is_refused_and_untouched(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    await (await Store.open(paths, packages=("core.store",))).close()
    db = sqlite3.connect(paths.database)
    db.execute("INSERT INTO migrations VALUES (9999, 'future', 0)")
    db.commit()
    db.close()
    before = {each: each.read_bytes() for each in paths.state.iterdir() if each.is_file()}
    with pytest.raises(StoreError, match=r"newer than this program.*migration 9999.*run the newer program"):
        await Store.open(paths, packages=("core.store",))
    assert {each: each.read_bytes() for each in before} == before
    assert not paths.backups.exists()


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


async def test_the_room_that_the_ballast_gave_does_not_count_as_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = paths_in(tmp_path)
    store = await Store.open(paths, packages=("core.store",))
    free = [9 << 20]
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free[0] // 4096, f_frsize=4096))
    with pytest.raises(StoreError, match="full"):
        await store.transact(fills_up)
    assert store.low and not paths.ballast.exists()
    await store.recover()
    assert store.low and "nothing is started until there is room" in store.troubles()[0]
    free[0] = 17 << 20
    await store.recover()
    assert not store.low and not store.troubles()
    await store.close()


def fills_up(db: sqlite3.Connection) -> None:
    """SQLite's own word for a full disk: the file may not grow."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    try:
        db.execute(f"PRAGMA max_page_count={pages}")
        db.execute("INSERT INTO meta VALUES ('big', ?)", ("x" * 100_000,))
    finally:
        db.execute("PRAGMA max_page_count=1000000")


async def test_a_full_disk_at_the_start_takes_the_ballast_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = paths_in(tmp_path)
    await (await Store.open(paths, packages=("core.store",))).close()
    real, tries = database.check, [0]

    def full_once(*args: object) -> list[str]:
        tries[0] += 1
        if paths.ballast.exists():
            raise sqlite3.OperationalError("database or disk is full")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "check", full_once)
    store = await Store.open(paths, packages=("core.store",))
    assert tries[0] == 2
    await store.close()


# ------------------------------------------------------------------------------------------------ errors


async def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "gone", tmp_path / "corral.toml", "0badcafe")
    with pytest.raises(StoreError, match=r"corral\.db cannot be opened; .*unable to open database file"):
        await Store.open(paths, packages=("core.store",))


async def test_a_folder_in_the_place_of_the_database_is_a_sentence(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    (paths.database / "x").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be opened"):
        await Store.open(paths, packages=("core.store",))
    assert (paths.database / "x").is_dir()


async def test_a_copy_that_cannot_be_made_stops_the_migration(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    await (await Store.open(paths, packages=("core.store",))).close()
    paths.backups.write_text("in the way")
    with pytest.raises(StoreError, match="was not migrated: it could not be copied aside before"):
        await Store.open(paths, packages=("core.store", "core.audit"))
    assert _numbers(paths.database) == {1}


async def test_a_commit_that_fails_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """The constraint is looked at in COMMIT itself, which is where a failing disk shows too."""
    store = await Store.open(paths_in(tmp_path), packages=("core.store",))
    told: list[str] = []

    def work(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED)")
        db.execute("INSERT INTO a VALUES (1, 2)")
        store.on_commit(lambda: told.append("committed"))

    with pytest.raises(StoreError, match=r"probably not made.*FOREIGN KEY.*while it was committed.*before you try"):
        await store.transact(work)
    assert not told
    assert await store.transact(lambda db: db.execute("SELECT count(*) FROM meta").fetchone()) == (1,)
    assert await store.read(lambda db: db.execute("SELECT 1 FROM sqlite_master WHERE name = 'a'").fetchone()) is None
    await store.close()


async def test_an_error_after_the_commit_does_not_make_it_look_failed(tmp_path: Path) -> None:
    store = await Store.open(paths_in(tmp_path), packages=("core.store",))

    def work(db: sqlite3.Connection) -> str:
        db.execute("INSERT INTO meta VALUES ('k', 'v')")
        store.on_commit(lambda: 1 / 0)
        return "done"

    assert await store.transact(work) == "done"
    assert await store.read(lambda db: db.execute("SELECT value FROM meta WHERE key = 'k'").fetchone()) == ("v",)
    await store.close()


def test_every_error_is_a_sentence_of_the_family() -> None:
    full = sqlite3.OperationalError("unable to write")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    short = sqlite3.OperationalError("disk I/O error")
    short.sqlite_errorcode = faults.IOERR_SHMSIZE
    quota = OSError(errno.EDQUOT, "Disk quota exceeded", "/x")
    for error in (full, short):
        assert "the disk with the database is full; make room" in str(faults.store_error(error))
    assert "on the disk with the database is used up; remove files of yours" in str(faults.store_error(quota))
    broken = OSError(errno.EIO, "Input/output error", "/x/corral.db")
    assert "/x/corral.db: Input/output error" in str(faults.store_error(broken))
    assert "the database says: locked" in str(faults.store_error(sqlite3.OperationalError("locked")))


# ------------------------------------------------------------------------------------------------ migrations, copies


def _numbers(file: Path) -> set[int]:
    with closing(sqlite3.connect(file)) as db:
        return migrate.applied(db)


async def test_a_failing_migration_leaves_the_database_and_a_whole_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = paths_in(tmp_path)
    store = await Store.open(paths, packages=("core.store",))
    await store.transact(lambda db: db.execute("INSERT INTO meta VALUES ('k', 'v')"))
    await store.close()
    known = migrate.find(("core.store",))
    bad = (2, "bad", "CREATE TABLE b (x);\nUPDATE meta SET value = 'lost';\nINSERT INTO nosuch VALUES (1);")
    monkeypatch.setattr(migrate, "find", lambda packages: [*known, bad])
    with pytest.raises(StoreError, match=r"migration 2 \(bad\) failed.*no such table.*nothing of it was kept"):
        await Store.open(paths, clock=lambda: 1e9)
    for file in (paths.database, paths.backups / "corral-20010909T014640.db"):
        assert _numbers(file) == {1}
        with closing(sqlite3.connect(file)) as db:
            assert db.execute("SELECT value FROM meta WHERE key = 'k'").fetchone() == ("v",)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    monkeypatch.setattr(migrate, "find", lambda packages: [*known, (2, "good", "CREATE TABLE b (x);")])
    await (await Store.open(paths)).close()
    assert _numbers(paths.database) == {1, 2}


async def test_copies_go_after_seven_days_at_a_start_and_while_it_runs(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    now = [1e9]
    await (await Store.open(paths, packages=("core.store",), clock=lambda: now[0])).close()
    store = await Store.open(paths, packages=("core.store", "core.audit"), clock=lambda: now[0])
    (copy,) = paths.backups.iterdir()
    (paths.backups / "corral-20010909T014640.db.part").write_text("half made")
    (paths.backups / "mine.txt").write_text("of a person")
    now[0] += 7 * 86400 - 10
    await store.recover()
    assert copy.exists()
    assert sorted(each.name for each in paths.backups.iterdir()) == [copy.name, "mine.txt"]
    now[0] += 86400 + 20
    await store.recover()
    await store.close()
    assert [each.name for each in paths.backups.iterdir()] == ["mine.txt"]
    copy.write_text("old")
    await (await Store.open(paths, packages=("core.store", "core.audit"), clock=lambda: now[0])).close()
    assert not copy.exists()


async def test_the_copies_are_looked_at_also_after_the_clock_was_set_back(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    now = [1e9]
    store = await Store.open(paths, packages=("core.store",), clock=lambda: now[0])
    paths.backups.mkdir()
    (paths.backups / "corral-20000101T000000.db").write_text("old")
    now[0] -= 400 * 86400
    (paths.backups / "corral-20000803T000000.db").write_text("of two days ago")
    await store.recover()
    assert [each.name for each in paths.backups.iterdir()] == ["corral-20000803T000000.db"]
    await store.close()


SECRET = "a sentence that somebody deleted"


def _delete(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM meta WHERE key = 'said'")


def _holding(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.rglob("*") if each.is_file() and SECRET.encode() in each.read_bytes())


async def test_a_deletion_reaches_every_file(tmp_path: Path) -> None:
    """The database, its log, a copy from before a migration; a copy that cannot be written goes as a whole."""
    paths = paths_in(tmp_path)
    store = await Store.open(paths, packages=("core.store",), clock=lambda: 1e9)
    await store.transact(lambda db: db.execute("INSERT INTO meta VALUES ('said', ?)", (SECRET,)))
    await store.close()
    store = await Store.open(paths, packages=("core.store", "core.audit"), clock=lambda: 1e9)
    good = paths.backups / "corral-20010909T014640.db"
    torn = paths.backups / "corral-20010909T014641.db"
    torn.write_bytes(good.read_bytes()[:100] + bytes(3000) + SECRET.encode())
    with closing(sqlite3.connect(paths.backups / "corral-20010101T000000.db")) as older:
        older.execute("CREATE TABLE other (x)")
    assert good.name in _holding(tmp_path) and torn.name in _holding(tmp_path)
    await store.transact(_delete)
    await store.erase(_delete)
    assert _holding(tmp_path) == []
    assert sorted(each.name for each in paths.backups.iterdir()) == ["corral-20010101T000000.db", good.name]
    await store.close()


async def test_a_busy_log_is_cut_as_soon_as_its_reader_has_gone(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    store = await Store.open(paths, packages=("core.store",))
    await store.transact(lambda db: db.execute("INSERT INTO meta VALUES ('said', ?)", (SECRET,)))
    with closing(sqlite3.connect(paths.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM meta").fetchall()
        await store.transact(_delete)
        await store.erase(_delete)
        assert _holding(tmp_path)
        assert "may still be in the write-ahead log" in store.troubles()[0]
        await store.recover()
        assert store.troubles()
        assert await store.transact(lambda db: "writes go on") == "writes go on"
    await store.recover()
    assert _holding(tmp_path) == [] and not store.troubles()
    assert paths.database.with_name("corral.db-wal").stat().st_size == 0
    await store.close()


async def test_a_deletion_right_before_a_crash_is_in_no_file_after_the_next_start(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    store = await Store.open(paths, packages=("core.store",))
    await store.transact(lambda db: db.execute("INSERT INTO meta VALUES ('said', ?)", (SECRET,)))
    await store.transact(_delete)
    (tmp_path / "crashed").mkdir()
    crashed = paths_in(tmp_path / "crashed")
    for file in paths.state.iterdir():
        (crashed.state / file.name).write_bytes(file.read_bytes())
    await store.close()
    assert _holding(tmp_path / "crashed")
    store = await Store.open(crashed, packages=("core.store",))
    assert _holding(tmp_path / "crashed") == []
    await store.close()


# ------------------------------------------------------------------------------------------------ what a crash leaves


async def test_corrupt_files_are_set_aside_whole_and_never_onto_one_another(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    ids = set()
    for n in range(3):
        paths.database.write_bytes(b"no database %d" % n * 100)
        paths.database.with_name("corral.db-wal").write_bytes(b"its log %d" % n)
        store = await Store.open(paths, packages=("core.store",), clock=lambda: 1e9)
        ids.add(store.database_id)
        (told,) = store.warnings
        assert f"is set aside as corral.db.corrupt-20010909T014640{'+' * n}; a new one was begun" in told
        await store.close()
    assert len(ids) == 3
    for n in range(3):
        aside = paths.state / f"corral.db.corrupt-20010909T014640{'+' * n}"
        assert aside.read_bytes() == b"no database %d" % n * 100
        assert aside.with_name(aside.name + "-wal").read_bytes() == b"its log %d" % n


async def test_a_log_without_its_database_is_kept(tmp_path: Path) -> None:
    """What is left when a set-aside was cut off in its middle; SQLite would remove it."""
    paths = paths_in(tmp_path)
    paths.database.with_name("corral.db-wal").write_bytes(b"records" * 1000)
    store = await Store.open(paths, packages=("core.store",), clock=lambda: 1e9)
    assert "corral.db.corrupt-20010909T014640-wal" in store.warnings[0]
    assert (paths.state / "corral.db.corrupt-20010909T014640-wal").read_bytes() == b"records" * 1000
    await store.close()


async def test_a_crash_while_the_database_was_made_is_rolled_back(tmp_path: Path) -> None:
    """A journal that is hot: nobody may read before somebody who may write has rolled it back."""
    paths = paths_in(tmp_path)
    with closing(sqlite3.connect(paths.database, isolation_level=None)) as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        db.execute("PRAGMA cache_size=1")
        db.execute("BEGIN")
        db.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
                   " INSERT INTO meta SELECT i, hex(randomblob(200)) FROM n")  # fmt: skip
        hot = tmp_path / "hot"
        hot.mkdir()
        crashed = paths_in(hot)
        for name in ("corral.db", "corral.db-journal"):
            (crashed.state / name).write_bytes((paths.state / name).read_bytes())
        db.execute("ROLLBACK")
    with closing(sqlite3.connect(f"file:{crashed.database}?mode=ro", uri=True)) as db, pytest.raises(sqlite3.Error):
        db.execute("SELECT count(*) FROM meta")
    known = [(1, "store", "CREATE TABLE IF NOT EXISTS meta (key, value)")]
    assert check(crashed, known, 1e9) == []
    with closing(sqlite3.connect(crashed.database)) as db:
        assert db.execute("SELECT count(*) FROM meta").fetchone() == (0,)
    assert not crashed.database.with_name("corral.db-journal").exists()


async def test_a_database_that_is_gone_is_said(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    paths.audit_head.write_text('{"version":1,"seq":7,"hash":"x"}')
    store = await Store.open(paths, packages=("core.store",))
    assert "is gone although audit.head knows its records" in store.warnings[0]
    await store.close()


async def test_no_page_of_a_change_goes_to_a_file_in_tmp(tmp_path: Path) -> None:
    """SQLite keeps what a savepoint may need back in a nameless file there: of a deletion, all that was deleted."""
    store = await Store.open(paths_in(tmp_path))
    text = "secret " * 100

    def fill(db: sqlite3.Connection) -> None:
        db.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", [(f"k{n}", text) for n in range(2000)])

    def forget(db: sqlite3.Connection) -> list[str]:
        db.execute("SAVEPOINT act")
        db.execute("DELETE FROM meta WHERE key LIKE 'k%'")
        names = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        db.execute("RELEASE act")
        return [name for name in names if "etilqs_" in name]

    await store.transact(fill)
    found = await store.transact(forget)
    await store.close()
    assert found == []


async def test_a_database_that_two_want_written_anew_is_so_once_and_no_warning_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one failed though nothing was left to do, and what it warned of was never taken back."""
    store = await Store.open(paths_in(tmp_path), packages=("core.store",))
    tried: list[None] = []

    def rewrite(db: sqlite3.Connection, temporary: Path) -> None:
        tried.append(None)
        if len(tried) == 2:
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(copies, "rewrite", rewrite)
    store._untidy = True
    await asyncio.gather(store.tidy(), store.tidy())
    await store.recover()
    assert store.troubles() == [] and len(tried) == 1
    store._untidy = True
    await store.tidy()
    assert len(store.troubles()) == 1
    await store.recover()
    assert store.troubles() == [] and len(tried) == 3
    await store.close()
