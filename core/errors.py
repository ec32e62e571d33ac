"""One family of errors: what went wrong, why, and what to do; each maps to HTTP and to an exit code.

A `CorralError` travels unchanged from the service that raised it, through the daemon's JSON, to the terminal
that prints it. Its texts may hold names and numbers, never secrets, prompts or answers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it travels in JSON: `code` is stable for scripts, the rest is for people."""

    code: str
    what: str
    why: str = ""
    todo: str = ""
    details: dict[str, Any] = {}


class CorralError(Exception):
    """Base of all errors that a person may see.

    `what` says what did not happen, `why` the cause, `todo` the next step; each is one sentence without a final
    newline. `details` is JSON-able data for scripts (numbers of a refused admission, the nearest fit).
    """

    code: ClassVar[str] = "failed"
    http: ClassVar[int] = 500
    exit: ClassVar[int] = 1
    recorded = False
    """The trail has a record of this refusal already: one is enough."""

    def __init__(self, what: str, why: str = "", todo: str = "", **details: Any) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.todo = todo
        self.details = details

    def __str__(self) -> str:
        return "; ".join(part.rstrip(".") for part in (self.what, self.why, self.todo) if part)

    def body(self) -> ErrorBody:
        return ErrorBody(self.code, self.what, self.why, self.todo, self.details)


class Failed(CorralError):
    """Something that was allowed and had room did not work."""


class Invalid(CorralError):
    """The request itself is wrong: a bad value, an unknown key, a malformed file."""

    code, http, exit = "invalid", 400, 2


class Conflict(CorralError):
    """The request contradicts what is there (a name that exists, a model that is in use)."""

    code, http, exit = "conflict", 409, 1


class Changed(Conflict):
    """What somebody was shown and agreed to is not what is there any more: nothing was done, and he is asked anew."""

    code = "changed"


class NotFound(CorralError):
    """No such object, or none that the actor may see."""

    code, http, exit = "not_found", 404, 3


class Unseen(NotFound):
    """One that is there or not, and that the actor may not see: told as `NotFound`, recorded with the true reason."""

    def __init__(self, what: str, why: str = "", todo: str = "", *, reason: str, **details: Any) -> None:
        super().__init__(what, why, todo, **details)
        self.reason = reason


class NotAllowed(CorralError):
    """The actor may not do this."""

    code, http, exit = "not_allowed", 403, 4


class NoRoom(CorralError):
    """Refused by capacity or budget; `details` has the numbers and the nearest thing that would fit."""

    code, http, exit = "no_room", 507, 5


class NoDaemon(CorralError):
    """No daemon answers on the socket."""

    code, http, exit = "no_daemon", 503, 6


class TimedOut(CorralError):
    """A wait ended without what was waited for."""

    code, http, exit = "timed_out", 504, 1


class BadModel(Invalid):
    """A model file or folder that cannot be taken, with the reason (truncated, absurd counts, …)."""

    code, http, exit = "bad_model", 422, 1


class StoreError(Failed):
    """The database cannot be read or written (disk full, I/O error, newer than the program)."""

    code, http = "store", 503


class Locked(Failed):
    """Chats are sealed and their master key is not there."""

    code, http = "locked", 423


class NeedsToken(CorralError):
    """A hub or server wants to know who asks."""

    code, http, exit = "needs_token", 424, 4


class VersionMismatch(Failed):
    """Terminal and daemon speak different versions of the interface."""

    code, http = "version_mismatch", 426


def missing(kind: str, name: str, *, reason: str = "") -> NotFound:
    """What is said of a model or deployment that is not there, and with `reason` (for the record) of one that the actor
    may not see. The interface adds the names that he sees."""
    what, todo = f"no {kind} {name!r}", f"see `corral {kind}s ls`"
    named = {"kind": kind, "name": name}
    return Unseen(what, todo=todo, reason=reason, **named) if reason else NotFound(what, todo=todo, **named)


BY_CODE: dict[str, type[CorralError]] = {
    cls.code: cls
    for cls in (
        Failed, Invalid, Conflict, NotFound, NotAllowed, NoRoom, NoDaemon, TimedOut, BadModel, StoreError, Locked,
        VersionMismatch, NeedsToken, Changed,
    )
}  # fmt: skip


def from_body(body: ErrorBody) -> CorralError:
    """The error that `body` describes; a code of a newer daemon becomes `Failed`."""
    return BY_CODE.get(body.code, Failed)(body.what, body.why, body.todo, **body.details)
