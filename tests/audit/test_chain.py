"""The chain over a real database: appended through the gate, tampered with from outside, found by verify."""

import asyncio
import hashlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.access import Gate, Rights
from core.audit import Audit, chain
from core.audit.log import Head, read_head, write_head
from core.errors import Conflict, NotAllowed, StoreError
from core.nouns import CORRAL, Actor
from core.paths import Paths
from core.store import Store

PACKAGES = ("core.store", "core.audit")
ALICE = Actor(uid=1000, name="alice")
MALLORY = Actor(uid=1001, name="mallory")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[tuple[Paths, Store, Audit, Gate]]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=PACKAGES)
    audit = Audit(store, paths, clock=time.time)
    yield paths, store, audit, Gate(store, audit, Rights(mode="user", owner_uid=1000))
    await store.close()


def tamper(paths: Paths, *statements: str) -> None:
    """What the owner of the files could do: drop the triggers and write."""
    db = sqlite3.connect(paths.database)
    for statement in ("DROP TRIGGER audit_keeps_rows", "DROP TRIGGER audit_keeps_content", *statements):
        db.execute(statement)
    db.commit()
    db.close()


async def fill(gate: Gate, count: int) -> None:
    for n in range(count):
        await gate.record(CORRAL, "test.done", f"thing:{n}", "r", "done", after={"n": n})


async def test_a_whole_chain_verifies(place: tuple[Paths, Store, Audit, Gate]) -> None:
    _, _, audit, gate = place
    await fill(gate, 5)
    report = await audit.verify()
    assert (report.ok, report.records, report.wrong) == (True, 5, None)


@pytest.mark.parametrize(
    ("statements", "wrong", "how"),
    [
        (["UPDATE audit SET reason = 'x' WHERE seq = 3"], 3, "changed"),
        (["UPDATE audit SET hash = 'x' WHERE seq = 3"], 3, "changed"),
        (["DELETE FROM audit WHERE seq = 3"], 3, "removed"),
        (["DELETE FROM audit WHERE seq = 1"], 1, "removed"),
        (["DELETE FROM audit WHERE seq >= 4"], 4, "cut"),
        (["DELETE FROM audit"], 1, "cut"),
        (
            [
                "UPDATE audit SET seq = -1 WHERE seq = 2",
                "UPDATE audit SET seq = 2 WHERE seq = 3",
                "UPDATE audit SET seq = 3 WHERE seq = -1",
            ],
            2,
            "swapped",
        ),
        (
            [
                "UPDATE audit SET seq = -1 WHERE seq = 2",
                "UPDATE audit SET seq = 2 WHERE seq = 5",
                "UPDATE audit SET seq = 5 WHERE seq = -1",
            ],
            2,
            "swapped",
        ),
    ],
)
async def test_tampering_is_named(
    place: tuple[Paths, Store, Audit, Gate], statements: list[str], wrong: int, how: str
) -> None:
    paths, _, audit, gate = place
    await fill(gate, 5)
    tamper(paths, *statements)
    report = await audit.verify()
    assert (report.ok, report.wrong, report.how) == (False, wrong, how)
    assert str(wrong) in report.message


async def test_an_inserted_record_is_named(place: tuple[Paths, Store, Audit, Gate]) -> None:
    paths, _, audit, gate = place
    await fill(gate, 4)
    db = sqlite3.connect(paths.database)
    row = list(db.execute(chain.SELECT + " WHERE seq = 2").fetchone())
    prev = row[14]
    db.close()
    forged = (3, *row[1:13], prev)
    forged = (*forged, chain.digest(forged))
    tamper(paths, "UPDATE audit SET seq = 5 WHERE seq = 4", "UPDATE audit SET seq = 4 WHERE seq = 3")
    db = sqlite3.connect(paths.database)
    db.execute(f"INSERT INTO audit ({', '.join(chain.COLUMNS)}) VALUES ({', '.join('?' * 15)})", forged)
    db.commit()
    db.close()
    report = await audit.verify()
    assert (report.ok, report.wrong, report.how) == (False, 3, "inserted")


async def test_a_head_of_another_chain_is_found(place: tuple[Paths, Store, Audit, Gate]) -> None:
    paths, _, audit, gate = place
    await fill(gate, 3)
    write_head(paths, Head(1, 2, "f" * 64))
    assert (await audit.verify()).how == "head"
    paths.audit_head.unlink()
    assert (await audit.verify()).how == "head"


