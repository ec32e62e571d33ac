"""Checkpoints: when they are signed, what they survive, and what they find."""

import asyncio
import errno
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from signed_place import ALICE, MALLORY, Place, tamper

from core.audit import signer
from core.errors import Conflict, Failed, Invalid, NotAllowed, StoreError
from core.proof.keys import SigningKey, load
from core.proof.prooffile import append_proofs, read_proofs
from core.proof.statements import Checkpoint, holds, sign
from core.settings import AuditTable


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = await Place(tmp_path).open()
    await made.signer.start()
    yield made
    await made.store.close()


async def until(check: Callable[[], bool]) -> None:
    """Let the loop and its threads work until `check`."""
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.001)


Running = Callable[[], Awaitable[None]]


@pytest.fixture
async def running(place: Place) -> AsyncIterator[Place]:
    task = asyncio.create_task(place.signer.run())
    await until(lambda: len(place.kept()) == 1)
    yield place
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# -------------------------------------------------------------------------------------------- when


async def test_the_first_start_makes_a_key_and_records_it(place: Place) -> None:
    (key,) = read_proofs(place.paths.audit_proof).keys
    assert place.paths.audit_key.stat().st_mode & 0o777 == 0o600
    assert load(place.paths.audit_key, {}).public == key.key
    (record,) = await place.audit.ls(verb="audit.key-made")
    assert record.after == {"keys": [key.line().decode()]}
    assert key.installation == place.paths.audit_installation.read_text().strip()
    await place.again()
    assert len(await place.audit.ls(verb="audit.key*")) == 1, "and no second one"


async def test_a_checkpoint_says_what_the_chain_was_and_is_signed(place: Place) -> None:
    await place.fill(3)
    made = await place.checkpoint()
    head = place.audit.status.head
    assert (made.seq, made.hash, made.number) == (4, head, 1) and made.database == place.store.database_id
    assert holds(made, place.signer.keys[0].key)
    assert place.kept() == [made]
    assert await place.checkpoint() == made, "nothing is new, nothing is signed"
    assert await place.faults() == []


async def test_each_n_records_are_signed(running: Place) -> None:
    await running.fill(9)
    assert len(running.kept()) == 1
    await running.fill(1)
    await until(lambda: len(running.kept()) == 2)
    assert running.kept()[-1].seq >= 11


