"""The audit trail: one record, and the verdict on the chain."""

from __future__ import annotations

from typing import Any, Literal

from core.nouns.base import Noun

Outcome = Literal["intent", "done", "refused", "failed", "interrupted"]


class AuditRecord(Noun, frozen=True, kw_only=True):
    """One link of the chain (docs/audit.md has the canonical encoding that `hash` is taken over)."""

    seq: int
    time: str
    """UTC with microseconds: 2026-11-24T03:07:12.000153Z."""
    actor: str
    uid: int
    through: str
    verb: str
    """noun.verb: deployments.create, models.import, replica.died, daemon.start."""
    object: str
    """kind:name: deployment:chat, model:smollm2, replica:chat/0."""
    request: str
    effect: str = ""
    """Id of one effect outside the database; its intent and its outcome carry the same one."""
    before: Any = None
    after: Any = None
    outcome: str
    reason: str = ""
    prev: str
    hash: str
    archive: int = 0
    """Number of the archive that it was read from; 0 for the database."""


class AuditPage(Noun, frozen=True, kw_only=True):
    """Some records that were asked for by words, newest last."""

    records: tuple[AuditRecord, ...]
    searched: int
    """All from this seq to where the search began were looked at."""
    more: bool
    """There are records beyond `searched`."""
    first: int
    """seq of the oldest and the newest record that there is, archives included; 0 for none."""
    last: int
    unread: tuple[str, ...] = ()
    """What was passed over and why, as sentences: archives that are not as they were sealed."""
    working: str = ""
    """What takes a while now, if that is why few records came."""


class ChainFault(Noun, frozen=True, kw_only=True):
    """One thing that is wrong with the chain. `how` is one of changed, removed, inserted, swapped, cut, lost (the
    database before this one, with its records), head (the head file itself is wrong), open (the triggers are gone),
    seal (what says where older records lie is not right), archive (a file of older records is not there, or another),
    appended (by somebody else, at the end), accepted (what was accepted has changed), checkpoint (one that was signed
    does not fit), older (the database is an older copy)."""

    wrong: int | None
    how: str
    message: str


class AcceptedFault(Noun, frozen=True, kw_only=True):
    """A fault that somebody accepted: record `seq` says so."""

    seq: int
    wrong: int | None
    how: str
    message: str
    by: str
    time: str
    reason: str


class ChainReport(Noun, frozen=True, kw_only=True):
    """The result of a verification. `wrong` is the first bad seq, `how` and `message` say what it is; `faults` has that
    one and more, `accepted` those that were accepted and are still as they were."""

    ok: bool
    records: int
    head: str
    wrong: int | None = None
    how: str = ""
    message: str = ""
    seconds: float = 0.0
    faults: tuple[ChainFault, ...] = ()
    accepted: tuple[AcceptedFault, ...] = ()


class ChainProgress(Noun, frozen=True, kw_only=True):
    """A verification on its way: how far, and at its end the report."""

    done: int
    of: int
    report: ChainReport | None = None


class AuditArchive(Noun, frozen=True, kw_only=True):
    """Records that lie in a signed file, in the export format, and no longer in the database."""

    number: int
    first: int
    last: int
    began: str
    """Time of the first record, and of the last."""
    ended: str
    hash: str
    """Of the last record."""
    digest: str
    """SHA-256 of the file."""
    file: str
    """Where it was put."""
    bytes: int
    there: bool
    """A file of that size is there now."""
    time: str
    """When it was sealed."""
    key: str
    """Id of the key that signed the seal."""


class AuditPlan(Noun, frozen=True, kw_only=True):
    """What an archive would be made of: the records `first` to `last`, up to checkpoint `checkpoint`."""

    first: int
    last: int
    began: str
    ended: str
    checkpoint: int
    file: str
    stays: int
    """Records that stay in the database."""


class AuditArchives(Noun, frozen=True, kw_only=True):
    """`corral audit archives`, the oldest first."""

    archives: tuple[AuditArchive, ...]
    working: str = ""
    """What is being done about one now."""


class AuditKey(Noun, frozen=True, kw_only=True):
    """A public key that signs the trail, or did. `state` is active or retired."""

    number: int
    id: str
    key: str
    state: str
    time: str
    """When it was put to use: UTC with microseconds."""
    signed_by: str
    """Id of the key before it, whose signature it has; "" for the first one, and for one that follows a lost key."""


class AuditKeys(Noun, frozen=True, kw_only=True):
    """`corral audit key show`: the keys, and how far the trail is vouched for."""

    installation: str
    usable: bool
    reason: str
    """Why nothing is signed; "" if it is."""
    place: str
    """File of the private key, or the agent that has it."""
    keys: tuple[AuditKey, ...]
    checkpoints: int
    """Number of the last one; 0 for none."""
    last_seq: int
    """How many records it vouches for."""
    last_time: str
    unvouched: int
    """Records after it."""


class SinkStatus(Noun, frozen=True, kw_only=True):
    """Where the trail goes besides the database. `state` is ok, waiting (it does not take records) or full."""

    name: str
    state: str
    sent: int
    """seq of the last record that it has."""
    waiting: int
    """Records that it lacks."""
    reason: str = ""
    since: float = 0.0
    """When it stopped taking them; 0 if it does."""


class FileKey(Noun, frozen=True, kw_only=True):
    """A public key in an exported file. `trusted`: the person gave it, or it follows from such a one by signatures."""

    number: int
    id: str
    key: str
    trusted: bool


class FileReport(Noun, frozen=True, kw_only=True):
    """`corral audit verify FILE`: whether an exported file is complete, in order and unaltered, and who vouches."""

    ok: bool
    message: str
    faults: tuple[ChainFault, ...]
    """`wrong` is a seq; `how` is one of changed, removed, inserted, reordered, appended, cut (off the end), form,
    checkpoint, gap (in the numbers of checkpoints), key, end; and with an earlier file older (a copy that was put
    back), rewritten, against."""
    installation: str
    database: str
    since: str
    time: str
    """When it was exported."""
    first: int
    last: int
    records: int
    head: str
    """Hash of the last record."""
    checkpoint: int
    """Number of the last checkpoint that a trusted key signed and that fits; 0 for none."""
    vouched: int
    """seq that it vouches for, with all before it."""
    vouched_time: str
    vouched_key: str
    """Id of the key."""
    unvouched: int
    """Records after it, which the signature at the end of the file alone vouches for."""
    keys: tuple[FileKey, ...]
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What is odd and may be innocent, as sentences: times that go backwards."""


class ReportPerson(Noun, frozen=True):
    """What one actor did in the time of a report."""

    actor: str
    uid: int
    done: int
    refused: int
    failed: int
    first: str
    last: str


class ReportUse(Noun, frozen=True):
    """Requests of one actor to one deployment, as the gateway counted them."""

    actor: str
    deployment: str
    requests: int
    prompt_tokens: int
    answer_tokens: int


class ReportRefusal(Noun, frozen=True):
    """The same refusal, so many times."""

    actor: str
    uid: int
    verb: str
    object: str
    reason: str
    count: int
    first: str
    last: str


class ReportGap(Noun, frozen=True, kw_only=True):
    """Something that served did not, from `began` (its last sign of life) to `ended` ("": not known)."""

    what: str
    object: str
    began: str
    ended: str
    reason: str
