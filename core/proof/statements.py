"""What is signed, and the lines of an exported file: JSON arrays that begin with their kind (docs/audit.md).

A line has one right form: the bytes that these Structs are encoded to. What is signed is that line without its last
element, the signature.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from core.proof.encoding import RECORD, encode, to_json
from core.proof.keys import Signs, is_public, key_id, signed_by

KEY, CHECKPOINT, SEAL = "corral-key-1", "corral-checkpoint-1", "corral-seal-1"
HEADER, END = "corral-export-1", "corral-export-end-1"


class _Line(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base: an array whose first element is the kind."""

    def line(self) -> bytes:
        """Its one right form, without the newline."""
        return to_json(self)


class _Signed(_Line, frozen=True):
    """Base of what ends with a signature."""

    def message(self) -> bytes:
        """What is signed."""
        return to_json([type(self).__struct_config__.tag, *msgspec.structs.astuple(self)[:-1]])


class Key(_Signed, frozen=True, tag=KEY):
    """A public key of an installation, signed by the one before it. The first one, and one that follows a key that was
    lost, has nobody's signature ("")."""

    installation: str
    number: int
    """1, 2, …"""
    key: str
    """`ed25519:` and 64 hex digits."""
    first: int
    """The number of the first checkpoint that it may sign; the one before it signs those below."""
    time: str
    previous: str
    """Id of the key before it; "" for the first."""
    signature: str

    @property
    def id(self) -> str:
        return key_id(self.key)


class Checkpoint(_Signed, frozen=True, tag=CHECKPOINT):
    """The chain had `seq` records, the last with the hash `hash`, when this was signed."""

    installation: str
    database: str
    number: int
    """Grows by one with each checkpoint of an installation."""
    seq: int
    hash: str
    time: str
    key: str
    """Id of the key that signed."""
    signature: str


class Seal(_Signed, frozen=True, tag=SEAL):
    """The records `first` to `last` lie in an exported file and no longer in the database."""

    installation: str
    database: str
    number: int
    """1, 2, … in a database."""
    first: int
    last: int
    hash: str
    """Of the record `last`: the next one follows it."""
    checkpoint: int
    """Number of the checkpoint that signed `last`."""
    began: str
    """Time of the record `first`, and of `last`."""
    ended: str
    digest: str
    """SHA-256 over the whole file."""
    time: str
    key: str
    signature: str


class Header(_Line, frozen=True, tag=HEADER):
    """The first line of an exported file."""

    installation: str
    database: str
    first: int
    """seq of the first record in it; one more than `last` of the end if there is none."""
    time: str
    since: str
    """What was asked for; "" for all."""


class End(_Signed, frozen=True, tag=END):
    """The last line of an exported file: what it holds, and the SHA-256 over all lines before."""

    installation: str
    last: int
    hash: str
    """Of the last record; of the one before `first` if there is none."""
    records: int
    checkpoints: int
    digest: str
    time: str
    key: str
    """Id of the key that signed; "" if none could."""
    signature: str


class Record(_Line, frozen=True, tag=RECORD):
    """A record's canonical encoding is its line; the line's SHA-256 is its hash."""

    seq: int
    time: str
    actor: str
    uid: int
    through: str
    verb: str
    object: str
    request: str
    effect: str
    before: str
    after: str
    outcome: str
    reason: str
    prev: str


Line = Header | Key | Record | Checkpoint | End
Signed = TypeVar("Signed", Key, Checkpoint, Seal, End)
_decode: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Header | Key | Record | Checkpoint | End)


def parse(raw: bytes) -> Line:
    """A line without its newline. Raises `ValueError` for what is none of ours, or is not in its one right form."""
    try:
        found = _decode.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if to_json(found) != raw:
        raise ValueError("it is not in the form that it is signed in")
    if isinstance(found, Key) and not is_public(found.key):
        raise ValueError("it has no public key")
    return found


def parse_seal(raw: bytes) -> Seal:
    """A seal's line, which stands in no exported file. Raises `ValueError`."""
    try:
        found = msgspec.json.decode(raw, type=Seal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if to_json(found) != raw:
        raise ValueError("it is not in the form that it is signed in")
    return found


def sign(statement: Signed, key: Signs | None) -> Signed:
    """`statement` with the signature of `key`; None: with none. Raises `Failed` if it cannot sign now."""
    return msgspec.structs.replace(statement, signature=key.sign(statement.message()) if key else "")


def holds(statement: Key | Checkpoint | Seal | End, public: str) -> bool:
    """Whether the signature of `statement` is that of `public`."""
    return signed_by(public, statement.signature, statement.message())


def record_line(row: tuple[Any, ...]) -> bytes:
    """The line of a row of the table `audit`."""
    return encode(row)
