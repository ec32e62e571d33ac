"""Connections by the place that they come from: an address, or a user of the Unix socket. A place that is full makes
room by itself: everybody on a host comes from 127.0.0.1, and one of them must not shut out the others."""

from __future__ import annotations

from itertools import islice
from typing import Protocol

LOOKED = 64
"""Connections that are looked at for one that is idle: those that are busy come to the end of the line."""


class Guest(Protocol):
    """A connection."""

    def idle(self) -> bool: ...
    def evict(self) -> None: ...


class Place:
    """Its connections, those that came first in front. `strangers` have not asked anything yet, or nothing that needs a
    right."""

    __slots__ = ("known", "strangers")

    def __init__(self) -> None:
        self.strangers: dict[Guest, None] = {}
        self.known: dict[Guest, None] = {}


class Places:
    """All of them."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self.evicted = 0
        """Idle connections that were closed for new ones."""
        self.refused = 0
        """Connections for which there was no room: all others of their place were busy."""
        self.last = ""
        """Where that was last."""

    def enter(self, name: str, most: int, guest: Guest) -> bool:
        """Count one more, for which an idle one goes if `most` are there; False, and nothing is counted, if none is
        idle."""
        place = self._places.get(name)
        if place is not None and len(place.strangers) + len(place.known) >= most:
            self.last = name
            idle = _idle(place.strangers) or _idle(place.known)
            if idle is None:
                self.refused += 1
                return False
            self.evicted += 1
            self.leave(name, idle)
            idle.evict()
            place = self._places.get(name)
        if place is None:
            place = self._places[name] = Place()
        place.strangers[guest] = None
        return True

    def met(self, name: str, guest: Guest) -> None:
        """One has asked something that it may."""
        place = self._places[name]
        del place.strangers[guest]
        place.known[guest] = None

    def leave(self, name: str, guest: Guest) -> None:
        """One that `enter` let in has gone."""
        place = self._places[name]
        place.strangers.pop(guest, None)
        place.known.pop(guest, None)
        if not place.strangers and not place.known:
            del self._places[name]


def _idle(guests: dict[Guest, None]) -> Guest | None:
    """The first that is idle."""
    for guest in list(islice(guests, LOOKED)):
        if guest.idle():
            return guest
        del guests[guest]
        guests[guest] = None
    return None
