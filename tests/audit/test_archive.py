"""Old records go into a signed file under a seal: the chain goes on from there, whatever dies and whoever tampers."""

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from signed_place import ALICE, MALLORY, Place, tamper

from core.audit import GENESIS, Archiver, Exporter, archivefile
from core.audit.chain import Sealed, digest, inspect
from core.audit.log import moment
from core.errors import Conflict, CorralError, Failed, Invalid, NotAllowed
from core.nouns import AuditArchive, ChainReport, FileReport
from core.proof.against import compare
from core.proof.verify import verify
from core.settings import AuditTable

DAY = 86400.0


class Old(Place):
    """Ten days with ten records and a checkpoint each; `cut` is the begin of the sixth."""

    sent: int | None = None

    async def open(self) -> "Old":
        await super().open()
        exporter = Exporter(self.audit, self.signer, self.paths, self.store.database_id, clock=lambda: self.now)
        self.archiver = Archiver(
            self.store, self.audit, self.signer, exporter, self.paths, lambda: self.settings, lambda: self.sent,
            clock=lambda: self.now,
        )  # fmt: skip
        return self

    async def again(self) -> None:
        await self.store.close()
        await self.open()
        await self.archiver.tidy()
        await self.signer.start()

    async def days(self, count: int = 10) -> None:
        for _ in range(count):
            await self.fill(10)
            await self.checkpoint()
            self.now += DAY

    async def archive(self, ago: float = 5, folder: Path | None = None) -> AuditArchive:
        return await self.archiver.archive(self.before(ago), ALICE, "r", folder=folder, recent=True)

    def before(self, ago: float) -> str:
        return moment(str(self.now - ago * DAY))

    def seqs(self) -> list[int]:
        db = sqlite3.connect(self.paths.database)
        found = [row[0] for row in db.execute("SELECT seq FROM audit ORDER BY seq")]
        db.close()
        return found

    def files(self) -> list[Path]:
        return sorted(self.paths.audit_archive.iterdir()) if self.paths.audit_archive.exists() else []

    async def whole(self) -> ChainReport:
        """Archive and store together."""
        assert not await self.archiver.faults()
        report = await self.audit.verify()
        assert report.ok, report.message
        return report


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Old]:
    made = await Old(tmp_path).open()
    await made.signer.start()
    await made.days()
    yield made
    with contextlib.suppress(ValueError):
        await made.store.close()


async def test_records_before_a_checkpoint_lie_in_a_signed_file_and_verification_goes_on(place: Old) -> None:
    made = await place.archive()
    assert (made.first, made.last, made.there) == (1, 51, True)
    assert place.seqs()[0] == 52 and Path(made.file).stat().st_mode & 0o777 == 0o400
    assert "records 1 to 51 lie in archives" in (await place.whole()).message
    key = place.signer.keys[0].key
    text = Path(made.file).read_bytes()
    found = verify(text.splitlines(keepends=True), [key])[0].report
    assert found.ok and (found.first, found.last, found.head) == (1, 51, made.hash)
    later = await place.export()
    assert verify(later.splitlines(keepends=True), [key])[0].report.first == 52
    both = compare(lambda: later.splitlines(keepends=True), lambda: text.splitlines(keepends=True), [key])
    assert both.ok, both.message
    (done,) = await place.audit.ls(verb="audit.archive", outcome="done")
    assert done.after["seal"].startswith('["corral-seal-1"') and done.after["last"] == 51 and done.actor == "alice"
    await place.again()
    await place.fill(3)
    await place.whole()


async def test_the_next_archive_goes_on_from_the_last(place: Old) -> None:
    first = await place.archive()
    await place.days(5)
    await place.rotate()
    second = await place.archive()
    assert second.first == first.last + 1 and [each.number for each in (await place.archiver.archives()).archives] == [
        1,
        2,
    ]
    await place.whole()
    assert (await place.audit.find("", after_seq=0)).first == second.last + 1


