"""What a new spec changes of the one that is there."""

from __future__ import annotations

from typing import Any

import msgspec

from core.deployments import tables
from core.errors import Conflict
from core.nouns import Change, DeploymentSpec


def told(wanted: tables.Wanted) -> dict[str, Any]:
    """What the trail says of it: the spec, and the version that it got."""
    return {**msgspec.to_builtins(wanted.spec), "version": wanted.version}


def same(old: tables.Wanted, new: DeploymentSpec, version: int) -> bool:
    """It runs already as it is asked for, and of the version that this means now."""
    return old.spec == new and old.version == version and old.wanted == "running"


def exists(old: tables.Wanted, new: DeploymentSpec, version: int) -> Conflict:
    """The refusal of a name that is taken, with each field that would change."""
    changes = [
        Change(field=field, old=getattr(old.spec, field), new=getattr(new, field))
        for field in DeploymentSpec.__struct_fields__
        if getattr(old.spec, field) != getattr(new, field)
    ]
    if old.version != version:
        changes.append(Change(field="version", old=old.version, new=version))
    if old.wanted != "running":
        changes.append(Change(field="wanted", old=old.wanted, new="running"))
    told = ", ".join(f"{c.field} {c.old} -> {c.new}" for c in changes)
    return Conflict(
        f"deployment {new.name!r} exists", told, "say --replace to change it", changes=msgspec.to_builtins(changes)
    )
