"""Ed25519 keys that an agent holds: asked for by ssh-agent's protocol, so that the private half is never here.

The agent runs as another uid, or has a token behind it. What it answers is as hostile as any input: frames are bounded,
each question has a deadline, and a signature counts only if the public half says so.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from core.errors import Conflict, Failed, Invalid
from core.proof.keys import PREFIX, key_id, signed_by

AGENT = "agent:"
"""How corral.toml names one: `agent:/path/to/socket`, and after a `#` which key, by fingerprint or comment."""
TIMEOUT_S = 5.0
"""For one question and its answer, whatever comes between: a token may want a touch."""
FRAME_LIMIT = 256 << 10
"""Bytes of an answer; OpenSSH's own limit."""
IDENTITIES = 256
"""More keys than any agent is asked about."""
COMMENT = 200
"""Letters of a comment that are kept."""
_KIND = b"ssh-ed25519"
_FAILURE, _ASK_IDENTITIES, _IDENTITIES, _ASK_SIGN, _SIGNED = 5, 11, 12, 13, 14
START = "start the agent, or unlock it"


class Identity(NamedTuple):
    """A key that an agent offers."""

    public: str
    comment: str

    @property
    def fingerprint(self) -> str:
        """As `ssh-add -l` writes it: `SHA256:` and base64."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(_blob(self.public)).digest()).decode().rstrip("=")


class AgentKey:
    """A key that signs and is not here: `public` and `id` are, as of `SigningKey`."""

    def __init__(self, agent: Agent, public: str) -> None:
        self._agent = agent
        self.public = public
        self.id = key_id(public)

    def __repr__(self) -> str:
        return f"AgentKey({self.id})"

    def sign(self, message: bytes) -> str:
        """128 hex digits. Blocks for at most `TIMEOUT_S`. Raises `Failed` if the agent is gone, refuses, or answers
        with what is no signature of this key."""
        return self._agent.sign(self.public, message)


class Agent:
    """One that corral.toml names. All methods block, for at most `TIMEOUT_S` each."""

    def __init__(self, text: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`text` as corral.toml has it. Raises `Invalid`."""
        place, _, self._wanted = text.removeprefix(AGENT).partition("#")
        self._path = Path(place).expanduser()
        if not self._path.is_absolute():
            raise Invalid(f"{text} is no full path", "the daemon works in the folder /", f"write {AGENT}/PATH")
        self._clock = clock

    def __str__(self) -> str:
        return f"the agent at {self._path}"

    def meant(self) -> list[AgentKey]:
        """Those that corral.toml means: all, or the one that it names. Raises `Failed` if the agent cannot be asked,
        `Invalid` if it has none such."""
        every = self.identities()
        fits = [each for each in every if self._wanted in ("", each.fingerprint, each.comment, key_id(each.public))]
        if not fits:
            why = f"it has {', '.join(map(_named, every))}" if every else "it has none: is it locked, or empty?"
            what = f"{self} has no Ed25519 key" + (f" that is called {self._wanted!r}" if self._wanted else "")
            raise Invalid(what, why, "`ssh-add -l` tells, where it runs; `ssh-add FILE` gives it one")
        return [AgentKey(self, each.public) for each in fits]

    def one(self, used: frozenset[str] = frozenset()) -> AgentKey:
        """The only one that is meant and whose id is not in `used`. Raises `Failed`, `Invalid`, and `Conflict` for
        several."""
        found = [each for each in self.meant() if each.id not in used]
        if not found:
            raise Invalid(f"{self} has no other key", "each that is meant has signed already", "give it a new one")
        if len(found) > 1:
            raise Conflict(
                f"{self} has {len(found)} keys that may be meant", ", ".join(each.id for each in found),
                f"name one: {AGENT}{self._path}#SHA256:… as `ssh-add -l` writes it, or by its comment",
            )  # fmt: skip
        return found[0]

    def identities(self) -> list[Identity]:
        """The Ed25519 keys that it offers. Raises `Failed`."""
        kind, body = self._ask(bytes([_ASK_IDENTITIES]))
        found: list[Identity] = []
        with self._as_answer():
            if kind != _IDENTITIES:
                raise ValueError(f"it answered {kind} and not {_IDENTITIES}")
            (count,) = struct.unpack_from(">I", body)
            rest = body[4:]
            for _ in range(min(count, IDENTITIES)):
                blob, rest = _string(rest)
                comment, rest = _string(rest)
                public = _public(blob)
                if public and all(each.public != public for each in found):
                    found.append(Identity(public, _tame(comment)))
        return found

    def sign(self, public: str, message: bytes) -> str:
        """128 hex digits, which `public` says are right. Raises `Failed`."""
        kind, body = self._ask(bytes([_ASK_SIGN]) + _sized(_blob(public)) + _sized(message) + bytes(4))
        if kind == _FAILURE:
            raise Failed(f"{self} does not sign", f"it refused to, with key {key_id(public)}", START)
        with self._as_answer():
            if kind != _SIGNED:
                raise ValueError(f"it answered {kind} and not {_SIGNED}")
            signature, _ = _string(body)
            name, rest = _string(signature)
            raw, _ = _string(rest)
            if name != _KIND or not signed_by(public, raw.hex(), message):
                raise ValueError("what it signed is no signature of that key")
        return raw.hex()

    # ---------------------------------------------------------------------------------------- frames

    def _ask(self, question: bytes) -> tuple[int, bytes]:
        """(kind, body) of its answer. Raises `Failed`."""
        deadline = self._clock() + TIMEOUT_S
        try:
            if not stat.S_ISSOCK(self._path.stat().st_mode):
                raise NotADirectoryError(None, "it is no socket")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                self._patience(sock, deadline)
                sock.connect(str(self._path))
                sock.sendall(_sized(question))
                (size,) = struct.unpack(">I", self._take(sock, 4, deadline))
                if not 0 < size <= FRAME_LIMIT:
                    raise ConnectionAbortedError(None, f"its answer says that it has {size} bytes")
                frame = self._take(sock, size, deadline)
        except OSError as error:  # TimeoutError too
            why = "it did not answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise Failed(f"{self} cannot be asked", why, START) from error
        return frame[0], frame[1:]

    def _take(self, sock: socket.socket, size: int, deadline: float) -> bytes:
        """Exactly `size` bytes by `deadline`, however they trickle in. Raises OSError."""
        found = bytearray()
        while len(found) < size:
            self._patience(sock, deadline)
            piece = sock.recv(size - len(found))
            if not piece:
                raise ConnectionResetError(None, "it hung up, as it does on a uid that it does not serve")
            found += piece
        return bytes(found)

    def _patience(self, sock: socket.socket, deadline: float) -> None:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)

    @contextlib.contextmanager
    def _as_answer(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, struct.error) as error:
            raise Failed(f"{self} answers with what is none", str(error), "is it an ssh-agent?") from error