async def test_a_head_left_from_before_the_database_is_no_cut(place: tuple[Paths, Store, Audit, Gate]) -> None:
    """A crash between the first commit of a new database and the writing of the head."""
    paths, _, audit, gate = place
    old = Head(1, 900, "a" * 64)
    write_head(paths, old)
    await fill(gate, 1)
    write_head(paths, old)
    assert [fault.how for fault in (await audit.verify()).faults] == ["lost"]


async def test_sql_cannot_update_delete_or_replace(place: tuple[Paths, Store, Audit, Gate]) -> None:
    _, store, _, gate = place
    await fill(gate, 1)
    replace = "INSERT OR REPLACE INTO audit SELECT * FROM audit"  # REPLACE asks no DELETE trigger
    for statement in ("UPDATE audit SET reason = ''", "DELETE FROM audit", replace):
        with pytest.raises(Exception, match="never"):
            await store.transact(lambda db, s=statement: db.execute(s))


async def test_a_refusal_rolls_back_and_is_recorded(place: tuple[Paths, Store, Audit, Gate]) -> None:
    _, store, audit, gate = place

    def work(db: sqlite3.Connection) -> tuple[None, None, None]:
        db.execute("INSERT INTO meta VALUES ('half', 'done')")
        raise Conflict("no", "because")

    with pytest.raises(Conflict):
        await gate.act(ALICE, "test.act", "thing:x", "r", work)
    assert await store.read(lambda db: db.execute("SELECT 1 FROM meta WHERE key = 'half'").fetchone()) is None
    (record,) = await audit.ls()
    assert (record.outcome, record.actor, record.reason) == ("refused", "alice", "no; because")


async def test_a_stranger_is_refused_and_recorded_and_nothing_runs(place: tuple[Paths, Store, Audit, Gate]) -> None:
    _, _, audit, gate = place
    ran = []
    with pytest.raises(NotAllowed):
        await gate.act(MALLORY, "test.act", "thing:x", "r", lambda db: ran.append(1) or (None, None, None))
    assert not ran
    assert (await audit.ls(actor="mallory"))[0].outcome == "refused"


async def test_an_effect_has_two_records_with_one_id(place: tuple[Paths, Store, Audit, Gate]) -> None:
    _, _, audit, gate = place
    effect = await gate.intent(CORRAL, "replica.start", "replica:a/0", "r1")
    await gate.outcome(effect, "failed", reason="no such file")
    records = await audit.ls(object="replica:*")
    assert [r.outcome for r in records] == ["intent", "failed"]
    assert len({(r.effect, r.request) for r in records}) == 1


async def test_a_new_database_goes_on_from_the_old_head(place: tuple[Paths, Store, Audit, Gate]) -> None:
    paths, store, audit, gate = place
    await fill(gate, 3)
    head = (await audit.verify()).head
    await store.close()
    paths.database.write_bytes(b"not a database at all" * 100)
    for suffix in ("-wal", "-shm"):
        paths.database.with_name("corral.db" + suffix).unlink(missing_ok=True)
    fresh = await Store.open(paths, packages=PACKAGES)
    try:
        assert any("set aside" in warning for warning in fresh.warnings)
        assert list(paths.state.glob("corral.db.corrupt-*"))
        assert fresh.database_id != store.database_id
        second = Audit(fresh, paths)
        gate = Gate(fresh, second, Rights(mode="user", owner_uid=1000))
        await gate.record(CORRAL, "a.b", "c:d", "r", "done")
        assert (await second.ls())[0].prev == head
        report = await second.verify()
        assert (report.ok, report.wrong, report.how) == (False, 1, "lost"), "all records before are gone"
        assert not second.status.ok
        work = await second.acceptance("the disk broke", report.faults)
        await gate.act(CORRAL, "audit.accept", "audit:chain", "r", work, reason="the disk broke")
        assert (await second.verify()).ok
    finally:
        await fresh.close()


