"""An exported file proves what it holds: whatever is changed in it, whoever changes it without the key, is found."""

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signed_place import Place

from core.nouns.audit import FileReport
from core.proof.against import compare
from core.proof.keys import SigningKey, load
from core.proof.statements import Checkpoint, End, Key, Record, parse, sign
from core.proof.verify import verify


def report(text: bytes, *trusted: str, against: bytes | None = None) -> FileReport:
    if against is None:
        return verify(text.splitlines(keepends=True), trusted)[0].report
    return compare(lambda: text.splitlines(keepends=True), lambda: against.splitlines(keepends=True), trusted)


def hows(found: FileReport) -> set[str]:
    return {fault.how for fault in found.faults}


class Made(NamedTuple):
    """Exports of one installation at three moments, its public keys, and its last private key."""

    early: bytes
    middle: bytes
    late: bytes
    proof: bytes
    keys: list[str]
    other: bytes
    """Of another installation."""

    def __repr__(self) -> str:
        return "made"


@pytest.fixture(scope="module")
def made() -> Made:
    async def make() -> Made:
        folder = Path(tempfile.mkdtemp(prefix="c-"))
        try:
            place = await Place(folder).open()
            await place.signer.start()
            await place.fill(5)
            await place.checkpoint()
            await place.fill(3)
            early = await place.export()
            place.now += 60
            await place.rotate()
            await place.fill(4)
            await place.checkpoint()
            await place.fill(2)
            middle = await place.export()
            await place.fill(3)
            await place.rotate()
            await place.fill(2)
            late = await place.export()
            keys = [each.key for each in place.signer.keys]
            proof = place.paths.audit_proof.read_bytes()
            await place.store.close()
            (folder / "other").mkdir()
            another = await Place(folder / "other").open()
            await another.signer.start()
            await another.fill(4)
            other = await another.export()
            await another.store.close()
            return Made(early, middle, late, proof, keys, other)
        finally:
            shutil.rmtree(folder)

    return asyncio.run(make())


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = await Place(tmp_path).open()
    await made.signer.start()
    yield made
    await made.store.close()


# -------------------------------------------------------------------------------------------- what is right


def test_a_whole_file_says_from_where_to_where_and_who_vouches(made: Made) -> None:
    found = report(made.middle, made.keys[0])
    assert found.ok, found.message
    assert (found.first, found.last, found.records, found.unvouched) == (1, 16, 16, 0)
    assert found.vouched == 16 and found.vouched_key and [key.trusted for key in found.keys] == [True, True]
    assert "1 to 16 are complete, in order and unaltered" in found.message