async def test_time_alone_is_enough_and_a_clock_that_jumps_is_no_time(place: Place) -> None:
    place.settings = AuditTable(checkpoint_records=1000, checkpoint_every_s=1)
    task = asyncio.create_task(place.signer.run())
    await until(lambda: len(place.kept()) == 1)
    await place.fill(1)
    place.now -= 10_000_000
    await until(lambda: len(place.kept()) == 2)
    assert place.kept()[1].time < place.kept()[0].time, "the jump is told, not hidden"
    assert await place.faults() == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_transaction_does_not_wait_for_a_signature(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature takes for ever; records go on."""
    import threading

    begun, go_on = threading.Event(), threading.Event()

    def slow(statement: Checkpoint, key: SigningKey) -> Checkpoint:
        begun.set()
        assert go_on.wait(20)
        return sign(statement, key)

    monkeypatch.setattr(signer, "sign", slow)
    task = asyncio.create_task(place.signer.checkpoint())
    await until(begun.is_set)
    async with asyncio.timeout(10):
        await place.fill(20)
    go_on.set()
    made = await task
    assert made is not None and made.seq == 1, "it says what was there when it began"
    assert await place.faults() == []


# -------------------------------------------------------------------------------------------- what it survives


async def test_a_kill_between_table_and_file_is_mended_by_the_next_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.fill(2)

    def killed(path: Path, lines: list[bytes]) -> None:
        raise SystemError("killed here")

    monkeypatch.setattr(signer, "append_proofs", killed)
    with pytest.raises(SystemError):
        await place.signer.checkpoint()
    monkeypatch.undo()
    assert place.kept() == []
    await place.again()
    assert [each.seq for each in place.kept()] == [3]
    await place.fill(1)
    assert (await place.checkpoint()).number == 2
    assert await place.faults() == []


async def test_a_line_that_was_cut_short_does_no_harm(place: Place) -> None:
    await place.fill(1)
    await place.checkpoint()
    text = place.paths.audit_proof.read_bytes()
    for kept in (1, 50, len(text.splitlines()[-1]) - 1, len(text.splitlines()[-1])):
        first = text.splitlines(keepends=True)[0]
        place.paths.audit_proof.write_bytes(first + text.splitlines()[-1][:kept])
        await place.again()
        assert place.kept()[0].number == 1 and await place.faults() == [], kept


async def test_a_full_disk_is_said_and_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.fill(1)

    def full(path: Path, lines: list[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(signer, "append_proofs", full)
    await place.signer.checkpoint()
    assert any("audit.proof is behind" in each and "No space" in each for each in place.signer.troubles())
    monkeypatch.undo()
    await place.signer.checkpoint()
    assert place.signer.troubles() == [] and len(place.kept()) == 1
    await place.fill(1)

    async def refuse(work: object) -> None:
        raise StoreError("the change was not made", "the disk with the database is full")

    monkeypatch.setattr(place.store, "transact", refuse)
    with pytest.raises(StoreError):
        await place.signer.checkpoint()
    assert any("could not be kept" in each for each in place.signer.troubles())
    monkeypatch.undo()
    assert (await place.checkpoint()).number == 2 and place.signer.troubles() == []


async def test_a_key_that_is_gone_is_said_and_not_replaced_by_a_new_one(place: Place) -> None:
    place.paths.audit_key.rename(place.paths.audit_key.with_name("aside"))
    await place.again()
    assert any("not signed" in each and "cannot be used" in each for each in place.signer.troubles())
    assert not place.paths.audit_key.exists() and not (await place.signer.show()).usable
    SigningKey.make().save(place.paths.audit_key)
    await place.again()
    assert any("another key" in each for each in place.signer.troubles())
    place.paths.audit_key.unlink()
    place.paths.audit_key.with_name("aside").rename(place.paths.audit_key)
    place.paths.audit_key.chmod(0o644)
    await place.again()
    assert any("may be read by others (mode 0644)" in each for each in place.signer.troubles())
    place.paths.audit_key.chmod(0o600)
    await place.signer.follow()
    assert place.signer.troubles() == [] and (await place.signer.show()).usable


async def test_a_new_database_goes_on_with_the_keys_and_numbers_of_the_installation(place: Place) -> None:
    await place.fill(3)
    before = await place.checkpoint()
    await place.store.close()
    for each in place.paths.state.glob("corral.db*"):
        each.unlink()
    await place.open()
    await place.signer.start()
    assert [each.key for each in place.signer.keys] == [read_proofs(place.paths.audit_proof).keys[0].key]
    (record,) = await place.audit.ls(verb="audit.keys-known")
    assert len(record.after["keys"]) == 1
    after = await place.checkpoint()
    assert after.number == before.number + 1 and after.database != before.database
    assert after.installation == before.installation
    assert await place.faults() == ["lost"], "the old checkpoints are of another database"


# -------------------------------------------------------------------------------------------- rotation


async def test_a_rotation_is_recorded_and_signed_by_the_old_key_which_is_gone(place: Place) -> None:
    old = load(place.paths.audit_key, {})
    await place.fill(2)
    made = await place.rotate()
    assert holds(made, old.public) and made.previous == old.id and made.number == 2
    assert load(place.paths.audit_key, {}).public == made.key
    assert [each.name for each in place.paths.state.glob("audit.key*")] == ["audit.key"]
    (record,) = await place.audit.ls(verb="audit.key-rotate")
    assert (record.actor, record.before, record.after) == (
        "alice", {"key": old.public}, {"keys": [made.line().decode()], "lost": False},
    )  # fmt: skip
    old_one, new_one = place.kept()
    assert (old_one.key, old_one.seq, new_one.key, new_one.seq) == (old.id, 3, made.id, 4)
    assert new_one.number == made.first, "the old one may not sign from here on"
    assert await place.faults() == []
    await place.again()
    assert (await place.signer.show()).usable and place.signer.keys[-1] == made


async def test_who_may_not_rotate_is_refused_and_nothing_changes(place: Place) -> None:
    old = load(place.paths.audit_key, {})
    with pytest.raises(NotAllowed):
        await place.rotate(MALLORY)
    assert [each.name for each in place.paths.state.glob("audit.key*")] == ["audit.key"]
    assert load(place.paths.audit_key, {}).id == old.id and len(place.signer.keys) == 1
    (record,) = await place.audit.ls(verb="audit.key-rotate")
    assert record.outcome == "refused"
    await place.fill(1)
    assert (await place.checkpoint()).key == old.id


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_kill_in_a_rotation_leaves_the_one_key_that_is_recorded(
    place: Place, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = load(place.paths.audit_key, {})

    def killed(*args: object) -> None:
        raise SystemError("killed here")

    where = "succeed" if recorded else "successor"
    if not recorded:  # the new key is on the disk, its record is not
        SigningKey.make().save(place.paths.audit_key.with_name("audit.key.next"))
    monkeypatch.setattr(place.signer._ring, where, killed)
    with pytest.raises(SystemError):
        await place.rotate()
    await place.again()
    assert (await place.signer.show()).usable and len(place.signer.keys) == 1 + recorded
    assert (load(place.paths.audit_key, {}).id == old.id) == (not recorded)
    assert [each.name for each in place.paths.state.glob("audit.key*")] == ["audit.key"]


async def test_what_stands_where_the_next_key_belongs_is_told_and_stays(place: Place) -> None:
    place.paths.audit_key.with_name("audit.key.next").mkdir()
    with pytest.raises(Failed, match="in the way"):
        await place.rotate()
    assert (await place.signer.show()).usable and len(place.signer.keys) == 1


async def test_an_installation_id_that_was_damaged_is_written_again(place: Place) -> None:
    before = place.signer.installation
    for damaged in (b"", b"\xff\x00", b"../../x"):
        place.paths.audit_installation.write_bytes(damaged)
        await place.again()
        assert place.signer.installation == before == place.paths.audit_installation.read_text().strip()


async def test_a_lost_key_is_given_up_only_if_it_is_lost_and_nobody_signs_the_next(place: Place) -> None:
    with pytest.raises(Conflict, match="not lost"):
        await place.rotate(lost=True)
    place.paths.audit_key.unlink()
    await place.again()
    with pytest.raises(Failed, match="cannot sign the next"):
        await place.rotate()
    made = await place.rotate(lost=True)
    assert made.signature == "" and made.previous
    assert [each.signed_by for each in (await place.signer.show()).keys] == ["", ""]
    assert await place.faults() == []


async def test_a_key_elsewhere_is_gone_over_to_and_corrals_own_copy_is_removed(place: Place, tmp_path: Path) -> None:
    first, second = SigningKey.make(), SigningKey.make()
    first.save(tmp_path / "first.key")
    second.save(tmp_path / "second.key")
    place.settings = AuditTable(signing_key=str(tmp_path / "first.key"))
    await place.signer.follow()
    assert (await place.signer.show()).usable, "the old one signs until the rotation"
    assert (await place.rotate()).key == first.public
    assert not place.paths.audit_key.exists()
    with pytest.raises(Conflict, match="next_key"):
        await place.rotate()
    place.settings = AuditTable(signing_key=str(tmp_path / "first.key"), next_key=str(tmp_path / "second.key"))
    assert (await place.rotate()).key == second.public
    await place.again()
    assert (await place.signer.show()).usable, "found as next_key"
    place.settings = AuditTable(signing_key=str(tmp_path / "nowhere.key"))
    await place.signer.follow()
    assert not (await place.signer.show()).usable


async def test_a_key_that_is_named_and_not_there_is_not_made(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.settings = AuditTable(signing_key=str(tmp_path / "none.key"))
    await place.open()
    await place.signer.start()
    assert any("not signed" in each and "none.key" in each for each in place.signer.troubles())
    assert not list(tmp_path.rglob("*.key")) and place.signer.keys == ()
    await place.store.close()


# -------------------------------------------------------------------------------------------- what it finds


async def test_an_older_copy_of_database_and_head_is_found_by_audit_proof(place: Place) -> None:
    await place.fill(3)
    await place.checkpoint()
    await place.store.close()
    aside = place.paths.root / "aside"
    aside.mkdir()
    for name in ("corral.db", "audit.head"):
        shutil.copy(place.paths.state / name, aside / name)
    await place.open()
    await place.fill(3)
    await place.signer.start()
    await place.checkpoint()
    await place.store.close()
    for name in ("corral.db", "audit.head"):
        shutil.copy(aside / name, place.paths.state / name)
    await place.open()
    report = await place.audit.verify()
    assert (report.ok, report.how, report.wrong) == (False, "older", 7) and "older copy" in report.message
    place.now += 60
    await place.fill(9)  # grown beyond it
    report = await place.audit.verify()
    assert (report.ok, report.how) == (False, "older") and "record 7 is not the one" in report.message
    await place.signer.start()
    assert (await place.checkpoint()).number == 3, "no number is given twice"
    assert await place.faults() == ["older"]
    work = await place.audit.acceptance("restored", report.faults)
    await place.gate.act(ALICE, "audit.accept", "audit:chain", "r", work, reason="restored")
    assert await place.faults() == []
    await place.fill(1)
    await place.checkpoint()
    assert await place.faults() == []


async def test_a_checkpoint_that_is_signed_while_a_verification_runs_is_no_fault(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One over a million records takes seconds, and reads audit.proof too."""
    from core.audit import verify

    await place.fill(3)
    loop, look = asyncio.get_running_loop(), verify._faults

    def later(*args: object) -> object:
        asyncio.run_coroutine_threadsafe(grow(), loop).result(10)
        return look(*args)

    async def grow() -> None:
        await place.fill(3)
        await place.checkpoint()

    monkeypatch.setattr(verify, "_faults", later)
    report = await place.audit.verify()
    assert report.ok, report.message


async def test_a_chain_that_was_rewritten_whole_with_its_head_does_not_fit_its_checkpoints(place: Place) -> None:
    from core.audit.chain import SELECT, digest
    from core.audit.outside import Head, write_head

    await place.fill(5)
    await place.checkpoint()
    db = sqlite3.connect(place.paths.database)
    rows = [list(row) for row in db.execute(SELECT + " ORDER BY seq")]
    db.close()
    rows[2][2] = "nobody"
    for n, row in enumerate(rows):
        row[13] = rows[n - 1][14] if n else row[13]
        row[14] = digest(tuple(row))
    tamper(place.paths, *(
        f"UPDATE audit SET actor = '{r[2]}', prev = '{r[13]}', hash = '{r[14]}' WHERE seq = {r[0]}" for r in rows
    ))  # fmt: skip
    write_head(place.paths, Head(1, rows[-1][0], rows[-1][14]))
    report = await place.audit.verify()
    assert [fault.how for fault in report.faults] == ["checkpoint"] and "not the one" in report.message


async def test_a_checkpoint_that_nobody_signed_and_a_damaged_line_are_named(place: Place) -> None:
    await place.fill(1)
    made = await place.checkpoint()
    forger = SigningKey.make()
    forged = sign(Checkpoint(made.installation, made.database, 9, 1, "0" * 64, made.time, made.key, ""), forger)
    append_proofs(place.paths.audit_proof, [forged.line(), b"garbage", made.line()])
    report = await place.audit.verify()
    assert [fault.message for fault in report.faults] == [
        "line 4 of audit.proof is damaged", "checkpoint 9 (record 1) is not signed by a key of this installation",
    ]  # fmt: skip
    assert json.dumps([fault.how for fault in report.faults]) == '["checkpoint", "checkpoint"]'


async def test_sql_cannot_update_delete_or_replace_keys_and_checkpoints(place: Place) -> None:
    await place.checkpoint()
    for table in ("audit_keys", "audit_checkpoints"):
        for statement in (
            f"UPDATE {table} SET line = ''", f"DELETE FROM {table}",
            f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
        ):  # fmt: skip
            with pytest.raises(StoreError, match="never"):
                await place.store.transact(lambda db, s=statement: db.execute(s))  # type: ignore[misc]
    tamper(place.paths)
    assert await place.faults() == []
    db = sqlite3.connect(place.paths.database)
    db.execute("DROP TRIGGER audit_checkpoints_keeps_rows")
    db.commit()
    db.close()
    assert await place.faults() == ["open"]


async def test_settings_name_keys_and_intervals() -> None:
    from core.settings import parse

    table = parse('[audit]\nsigning_key = "/etc/corral/audit.key"\ncheckpoint_records = 5\n').audit
    assert (table.signing_key, table.checkpoint_records, table.checkpoint_every_s) == ("/etc/corral/audit.key", 5, 3600)
    with pytest.raises(Invalid, match="whole number from 1"):
        parse("[audit]\ncheckpoint_records = 0\n")
