"""Whatever is done to a trail is found by what left the machine before, and called by its name."""

import asyncio
import hashlib
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signed_place import Place, tamper

from core.audit.chain import COLUMNS, SELECT, digest
from core.audit.outside import Head, write_head
from core.nouns.audit import FileReport
from core.proof.against import compare
from core.proof.statements import End, Record, parse
from core.proof.verify import verify


class Proved(NamedTuple):
    """A trail of 30 records with a checkpoint each ten: its folder, an export at 20, one at the end, its key."""

    folder: Path
    early: bytes
    late: bytes
    key: str

    def __repr__(self) -> str:
        return "proved"


@pytest.fixture(scope="module")
def proved() -> Any:
    async def make(folder: Path) -> Proved:
        place = await Place(folder).open()
        await place.signer.start()
        early = b""
        for upto in (9, 19, 29):
            head = place.audit.head
            await place.fill(upto - (head.seq if head else 0) + 1)
            await place.checkpoint()
            if upto == 19:
                early = await place.export()
        late = await place.export()
        await place.store.close()
        return Proved(folder, early, late, place.signer.keys[0].key)

    folder = Path(tempfile.mkdtemp(prefix="c-"))
    yield asyncio.run(make(folder))
    shutil.rmtree(folder)


def report(text: bytes, *, key: str, against: bytes | None = None) -> FileReport:
    lines = lambda of: lambda: of.splitlines(keepends=True)  # noqa: E731
    if against is None:
        return verify(text.splitlines(keepends=True), [key])[0].report
    return compare(lines(text), lines(against), [key])


def records(text: bytes) -> list[tuple[int, int]]:
    """(line, seq) of each record of a file."""
    found = []
    for n, raw in enumerate(text.splitlines()):
        line = parse(raw)
        if isinstance(line, Record):
            found.append((n, line.seq))
    return found


# ------------------------------------------------------------------------------------------------ the file


@settings(max_examples=150, deadline=None)
@given(what=st.sampled_from(["remove", "insert", "alter", "swap", "move"]), data=st.data())
def test_what_was_done_to_a_row_of_a_file_is_named(proved: Proved, what: str, data: st.DataObject) -> None:
    rows = proved.late.splitlines(keepends=True)
    known = records(proved.late)
    (at, seq) = data.draw(st.sampled_from(known[:-1]))
    first: tuple[int, str]
    if what == "remove":
        del rows[at]
        first = (seq, "removed")
    elif what == "insert":  # a copy of it with other words, before or after it
        forged = rows[at].replace(b'"done"', b'"failed"')
        rows.insert(at + data.draw(st.integers(0, 1)), forged)
        first = (seq, "inserted")
    elif what == "alter":
        field = data.draw(st.sampled_from([b"corral", b"test.done", b"thing:", b'\\"n\\":']))
        changed = rows[at].replace(field, field.replace(field[:1], b"X", 1), 1)
        if changed == rows[at]:
            return
        rows[at] = changed
        first = (seq, "form" if parse_fails(changed) else "changed")
    else:
        (other, later) = data.draw(st.sampled_from(known))
        if other == at:
            return
        if what == "swap":
            rows[at], rows[other] = rows[other], rows[at]
            first = (min(seq, later), "reordered")
        else:
            rows.insert(other, rows.pop(at))
            low = min(seq, later)
            first = (low, "reordered")
    found = report(b"".join(rows), key=proved.key)
    assert not found.ok
    named = [(fault.wrong, fault.how) for fault in found.faults]
    if what in ("swap", "move"):
        assert named[0][1] == "reordered" and named[0][0] is not None and abs(named[0][0] - first[0]) <= 1, named
    else:
        assert named[0] == first, named


def parse_fails(raw: bytes) -> bool:
    try:
        parse(raw.rstrip(b"\n"))
    except ValueError:
        return True
    return False


def forged_tail(text: bytes, count: int) -> list[bytes]:
    """`count` records that rightly follow the last one of a file."""
    last = next(parse(raw) for raw in reversed(text.splitlines()) if isinstance(parse(raw), Record))
    assert isinstance(last, Record)
    out = []
    for _ in range(count):
        prev = hashlib.sha256(last.line()).hexdigest()
        fields = {name: getattr(last, name) for name in Record.__struct_fields__}
        last = Record(**fields | {"seq": last.seq + 1, "prev": prev, "actor": "mallory"})
        out.append(last.line() + b"\n")
    return out


