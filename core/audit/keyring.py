"""Which key signs: found by its public half in a file or an agent, made when there is none, put in place of the one
before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from core import fulldisk
from core.errors import Conflict, CorralError, Failed, Invalid
from core.paths import Paths
from core.proof.agent import AGENT, Agent
from core.proof.keys import SigningKey, Signs, flush_folder, load, place_of
from core.proof.statements import Key
from core.settings import AuditTable

ROTATE = "say `corral audit key rotate --lost` if the key is gone for good"
LOST = f"mend that, or {ROTATE}"


class Keyring:
    """What may hold the key: the files and agents that corral.toml names, and Corral's own file. All methods block."""

    def __init__(self, paths: Paths, settings: Callable[[], AuditTable], environ: Mapping[str, str]) -> None:
        self._own = paths.audit_key
        self._next = paths.audit_key.with_name(paths.audit_key.name + ".next")
        self._settings = settings
        self._environ = environ
        self._found: dict[str, str] = {}
        """By id of a key, where it was found."""

    def place(self, id: str) -> str:
        """Where the key `id` was found, else where it is looked for first, for people."""
        return self._found.get(id) or self._settings().signing_key or str(self._own)

    def _named(self) -> list[str]:
        table = self._settings()
        return [text for text in (table.signing_key, table.next_key) if text]

    def first(self) -> Signs:
        """The first key of an installation: the one that is named or lies there, else a new one. Raises `CorralError`
        with what is wrong with it."""
        if self._named():
            return self._unused(self._named()[0], frozenset())
        if os.path.lexists(self._own):
            return load(self._own, self._environ)
        return self._made(self._own)

    def _unused(self, text: str, used: frozenset[str]) -> Signs:
        """The key that `text` names, which is not one of `used` if there is a choice. Raises `CorralError`."""
        if text.startswith(AGENT):
            key: Signs = Agent(text).one(used)
        else:
            key = load(place_of(text, self._environ), self._environ)
        self._found[key.id] = text
        return key

    def active(self, known: Key) -> Signs:
        """What signs as `known`. Raises `Failed` with why there is nothing."""
        why = ""
        for text in (*self._named(), str(self._own), str(self._next)):
            if text.startswith(AGENT):
                held, told = _held(text, known)
                if held is not None:
                    self._found[held.id] = text
                    return held
                why = why or told
                continue
            try:
                place = place_of(text, self._environ)
                key = load(place, self._environ)
            except Invalid as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    why = why or "; ".join(part for part in (error.what, error.why) if part)
                continue
            if key.id == known.id:
                self._found[key.id] = str(self._own) if place == self._next else text
                if place == self._next:  # the daemon died between the record of it and this
                    self._put_in_place()
                elif place == self._own:
                    self._drop(self._next)  # of a rotation that was not recorded
                return key
            why = why or f"{place} holds another key"
        places = " or ".join(self._named() or [str(self._own)])
        was, todo = self._found.get(known.id, ""), LOST
        if was.startswith(AGENT) and was not in self._named():
            why = f"it is a key of {was}, which corral.toml names no more"
            todo = f'put signing_key = "{was}" back under [audit], or {ROTATE}'
        elif not self._named() and not os.path.lexists(self._own):
            todo = f"put signing_key back under [audit] if it named the key, or {ROTATE}"
        raise Failed(f"the key {known.id} cannot be used", why or f"it is not in {places}", todo)

    def successor(self, known: Sequence[Key]) -> Signs:
        """The key that comes next: one that corral.toml names and that never signed, else a new one beside Corral's
        own. Raises `CorralError`."""
        if not self._named():
            self._drop(self._next)
            return self._made(self._next)
        used = frozenset(each.id for each in known)
        why: CorralError | None = None
        for text in reversed(self._named()):
            try:
                key = self._unused(text, used)
            except CorralError as error:
                why = why or error
                continue
            if key.id not in used:
                return key
        if why is not None:
            raise why
        raise Conflict(
            "there is no other key to go over to", "each that corral.toml names has signed already",
            "put a new one into a file, name it as next_key under [audit], `corral reload`, and try again",
        )  # fmt: skip

    def succeed(self) -> None:
        """After the change was recorded: the new key is the one that is found, and Corral's own copy of the old one is
        gone. Raises OSError."""
        if os.path.lexists(self._next):
            self._put_in_place()
        elif self._named():
            self._drop(self._own)

    def give_up(self) -> None:
        """The change was not recorded."""
        with contextlib.suppress(OSError):
            self._drop(self._next)

    def _made(self, place: Path) -> SigningKey:
        key = SigningKey.make()
        try:
            key.save(place)
        except OSError as error:
            todo = fulldisk.todo(error.errno) if fulldisk.is_full(error) else "mend the folder's mode, or the disk"
            raise Failed(f"{place} cannot be written", error.strerror or str(error), todo) from error
        return key

    def _put_in_place(self) -> None:
        self._next.rename(self._own)
        flush_folder(self._own.parent)

    def _drop(self, place: Path) -> None:
        place.unlink(missing_ok=True)


def _held(text: str, known: Key) -> tuple[Signs | None, str]:
    """The key of an agent that is `known`, or why there is none."""
    try:
        agent = Agent(text)
        found = next((each for each in agent.meant() if each.id == known.id), None)
    except CorralError as error:
        return None, "; ".join(part for part in (error.what, error.why) if part)
    return found, "" if found else f"{agent} holds other keys"
