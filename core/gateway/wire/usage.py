"""Lines of usage, and what was turned away."""

from __future__ import annotations

import msgspec


class UsageLine(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One request: no content. Times in seconds; tokens None where nobody could say. New fields come last."""

    id: str
    time: float
    uid: int
    deployment: str
    model: str
    replica: str
    launch: str
    path: str
    status: int
    outcome: str
    """ok, client-gone, replica-died, gateway-died, timeout, refused (it never ran), revoked (its key or right ended
    while it ran), error"""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    answer_tokens: int | None = None
    estimated: bool = False
    queue_s: float = 0.0
    first_byte_s: float | None = None
    total_s: float = 0.0
    actor: str = ""
    turn: str = ""
    first_token_s: float | None = None
    """Of a stream: from the request to the first event of its answer."""
    version: int = 0
    node: str = ""
    core_s: float = 0.0
    """Its share of the replica's cores: seconds in a slot, times the cores, by the slots."""
    requests: int = 1
    """More than one where refusals of a second that are alike are folded."""
    key: str = ""
    """Id of the API key that the request came with."""


SEVERAL = -2
"""Stands for the uid where several are counted together."""


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that were turned away because of who asked. `first` and `last` are unix times."""

    uid: int
    reason: str
    times: int
    first: float
    last: float
    key: str = ""
    """Id of the API key that they came with, if it is a known one: they are its owner's, whose uid this is."""
