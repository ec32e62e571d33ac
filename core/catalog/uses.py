"""Who uses which version: the deployments tell, which lie above the catalog."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from core.catalog import references
from core.nouns import Model


class Use(NamedTuple):
    """A deployment: what it wants (`chat:live`), and the version that it got."""

    deployment: str
    wants: str
    version: int
    tier: str = ""
    """Where it needs that version to lie."""
    runs: bool = True
    """It should run now."""


class Uses:
    """What deployments want, asked inside the transaction that depends on it."""

    def __init__(self, told: Callable[[sqlite3.Connection], list[Use]]) -> None:
        self.all = told

    def of(self, db: sqlite3.Connection, model: Model) -> list[Use]:
        """By those that run a version, or get it when they next start."""
        mine = []
        for use in self.all(db):
            meant = references.split(use.wants)
            if meant.name == model.name and (
                use.version == model.version
                or meant.alias in model.aliases
                or meant.version == model.version
                or (meant.sha256 and model.sha256.startswith(meant.sha256))
            ):
                mine.append(use)
        return mine

    def names(self, db: sqlite3.Connection, model: Model) -> list[str]:
        """The deployments of `of`, sorted."""
        return sorted(use.deployment for use in self.of(db, model))
