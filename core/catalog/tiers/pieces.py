"""What of a version is to move: its objects that lie elsewhere, what else is made of them, and who needs them there.

A version moves by its objects, which others may be made of too: the same bytes under another name, a projector that two
share. So what counts is who needs the object, not who uses the version that was named. A need counts from the moment
that a deployment has it, also while what it needs is not there yet: it would be moved back at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from core.access import Gate
from core.catalog import references
from core.catalog import tables as versions
from core.catalog.tiers import tables
from core.catalog.uses import Uses
from core.errors import Conflict, NotAllowed
from core.nouns import Actor, Model, ModelFile


class Piece(NamedTuple):
    """An object to be moved, and where it lies."""

    sha256: str
    tier: str
    parts: tuple[ModelFile, ...]
    beside: str = ""
    """What it is, unless it is the model's own: `projector eye.gguf`."""

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


class Need(NamedTuple):
    """A deployment that needs a version (`chat@3`) in a tier."""

    deployment: str
    version: str
    tier: str
    runs: bool


def to_move(
    db: sqlite3.Connection, gate: Gate, uses: Uses, actor: Actor, model: Model, to: str, but: str = ""
) -> list[Piece]:
    """What of a version is not in `to` yet. `but`: a deployment whose need is about to change. Raises `NotFound`;
    `NotAllowed` where others are made of it that the actor may not move; `Conflict` where it cannot be moved, or
    somebody needs it where it is."""
    tables.one(db, to)
    beside = [("projector", model.projector)] if model.projector else []
    beside += [("adapter", each) for each in model.adapters]
    found = [(versions.object_of(model.files), model.files, "")]
    found += [(file.sha256, (file,), f"{what} {file.name}") for what, file in beside]
    lying, pieces = versions.lying(db, [sha256 for sha256, _, _ in found]), []
    for sha256, parts, what in found:
        if sha256 not in lying:
            raise _not_there(model)
        if lying[sha256] != to:
            pieces.append(Piece(sha256, lying[sha256], parts, what))
    others = {name for piece in pieces for name, _ in versions.made_of(db, piece.sha256)} - {model.name}
    denied = [each for each in sorted(others) if not gate.may(actor, "models.move", f"model:{each}")]
    if denied:
        seen = [each for each in denied if gate.may(actor, "models.read", f"model:{each}")]
        raise NotAllowed(
            f"{model.reference} is made of the same bytes as other models",
            f"{actor.name} may not models.move on " + (", ".join(seen) or "those"),
        )
    stay(needs(db, uses, pieces, to, but))
    return pieces


def _not_there(model: Model) -> Conflict:
    what = f"{model.reference} cannot be moved"
    if model.state == "away":
        return Conflict(what, f"its tier {model.tier} is not there", f"mount it (corral tiers check {model.tier})")
    state = model.state if model.state != "stored" else "missing"
    return Conflict(what, f"it is {state}", f"see `corral models versions {model.name}`")


def needs(db: sqlite3.Connection, uses: Uses, pieces: Iterable[Piece], to: str, but: str = "") -> list[Need]:
    """Which deployments, but one, need any of these in another tier than `to`; also those that should not run now."""
    if not any(each.tier not in ("", to) for each in uses.all(db)):
        return []
    found: dict[Need, None] = {}
    for name, number in sorted({pair for piece in pieces for pair in versions.made_of(db, piece.sha256)}):
        model = versions.find(db, references.Reference(name, version=number))
        for use in uses.of(db, model):
            if use.tier not in ("", to) and use.deployment != but:
                found[Need(use.deployment, model.reference, use.tier, use.runs)] = None
    return sorted(found)


def stay(found: Sequence[Need]) -> None:
    """Raises `Conflict`, naming them, if any of these should run now."""
    running = [each for each in found if each.runs]
    if running:
        made = ", ".join(dict.fromkeys(each.version for each in running))
        tiers = ", ".join(dict.fromkeys(each.tier for each in running))
        names = ", ".join(dict.fromkeys(each.deployment for each in running))
        raise Conflict(
            f"{made} {'is' if ',' not in made else 'are'} needed on {tiers}", f"by {names}",
            "stop that, or deploy it without --tier, first",
        )  # fmt: skip


def along(db: sqlite3.Connection, model: Model, pieces: Sequence[Piece]) -> tuple[str, ...]:
    """The other versions that are made of these objects."""
    made = {pair for piece in pieces for pair in versions.made_of(db, piece.sha256)}
    return tuple(f"{name}@{number}" for name, number in sorted(made - {(model.name, model.version)}))
