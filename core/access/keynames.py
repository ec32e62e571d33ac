"""Which key is meant: by its id, its name, OWNER/NAME, a pattern of these, or how its secret begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.access.keytables import KeyRow
from core.access.permissions import matches
from core.access.secrets import PREFIX
from core.errors import Conflict, NotFound
from core.nouns import Key


def find(seen: Sequence[KeyRow], mine: Callable[[Key], bool], name: str) -> KeyRow:
    """The one with this id or name; of several the one that works and is one's own. Raises `NotFound`, `Conflict`."""
    found = [row for row in seen if row.key.id == name]
    if not found:
        owner, _, bare = name.rpartition("/")
        found = [row for row in seen if row.key.name == bare and (not owner or row.key.owner.name == owner)]
        active = [row for row in found if row.key.revoked_at is None]
        own = [row for row in active if mine(row.key)]
        found = own if len(own) == 1 else active or found[-1:]
    if not found:
        raise NotFound(f"there is no key {name!r}", todo="see `corral keys ls`")
    if len(found) > 1:
        names = ", ".join(f"{row.key.owner.name}/{row.key.name}" for row in found[:5])
        raise Conflict(f"{name!r} is the name of several keys", names, "say OWNER/NAME, or the id")
    return found[0]


def matching(keys: Sequence[Key], text: str) -> list[Key]:
    """Those that `text` means: an id, a name, OWNER/NAME, one of these with a star at its end, or the first characters
    of a secret. Raises `NotFound`."""
    begins = text.removesuffix("...")
    found = [
        key
        for key in keys
        if any(matches(text, each) for each in (key.id, key.name, f"{key.owner.name}/{key.name}"))
        or (len(begins) > len(PREFIX) and key.begins.startswith(begins))
    ]
    if not found:
        raise NotFound(f"there is no key {text[:100]!r}", todo="see `corral keys ls`: say a name, OWNER/NAME or an id")
    return found