async def test_cancelling_the_caller_commits_all_or_nothing(place: tuple[Paths, Store, Audit, Gate]) -> None:
    _, _, audit, gate = place
    tasks = [asyncio.create_task(gate.record(CORRAL, "a.b", f"c:{n}", "r", "done")) for n in range(30)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await gate.record(CORRAL, "a.b", "c:last", "r", "done")
    assert (await audit.verify()).ok


def _row(seq: int, prev: str, text: str) -> chain.Row:
    row = (seq, "t", "a", 1, "cli", "x.y", "k:n", "r", "", "null", "null", "done", text, prev)
    return (*row, chain.digest(row))


def _chain(length: int) -> list[chain.Row]:
    rows: list[chain.Row] = []
    prev = chain.GENESIS
    for seq in range(1, length + 1):
        rows.append(_row(seq, prev, f"reason {seq}"))
        prev = str(rows[-1][14])
    assert not _inspected(rows).how
    return rows


def _inspected(rows: list[chain.Row], outside: str = "", ends: int = 0) -> chain.Verdict:
    return chain.inspect(lambda first: [row for row in rows if row[0] >= first], outside, ends)


def _named(rows: list[chain.Row], outside: str = "") -> tuple[int | None, str]:
    """What `inspect` says of rows as a database gives them: in the order of seq."""
    ordered = sorted(rows, key=lambda row: row[0])
    verdict = _inspected(ordered, outside)
    return verdict.wrong, verdict.how


lengths = st.integers(2, 12)


@settings(max_examples=200)
@given(lengths, st.data())
def test_any_changed_field_is_found_at_its_seq(length: int, data: st.DataObject) -> None:
    rows = _chain(length)
    at = data.draw(st.integers(0, length - 1))
    column = data.draw(st.integers(1, 14 if at else 12))
    old = rows[at][column]
    rows[at] = (*rows[at][:column], old + 1 if isinstance(old, int) else f"{old}!", *rows[at][column + 1 :])
    assert _named(rows) == (at + 1, "changed")


@given(lengths, st.data())
def test_a_changed_record_with_a_new_hash_is_found(length: int, data: st.DataObject) -> None:
    rows = _chain(length)
    at = data.draw(st.integers(1, length - 1))
    outside = str(rows[-1][14])
    rows[at - 1] = _row(at, str(rows[at - 1][13]), "forged")
    assert _named(rows, outside) == (at, "changed")


@given(lengths, st.data())
def test_removed_records_are_found_with_and_without_a_gap(length: int, data: st.DataObject) -> None:
    rows = _chain(length)
    first = data.draw(st.integers(1, length - 1))
    count = data.draw(st.integers(1, length - first))  # the last one stays: the rest is a cut
    left = rows[: first - 1] + rows[first - 1 + count :]
    assert _named(left) == (first, "removed")
    closed = rows[: first - 1] + [(row[0] - count, *row[1:]) for row in rows[first - 1 + count :]]
    assert _named(closed) == (first, "removed")


@given(lengths, st.data())
def test_an_inserted_record_is_found_whether_it_is_well_forged_or_not(length: int, data: st.DataObject) -> None:
    rows = _chain(length)
    at = data.draw(st.integers(1, length))
    prev = str(rows[at - 1][13])
    forged = data.draw(st.sampled_from([
        _row(at, prev, "forged"),
        (*_row(at, prev, "forged")[:14], "no hash"),
        _row(at, "f" * 64, "forged") if at > 1 else _row(at, prev, "other"),
    ]))  # fmt: skip
    shifted = rows[: at - 1] + [forged] + [(row[0] + 1, *row[1:]) for row in rows[at - 1 :]]
    assert _named(shifted) == (at, "inserted")


@given(lengths, st.data())
def test_a_copied_record_is_found(length: int, data: st.DataObject) -> None:
    rows = _chain(length)
    at = data.draw(st.integers(2, length))
    copied = rows[data.draw(st.integers(0, at - 2))]
    shifted = rows[: at - 1] + [(at, *copied[1:])] + [(row[0] + 1, *row[1:]) for row in rows[at - 1 :]]
    assert _named(shifted) == (at, "inserted")


@given(st.integers(2, 12), st.data())
def test_any_two_swapped_records_are_both_named(length: int, data: st.DataObject) -> None:
    rows = _chain(length)
    one = data.draw(st.integers(1, length - 1))
    two = data.draw(st.integers(one + 1, length))
    rows[one - 1], rows[two - 1] = (one, *rows[two - 1][1:]), (two, *rows[one - 1][1:])
    verdict = _inspected(rows)
    assert (verdict.wrong, verdict.how, verdict.other) == (one, "swapped", two)


class Counter:
    """SHA-256, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hashes, self._real = 0, hashlib.sha256
        monkeypatch.setattr(chain, "_sha256", self)

    def __call__(self, data: bytes) -> "hashlib._Hash":
        self.hashes += 1
        return self._real(data)


LENGTH = 3000
BROKEN = {
    "changed": lambda rows: (*rows[1499][:12], "other", *rows[1499][13:]),
    "forged": lambda rows: _row(1500, str(rows[1499][13]), "forged"),
    "hash": lambda rows: (*rows[1499][:14], "no hash"),
}


@pytest.mark.parametrize("how", [*BROKEN, "swapped", "swapped from the first", "copied", "closed gap"])
def test_a_long_broken_chain_costs_about_as_much_as_a_whole_one(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In hashes and in looks at rows; `make bench` has the seconds for a million records."""
    rows = _chain(LENGTH)
    end, found = str(rows[-1][14]), (1500, "changed")
    monkeypatch.setattr(chain, "SEARCH", 50)
    if how in BROKEN:
        rows[1499] = BROKEN[how](rows)
    elif how.startswith("swapped"):
        one = 1 if "first" in how else 1500
        rows[one - 1], rows[2799] = (one, *rows[2799][1:]), (2800, *rows[one - 1][1:])
        found = (one, "swapped")
    elif how == "copied":
        rows = rows[:1499] + [(1500, *rows[9][1:])] + [(row[0] + 1, *row[1:]) for row in rows[1499:]]
        found = (1500, "inserted")
    else:
        rows = rows[:1499] + [(row[0] - 400, *row[1:]) for row in rows[1899:]]
        found = (1500, "removed")
    counter, looks = Counter(monkeypatch), [0]

    def given(first: int) -> Iterator[chain.Row]:
        for row in rows:
            if row[0] >= first:
                looks[0] += 1
                yield row

    verdict = chain.inspect(given, end, LENGTH)
    assert (verdict.wrong, verdict.how) == found
    assert counter.hashes <= LENGTH + 2 * 50 + 10
    assert looks[0] <= 3 * LENGTH


async def test_bytes_that_are_no_text_are_named_as_a_change(place: tuple[Paths, Store, Audit, Gate]) -> None:
    paths, _, audit, gate = place
    await fill(gate, 4)
    tamper(paths, "UPDATE audit SET reason = CAST(x'ff00fe' AS TEXT) WHERE seq = 2")
    report = await audit.verify()
    assert (report.wrong, report.how) == (2, "changed")


async def test_a_head_that_cannot_be_written_is_said_and_caught_up(
    place: tuple[Paths, Store, Audit, Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record stands, verifying goes by the head in memory, and listeners hear of it."""
    paths, _, audit, gate = place
    heard: list[int] = []
    audit.on_record.append(lambda record: heard.append(record.seq))
    await fill(gate, 2)
    new = paths.audit_head.with_name("audit.head.new")
    new.mkdir()  # in the way, as a full disk would be
    await fill(gate, 1)
    await asyncio.sleep(0)
    assert heard == [1, 2, 3]
    assert "audit.head is behind the records" in audit.troubles()[0]
    assert (await audit.verify()).ok
    paths.audit_head.unlink()
    assert (await audit.verify()).ok
    await audit.recover()
    assert audit.troubles()
    new.rmdir()
    await audit.recover()
    assert not audit.troubles()
    assert read_head(paths) == Head(1, 3, (await audit.verify()).head)


async def test_the_head_is_replaced_whole_and_its_folder_flushed(
    place: tuple[Paths, Store, Audit, Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, _, _, _ = place
    done: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(fd: int) -> None:
        done.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        real_fsync(fd)

    def rename(path: Path, target: Path) -> Path:
        done.append(f"rename {path.name} {target.name}")
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    write_head(paths, Head(1, 7, "a" * 64))
    assert done == ["fsync audit.head.new", "rename audit.head.new audit.head", f"fsync {paths.state.name}"]
    assert read_head(paths) == Head(1, 7, "a" * 64)
    monkeypatch.setattr(os, "write", lambda fd, data: len(data) - 1)
    with pytest.raises(OSError, match="No space left"):
        write_head(paths, Head(1, 8, "b" * 64))
    assert read_head(paths) == Head(1, 7, "a" * 64)


async def test_an_outcome_that_cannot_be_written_is_owed_and_written_once(
    place: tuple[Paths, Store, Audit, Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store, audit, gate = place
    effect = await gate.intent(CORRAL, "replica.start", "replica:a/0", "r1")
    real = store.transact

    async def full(fn: object) -> None:
        raise StoreError("the change was not made", "the disk with the database is full")

    monkeypatch.setattr(store, "transact", full)
    await gate.outcome(effect, "done")
    assert "1 outcomes could not be recorded yet" in gate.troubles()[0]
    with pytest.raises(StoreError):
        await gate.recover()
    monkeypatch.setattr(store, "transact", real)
    await gate.recover()
    await gate.recover()
    assert not gate.troubles()
    assert [r.outcome for r in await audit.ls(object="replica:*")] == ["intent", "done"]


# ------------------------------------------------------------------------------------------------ while no daemon ran


async def start_again(paths: Paths) -> tuple[Store, Audit, Gate]:
    """As a daemon does it: compare, then its first record."""
    store = await Store.open(paths, packages=PACKAGES)
    audit = Audit(store, paths, clock=time.time)
    await audit.compare()
    gate = Gate(store, audit, Rights(mode="user", owner_uid=1000))
    await gate.record(CORRAL, "daemon.start", "daemon:local", "r", "done")
    return store, audit, gate


@pytest.mark.parametrize(
    ("statement", "wrong", "how"),
    [
        ("DELETE FROM audit WHERE seq > 3", 4, "cut"),
        ("DELETE FROM audit", 1, "cut"),
        ("UPDATE audit SET hash = 'other' WHERE seq = 5", 5, "changed"),
    ],
)
async def test_what_was_done_to_its_end_while_no_daemon_ran_stays_known(
    place: tuple[Paths, Store, Audit, Gate], statement: str, wrong: int, how: str
) -> None:
    paths, store, _, gate = place
    await fill(gate, 5)
    await store.close()
    tamper(paths, statement)
    for _ in range(3):
        store, audit, gate = await start_again(paths)
        report = await audit.verify()
        assert (report.ok, report.wrong, report.how) == (False, wrong, how)
        await store.close()
    assert read_head(paths) == Head(1, 8, (await _last(paths))[1])  # what is appended follows what was there


async def _last(paths: Paths) -> tuple[int, str]:
    db = sqlite3.connect(paths.database)
    found = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    db.close()
    return int(found[0]), str(found[1])


@pytest.mark.parametrize("left", ["", '{"version": 1, "seq": 4, "hash": "another"}', "no head at all"])
async def test_a_head_that_was_removed_or_changed_meanwhile_stays_known(
    place: tuple[Paths, Store, Audit, Gate], left: str
) -> None:
    paths, store, _, gate = place
    await fill(gate, 5)
    await store.close()
    if left:
        paths.audit_head.write_text(left)
    else:
        paths.audit_head.unlink()
    for _ in range(2):
        store, audit, gate = await start_again(paths)
        report = await audit.verify()
        assert (report.ok, report.how) == (False, "head")
        await store.close()


async def test_a_whole_chain_is_whole_after_any_number_of_starts(place: tuple[Paths, Store, Audit, Gate]) -> None:
    paths, store, _, gate = place
    await fill(gate, 3)
    head = read_head(paths)
    await gate.record(CORRAL, "test.done", "thing:9", "r", "done")
    assert head is not None
    write_head(paths, head)  # a crash between the commit and the head: it is behind, which is right
    await store.close()
    for _ in range(3):
        store, audit, gate = await start_again(paths)
        assert (await audit.verify()).ok
        await store.close()


@pytest.mark.parametrize("count", [1, 3])
async def test_a_first_chain_whose_head_was_never_written_is_whole(tmp_path: Path, count: int) -> None:
    """A crash right after the first commits, or a disk that refused the file: nobody has removed anything."""
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=PACKAGES)
    audit = Audit(store, paths)
    await audit.compare()
    (in_the_way := paths.audit_head.with_name("audit.head.new")).mkdir()
    await fill(Gate(store, audit, Rights(mode="user", owner_uid=1000)), count)
    await store.close()
    in_the_way.rmdir()
    store, audit, _ = await start_again(paths)
    report = await audit.verify()
    await store.close()
    assert report.ok and report.records >= count, report.message


async def test_a_first_chain_is_not_begun_without_its_head(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    (in_the_way := paths.audit_head.with_name("audit.head.new")).mkdir()
    store = await Store.open(paths, packages=PACKAGES)
    try:
        with pytest.raises(StoreError, match="the audit trail cannot be begun"):
            await Audit(store, paths).compare()
        in_the_way.rmdir()
        await Audit(store, paths).compare()
        assert read_head(paths) == Head(1, 0, chain.GENESIS)
    finally:
        await store.close()


async def test_missing_triggers_are_told(place: tuple[Paths, Store, Audit, Gate]) -> None:
    paths, _, audit, gate = place
    await fill(gate, 3)
    tamper(paths)
    report = await audit.verify()
    assert (report.ok, report.how) == (False, "open") and "triggers" in report.message