async def test_a_file_from_after_an_archive_says_which_archive_leads_back_to_an_earlier_file(place: Old) -> None:
    key = place.signer.keys[0].key
    early = await place.export()
    await place.days(5)
    one = await place.archive(1)
    await place.days(5)
    two = await place.archive(2)
    late = await place.export()

    def against(text: bytes, older: bytes) -> FileReport:
        return compare(lambda: text.splitlines(keepends=True), lambda: older.splitlines(keepends=True), [key])

    found = against(late, early)
    names = [Path(each.file).name for each in (one, two)]
    files = [Path(each.file).read_bytes() for each in (one, two)]
    assert not found.ok and found.faults[-1].how == "against"
    assert f"records 102 to {one.last} were archived" in found.message
    assert f"verify {names[1]} --against the earlier file" in found.message, found.message
    before = against(files[1], early).message
    assert f"verify {names[0]} --against the earlier file, and this one --against {names[0]}" in before, before
    assert against(files[0], early).ok and against(files[1], files[0]).ok and against(late, files[1]).ok


async def test_a_key_that_came_later_makes_an_archive_no_worse(place: Old) -> None:
    await place.rotate()
    made = await place.archive()
    await place.whole()
    first, second = (each.key for each in place.signer.keys)
    lines = Path(made.file).read_bytes().splitlines(keepends=True)
    assert verify(lines, [first])[0].report.ok and len(verify(lines, [first])[0].report.keys) == 2
    assert made.key == place.signer.keys[1].id and not verify(lines, [second])[0].report.vouched


async def test_freed_space_is_given_back(place: Old) -> None:
    reason = "x" * 1500
    for n in range(600):
        await place.gate.record(ALICE, "test.done", f"thing:{n}", "r", "done", reason=reason)
    await place.checkpoint()
    place.now += DAY
    await place.fill(1)
    before = place.paths.database.stat().st_size
    await place.archive(0.5)
    assert place.paths.database.stat().st_size < before - 600 * 1500
    await place.whole()