def _blob(public: str) -> bytes:
    """A public key as the protocol has it."""
    return _sized(_KIND) + _sized(bytes.fromhex(public.removeprefix(PREFIX)))


def _public(blob: bytes) -> str:
    """A key of the protocol as Corral writes it; "" for one of another kind. Raises `ValueError`."""
    kind, rest = _string(blob)
    if kind != _KIND:
        return ""
    raw, rest = _string(rest)
    if len(raw) != 32 or rest:
        raise ValueError("it offers an Ed25519 key that is none")
    return PREFIX + raw.hex()


def _sized(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw


def _string(raw: bytes) -> tuple[bytes, bytes]:
    """The first string in `raw`, and what follows it. Raises `ValueError`."""
    if len(raw) < 4:
        raise ValueError("its answer ends in the middle")
    (size,) = struct.unpack_from(">I", raw)
    if size > len(raw) - 4:
        raise ValueError("its answer ends in the middle")
    return raw[4 : 4 + size], raw[4 + size :]


def _tame(comment: bytes) -> str:
    """A comment as text that does nothing to a terminal or a log."""
    return re.sub(r"[^\x20-\x7e]", "?", comment[:COMMENT].decode("utf-8", "replace"))


def _named(each: Identity) -> str:
    return f"{each.fingerprint} ({each.comment})"