def test_the_file_is_what_the_documentation_says(made: Made) -> None:
    """Verified here with nothing of Corral: hashes, order, signatures."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    *lines, end = made.late.splitlines()
    known: dict[str, Ed25519PublicKey] = {}
    last, seq, signed = "0" * 64, 0, 0

    def check(line: bytes, key: Ed25519PublicKey) -> None:
        text, _, signature = line.rpartition(b',"')
        key.verify(bytes.fromhex(signature[:-2].decode()), text + b"]")

    for line in lines:
        kind, *rest = json.loads(line)
        if kind == "corral-key-1":
            if rest[6]:
                check(line, known[rest[5]])
            raw = bytes.fromhex(rest[2].removeprefix("ed25519:"))
            known[hashlib.sha256(raw).hexdigest()[:16]] = Ed25519PublicKey.from_public_bytes(raw)
        elif kind == "corral-audit-1":
            assert (rest[0], rest[13]) == (seq + 1, last)
            seq, last = rest[0], hashlib.sha256(line).hexdigest()
        elif kind == "corral-checkpoint-1":
            assert rest[3:5] == [seq, last]
            check(line, known[rest[6]])
            signed += 1
    told = json.loads(end)
    digest = hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
    assert told[:7] == ["corral-export-end-1", told[1], seq, last, seq, signed, digest]
    check(end, known[told[8]])
    assert signed >= 6


def test_trust_goes_from_a_key_to_those_that_follow_it_and_not_back(made: Made) -> None:
    for n, key in enumerate(made.keys):
        found = report(made.late, key)
        assert found.ok and [each.trusted for each in found.keys] == [m >= n for m in range(3)]
    found = report(made.early, made.keys[1])
    assert not found.ok and hows(found) == {"key"}, "a key of later does not vouch for a file of earlier"
    assert not report(made.early, SigningKey.make().public).ok
    assert not report(made.early).ok


async def test_since_begins_where_it_says_and_may_be_empty(place: Place) -> None:
    await place.fill(3)
    place.now += 100
    await place.fill(2)
    public = place.signer.keys[0].key
    text = await place.export(str(place.now - 50))
    found = report(text, public)
    assert found.ok and (found.first, found.last, found.records) == (5, 6, 2) and found.since
    empty = await place.export(str(place.now + 50))
    found = report(empty, public)
    assert found.ok and found.records == 0 and "no records after 6" in found.message
    whole = await place.export()
    assert report(text, public, against=whole).ok
    assert report(empty, public, against=whole).ok
    await place.fill(1)
    assert report(await place.export(), public, against=empty).ok
    assert not report(empty, public, against=await place.export()).ok


async def test_without_a_key_the_file_says_that_nobody_signed_and_does_not_verify(place: Place) -> None:
    await place.fill(3)
    public = place.signer.keys[0].key
    await place.checkpoint()
    place.paths.audit_key.rename(place.paths.audit_key.with_name("aside"))
    await place.again()
    await place.fill(2)
    found = report(await place.export(), public)
    assert not found.ok and hows(found) == {"end"} and "nobody signed" in found.message
    assert (found.vouched, found.unvouched) == (4, 2)


async def test_after_a_lost_key_the_new_one_has_to_be_given(place: Place) -> None:
    await place.fill(2)
    first = place.signer.keys[0].key
    place.paths.audit_key.unlink()
    await place.again()
    second = (await place.rotate(lost=True)).key
    text = await place.export()
    found = report(text, first)
    assert not found.ok and hows(found) == {"key"} and "lost, or it is a forgery" in found.message
    assert report(text, second).ok and report(text, first, second).ok


@pytest.mark.parametrize(
    ("sql", "how"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 3", {"changed"}),
        ("DELETE FROM audit WHERE seq = 3", {"removed"}),
        ("DELETE FROM audit WHERE seq > 4", {"removed"}),
        ("DELETE FROM audit_checkpoints; UPDATE audit SET reason = 'x' WHERE seq = 6", {"changed"}),
    ],
)
async def test_what_was_changed_in_the_database_is_found_in_its_export(place: Place, sql: str, how: set[str]) -> None:
    from signed_place import tamper

    await place.fill(5)
    await place.checkpoint()
    await place.fill(1)
    older = await place.export()
    public = place.signer.keys[0].key
    tamper(place.paths, *sql.split("; "))
    await place.fill(1)
    text = await place.export()
    found = report(text, public)
    assert not found.ok or not report(text, public, against=older).ok
    if "audit_checkpoints" not in sql:
        assert how <= hows(found), found.faults


# -------------------------------------------------------------------------------------------- what is wrong


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_bit_that_is_flipped_is_found(made: Made, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(made.late) - 1))
    bit = data.draw(st.integers(0, 7))
    text = bytearray(made.late)
    text[at] ^= 1 << bit
    assert not report(bytes(text), made.keys[0]).ok


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_cut_is_found(made: Made, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(made.late) - 1))
    upto = data.draw(st.integers(at + 1, len(made.late)))
    assert not report(made.late[:at] + made.late[upto:], made.keys[0]).ok


def lines() -> Any:
    """Changes of the lines of a file: (what, at, other)."""
    return st.lists(
        st.tuples(st.sampled_from(["drop", "swap", "double", "move", "foreign", "blank"]), st.integers(0, 99),
                  st.integers(0, 99)),
        min_size=1, max_size=4,
    )  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(changes=lines())
def test_any_line_that_is_dropped_swapped_doubled_moved_or_put_in_is_found(
    made: Made, changes: list[tuple[str, int, int]]
) -> None:
    rows = made.late.splitlines(keepends=True)
    foreign = [*made.other.splitlines(keepends=True), *made.early.splitlines(keepends=True)]
    for what, at, other in changes:
        i, j = at % len(rows), other % len(rows)
        if what == "drop" and len(rows) > 1:
            del rows[i]
        elif what == "swap":
            rows[i], rows[j] = rows[j], rows[i]
        elif what == "double":
            rows.insert(j, rows[i])
        elif what == "move":
            rows.insert(j, rows.pop(i))
        elif what == "foreign":
            rows.insert(i, foreign[other % len(foreign)])
        else:
            rows.insert(i, b"\n")
    text = b"".join(rows)
    assert report(text, made.keys[0]).ok == (text == made.late)


def rewritten(text: bytes, change: dict[int, dict[str, Any]], keep: set[int], forger: SigningKey | None) -> bytes:
    """What a forger who knows the format makes of a file: records changed (None: left out), all that follows chained
    anew, checkpoints and end made to fit, signed with a key of his own or with no key."""
    head, prev, seq, sha = [], None, 0, hashlib.sha256()
    records = checkpoints = 0
    end: End | None = None
    for raw in text.splitlines():
        line = parse(raw)
        if isinstance(line, Record):
            if line.seq in change and not change[line.seq]:
                continue
            fields = {name: getattr(line, name) for name in Record.__struct_fields__} | change.get(line.seq, {})
            seq = seq + 1 if seq else line.seq
            fields |= {"seq": seq, "prev": prev or line.prev}
            head.append(Record(**fields).line())
            prev = hashlib.sha256(head[-1]).hexdigest()
            records += 1
        elif isinstance(line, End):
            end = line
        elif isinstance(line, Key):
            head.append(line.line())
        elif hasattr(line, "hash"):
            if line.number in keep:
                fields = {name: getattr(line, name) for name in type(line).__struct_fields__}
                forged = type(line)(**(fields | {"seq": seq, "hash": prev}))
                head.append((sign(forged, forger) if forger else forged).line())
                checkpoints += 1
        else:
            head.append(raw)
    for each in head:
        sha.update(each + b"\n")
    assert end is not None
    blank = End(end.installation, seq, str(prev), records, checkpoints, sha.hexdigest(), end.time, end.key, "")
    return b"".join(each + b"\n" for each in (*head, (sign(blank, forger) if forger else blank).line()))


@settings(max_examples=150, deadline=None)
@given(
    at=st.integers(1, 22),
    what=st.sampled_from([{"actor": "nobody"}, {"outcome": "done"}, {"time": "2020"}, {}, {"reason": "x", "uid": 1}]),
    keep=st.sets(st.integers(1, 9)),
    signs=st.booleans(),
)
def test_a_forger_without_the_key_is_found_whatever_he_makes_fit(
    made: Made, at: int, what: dict[str, Any], keep: set[int], signs: bool
) -> None:
    text = rewritten(made.late, {at: what}, keep, SigningKey.make() if signs else None)
    found = report(text, made.keys[0])
    assert not found.ok
    assert found.vouched < at or found.vouched == 0 or "end" in hows(found), "and nothing vouches for it"


def test_a_forger_who_puts_his_own_key_in_is_not_trusted(made: Made) -> None:
    """All of it signed with a key that the file itself names."""
    forger = SigningKey.make()
    key = Key("i" * 32, 1, forger.public, 1, "2026", "", "")
    rows = [raw for raw in made.early.splitlines() if not raw.startswith(b'["corral-key-1"')]
    text = b"\n".join([rows[0], key.line(), *rows[1:]]) + b"\n"
    assert not report(rewritten(text, {3: {"actor": "nobody"}}, set(range(9)), forger), made.keys[0]).ok


def test_a_successor_that_the_thief_of_nothing_signs_is_not_trusted(made: Made) -> None:
    forger = SigningKey.make()
    last = parse(next(raw for raw in reversed(made.early.splitlines()) if raw.startswith(b'["corral-key-1"')))
    assert isinstance(last, Key)
    forged = sign(Key(last.installation, 2, forger.public, 9, "2026", last.id, ""), forger)
    rows = made.early.splitlines()
    found = report(b"\n".join([*rows[:2], forged.line(), *rows[2:]]) + b"\n", made.keys[0])
    assert not found.ok and any("not signed by the one before" in fault.message for fault in found.faults)


async def test_a_retired_key_cannot_sign_later_checkpoints_or_an_end(place: Place) -> None:
    await place.fill(2)
    old = load(place.paths.audit_key, {})
    await place.rotate()
    await place.fill(2)
    text = await place.export()
    rows = text.splitlines()
    for n, raw in enumerate(rows):
        line = parse(raw)
        if hasattr(line, "signature") and not isinstance(line, Key) and line.key != old.id:
            forged = type(line)(
                **{name: getattr(line, name) for name in type(line).__struct_fields__} | {"key": old.id}
            )
            changed = [*rows[:n], sign(forged, old).line(), *rows[n + 1 :]]
            assert not report(b"\n".join(changed) + b"\n", old.public).ok


# -------------------------------------------------------------------------------------------- against an earlier file


@pytest.mark.parametrize("earlier", ["early", "middle", "late", "proof"])
def test_a_later_file_goes_on_from_an_earlier_one(made: Made, earlier: str) -> None:
    found = report(made.late, made.keys[0], against=getattr(made, earlier))
    assert found.ok, found.message
    assert "goes on from the earlier file" in found.message


@pytest.mark.parametrize("later", ["middle", "late", "proof"])
def test_an_older_copy_of_everything_verifies_alone_and_is_found_by_what_left_before(made: Made, later: str) -> None:
    assert report(made.early, made.keys[0]).ok
    found = report(made.early, made.keys[0], against=getattr(made, later))
    assert not found.ok and hows(found) == {"older"} and "older copy" in found.message


async def test_a_history_written_anew_with_the_key_is_found_by_what_left_before(place: Place) -> None:
    """The owner of the files puts an older copy back and goes on with the true key."""
    await place.fill(3)
    await place.checkpoint()
    await place.store.close()
    aside = place.paths.root / "aside"
    shutil.copytree(place.paths.state, aside)
    await place.open()
    await place.signer.start()
    await place.fill(4)
    left = await place.export()
    proof = place.paths.audit_proof.read_bytes()
    await place.store.close()
    shutil.rmtree(place.paths.state)
    shutil.copytree(aside, place.paths.state)
    place.now += 60
    await place.open()
    await place.signer.start()
    await place.fill(9)
    text, public = await place.export(), place.signer.keys[0].key
    assert report(text, public).ok, "of itself it is right"
    for earlier in (left, proof):
        found = report(text, public, against=earlier)
        assert not found.ok and hows(found) == {"rewritten"} and "is not the one" in found.message


async def test_an_older_copy_that_was_put_back_leaves_a_gap_in_the_numbers_of_checkpoints(place: Place) -> None:
    """audit.proof, which lies beside the database, goes on counting: the file alone tells."""
    await place.fill(3)
    await place.checkpoint()
    await place.store.close()
    aside = place.paths.root / "aside"
    shutil.copytree(place.paths.state, aside)
    await place.open()
    await place.signer.start()
    for _ in range(2):
        await place.fill(2)
        await place.checkpoint()
    await place.store.close()
    for name in ("corral.db", "audit.head"):
        shutil.copy(aside / name, place.paths.state / name)
    for each in ("-wal", "-shm"):
        (place.paths.state / f"corral.db{each}").unlink(missing_ok=True)
    await place.open()
    await place.signer.start()
    await place.fill(1)
    found = report(await place.export(), place.signer.keys[0].key)
    assert not found.ok and hows(found) == {"gap"}
    assert "checkpoints 2 to 3 are missing" in found.message and "older copy" in found.message


async def test_a_number_that_stands_twice_is_told(place: Place) -> None:
    """Whoever has the key and also puts back audit.proof signs the same number again."""
    for _ in range(2):
        await place.fill(2)
        await place.checkpoint()
    rows = (await place.export()).splitlines(keepends=True)
    second = [n for n, row in enumerate(rows) if isinstance(parse(row[:-1]), Checkpoint)][1]
    point = parse(rows[second][:-1])
    assert isinstance(point, Checkpoint)
    key = load(place.paths.audit_key, {})
    rows[second] = sign(msgspec.structs.replace(point, number=1), key).line() + b"\n"
    found = report(b"".join(rows), key.public)
    assert not found.ok and "checkpoint 1 stands after checkpoint 1" in " ".join(each.message for each in found.faults)


async def test_a_time_that_goes_backwards_is_told_and_is_no_proof_of_anything(place: Place) -> None:
    await place.fill(2)
    await place.checkpoint()
    place.now -= 1
    await place.fill(1)
    assert report(await place.export(), place.signer.keys[0].key).notes == ()
    place.now -= 3600
    await place.fill(2)
    found = report(await place.export(), place.signer.keys[0].key)
    assert found.ok and len(found.notes) == 2
    assert "goes backwards at record 5" in found.notes[0] and "1 more lie before" in found.notes[0]
    assert "goes backwards at checkpoint 3" in found.notes[1], found.notes


async def test_a_gap_between_two_files_is_told(place: Place) -> None:
    await place.fill(2)
    early, public = await place.export(), place.signer.keys[0].key
    place.now += 60
    await place.fill(1)
    place.now += 60
    await place.fill(1)
    late = await place.export(str(place.now - 1))
    found = report(late, public, against=early)
    assert not found.ok and "--since" in found.message
    assert report(await place.export(str(place.now - 61)), public, against=early).ok


def test_what_is_compared_with_must_itself_be_right_and_of_this_installation(made: Made) -> None:
    text = bytearray(made.early)
    text[len(text) // 2] ^= 1
    for earlier in (bytes(text), made.early[:-1], b"", b"\n\n", made.other, made.proof[:100], b"\xff\xfe"):
        assert not report(made.late, made.keys[0], against=earlier).ok


def test_checkpoints_that_no_trusted_key_signed_are_no_comfort(made: Made) -> None:
    """A copy of audit.proof that fits the file, and that somebody else made."""
    true = [parse(raw) for raw in made.proof.splitlines()]
    key = next(each for each in true if isinstance(each, Key))
    forger = SigningKey.make()
    mine = Key(key.installation, 1, forger.public, 1, key.time, "", "")
    for signs, first in ((forger, mine), (forger, key), (None, key)):
        text = first.line() + b"\n"
        for each in true:
            if isinstance(each, Checkpoint):
                fields = {name: getattr(each, name) for name in Checkpoint.__struct_fields__}
                text += sign(Checkpoint(**fields | {"key": first.id}), signs).line() + b"\n"
        found = report(made.late, made.keys[0], against=text)
        assert not found.ok and hows(found) == {"against"}


async def test_a_new_database_that_goes_on_from_the_lost_one_is_told_from_one_that_does_not(place: Place) -> None:
    await place.fill(3)
    early, public = await place.export(), place.signer.keys[0].key
    for keeps_head in (True, False):
        await place.store.close()
        for each in place.paths.state.glob("corral.db*"):
            each.unlink()
        if not keeps_head:
            place.paths.audit_head.unlink()
        await place.open()
        await place.signer.start()
        await place.fill(1)
        text = await place.export()
        assert report(text, public).ok
        assert report(text, public, against=early).ok == keeps_head
        early = text if keeps_head else early


def test_a_file_of_keys_alone_is_a_verdict_in_bounded_time(made: Made) -> None:
    head, key = made.early.splitlines(keepends=True)[:2]
    found = report(head + key * 50_000, made.keys[0])
    assert not found.ok and len(found.keys) == 1000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_a_verdict_and_no_error(text: bytes) -> None:
    assert not report(text, SigningKey.make().public).ok


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_an_earlier_file_that_was_changed_never_makes_a_wrong_file_right(made: Made, data: st.DataObject) -> None:
    text = bytearray(made.late)
    for at in data.draw(st.lists(st.integers(0, len(text) - 1), max_size=3)):
        text[at] ^= data.draw(st.integers(1, 255))
    assert not report(made.early, made.keys[0], against=bytes(text)).ok
