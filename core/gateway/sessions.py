"""Which replica had a conversation last: what it has read of it need not be read again.

A conversation is known by what its requests begin with, up to the model's first answer, or by the `prompt_cache_key`
that its client sends; and it is its caller's. Nothing of it is kept but a hash.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

import msgspec

MOST = 4096
"""Conversations remembered for a deployment, the ones not heard of for longest forgotten (some 0.5 MiB)."""
EDGE = 2048
"""Bytes looked at on either end of what a conversation begins with."""
HEAD = 256
"""Bytes of a prompt without turns that tell which conversation it is."""
STAY = 2
"""A replica with so many more requests than the least busy one is left for it, whatever it has read."""
_NOTHING = msgspec.Raw(b"")

S = TypeVar("S")


class _Opening(msgspec.Struct, frozen=True):
    prompt_cache_key: msgspec.Raw = _NOTHING
    messages: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING
    prompt: msgspec.Raw = _NOTHING


_DECODE = msgspec.json.Decoder(_Opening).decode


class Sessions(Generic[S]):
    """The replicas by conversation."""

    __slots__ = ("_seats",)

    def __init__(self) -> None:
        self._seats: OrderedDict[int, S] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seats)

    def get(self, session: int) -> S | None:
        """The replica that had it last."""
        return self._seats.get(session)

    def put(self, session: int, seat: S) -> None:
        """It is there now."""
        seats = self._seats
        seats[session] = seat
        seats.move_to_end(session)
        if len(seats) > MOST:
            seats.popitem(last=False)

    def keep(self, seats: list[S]) -> None:
        """Forget the replicas that are not among these."""
        there = set(map(id, seats))
        self._seats = OrderedDict((session, seat) for session, seat in self._seats.items() if id(seat) in there)


def session(caller: str | int, body: bytes) -> int:
    """Which conversation of `caller` a request belongs to; 0 if it does not tell."""
    try:
        opening = _DECODE(body)
    except msgspec.DecodeError:
        return 0
    said = bytes(opening.prompt_cache_key)
    if said and said != b"null":
        return hash((caller, said))
    turns = bytes(opening.messages or opening.input)
    if not turns.startswith(b"["):
        prompt = turns or bytes(opening.prompt)
        return hash((caller, prompt[:HEAD])) if len(prompt) >= HEAD else 0
    answer = turns.find(b'"assistant"')  # within a text its quotes would be escaped
    end = turns.rfind(b"{", 0, answer) if answer > 0 else len(turns) - 1
    begins = turns[:end].rstrip(b" \t\r\n,")
    return hash((caller, len(begins), begins[:EDGE], begins[-EDGE:]))
