"""A fault that was accepted is told as such; whatever is changed after that is told again."""

import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.access import Gate, Rights
from core.audit import Audit, chain
from core.audit.log import read_head, verify_file
from core.audit.outside import Accepted, read_accepted, write_accepted
from core.errors import Conflict, Invalid
from core.nouns import CORRAL, Actor, ChainReport
from core.paths import Paths
from core.store import Store

ALICE = Actor(uid=1000, name="alice")


class Place:
    """A store, its chain and its gate; `again` is a new daemon on them."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder, folder / "corral.toml", "0badcafe")
        self.paths.state.mkdir(exist_ok=True)
        self.now = 1_790_000_000.0

    async def open(self) -> "Place":
        self.store = await Store.open(self.paths, packages=("core.store", "core.audit"))
        self.audit = Audit(self.store, self.paths, clock=self.clock)
        await self.audit.compare()
        self.gate = Gate(self.store, self.audit, Rights(mode="user", owner_uid=1000))
        return self

    def clock(self) -> float:
        self.now += 1
        return self.now

    async def again(self) -> None:
        await self.store.close()
        await self.open()

    async def fill(self, count: int) -> None:
        for n in range(count):
            await self.gate.record(CORRAL, "test.done", f"thing:{n}", "r", "done", after={"n": n})

    def tamper(self, *statements: str) -> None:
        """What somebody who may write the database could do; the triggers are put back."""
        db = sqlite3.connect(self.paths.database)
        there = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for statement in (*(f"DROP TRIGGER {name}" for name, _ in there), *statements, *(sql for _, sql in there)):
            db.execute(statement)
        db.commit()
        db.close()

    async def accept(self, reason: str = "restored by hand") -> ChainReport:
        faults = (await self.audit.verify()).faults
        work = await self.audit.acceptance(reason, faults)
        await self.gate.act(ALICE, "audit.accept", "audit:chain", "r", work, reason=reason)
        return await self.audit.verify()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Place]:
    place = await Place(folder).open()
    try:
        yield place
    finally:
        await place.store.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(tmp_path) as made:
        yield made


FAULTS = {
    "changed": (["UPDATE audit SET reason = 'x' WHERE seq = 3"], 3),
    "removed": (["DELETE FROM audit WHERE seq IN (3, 4)"], 3),
    "cut": (["DELETE FROM audit WHERE seq > 5"], 6),
    "all cut": (["DELETE FROM audit"], 1),
    "no text": (["UPDATE audit SET reason = CAST(x'ff00fe' AS TEXT) WHERE seq = 3"], 3),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_accepted_fault_is_told_as_such_and_the_chain_is_whole(place: Place, fault: str) -> None:
    statements, wrong = FAULTS[fault]
    await place.fill(8)
    place.tamper(*statements)
    assert not (await place.audit.verify()).ok
    report = await place.accept("the disk was restored")
    assert (report.ok, report.wrong, report.how, report.faults) == (True, None, "", ())
    (accepted,) = report.accepted
    assert (accepted.wrong, accepted.by, accepted.reason) == (wrong, "alice", "the disk was restored")
    assert (accepted.seq, accepted.how) == (9, fault.split()[-1].replace("text", "changed"))
    for word in ("whole from record 9 on", f"a fault at record {wrong} (", "by alice", "the disk", accepted.time):
        assert word in report.message
    assert place.audit.status.ok
    await place.again()
    await place.fill(3)
    assert (await place.audit.verify()).ok
    record = (await place.audit.ls(verb="audit.accept"))[0]
    assert record.before["faults"][0]["wrong"] == wrong and len(record.after["state"]) == 64


async def test_all_that_is_wrong_is_shown_before_it_is_accepted(place: Place) -> None:
    await place.fill(20)
    place.tamper(
        "UPDATE audit SET reason = 'x' WHERE seq = 3", "DELETE FROM audit WHERE seq IN (8, 9)",
        "UPDATE audit SET actor = 'y' WHERE seq = 15",
    )  # fmt: skip
    db = sqlite3.connect(place.paths.database)
    db.execute("DROP TRIGGER audit_keeps_content")
    db.execute("CREATE TRIGGER audit_keeps_content BEFORE UPDATE ON audit BEGIN SELECT 1; END")
    db.close()
    report = await place.audit.verify()
    assert [(fault.wrong, fault.how) for fault in report.faults] == [
        (3, "changed"), (8, "removed"), (15, "changed"), (None, "open"),
    ]  # fmt: skip
    assert "and 3 more" in report.message
    assert len((await place.accept()).accepted) == 4
    with pytest.raises(Exception, match="never"):
        await place.store.transact(lambda db: db.execute("UPDATE audit SET reason = ''"))


async def test_what_was_not_shown_is_not_accepted(place: Place) -> None:
    await place.fill(8)
    place.tamper("UPDATE audit SET reason = 'x' WHERE seq = 5")
    shown = (await place.audit.verify()).faults
    place.tamper("UPDATE audit SET reason = 'x' WHERE seq = 2")
    for reason, error in (("why", Conflict), ("  ", Invalid), ("x" * 3000, Invalid)):
        work = await place.audit.acceptance(reason, shown)
        with pytest.raises(error):
            await place.gate.act(ALICE, "audit.accept", "audit:chain", "r", work, reason=reason)
    assert not (await place.audit.verify()).ok
    assert [record.outcome for record in await place.audit.ls(verb="audit.accept")] == ["refused"] * 3
    assert read_accepted(place.paths) is None


async def test_nothing_can_be_accepted_of_a_whole_chain(place: Place) -> None:
    await place.fill(2)
    with pytest.raises(Conflict, match="nothing to accept"):
        await place.accept()


async def test_a_record_that_somebody_appends_while_it_is_accepted_is_not_accepted(place: Place) -> None:
    await place.fill(4)
    place.tamper("UPDATE audit SET reason = 'x' WHERE seq = 2")
    shown = (await place.audit.verify()).faults
    work = await place.audit.acceptance("why", shown)
    _append(place.paths)
    with pytest.raises(Conflict, match="meanwhile"):
        await place.gate.act(ALICE, "audit.accept", "audit:chain", "r", work, reason="why")
    report = await place.audit.verify()
    assert {(fault.wrong, fault.how) for fault in report.faults} == {(2, "changed"), (5, "appended")}


def _append(paths: Paths, seq: int = 0, **changed: object) -> None:
    """What somebody writes who knows how the chain is made."""
    db = sqlite3.connect(paths.database)
    row = list(db.execute(chain.SELECT + " ORDER BY seq DESC LIMIT 1").fetchone())
    row[13], row[0] = row[14], seq or row[0] + 1
    for column, value in changed.items():
        row[chain.COLUMNS.index(column)] = value
    row[14] = chain.digest(tuple(row))
    db.execute(f"INSERT INTO audit ({', '.join(chain.COLUMNS)}) VALUES ({', '.join('?' * 15)})", row)
    db.commit()
    db.close()


async def test_a_record_in_the_database_alone_accepts_nothing(place: Place) -> None:
    """Who can write the database but not the files beside it cannot accept what he did."""
    await place.fill(6)
    place.tamper("UPDATE audit SET reason = 'x' WHERE seq = 3")
    db = sqlite3.connect(place.paths.database)
    state = chain_state(db)
    db.close()
    _append(
        place.paths, verb="audit.accept", object="audit:chain", outcome="done", after=f'{{"state":"{state}"}}',
        before='{"faults":[{"wrong":3,"how":"changed","message":"record 3 was changed"}]}',
    )  # fmt: skip
    report = await place.audit.verify()
    assert (report.ok, report.wrong, report.accepted) == (False, 3, ())


def chain_state(db: sqlite3.Connection) -> str:
    from core.audit.verify import State

    state = State()
    state.add(db.execute(chain.SELECT + " ORDER BY seq"))
    return state.hex()


async def test_without_its_file_an_accepted_fault_is_told_again(place: Place) -> None:
    await place.fill(6)
    place.tamper("UPDATE audit SET reason = 'x' WHERE seq = 3")
    assert (await place.accept()).ok
    kept = read_accepted(place.paths)
    assert kept is not None
    for text in (b"", b"{", b'{"version":1,"seq":7,"hash":"x"}', b'{"version":1,"seq":99,"hash":"x"}', b"\xff"):
        place.paths.audit_accepted.write_bytes(text)
        assert (await place.audit.verify()).wrong == 3
    write_accepted(place.paths, Accepted(1, kept.seq, kept.hash))
    assert (await place.audit.verify()).ok


async def test_a_second_fault_is_accepted_beside_the_first(place: Place) -> None:
    await place.fill(6)
    place.tamper("UPDATE audit SET reason = 'x' WHERE seq = 3")
    await place.accept("one")
    await place.fill(6)
    place.tamper("DELETE FROM audit WHERE seq = 10")
    report = await place.audit.verify()
    assert (report.wrong, report.how, len(report.faults)) == (10, "removed", 1)
    assert [each.reason for each in (await place.accept("two")).accepted] == ["one", "two"]
    place.tamper("UPDATE audit SET actor = 'z' WHERE seq = 4")
    report = await place.audit.verify()
    assert (report.how, report.wrong) == ("accepted", 14)
    assert [(fault.wrong, fault.how) for fault in report.faults] == [(14, "accepted"), (4, "changed")]
    assert [each.reason for each in (await place.accept("three")).accepted][:2] == ["one", "two"]


CHANGES = [
    "UPDATE audit SET reason = 'y' WHERE seq = {seq}",
    "UPDATE audit SET hash = 'y' WHERE seq = {seq}",
    "UPDATE audit SET before = CAST(x'fffe' AS TEXT) WHERE seq = {seq}",
    "UPDATE audit SET reason = CAST(x'ff00ff' AS TEXT) WHERE seq = {seq}",
    "UPDATE audit SET reason = CAST(x'efbfbd00efbfbd' AS TEXT) WHERE seq = {seq}",
    "UPDATE audit SET seq = -{seq} WHERE seq = {seq}",
    "UPDATE audit SET seq = {seq} + 5000 WHERE seq = {seq}",
    "DELETE FROM audit WHERE seq = {seq}",
    "DELETE FROM audit WHERE seq >= {seq}",
    "INSERT INTO audit SELECT seq - 1000, time, actor, uid, through, verb, object, request, effect, before, after,"
    " outcome, reason, prev, hash FROM audit WHERE seq = {seq}",
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(FAULTS)), st.integers(0, 30), st.sampled_from(CHANGES), st.booleans())
async def test_no_change_is_hidden_by_what_was_accepted(fault: str, which: int, change: str, restart: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder)) as place:
            await place.fill(8)
            place.tamper(*FAULTS[fault][0])
            assert (await place.accept()).ok
            await place.fill(4)
            db = sqlite3.connect(place.paths.database)
            seqs = [row[0] for row in db.execute("SELECT seq FROM audit ORDER BY seq")]
            seq = seqs[which % len(seqs)]
            db.close()
            place.tamper(change.format(seq=seq))
            if restart:
                await place.again()
                await place.fill(1)
            report = await place.audit.verify()
            assert not report.ok, (seq, change)


async def test_what_is_written_to_its_end_behind_the_daemon_s_back_is_kept_before_a_record_hides_it(
    place: Place,
) -> None:
    for statement, found in (
        ("DELETE FROM audit WHERE seq > 3", (4, "cut")), ("UPDATE audit SET hash = 'x' WHERE seq = 5", (5, "changed")),
    ):  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            async with opened(Path(folder)) as other:
                await other.fill(5)
                other.tamper(statement)
                await other.fill(1)
                assert not other.audit.status.ok
                report = await other.audit.verify()
                assert (report.wrong, report.how) == found
                await other.fill(1)
                head = read_head(other.paths)
                assert head is not None and head.seq == 7
    await place.fill(5)
    _append(place.paths)
    assert (await place.audit.verify()).ok  # for now: audit.head may be behind
    await place.fill(2)
    report = await place.audit.verify()
    assert (report.ok, report.wrong, report.how) == (False, 6, "appended")
    assert (await place.accept()).ok
    await place.again()
    await place.fill(2)
    assert (await place.audit.verify()).ok


async def test_what_is_rolled_back_is_nobody_s_change(place: Place) -> None:
    await place.fill(2)

    def work(db: sqlite3.Connection) -> None:
        for _ in range(2):
            place.audit.append(db, actor=CORRAL, verb="test.done", object="a:b", request="r", outcome="done")
        raise Conflict("no")

    for _ in range(2):
        with pytest.raises(Conflict):
            await place.store.transact(work)
    await place.fill(2)
    assert (await place.audit.verify()).ok


# ------------------------------------------------------------------------------------------------ far records


@pytest.mark.parametrize("follows", [True, False])
async def test_a_record_far_behind_the_end_is_told_as_inserted(place: Place, follows: bool) -> None:
    await place.fill(50)
    _append(place.paths, 10**6)
    if not follows:
        place.tamper("UPDATE audit SET reason = 'other' WHERE seq = 1000000")
    report = verify_file(place.paths)
    assert (report.ok, report.wrong, report.how) == (False, 10**6, "inserted")
    assert "record 1000000 was inserted after record 50" in report.message
    await place.fill(3)  # they follow it
    report = verify_file(place.paths)
    assert not report.ok and "1000000 was inserted" in report.message
    assert ("removed" in report.message) and report.faults[0].wrong in (51, 10**6)


async def test_a_gap_says_both(place: Place) -> None:
    await place.fill(9)
    place.tamper("DELETE FROM audit WHERE seq IN (4, 5, 6)")
    report = await place.audit.verify()
    assert (report.wrong, report.how) == (4, "removed")
    assert report.message == "records 4 to 6 were removed, or record 7 was inserted"


async def test_bytes_that_are_no_text_are_accepted_as_they_are(place: Place) -> None:
    await place.fill(6)
    place.tamper("UPDATE audit SET reason = CAST(x'ff00fe' AS TEXT) WHERE seq = 3")
    assert (await place.accept()).ok
    place.tamper("UPDATE audit SET reason = CAST(x'ff00ff' AS TEXT) WHERE seq = 3")
    assert (await place.audit.verify()).how == "accepted"
    place.tamper("UPDATE audit SET reason = CAST(x'ff00fe' AS TEXT) WHERE seq = 3")
    assert (await place.audit.verify()).ok