@pytest.mark.parametrize("count", [1, 2, 40])
def test_an_appended_tail_is_called_that(proved: Proved, count: int) -> None:
    *body, end = proved.late.splitlines(keepends=True)
    tail = forged_tail(proved.late, count)
    before = report(b"".join([*body, *tail, end]), key=proved.key)
    last = records(proved.late)[-1][1]
    assert (before.faults[0].how, before.faults[0].wrong) == ("appended", last + 1), before.faults
    after = report(b"".join([*body, end, *tail]), key=proved.key)
    assert {fault.how for fault in after.faults} == {"appended"}
    told = parse(end.rstrip())
    assert isinstance(told, End)
    text = b"".join([*body, *tail])
    head = hashlib.sha256(tail[-1].rstrip()).hexdigest()
    forged = End(told.installation, told.last + count, head, told.records + count, told.checkpoints,
                 hashlib.sha256(text).hexdigest(), told.time, told.key, told.signature)  # fmt: skip
    found = report(text + forged.line() + b"\n", key=proved.key)
    assert [fault.how for fault in found.faults] == ["end"] and "may have been appended" in found.message
    assert f"records {found.vouched + 1} to {last + count}" in found.message


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_tail_that_is_cut_off_is_called_that(proved: Proved, data: st.DataObject) -> None:
    rows = proved.late.splitlines(keepends=True)
    (at, seq) = data.draw(st.sampled_from(records(proved.late)))
    with_end = report(b"".join([*rows[:at], rows[-1]]), key=proved.key)
    assert ("cut", seq) in [(fault.how, fault.wrong) for fault in with_end.faults]
    assert "cut" in [fault.how for fault in report(b"".join(rows[:at]), key=proved.key).faults]


def test_an_older_copy_of_the_file_and_a_rewritten_one_are_called_that(proved: Proved) -> None:
    assert [f.how for f in report(proved.early, key=proved.key, against=proved.late).faults] == ["older"]


# ------------------------------------------------------------------------------------------------ the database


async def _after(proved: Proved, statements: list[str], fit: bool, grow: int) -> tuple[set[str], FileReport]:
    """What a new daemon on a tampered copy says, and what its export proves against the early one."""
    with tempfile.TemporaryDirectory(prefix="c-") as name:
        folder = Path(name)
        shutil.copytree(proved.folder, folder, dirs_exist_ok=True)
        place = Place(folder)
        tamper(place.paths, *statements)
        if fit:
            rechain(place)
        await place.open()
        await place.signer.start()
        await place.fill(grow)
        hows = {fault.how for fault in (await place.audit.verify()).faults}
        text = await place.export()
        await place.store.close()
        return hows, report(text, key=proved.key, against=proved.early)


def rechain(place: Place) -> None:
    """All hashes and audit.head made to fit, as one can who writes all files and lacks the key."""
    db = sqlite3.connect(place.paths.database)
    rows = [list(row) for row in db.execute(SELECT + " ORDER BY seq")]
    names = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for trigger, _ in names:
        db.execute(f"DROP TRIGGER {trigger}")
    prev = rows[0][13]
    db.execute("DELETE FROM audit")
    for n, row in enumerate(rows, 1):
        row[0], row[13] = n, prev
        prev = row[14] = digest(tuple(row))
        db.execute(f"INSERT INTO audit ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * 15)})", row)
    for _, sql in names:
        db.execute(sql)
    db.commit()
    db.close()
    write_head(place.paths, Head(1, len(rows), prev))


@settings(max_examples=25, deadline=None)
@given(
    seq=st.integers(2, 19), fit=st.booleans(), grow=st.integers(0, 2),
    what=st.sampled_from(
        ["UPDATE audit SET actor = 'nobody' WHERE seq = {seq}", "DELETE FROM audit WHERE seq = {seq}",
         "DELETE FROM audit WHERE seq >= {seq}", "UPDATE audit SET after = '1' WHERE seq = {seq}",
         "UPDATE audit SET time = '2020-01-01T00:00:00.000000Z' WHERE seq = {seq}"]
    ),
)  # fmt: skip
def test_whatever_is_done_to_the_database_does_not_fit_what_was_exported_before(
    proved: Proved, seq: int, fit: bool, grow: int, what: str
) -> None:
    hows, found = asyncio.run(_after(proved, [what.format(seq=seq)], fit, grow))
    assert hows, "the daemon itself says so"
    assert not found.ok, "and the file that it exports does not go on from the earlier one"
    if fit:
        assert hows & {"checkpoint", "older", "cut", "head"}, hows
