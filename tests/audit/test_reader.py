"""Reading goes on into archives: in bounded steps, nothing of what is not as it was sealed, no record twice."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from signed_place import tamper
from test_archive import DAY, Old

from core.audit import Reader, archived
from core.audit.log import moment
from core.audit.search import Wanted, exactly, wanted
from core.nouns import AuditPage, AuditRecord
from core.proof.statements import parse_seal


class Read(Old):
    """Twenty days: two archives of some seven each, the rest in the database."""

    async def open(self) -> "Read":
        await super().open()
        self.ticks = 0.0
        self.reader = Reader(self.store, self.paths, clock=lambda: self.ticks)
        return self

    async def all(self, text: str = "", *, up: bool = False, limit: int = 7, **fields: str) -> list[AuditRecord]:
        """As somebody pages who goes on to the end; newest first, or oldest first."""
        found: list[AuditRecord] = []
        at: int | None = 0 if up else None
        self.pages: list[AuditPage] = []
        while True:
            asked = exactly(fields, moment, wanted(text, moment))
            page = await self.reader.find(
                asked, before_seq=None if up else at, after_seq=at if up else None, limit=limit
            )
            self.pages.append(page)
            assert len(page.records) <= limit and list(page.records) == sorted(page.records, key=lambda r: r.seq)
            found += page.records if up else page.records[::-1]
            if not page.more:
                return found
            assert at is None or (page.searched >= at if up else page.searched <= at)
            assert page.working or page.searched != at or not page.records, "it goes on, or says why not"
            at = page.searched
            assert len(self.pages) < 2000


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Read]:
    monkeypatch.setattr(archived, "BLOCK", 2000)
    made = Read(tmp_path)
    await made.open()
    await made.signer.start()
    await made.days(10)
    before = await made.audit.ls(limit=10000)
    await made.archive(3)
    await made.days(10)
    await made.archive(6)
    made.before_it = {each.seq: each for each in before}  # type: ignore[attr-defined]
    yield made
    await made.store.close()


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("up", [True, False])
async def test_every_record_is_read_once_from_one_end_to_the_other(place: Read, up: bool, limit: int) -> None:
    if limit == 1:
        place.ticks = 0
    found = await place.all(up=up, limit=limit)
    last = place.audit.head
    assert last is not None
    seqs = list(range(1, last.seq + 1))
    assert [each.seq for each in found] == (seqs if up else seqs[::-1])
    one, two = (await place.archiver.archives()).archives
    for each in found:
        assert each.archive == (1 if each.seq <= one.last else 2 if each.seq <= two.last else 0)
        there = place.before_it.get(each.seq)  # type: ignore[attr-defined]
        assert there is None or there == AuditRecord(**{**as_dict(each), "archive": 0})
    assert {(page.first, page.last) for page in place.pages} == {(1, last.seq)}


def as_dict(record: AuditRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


@pytest.mark.parametrize("up", [True, False])
async def test_each_step_is_bounded_and_goes_on_where_the_one_before_stopped(place: Read, up: bool) -> None:
    """The clock stands beyond each deadline: a block a step, and no more."""

    class Late(float):
        def __gt__(self, other: object) -> bool:
            return True

    place.reader._clock = lambda: Late(0)
    found = await place.all(up=up, limit=1000)
    assert len(found) == len({each.seq for each in found}) == place.audit.head.seq  # type: ignore[union-attr]
    assert any("compared with its seal" in page.working for page in place.pages) and len(place.pages) > 30


@pytest.mark.parametrize(
    "text, fields, fits",
    [
        ("thing:3", {}, lambda r: "thing:3" in r.object), ("THING:3 -corral", {}, lambda r: False),
        ("verb:test outcome:done", {}, lambda r: r.verb.startswith("test")),
        ("", {"verb": "audit.*"}, lambda r: r.verb.startswith("audit.")),
        ("", {"actor": "alice", "outcome": "done"}, lambda r: r.actor == "alice" and r.outcome == "done"),
        ("", {"object": "thing:1"}, lambda r: r.object == "thing:1"), ("nothing-has-this", {}, lambda r: False),
        ("seq:5", {}, lambda r: r.seq == 5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("up", [True, False])
async def test_a_filter_means_the_same_in_an_archive(
    place: Read, text: str, fields: dict[str, str], fits: Any, up: bool
) -> None:
    every = await place.all(up=up, limit=1000)
    assert await place.all(text, up=up, **fields) == [each for each in every if fits(each)]


async def test_one_record_is_looked_for_where_it_is(place: Read) -> None:
    await place.all(limit=1000)
    last = place.audit.head
    assert last is not None
    for seq in (5, 100, last.seq, last.seq + 1):
        for up in (True, False):
            assert [each.seq for each in await place.all(f"seq:{seq}", up=up)] == [seq] * (seq <= last.seq)
            assert len(place.pages) <= 2


async def test_a_time_is_looked_for_in_the_archives_that_reach_it_and_in_no_other(place: Read) -> None:
    one, two = (await place.archiver.archives()).archives
    os.unlink(one.file)
    found = await place.all(since=two.began, until=two.ended)
    assert found and {each.archive for each in found} <= {1, 2} and not any(page.unread for page in place.pages)
    assert all(two.began <= each.time <= two.ended for each in found)
    assert [each for each in await place.all(since=moment(str(place.now - DAY)))] != []
    assert not any(page.unread for page in place.pages), "the first archive is older than what is asked for"


@pytest.mark.parametrize("what", ["gone", "bit", "cut", "longer", "link to a pipe", "folder"])
async def test_nothing_of_an_archive_that_is_not_as_it_was_sealed_is_read(place: Read, what: str) -> None:
    one = (await place.archiver.archives()).archives[0]
    file = Path(one.file)
    text = file.read_bytes()
    file.unlink()
    if what == "bit":
        file.write_bytes(text[:-500] + bytes([text[-500] ^ 1]) + text[-499:])
    elif what in ("cut", "longer"):
        file.write_bytes(text[:-100] if what == "cut" else text + b"\n")
    elif what == "folder":
        file.mkdir()
    elif what == "link to a pipe":
        os.mkfifo(file.with_suffix(".pipe"))
        file.symlink_to(file.with_suffix(".pipe"))
    for up in (False, True):
        found = await place.all(up=up)
        assert {each.archive for each in found} == {0, 2} and len(found) == place.audit.head.seq - one.last  # type: ignore[union-attr]
        told = {each for page in place.pages for each in page.unread}
        assert len(told) == 1 and f"records 1 to {one.last} are not read" in told.pop()
    if what in ("gone", "bit"):
        file.unlink(missing_ok=True)
        file.write_bytes(text)
        assert len(await place.all()) == place.audit.head.seq, "it was put back"  # type: ignore[union-attr]


async def test_a_file_that_is_changed_after_it_was_verified_is_found_by_its_block(place: Read) -> None:
    await place.all(limit=1000)
    one = (await place.archiver.archives()).archives[0]
    file = Path(one.file)
    found = file.stat()
    text = file.read_bytes()
    file.chmod(0o600)
    with file.open("r+b") as out:  # same size, same time, same inode
        out.seek(len(text) // 2)
        out.write(bytes([text[len(text) // 2] ^ 1]))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    await place.all(limit=1000)
    assert any("was changed while it was read" in each for page in place.pages for each in page.unread)


async def test_a_seal_that_is_not_right_is_believed_by_nobody(place: Read) -> None:
    lines = await place.store.read(lambda db: db.execute("SELECT line FROM audit_seals ORDER BY number").fetchall())
    forged = [msgspec.structs.replace(parse_seal(line.encode()), time="2020").line().decode() for (line,) in lines]
    for number, left in ((2, {0, 1}), (1, {0})):
        for line, why in ((forged[number - 1], "is not signed by a key"), ("x", "is damaged")):
            tamper(place.paths, f"UPDATE audit_seals SET line = '{line}' WHERE number = {number}")
            assert {each.archive for each in await place.all()} == left
            told = {each for page in place.pages for each in page.unread}
            assert len(told) == 1 and f"seal {number} " in (sentence := told.pop()) and why in sentence


async def test_records_that_are_still_being_removed_are_read_once(place: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies() -> None:
        raise RuntimeError

    monkeypatch.setattr(place.archiver, "_prune", dies)
    with pytest.raises(RuntimeError):
        await place.archive(1)
    for up in (True, False):
        found = await place.all(up=up)
        assert sorted(each.seq for each in found) == list(range(1, place.audit.head.seq + 1))  # type: ignore[union-attr]


async def test_without_archives_nothing_more_is_asked(tmp_path: Path) -> None:
    made = Read(tmp_path)
    await made.open()
    await made.fill(5)
    page = await made.reader.find(Wanted())
    assert (page.first, page.last, page.more, page.unread, page.working) == (1, 5, False, (), "")
    await made.store.close()
