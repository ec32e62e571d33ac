"""Compares an exported file with what left the machine before: an earlier export, or a copy of audit.proof."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import PurePath
from typing import NamedTuple

import msgspec

from core.nouns.audit import ChainFault, FileReport
from core.proof.prooffile import proofs_of
from core.proof.statements import Header, holds, parse
from core.proof.verify import NAMED, Anchor, Verified, Walk, verify

Lines = Callable[[], Iterable[bytes]]
"""Gives the lines of a file with their newlines, anew at each call."""


class Earlier(NamedTuple):
    """What an earlier file says of the chain, and what is wrong with that file itself."""

    installation: str
    anchors: list[Anchor]
    faults: list[ChainFault]


def compare(lines: Lines, older: Lines, trusted: Sequence[str]) -> FileReport:
    """Verify `lines`, and that it goes on from `older`: not an older copy, not rewritten, not of another installation.
    Only what a trusted key signed counts in `older`."""
    earlier = earlier_in(older, trusted)
    found, walk = verify(lines(), trusted, {each.seq for each in earlier.anchors})
    faults = [*found.report.faults, *earlier.faults]
    if not earlier.faults:
        faults += _against(found, walk, earlier)
    if not faults:
        last = max(earlier.anchors, key=lambda each: each.seq)
        told = f"{found.report.message}; it goes on from the earlier file, which ends at record {last.seq}"
        return msgspec.structs.replace(found.report, message=told)
    told = found.report.message if found.report.faults else faults[0].message
    return msgspec.structs.replace(found.report, ok=False, faults=tuple(faults), message=told)


def earlier_in(older: Lines, trusted: Sequence[str]) -> Earlier:
    """The anchors of an exported file, or of lines as audit.proof has them."""
    every = iter(older())
    first = next(every, b"")
    lines = chain([first], every)  # once: it may be a pipe
    if _is_header(first):
        found, _ = verify(lines, trusted)
        faults = [_fault(f"the earlier file: {fault.message}") for fault in found.report.faults]
        if not found.anchors and not faults:
            faults.append(_fault("the earlier file vouches for nothing"))
        return Earlier(found.report.installation, found.anchors, faults)
    return _bare(lines, trusted)


def _is_header(raw: bytes) -> bool:
    try:
        return isinstance(parse(raw.removesuffix(b"\n")), Header)
    except ValueError:
        return False


def _bare(lines: Iterable[bytes], trusted: Sequence[str]) -> Earlier:
    """Keys and checkpoints. What a trusted key did not sign says nothing, but nothing in it may be damaged."""
    proofs = proofs_of([line for raw in lines if (line := _unwrapped(raw.removesuffix(b"\n"))) is not None])
    if proofs.damaged:
        number = proofs.damaged[0]
        return Earlier("", [], [_fault(f"line {number} of the earlier file is damaged, or it is no export at all")])
    publics, believed = {each.id: each.key for each in proofs.keys}, set()
    for key in proofs.keys:
        follows = key.previous in believed and holds(key, publics[key.previous])
        if key.key in trusted or follows:
            believed.add(key.id)
    wrong = [each for each in proofs.checkpoints if not holds(each, publics.get(each.key, ""))]
    if wrong:
        told = f"checkpoint {wrong[0].number} of the earlier file is not signed by a key in it"
        return Earlier("", [], [_fault(told)])
    mine = [each for each in proofs.checkpoints if each.key in believed]
    if not mine:
        return Earlier("", [], [_fault("the earlier file has no checkpoint that a key you trust signed")])
    if len({each.installation for each in mine}) > 1:
        return Earlier("", [], [_fault("the earlier file is of several installations")])
    return Earlier(mine[0].installation, [Anchor(each.database, each.seq, each.hash) for each in mine], [])


class _Sent(msgspec.Struct):
    """What a sink was sent: a statement, or a record, which has no line of its own and says nothing here."""

    line: str = ""


def _unwrapped(raw: bytes) -> bytes | None:
    """A line of a sink as one of audit.proof; None for one that says nothing. Others as they are."""
    if not raw.startswith(b"{"):
        return raw
    try:
        found = msgspec.json.decode(raw, type=_Sent)
    except msgspec.MsgspecError:
        return raw
    return found.line.encode() or None


def _against(found: Verified, walk: Walk, earlier: Earlier) -> list[ChainFault]:
    report, hashes = found.report, walk.hashes
    if earlier.installation != report.installation:
        return [_fault("the earlier file is of another installation")]
    mine = [each for each in earlier.anchors if each.database == report.database]
    if not mine:
        return _new_database(found, earlier)
    for each in sorted(mine, key=lambda each: each.seq):
        if each.seq > report.last:
            told = "it is the older one, or the chain was cut or replaced by an older copy"
            told = f"the earlier file knows record {each.seq}, this one ends at {report.last}: {told}"
            return [_fault(told, report.last + 1, "older")]
        if each.seq >= report.first and hashes.get(each.seq) != each.hash:
            told = "the history was rewritten, or goes on from an older copy"
            return [_fault(f"record {each.seq} is not the one of the earlier file: {told}", each.seq, "rewritten")]
    last = max(mine, key=lambda each: each.seq)
    if last.seq >= report.first:
        return []
    if last.seq == report.first - 1:
        if found.began == last.hash:
            return []
        return [_fault(f"record {report.first} does not follow from the earlier file", report.first)]
    told = f"the earlier file ends at record {last.seq} and this one begins at {report.first}: "
    return [_fault(told + _between(walk, last.seq + 1, report.first - 1), last.seq + 1)]


def _between(walk: Walk, first: int, last: int) -> str:
    """What to do about records that are in neither file: no export has those again that were archived."""
    there = sorted({(each.first, each.last, PurePath(each.file).name) for each in walk.archives})
    needed = [each for each in there if each[1] >= first and each[0] <= last]
    if not needed:
        return (
            "export it again with an earlier --since; where that begins at the same record, those before it were"
            " archived (`corral audit archives`, where the trail is written): verify the archive --against the earlier"
            " file, and this one --against the archive"
        )
    if needed[0][0] > first:  # the record that says where those are is archived itself
        name = needed[0][2]
        return (
            f"records {first} to {needed[0][0] - 1} were archived, and later what says where: verify {name} --against"
            " the earlier file, which names the archive before it, and so on; then each later archive --against the one"
            f" before it, and this file --against {needed[-1][2]}"
        )
    names = [f"records {one} to {end} are in {name}" for one, end, name in needed]
    told = f"{'; '.join(names[-NAMED:])}, archived: verify {needed[0][2]} --against the earlier file"
    if len(needed) > 1:
        told += ", each archive --against the one before it"
    return f"{told}, and this one --against {needed[-1][2]}"


def _new_database(found: Verified, earlier: Earlier) -> list[ChainFault]:
    """The database was lost or removed, and a new one goes on from its last record, if audit.head was left."""
    last = earlier.anchors[-1]
    if found.report.first == 1 and found.began == last.hash:
        return []
    return [_fault("the earlier file is of another database, and this one does not go on from its last record")]


def _fault(message: str, seq: int | None = None, how: str = "against") -> ChainFault:
    return ChainFault(wrong=seq, how=how, message=message)
