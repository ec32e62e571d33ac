"""Signs checkpoints of the chain: each n records and each hour, never inside a transaction of anything else.

A checkpoint is signed in a thread, kept in its table by a transaction of its own, then appended to audit.proof. Who
dies between the two leaves it to the next start; a disk that refuses is said in every status and tried again. So is a
key that cannot be had now, as one in an agent that is gone: records go on, and are vouched for when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from core.audit.keyring import Keyring
from core.audit.log import Audit
from core.audit.outside import Head, replace
from core.audit.vouched import proofs_in
from core.errors import Conflict, CorralError, Failed, StoreError
from core.nouns import CORRAL, AuditKey, AuditKeys, AuditRecord
from core.paths import Paths
from core.proof.keys import Signs
from core.proof.prooffile import Proofs, append_proofs, read_proofs
from core.proof.statements import Checkpoint, Key, sign
from core.settings import AuditTable
from core.store import Store

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Pause before the next try where a checkpoint could not be kept."""
_INSTALLATION = re.compile("[0-9a-f]{32}")
Work = Callable[[sqlite3.Connection], tuple[Key, Any, Any]]


class Signer:
    """One a daemon. `start` comes before the rest."""

    def __init__(
        self, store: Store, audit: Audit, paths: Paths, settings: Callable[[], AuditTable], *,
        environ: Mapping[str, str] | None = None, clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._store, self._audit, self._paths, self._settings = store, audit, paths, settings
        self._ring = Keyring(paths, settings, os.environ if environ is None else environ)
        self._clock, self._monotonic = clock, monotonic
        self._lock = asyncio.Lock()
        self._due = asyncio.Event()
        self._started = False
        self.installation = ""
        self._keys: list[Key] = []
        self._key: Signs | None = None
        self._why = "the daemon has not looked at its key yet"
        self._gone = False
        """A person was told that the key cannot be used."""
        self._number = 0
        """Of the last checkpoint that there is anywhere."""
        self._last: Checkpoint | None = None
        """The last one of this database."""
        self._signed_at = monotonic()
        self._owed: list[bytes] = []
        """Lines that are in the database and not yet in audit.proof."""
        self._behind = self._unkept = ""
        audit.on_record.append(self._recorded)

    # ---------------------------------------------------------------------------------------- start

    async def start(self) -> None:
        """Find the installation's id and keys, make the first key, and mend what a crash left half done. A key that
        cannot be used is said in `troubles`. Raises `StoreError`."""
        async with self._lock:
            await self._begin()

    async def _begin(self) -> None:
        if self._started:
            return
        try:
            outside, installation = await asyncio.to_thread(self._outside)
        except OSError as error:
            raise StoreError("audit.proof or audit.installation cannot be read", str(error)) from error
        inside, self.installation = await self._store.transact(lambda db: self._inside(db, installation))
        if self.installation != installation:
            await self._file(replace, self._paths.audit_installation, self.installation.encode())
        numbers = [each.number for each in (*inside.checkpoints, *outside.checkpoints)]
        self._number = max(numbers, default=0)
        self._last = inside.checkpoints[-1] if inside.checkpoints else None
        there = {each.line() for each in (*outside.keys, *outside.checkpoints)}
        self._owed = [line for each in (*inside.keys, *inside.checkpoints) if (line := each.line()) not in there]
        self._keys = list(inside.keys)
        if not self._keys:  # a new database of an installation that has keys
            self._keys = [each for each in outside.keys if each.installation == self.installation]
            if self._keys:
                await self._store.transact(lambda db: self._adopt(db, self._keys, "audit.keys-known"))
        await self._find_key()
        await self._append()
        self._started = True

    def _outside(self) -> tuple[Proofs, str]:
        found = ""
        with contextlib.suppress(FileNotFoundError):
            found = self._paths.audit_installation.read_text("ascii", "replace").strip()
        return read_proofs(self._paths.audit_proof), found if _INSTALLATION.fullmatch(found) else ""

    @staticmethod
    def _inside(db: sqlite3.Connection, installation: str) -> tuple[Proofs, str]:
        known = db.execute("SELECT value FROM meta WHERE key = 'installation'").fetchone()
        if known is None:
            known = (installation or secrets.token_hex(16),)
            db.execute("INSERT INTO meta (key, value) VALUES ('installation', ?)", known)
        return proofs_in(db), known[0]

    async def _find_key(self) -> None:
        """Load the key that signs; the first one is made."""
        try:
            if self._keys:
                self._key = await asyncio.to_thread(self._ring.active, self._keys[-1])
            else:
                self._key = await asyncio.to_thread(self._ring.first)
                first = Key(self.installation, 1, self._key.public, self._number + 1, self._moment(), "", "")
                await self._store.transact(lambda db: self._adopt(db, [first], "audit.key-made"))
                self._keys = [first]
                self._owed.append(first.line())
        except StoreError:
            raise
        except (CorralError, OSError) as error:
            self._cannot(error)
        else:
            if self._gone:
                log.warning("the audit trail is signed again, with key %s", self._key.id)
            self._why, self._gone = "", False

    def _cannot(self, error: Exception) -> None:
        """Nothing is signed from now on, until the key is found again."""
        if self._why != str(error):
            log.error("the audit trail is not signed: %s", error)
        self._key, self._why, self._gone = None, str(error), True

    def _adopt(self, db: sqlite3.Connection, keys: list[Key], verb: str) -> None:
        for each in keys:
            _keep_key(db, each)
        self._audit.append(
            db, actor=CORRAL, verb=verb, object="audit:keys", request=f"d-{os.getpid()}", outcome="done",
            after={"keys": [_line(each) for each in keys]},
        )  # fmt: skip

    async def follow(self) -> None:
        """corral.toml may name another file now, or the file was mended."""
        async with self._lock:
            if self._started:
                await self._find_key()
        self._due.set()

    # ---------------------------------------------------------------------------------------- checkpoints

    async def run(self) -> None:
        """Sign when it is time, until cancelled."""
        while True:
            done = await self._try()
            self._due.clear()
            every = self._settings()
            if done and self._new() >= every.checkpoint_records:
                continue
            pause = self._signed_at + every.checkpoint_every_s - self._monotonic() if done else RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pause)):
                    await self._due.wait()

    async def _try(self) -> bool:
        """Sign; whether all is kept and nothing is to be tried again soon."""
        try:
            await self.start()
            if self._key is None:
                async with self._lock:
                    await self._find_key()
            await self.checkpoint()
        except CorralError as error:
            log.debug("not yet: %s", error)
            return False
        return self._key is not None and not self._behind

    def _recorded(self, record: AuditRecord) -> None:
        if not self._unkept and self._new() >= self._settings().checkpoint_records:
            self._due.set()

    def _new(self) -> int:
        """Records that no checkpoint vouches for, and that one could."""
        head = self._audit.head
        if head is None or self._key is None:
            return 0
        return head.seq - (self._last.seq if self._last else 0)

    async def checkpoint(self) -> Checkpoint | None:
        """Sign the chain as it is, if anything is new; the last checkpoint, None if there is none. Raises `StoreError`
        if it could not be kept."""
        async with self._lock:
            await self._begin()
            await self._sign()
            return self._last

    async def _sign(self) -> None:
        head, key = self._audit.head, self._key
        self._signed_at = self._monotonic()
        if key is not None and head is not None and not self._is_last(head):
            blank = Checkpoint(
                self.installation, self._store.database_id, self._number + 1, head.seq, head.hash, self._moment(),
                key.id, "",
            )  # fmt: skip
            try:
                made = await asyncio.to_thread(sign, blank, key)
            except Failed as error:  # an agent that is gone: records wait for their checkpoint, and nothing else waits
                self._cannot(error)
                await self._append()
                return
            try:
                if self._store.low:
                    raise StoreError("no checkpoint is kept", "the disk with the database is nearly full")
                await self._store.transact(lambda db: _keep_checkpoint(db, made))
            except StoreError as error:
                self._unkept = error.why or error.what
                raise
            self._unkept, self._last, self._number = "", made, made.number
            self._owed.append(made.line())
        await self._append()

    def _is_last(self, head: Head) -> bool:
        return self._last is not None and (self._last.seq, self._last.hash) == (head.seq, head.hash)

    async def _append(self) -> None:
        if self._owed:
            lines = list(self._owed)
            if await self._file(append_proofs, self._paths.audit_proof, lines):
                del self._owed[: len(lines)]

    async def _file(self, write: Callable[..., None], *args: Any) -> bool:
        """Write a file beside the database, in a thread; a disk that refuses is said in `troubles`."""
        try:
            await asyncio.to_thread(write, *args)
        except OSError as error:
            if not self._behind:
                log.error("%s could not be written and will be tried again: %s", args[0], error)
            self._behind = error.strerror or str(error)
            return False
        self._behind = ""
        return True

    # ---------------------------------------------------------------------------------------- rotation

    async def rotate(self, act: Callable[[Work], Awaitable[Key]], *, lost: bool = False) -> Key:
        """Go over to another key, which the one before signs. `act` makes the change and its record in one transaction
        and checks who may. `lost`: the one before is gone, and nobody signs. Raises `CorralError`."""
        async with self._lock:
            await self._begin()
            if not self._keys:
                raise Failed("there is no key to go over from", self._why, "see `corral audit key show`")
            old = self._key
            if old is None and not lost:
                raise Failed(f"the key {self._keys[-1].id} cannot sign the next one", self._why)
            if old is not None and lost:
                raise Conflict(f"the key {old.id} is not lost", "it signs", "rotate without --lost")
            await self._sign()  # all that the old one can still vouch for
            if self._key is None and not lost:  # it has just gone
                raise Failed(f"the key {self._keys[-1].id} cannot sign the next one", self._why)
            try:
                new = await asyncio.to_thread(self._ring.successor, self._keys)
            except OSError as error:
                raise Failed(f"{error.filename} is in the way", error.strerror or str(error), "move it away") from error
            before = self._keys[-1]
            blank = Key(
                self.installation, before.number + 1, new.public, self._number + 1, self._moment(), before.id, ""
            )
            try:
                made = await asyncio.to_thread(sign, blank, old)
            except Failed as error:
                self._cannot(error)
                await asyncio.to_thread(self._ring.give_up)
                raise

            def work(db: sqlite3.Connection) -> tuple[Key, Any, Any]:
                _keep_key(db, made)
                return made, {"key": before.key}, {"keys": [_line(made)], "lost": lost}

            try:
                await act(work)
            except BaseException:
                # The caller may have been cancelled while the change was committed: the database tells.
                if not await asyncio.shield(self._store.read(lambda db: _has_key(db, made))):
                    await asyncio.to_thread(self._ring.give_up)
                    raise
                await self._put_in_force(made, new)
                raise
            await self._put_in_force(made, new)
            return made

    async def _put_in_force(self, made: Key, new: Signs) -> None:
        self._keys.append(made)
        self._key, self._why = new, ""
        self._owed.append(made.line())
        try:
            await asyncio.to_thread(self._ring.succeed)
        except OSError as error:
            log.error("the old key could not be removed: %s", error)
        with contextlib.suppress(StoreError):
            await self._sign()

    # ---------------------------------------------------------------------------------------- what callers ask

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple(self._keys)

    @property
    def number(self) -> int:
        """Of the last checkpoint."""
        return self._number

    async def sign_with(self, blank: Any) -> Any:
        """A statement (the end of an export) with this key's id and signature; without either if nobody signs now."""
        key = self._key
        if key is None:
            return blank
        try:
            return await asyncio.to_thread(sign, msgspec.structs.replace(blank, key=key.id), key)
        except Failed as error:
            self._cannot(error)
            return blank

    async def show(self) -> AuditKeys:
        """`corral audit key show`. Raises `StoreError`."""
        await self.start()
        head, last = self._audit.head, self._last
        return AuditKeys(
            installation=self.installation, usable=self._key is not None, reason=self._why,
            place=self._ring.place(self._keys[-1].id if self._keys else ""),
            keys=tuple(
                AuditKey(
                    number=each.number, id=each.id, key=each.key, time=each.time,
                    state="active" if each is self._keys[-1] else "retired",
                    signed_by=each.previous if each.signature else "",
                )
                for each in self._keys
            ),
            checkpoints=last.number if last else 0, last_seq=last.seq if last else 0,
            last_time=last.time if last else "",
            unvouched=max(0, (head.seq if head else 0) - (last.seq if last else 0)),
        )  # fmt: skip

    def troubles(self) -> list[str]:
        """What a person must be told for as long as it lasts, as sentences."""
        told = []
        if self._started and self._key is None:
            head, last = self._audit.head, self._last
            wait = (head.seq if head else 0) - (last.seq if last else 0)
            told.append(f"the audit trail is not signed, and {wait} records wait for a checkpoint: {self._why}")
        if self._unkept:
            told.append(f"the last checkpoint of the audit trail could not be kept: {self._unkept}")
        if self._behind:
            told.append(f"audit.proof is behind the checkpoints: {self._behind}")
        return told

    def _moment(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _line(key: Key) -> str:
    return key.line().decode()


def _keep_key(db: sqlite3.Connection, key: Key) -> None:
    db.execute("INSERT INTO audit_keys (number, line) VALUES (?, ?)", (key.number, _line(key)))


def _has_key(db: sqlite3.Connection, key: Key) -> bool:
    return db.execute("SELECT 1 FROM audit_keys WHERE line = ?", (_line(key),)).fetchone() is not None


def _keep_checkpoint(db: sqlite3.Connection, made: Checkpoint) -> None:
    sql = "INSERT INTO audit_checkpoints (number, seq, line) VALUES (?, ?, ?)"
    db.execute(sql, (made.number, made.seq, made.line().decode()))