async def test_a_database_of_an_older_program_gives_its_space_back_too(place: Old) -> None:
    await place.store.close()
    with contextlib.closing(sqlite3.connect(place.paths.database, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum=NONE")
        db.execute("VACUUM")
    await place.again()
    for n in range(600):
        await place.gate.record(ALICE, "test.done", f"thing:{n}", "r", "done", reason="x" * 1500)
    await place.checkpoint()
    place.now += DAY
    before = place.paths.database.stat().st_size
    await place.archive(0.5)
    assert place.paths.database.stat().st_size < before - 600 * 1500
    await place.whole()


@pytest.mark.parametrize("days", [0, 400])
async def test_the_setting_archives_by_itself_what_is_over_and_only_then(place: Old, days: int) -> None:
    place.settings = AuditTable(archive_after_days=days)
    assert await place.archiver.sweep() is None
    place.now += 410 * DAY
    made = await place.archiver.sweep()
    assert (made is not None) == bool(days)
    if made is not None:
        assert made.last == 101
        (done,) = await place.audit.ls(verb="audit.archive", outcome="done")
        assert (done.actor, done.reason) == ("corral", "archive_after_days is 400")
        await place.whole()


async def test_nothing_is_archived_of_what_is_still_needed(place: Old) -> None:
    with pytest.raises(Conflict, match="nothing to archive"):
        await place.archive(1000)
    place.sent = 12
    assert (await place.archiver.plan(place.before(0), recent=True)).last <= 12, (
        "a sink lacks the rest: the trail is its spool"
    )
    place.sent = None
    await place.gate.intent(ALICE, "test.begin", "thing:x", "r")
    running = place.audit.head
    assert running is not None
    await place.fill(20)
    await place.checkpoint()
    place.now += DAY
    assert (await place.archiver.plan(place.before(0), recent=True)).last < running.seq
    await place.archive(0.5)
    with pytest.raises(Conflict, match="has not ended yet"):
        await place.archive(0)


async def test_a_time_that_is_not_over_is_refused_and_the_last_day_takes_a_word(place: Old) -> None:
    for ahead in (-1, -10_000):
        with pytest.raises(Invalid, match="is not over yet"):
            await place.archiver.archive(place.before(ahead), ALICE, "r", recent=True)
    await place.fill(3)
    await place.checkpoint()
    place.now += 3600
    with pytest.raises(Conflict, match="records of the last day stay"):
        await place.archiver.archive(place.before(0.9), ALICE, "r")
    assert place.seqs()[0] == 1 and not place.files()
    plan = await place.archiver.plan(place.before(1.0))
    assert (plan.first, plan.last, plan.stays) == (1, 101, 3) and not place.paths.audit_archive.exists()
    made = await place.archiver.archive(place.before(1.0), ALICE, "r")
    assert (made.first, made.last, made.file) == (plan.first, plan.last, plan.file)


async def test_who_may_not_leaves_all_as_it_is(place: Old) -> None:
    def refused() -> None:
        place.gate.require(MALLORY, "audit.archive", "audit:chain")

    with pytest.raises(NotAllowed):
        await place.archiver.archive(place.before(5), MALLORY, "r", permitted=refused)
    assert place.seqs()[0] == 1 and not place.files()


async def test_a_file_that_is_there_is_not_overwritten(place: Old, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    there = folder / f"trail-{place.store.database_id}-1-51.corral"
    there.write_text("mine")
    with pytest.raises(Conflict, match="is there already"):
        await place.archive(folder=folder)
    assert there.read_text() == "mine" and place.seqs()[0] == 1
    for wrong in (tmp_path / "none", Path("relative")):
        with pytest.raises(Failed, match="nothing can be archived to"):
            await place.archive(folder=wrong)


async def test_without_a_key_nothing_is_archived(place: Old) -> None:
    place.paths.audit_key.unlink()
    await place.again()
    with pytest.raises(CorralError):
        await place.archive()
    assert place.seqs()[0] == 1 and not place.files()
    assert [each.outcome for each in await place.audit.ls(verb="audit.archive")] == ["intent", "failed"]


async def test_records_that_do_not_verify_are_not_archived(place: Old) -> None:
    tamper(place.paths, "UPDATE audit SET actor = 'bob' WHERE seq = 7")
    with pytest.raises(Failed, match="do not verify"):
        await place.archive()
    assert place.seqs()[0] == 1 and not place.files()


async def test_an_accepted_fault_is_archived_with_the_record_that_accepts_it(place: Old) -> None:
    tamper(place.paths, "UPDATE audit SET actor = 'bob' WHERE seq = 7")
    shown = (await place.audit.verify()).faults
    work = await place.audit.acceptance("a test", shown)
    await place.gate.act(ALICE, "audit.accept", "audit:chain", "r", work, reason="a test")
    with pytest.raises(Conflict, match="accepted a fault"):
        await place.archive()
    await place.days(2)
    assert (await place.audit.verify()).ok
    made = await place.archive(1)
    (done,) = await place.audit.ls(verb="audit.archive", outcome="done")
    assert "record 8 does not follow from record 7" in done.after["faults"][0] and made.last > 100
    assert (await place.audit.verify()).ok


# ------------------------------------------------------------------------------------------------ what dies, and when


class Died(BaseException):
    """The daemon, at this moment."""


STEPS = ("create", "flush", "name", "_verified", "_seal", "_prune", "give_back")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_at_any_step_leaves_the_old_or_the_new_state(
    place: Old, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No handler runs in a process that is killed: those that undo are switched off."""
    owner = {"_verified": place.archiver, "_seal": place.archiver, "_prune": place.archiver, "give_back": place.store}
    target = owner.get(step, archivefile)
    real = getattr(target, step)

    def dies(*args: object) -> object:
        made = real(*args) if when == "after" else None
        if made is not None:
            made.close()  # as the kernel does it
        raise Died

    async def dies_later(*args: object) -> object:
        if when == "after":
            await real(*args)
        raise Died

    monkeypatch.setattr(target, step, dies if step in ("create", "flush", "name") else dies_later)
    monkeypatch.setattr(archivefile, "forget", lambda file: None)
    monkeypatch.setattr(place.archiver, "_failed", lambda *args: asyncio.sleep(0))
    records = place.seqs()
    with pytest.raises(Died):
        await place.archive()
    monkeypatch.undo()
    await place.again()
    sealed = step in ("_prune", "give_back")
    assert len(place.files()) == (1 if sealed else 0), "a file is there if it is sealed, and nothing of one that is not"
    task = asyncio.create_task(place.archiver.run())
    if sealed:
        async with asyncio.timeout(10):
            while place.seqs()[0] != 52:
                await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await place.whole()
    assert place.seqs()[0] == (52 if sealed else records[0])
    if not sealed:
        await place.archive()
        await place.whole()


async def test_half_removed_records_verify_with_their_seal(place: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.archiver, "_prune", lambda: asyncio.sleep(0))
    made = await place.archive()
    assert place.seqs()[0] == 1
    for upto in (1, 30, made.last - 1, made.last):
        with contextlib.closing(sqlite3.connect(place.paths.database, isolation_level=None)) as db:
            db.execute("DELETE FROM audit WHERE seq <= ?", (upto,))
        await place.whole()
        found = await place.export()
        assert verify(found.splitlines(keepends=True), [place.signer.keys[0].key])[0].report.first == made.last + 1
    with (
        contextlib.closing(sqlite3.connect(place.paths.database, isolation_level=None)) as db,
        pytest.raises(sqlite3.IntegrityError, match="never removed"),
    ):
        db.execute("DELETE FROM audit WHERE seq = ?", (made.last + 1,))


@pytest.mark.parametrize("call", ["write", "fsync", "link", "folder"])
async def test_a_full_disk_leaves_the_old_state(place: Old, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def raises(*args: object) -> None:
        raise full

    name = {"write": "create", "fsync": "flush", "link": "name", "folder": "flush_folder"}[call]
    monkeypatch.setattr(archivefile, name, raises)
    records = place.seqs()
    with pytest.raises(Failed, match="No space left"):
        await place.archive()
    assert place.seqs()[: len(records)] == records and not place.files()
    assert [each.outcome for each in await place.audit.ls(verb="audit.archive")] == ["intent", "failed"]
    monkeypatch.undo()
    await place.archive()
    await place.whole()


# ------------------------------------------------------------------------------------------------ who tampers


FORGED_ROW = "UPDATE audit SET reason = 'x' WHERE seq = 60"


@pytest.mark.parametrize(
    "statements, how",
    [
        (["DELETE FROM audit_seals"], {"removed"}),
        (["UPDATE audit_seals SET line = 'x'"], {"seal"}),
        (["UPDATE audit_seals SET line = replace(line, ',1,51,', ',1,61,'), last = 61",
          "DELETE FROM audit WHERE seq <= 61"], {"seal", "removed"}),
        (["DELETE FROM audit WHERE seq = 52"], {"removed"}),
        (["DELETE FROM audit WHERE seq <= 60"], {"removed"}),
        ([FORGED_ROW], {"changed"}),
        (["INSERT INTO audit SELECT 7, time, actor, uid, through, verb, object, request, effect, before, after,"
          " outcome, reason, prev, hash FROM audit WHERE seq = 70"], {"changed", "removed"}),
        (["UPDATE audit SET after = 'null' WHERE verb = 'audit.archive' AND outcome = 'done'"], {"changed", "seal"}),
    ],
)  # fmt: skip
async def test_whoever_touches_seal_or_records_is_found(place: Old, statements: list[str], how: set[str]) -> None:
    await place.archive()
    tamper(place.paths, *statements)
    report = await place.audit.verify()
    assert not report.ok and how & {fault.how for fault in report.faults}, report.faults


async def test_a_seal_that_somebody_else_signed_seals_nothing(place: Old) -> None:
    from core.proof.keys import SigningKey
    from core.proof.statements import Seal, sign

    key = SigningKey.make()
    with contextlib.closing(sqlite3.connect(place.paths.database)) as db:
        row = db.execute("SELECT hash FROM audit WHERE seq = 40").fetchone()
    mine = place.signer.keys[0].id
    for name in (key.id, mine):
        blank = Seal(
            place.signer.installation, place.store.database_id, 1, 1, 40, row[0], 1, "", "", "d", "t", name, ""
        )
        line = sign(blank, key).line().decode()
        tamper(
            place.paths, "DELETE FROM audit_seals", f"INSERT INTO audit_seals VALUES (1, 40, '/x', 1, '{line}')",
            "DELETE FROM audit WHERE seq <= 40",
        )  # fmt: skip
        found = {fault.how for fault in (await place.audit.verify()).faults}
        assert found >= {"seal", "removed"}
        with pytest.raises(CorralError):
            await place.archive()


@pytest.mark.parametrize("what", ["gone", "bit", "other", "cut"])
async def test_an_archive_that_is_gone_or_changed_is_named(place: Old, what: str) -> None:
    made = await place.archive()
    file = Path(made.file)
    text = file.read_bytes()
    file.unlink()
    if what == "bit":
        file.write_bytes(text[:500] + bytes([text[500] ^ 1]) + text[501:])
    elif what == "other":
        file.write_bytes(await place.export())
    elif what == "cut":
        file.write_bytes(text[: len(text) // 2])
    (fault,) = await place.archiver.faults()
    assert fault.how == "archive" and str(file) in fault.message
    assert (await place.audit.verify()).ok, "the chain that is here is whole all the same"
    (shown,) = (await place.archiver.archives()).archives
    assert shown.there == (what == "bit")


async def test_an_older_copy_from_before_the_archive_is_found(place: Old, tmp_path: Path) -> None:
    await place.store.close()
    kept = tmp_path / "copy"
    kept.mkdir()
    for name in ("corral.db", "audit.head"):
        shutil.copy(place.paths.state / name, kept / name)
    await place.again()
    await place.archive()
    await place.store.close()
    for each in place.paths.state.glob("corral.db*"):
        each.unlink()
    for name in ("corral.db", "audit.head"):
        shutil.copy(kept / name, place.paths.state / name)
    await place.again()
    report = await place.audit.verify()
    assert not report.ok and "older" in {fault.how for fault in report.faults}


def test_times_are_as_the_trail_has_them() -> None:
    assert moment("1790000000") == datetime.fromtimestamp(1_790_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


@pytest.mark.parametrize(
    "begins, hash_of, wrong",
    [(1, 3, None), (2, 3, None), (3, 3, None), (4, 3, None), (5, 3, 4), (1, 2, 3), (3, 2, 3), (4, 2, 4)],
)
def test_a_chain_begins_at_its_seal_or_before_and_passes_through_its_hash(
    begins: int, hash_of: int, wrong: int | None
) -> None:
    rows: list[tuple[object, ...]] = []
    prev = GENESIS
    for seq in range(1, 7):
        row: tuple[object, ...] = (seq, "t", "a", 1, "cli", "v.w", "o:p", "r", "", "null", "null", "done", "", prev)
        prev = digest(row)
        rows.append((*row, prev))
    sealed = Sealed(3, str(rows[hash_of - 1][14]))
    found = inspect(lambda first: [each for each in rows[begins - 1 :] if each[0] >= first], sealed=sealed)  # type: ignore[operator]
    assert found.wrong == wrong, found
