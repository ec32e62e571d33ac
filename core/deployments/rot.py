"""Replicas that go on serving bytes which were found rotten or gone: an engine keeps open what it has opened."""

from __future__ import annotations

from typing import NamedTuple

from core.catalog import Catalog
from core.errors import CorralError

_SERVES = {"quarantined": "bytes of {} that have rotted and were set aside", "missing": "a file of {} that is gone"}


class Lost(NamedTuple):
    """A version whose bytes were found rotten or gone, and may be whole again."""

    version: str
    """`chat@3`."""
    how: str
    """`quarantined` or `missing`."""
    at: float
    """UTC seconds."""
    healed: bool

    def remark(self, deployment: str, started_at: float | None) -> str:
        """What to say of a replica that was launched then; "" for one that serves whole bytes."""
        if started_at is None or started_at > self.at:
            return ""
        todo = f"`corral restart {deployment}` has it serve whole bytes"
        if not self.healed:
            todo = f"import {self.version} again from where it came from, then {todo}"
        return f"it serves {_SERVES[self.how].format(self.version)}: {todo}"


async def find(catalog: Catalog, version: str) -> Lost | None:
    """What was found of a version (`chat@3`); None: nothing, or it is not there any more."""
    try:
        model = await catalog.get(version)
    except CorralError:
        return None
    at, how = await catalog.lost(model)
    return Lost(model.reference, how, at, model.state not in ("quarantined", "missing")) if how else None
