"""Where the master key is: a file that Corral made, one that corral.toml names, a credential of systemd, a passphrase.

Corral's own file lies apart from the database, so that a copy of the state folder (a backup, a stolen disk image of it)
opens no chat: in /etc/corral for the shared daemon, in the user's data folder (XDG_DATA_HOME) for his own. Not in the
config folder: people publish that one with their dotfiles. Under CORRAL_HOME all lies under one folder by its meaning.
"""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from core import fulldisk
from core.chats.sealed import KEY, Master
from core.errors import Conflict, CorralError, Failed, Invalid, Locked
from core.paths import Paths
from core.proof.keys import flush_folder, place_of, read_private
from core.settings import PASSPHRASE, ChatsTable

SHORTEST = 12
"""Characters of a passphrase."""
COST = 17
"""Of scrypt: 2^17 rounds over 128 MiB, some half a second."""
_HEX = re.compile(rb"[0-9a-fA-F]{64}\s*")
UNLOCK = "an admin says `corral chats unlock`"


class Salted(msgspec.Struct, frozen=True):
    """How a passphrase becomes a key; no secret."""

    salt: str
    """Hex."""
    cost: int
    """log2 of scrypt's N; r is 8, p is 1."""

    @classmethod
    def new(cls) -> Salted:
        return cls(os.urandom(16).hex(), COST)

    def master(self, passphrase: str) -> Master:
        """Blocks for some half a second. Raises `Failed` without the memory for it."""
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        text = unicodedata.normalize("NFC", passphrase).encode()
        try:
            return Master(Scrypt(salt=bytes.fromhex(self.salt), length=KEY, n=1 << self.cost, r=8, p=1).derive(text))
        except MemoryError as error:
            raise Failed("the passphrase was not tried", "128 MiB are needed for it", "make room, try again") from error


class Masters:
    """The files that may hold the key. All methods block."""

    def __init__(self, paths: Paths, settings: Callable[[], ChatsTable], environ: Mapping[str, str]) -> None:
        self._own = paths.chats_key
        self._next = self._own.with_name(self._own.name + ".next")
        self._settings = settings
        self._environ = environ

    @property
    def by_passphrase(self) -> bool:
        return self._settings().master_key == PASSPHRASE

    @property
    def place(self) -> str:
        """Where the key is looked for, for people."""
        return "a passphrase" if self.by_passphrase else self.file

    @property
    def file(self) -> str:
        """The same of a key that is in a file, whatever corral.toml says of a passphrase."""
        return next(iter(self._named()), str(self._own))

    def _named(self) -> list[str]:
        table = self._settings()
        return [text for text in (table.master_key, table.next_master_key) if text and text != PASSPHRASE]

    def first(self) -> Master:
        """The first key of an installation: the one that is named or lies there, else a new one. Raises `CorralError`
        with what is wrong with it."""
        if self._named():
            return self._load(place_of(self._named()[0], self._environ))
        if os.path.lexists(self._own):
            return self._load(self._own)
        return self._made(self._own)

    def active(self, id: str) -> Master:
        """The key with this id. Raises `Locked` with why there is none."""
        why = ""
        for text in (*self._named(), str(self._own), str(self._next)):
            try:
                place = place_of(text, self._environ)
                key = self._load(place)
            except CorralError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    why = why or ". ".join(part for part in (error.what, error.why) if part)
                continue
            if key.id == id:
                if place == self._next:  # the daemon died between the record of it and this
                    self._put_in_place()
                elif place == self._own:
                    _destroy(self._next)  # of a rotation that was not recorded
                return key
            why = why or f"{place} holds another key"
        places = " or ".join(self._named() or [str(self._own)])
        raise Locked(
            "the chats are locked", why or f"the master key {id} is not in {places}",
            "put the key back, then `corral reload`; without it nobody can read them (docs/privacy.md)",
        )  # fmt: skip

    def lacking(self, id: str) -> str:
        """Why the key with this id would not be found now; "" where it would. Changes nothing."""
        why = ""
        for text in (*self._named(), str(self._own), str(self._next)):
            try:
                place = place_of(text, self._environ)
                if self._load(place).id == id:
                    return ""
                why = why or f"{place} holds another key"
            except CorralError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    why = why or ". ".join(part for part in (error.what, error.why) if part)
        return why or f"it is not in {' or '.join(self._named() or [str(self._own)])}"

    def successor(self, used: str) -> Master:
        """The key that comes after `used`: one that corral.toml names, else a new one beside Corral's own. Raises
        `CorralError`."""
        if not self._named():
            _destroy(self._next)
            return self._made(self._next)
        why: CorralError | None = None
        for text in reversed(self._named()):
            try:
                key = self._load(place_of(text, self._environ))
            except CorralError as error:
                why = why or error
                continue
            if key.id != used:
                return key
        if why is not None:
            raise why
        raise Conflict(
            "there is no other key to go over to", "the one that corral.toml names is in use",
            "put a new one into a file (`openssl rand -hex 32`), name it as next_master_key under [chats],"
            " `corral reload`, and try again",
        )  # fmt: skip

    def succeed(self, id: str) -> None:
        """After the change was recorded: the key `id` is the one that is found, and Corral's own copy of another one is
        overwritten and gone. Raises OSError."""
        if os.path.lexists(self._next):
            with contextlib.suppress(CorralError):
                if self._load(self._next).id == id:
                    self._put_in_place()
                    return
        if os.path.lexists(self._own):
            with contextlib.suppress(CorralError):
                if self._load(self._own).id == id:
                    return
            _destroy(self._own)

    def give_up(self) -> None:
        """The change was not recorded."""
        with contextlib.suppress(OSError):
            _destroy(self._next)

    def _load(self, place: Path) -> Master:
        text = read_private(place, self._environ, "master key of the chats", "nobody but the daemon should open them")
        if not _HEX.fullmatch(text):
            raise Invalid(f"{place} holds no master key", "it is 64 hex digits", "`openssl rand -hex 32` makes one")
        return Master(bytes.fromhex(text.decode()))

    def _made(self, place: Path) -> Master:
        key = os.urandom(KEY)
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "w") as file:
                file.write(key.hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            flush_folder(place.parent)
        except OSError as error:
            todo = (
                fulldisk.todo(error.errno)
                if fulldisk.is_full(error)
                else "mend the folder, or name another file as master_key under [chats] (docs/privacy.md)"
            )
            raise Failed(f"the master key {place} cannot be written", error.strerror or str(error), todo) from error
        return Master(key)

    def _put_in_place(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            _overwrite(self._own)
        self._next.rename(self._own)
        flush_folder(self._own.parent)


def strong(passphrase: str) -> str:
    """The passphrase. Raises `Invalid` for one that is too short to stand against guessing."""
    if len(passphrase) < SHORTEST:
        raise Invalid("the passphrase is too short", f"{SHORTEST} characters are the least: five words are good")
    return passphrase


def _destroy(place: Path) -> None:
    """Overwrite and remove, if it is there. Raises OSError."""
    try:
        _overwrite(place)
        place.unlink()
    except FileNotFoundError:
        return
    flush_folder(place.parent)


def _overwrite(place: Path) -> None:
    """With zeros, where it lies: as far as the file system and the disk keep to their places. Raises OSError."""
    fd = os.open(place, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pwrite(fd, bytes(os.fstat(fd).st_size), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
