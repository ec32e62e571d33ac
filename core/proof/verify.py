"""Verifies an exported file without any daemon or database: complete, in order, unaltered, and vouched for by whom.

One pass in bounded memory; what is wrong is named, the first first, and the walk goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

import msgspec

from core.nouns.audit import ChainFault, FileKey, FileReport
from core.proof.backwards import Backwards
from core.proof.keys import key_id
from core.proof.statements import Checkpoint, End, Header, Key, Record, holds, parse

LINE_LIMIT = 64 << 20
"""Bytes of one line."""
KEYS = 1000
"""More keys than any installation goes through: a file could cost a day otherwise."""
NAMED = 10
"""Faults that are named one by one."""
SIGNED = ("checkpoint", "gap", "key", "end")
"""Faults that what happened to the records may explain."""
ARCHIVE = "audit.archive"
"""Verb of a record that says where earlier ones lie."""
NAMING = ("audit.key-made", "audit.keys-known", "audit.key-rotate")
"""Verbs of records that name keys."""


class Anchor(NamedTuple):
    """The chain of `database` had the record `seq` with this hash."""

    database: str
    seq: int
    hash: str


class Verified(NamedTuple):
    """A report, and what a later file is compared with."""

    report: FileReport
    anchors: list[Anchor]
    """Every checkpoint that a trusted key signed, and the end."""
    began: str
    """`prev` of the first record; hash of the last one before the file if it has no records."""


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """The lines with their newlines; one that is too long ends it, in two pieces that are no line."""
    while line := file.readline(LINE_LIMIT):
        yield line


class Archived(msgspec.Struct, frozen=True):
    """What a record says of an archive."""

    first: int
    last: int
    file: str


class _Gap:
    """Records `first` to `last` were not where they belong; `seen` of them stood later in the file. `at`: its fault."""

    def __init__(self, first: int, last: int, at: int) -> None:
        self.first, self.last, self.at, self.seen = first, last, at, 0


class Walk:
    """One pass over the lines of a file. `add` each with its newline, then `verdict`.

    `wanted`: seqs whose hash is asked for, found in `hashes` afterwards.
    """

    def __init__(self, trusted: Iterable[str], wanted: Iterable[int] = ()) -> None:
        self._given = set(trusted)
        self._wanted = set(wanted)
        self.hashes: dict[int, str] = {}
        self.began = ""
        self.anchors: list[Anchor] = []
        self._faults: list[ChainFault] = []
        self._more = 0
        self._header: Header | None = None
        self._keys: list[Key] = []
        self._trusted: dict[str, bool] = {}
        self._named: set[str] = set()
        """Key lines that records name."""
        self._end: End | None = None
        self._sha = hashlib.sha256()
        self._digest = ""
        self._line = 0
        self._whole = True
        self._seq, self._hash = 0, ""
        self._before = self._twin = ""
        """Hash of the record before the last, and of another one that follows it too."""
        self._gaps: list[_Gap] = []
        self._records = self._checkpoints = 0
        self._number = self._passed = 0
        """Of the last checkpoint that fits, and of the last one."""
        self._records_back, self._checkpoints_back = Backwards(), Backwards()
        self._vouch: Checkpoint | None = None
        self.archives: list[Archived] = []
        """Files that records name, in which earlier records lie."""

    def add(self, raw: bytes) -> None:
        """The next line."""
        self._line += 1
        self._whole = raw.endswith(b"\n")
        if self._end is not None:
            self._wrong(None, "appended", f"line {self._line} was appended: it stands after the end of the file")
            return
        try:
            line = parse(raw[:-1] if self._whole else raw)
        except ValueError as error:
            self._wrong(self._seq + 1, "form", f"line {self._line}, after record {self._seq}, is damaged: {error}")
            self._sha.update(raw)
            return
        if isinstance(line, Record):
            self._record(line, raw)
        elif isinstance(line, Checkpoint):
            self._checkpoint(line)
        elif isinstance(line, Key):
            self._key(line)
        elif isinstance(line, Header):
            self._begin(line)
        else:
            self._end, self._digest = line, self._sha.hexdigest()
        self._sha.update(raw)

    # ---------------------------------------------------------------------------------------- each kind of line

    def _begin(self, line: Header) -> None:
        if self._line != 1:
            self._wrong(None, "order", f"line {self._line} begins another file")
            return
        self._header = line
        self._seq = line.first - 1

    def _key(self, line: Key) -> None:
        if len(self._keys) >= KEYS:
            self._wrong(None, "key", f"the file has more than {KEYS} keys")
            return
        before = self._keys[-1] if self._keys else None
        if self._records:
            self._wrong(None, "order", f"line {self._line}: a key stands after records")
        if self._header is not None and line.installation != self._header.installation:
            self._wrong(None, "key", f"key {line.number} is of another installation")
        expected = before.number + 1 if before else 1
        if line.number != expected or any(each.id == key_id(line.key) for each in self._keys):
            self._wrong(None, "key", f"key {line.number} stands where key {expected} belongs")
        signed = before is not None and bool(line.signature) and line.previous == before.id
        if before is not None and line.signature and not (signed and holds(line, before.key)):
            self._wrong(None, "key", f"key {line.number} is not signed by the one before it")
            signed = False
        follows = signed and before is not None and self._trusted.get(before.id, False)
        self._keys.append(line)
        self._trusted[line.id] = line.key in self._given or follows

    def _record(self, line: Record, raw: bytes) -> None:
        found = hashlib.sha256(raw[:-1] if self._whole else raw).hexdigest()
        expected = self._seq + 1
        if self._header is None:
            self._wrong(line.seq, "form", "the file has no header")
            self._header = Header("", "", line.seq, "", "")
            expected = line.seq
        self._records += 1
        if line.seq < expected:
            self._astray(line, found)
            return
        if line.seq > expected:
            self._gaps = [*self._gaps[-NAMED:], _Gap(expected, line.seq - 1, len(self._faults))]
            self._wrong(expected, "removed", f"{_named(expected, line.seq - 1)} removed")
        elif self._records == 1:
            self.began = line.prev
        elif line.prev not in (self._hash, self._twin or self._hash):
            self._wrong(self._seq, "changed", f"record {line.seq} does not follow from record {self._seq}: one of the"
                        " two was changed")  # fmt: skip
        self._before, self._seq, self._hash, self._twin = line.prev, line.seq, found, ""
        if line.seq in self._wanted:
            self.hashes[line.seq] = found
        self._records_back.add(f"record {line.seq}", line.time)
        if line.verb in NAMING and line.outcome == "done" and line.object == "audit:keys":
            self._named_in(line)
        elif line.verb == ARCHIVE and line.outcome == "done":
            self._archived_in(line)

    def _astray(self, line: Record, found: str) -> None:
        """One that stands after its place: put there from a gap, or put in."""
        for gap in self._gaps:
            if gap.first <= line.seq <= gap.last:
                gap.seen += 1
                return
        if line.seq == self._seq and line.prev == self._before:  # which of the two is right shows the next one
            self._twin = found
            self._wrong(line.seq, "inserted", f"record {line.seq} stands there twice: one of the two was inserted")
        else:
            told = f"a record {line.seq} was inserted after record {self._seq}"
            self._wrong(line.seq, "inserted", told)

    def _reorder(self) -> None:
        """What was missing at its place and came later was moved."""
        for gap in self._gaps:
            if gap.at < len(self._faults) and gap.seen == gap.last - gap.first + 1:
                told = f"{_named(gap.first, gap.last)} moved: they stand later in the file"
                if gap.first == gap.last:
                    told = f"record {gap.first} was moved: it stands later in the file"
                self._faults[gap.at] = ChainFault(wrong=gap.first, how="reordered", message=told)

    def _named_in(self, line: Record) -> None:
        try:
            told = msgspec.json.decode(line.after, type=dict[str, object]).get("keys")
        except msgspec.MsgspecError:
            return
        there = {each.line().decode() for each in self._keys}
        for each in told if isinstance(told, list) else []:
            if each not in there:
                self._wrong(line.seq, "key", f"record {line.seq} names a key that the file does not have")
            self._named.add(str(each))

    def _archived_in(self, line: Record) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            told = msgspec.json.decode(line.after, type=Archived)
            self.archives = [*self.archives, told][-KEYS:]

    def _checkpoint(self, line: Checkpoint) -> None:
        self._checkpoints += 1
        told = self._unfit(line)
        if told:
            self._wrong(line.seq, "checkpoint", f"checkpoint {line.number} {told}")
            self._passed = line.number
            return
        self._follows(line)
        self._number = self._passed = line.number
        if self._trusted.get(line.key):
            self._vouch = line
            self.anchors.append(Anchor(line.database, line.seq, line.hash))

    def _follows(self, line: Checkpoint) -> None:
        """Numbers grow by one, whatever database they are in: one that is not here was signed for records that are not
        here either."""
        first, last = self._number + 1, line.number - 1
        if self._number and first <= last and self._passed != last:
            missing = f"checkpoint {last} is" if first == last else f"checkpoints {first} to {last} are"
            told = f"{missing} missing before record {line.seq}: an older copy of the database was put back, or"
            self._wrong(line.seq, "gap", f"{told} another one was in use meanwhile")
        self._checkpoints_back.add(f"checkpoint {line.number}", line.time)

    def _unfit(self, line: Checkpoint) -> str:
        if self._header is None or (line.installation, line.database) != (
            self._header.installation, self._header.database,
        ):  # fmt: skip
            return "is of another installation or database"
        if line.number <= self._number:
            return f"stands after checkpoint {self._number}"
        if not self._signed(line, line.number):
            return "is not signed by the key that could"
        if not self._records or (line.seq, line.hash) != (self._seq, self._hash):
            return f"signed another record {line.seq} than there is, or stands elsewhere"
        return ""

    def _signed(self, line: Checkpoint | End, number: int) -> bool:
        """Whether the key that was in use at checkpoint `number` signed."""
        key = next((each for each in reversed(self._keys) if each.first <= number), None)
        return key is not None and key.id == line.key and holds(line, key.key)

    # ---------------------------------------------------------------------------------------- the verdict

    def verdict(self) -> FileReport:
        """After the last line."""
        self._reorder()
        self._close()
        for key in self._keys:
            # One that came after the last checkpoint in the file may be recorded after its last record: an archive.
            due = key.number == 1 or key.first <= self._number
            if self._header is not None and self._header.first == 1 and due and key.line().decode() not in self._named:
                self._wrong(None, "key", f"key {key.number} is in no record")
        if not any(key.key in self._given for key in self._keys):
            given = ", ".join(sorted(key_id(each) for each in self._given)) or "none"
            self._wrong(None, "key", f"the key that you trust ({given}) is not among those of the file")
        header, vouch = self._header or Header("", "", 0, "", ""), self._vouch
        unvouched = self._seq - max(vouch.seq if vouch else 0, header.first - 1) if self._records else 0
        # Rows before signatures: a record that was moved also breaks its checkpoint and the end of the file.
        self._faults.sort(key=lambda fault: fault.how in SIGNED)
        faults = self._faults
        return FileReport(
            ok=not faults, message=self._message(unvouched), faults=tuple(faults), installation=header.installation,
            database=header.database, since=header.since, time=header.time, first=header.first, last=self._seq,
            records=self._records, head=self._hash or (self._end.hash if self._end else ""),
            checkpoint=vouch.number if vouch else 0, vouched=vouch.seq if vouch else 0,
            vouched_time=vouch.time if vouch else "", vouched_key=vouch.key if vouch else "",
            unvouched=max(0, unvouched), notes=(*self._records_back.notes(), *self._checkpoints_back.notes()),
            keys=tuple(
                FileKey(number=key.number, id=key.id, key=key.key, trusted=self._trusted[key.id]) for key in self._keys
            ),
        )  # fmt: skip

    def _close(self) -> None:
        end, header = self._end, self._header
        if header is None:
            self._wrong(None, "form", "this is no exported audit trail")
            return
        if end is None or not self._whole:
            self._wrong(
                self._seq + 1, "cut", f"the file is cut: it ends after record {self._seq} without its last line"
            )
            return
        if end.last < self._seq:
            told = f"{_named(end.last + 1, self._seq)} appended: the file was exported with records up to {end.last}"
            self._wrong(end.last + 1, "appended", told)
        elif end.last > self._seq:
            told = f"{_named(self._seq + 1, end.last)} cut off the end: it was exported with records up to {end.last}"
            self._wrong(self._seq + 1, "cut", told)
        elif end.records != self._records and not self._faults:
            how = "inserted" if end.records < self._records else "removed"
            self._wrong(None, how, f"it was exported with {end.records} records and has {self._records}")
        if end.checkpoints != self._checkpoints:
            told = f"it was exported with {end.checkpoints} checkpoints and has {self._checkpoints}"
            self._wrong(None, "checkpoint", told)
        if not self._records:
            self.began = end.hash
        elif end.last == self._seq and end.hash != self._hash:
            self._wrong(self._seq, "changed", f"record {self._seq} is not the one that the end of the file names")
        if end.installation != header.installation:
            self._wrong(None, "end", "the end is that of another installation's file")
        if end.digest != self._digest:
            self._wrong(None, "end", "the file is not the one that was exported: its lines have another hash")
        if not end.key:
            self._wrong(None, "end", "nobody signed the end of the file: it is not proved that it is complete")
        elif not self._keys or end.key != self._keys[-1].id or not holds(end, self._keys[-1].key):
            told = "the end of the file is not signed by the last key in it"
            after = self._vouch.seq if self._vouch else header.first - 1
            if self._seq > after:
                told += f": nobody vouches for records {after + 1} to {self._seq}, which may have been appended"
            self._wrong(None, "end", told)
        elif not self._trusted[end.key]:
            self._wrong(None, "key", f"the end is signed by key {end.key}, which does not follow from the one that you"
                        " trust: the key between was lost, or it is a forgery")  # fmt: skip
        elif not self._faults:
            self.anchors.append(Anchor(header.database, end.last, end.hash))

    def _message(self, unvouched: int) -> str:
        if self._faults:
            more = len(self._faults) + self._more - 1
            return self._faults[0].message + (f"; and {more} more {'faults' if more > 1 else 'fault'}" if more else "")
        if not self._records:
            return f"no records after {self._seq}"
        first = self._header.first if self._header else 1
        told = f"records {first} to {self._seq} are complete, in order and unaltered"
        if self._vouch is None:
            return f"{told}; no checkpoint vouches for them, the signature at the end does"
        told += f"; checkpoint {self._vouch.number} of {self._vouch.time} vouches for all up to {self._vouch.seq}"
        return told + (f", the end of the file for {unvouched} more" if unvouched > 0 else "")

    def _wrong(self, seq: int | None, how: str, message: str) -> None:
        if len(self._faults) < NAMED:
            self._faults.append(ChainFault(wrong=seq, how=how, message=message))
        else:
            self._more += 1


def _named(first: int, last: int) -> str:
    return f"record {first} was" if first == last else f"records {first} to {last} were"


def verify(lines: Iterable[bytes], trusted: Sequence[str], wanted: Iterable[int] = ()) -> tuple[Verified, Walk]:
    """Verify a file that is given as lines with their newlines, against public keys that the person trusts."""
    walk = Walk(trusted, wanted)
    for raw in lines:
        walk.add(raw)
    return Verified(walk.verdict(), walk.anchors, walk.began), walk
