"""The Models screen's list: what is stored and what the catalogue has in one, as rows; and the filter over it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from core.nouns import CatalogueEntry, Deployment, Fit, Fits, Model
from tui.widgets.table import Column, Row
from tui.words import params, size, state

LISTED = "+"
"""Before the name of an entry of the catalogue as the key of its row: no stored model is called so."""

COLUMNS = (
    Column("model", 11, fit=True), Column("state", 13, 1, state=True), Column("!", 1, 1), Column("live", 6, 2, True),
    Column("size", 9, 1, True), Column("quant", 7, 3), Column("params", 7, 6, True), Column("fits", 4, 1),
    Column("tier", 6, 5), Column("licence", 11, 5), Column("used by", 8, 4, fit=True), Column("for", 20, 3, flex=True),
)  # fmt: skip


class Offer(NamedTuple):
    """One row: a stored model, or an entry of the catalogue that is not stored."""

    key: str
    name: str
    model: Model | None = None
    entry: CatalogueEntry | None = None
    """Of a stored model what the catalogue says of it, where it has it."""
    fit: Fit | None = None
    users: tuple[str, ...] = ()
    """Deployments of it."""

    @property
    def uses(self) -> tuple[str, ...]:
        """What it is for, as far as the catalogue knows."""
        return self.entry.uses if self.entry is not None else ()

    @property
    def fits(self) -> str:
        """yes, no, or ? where that is not known; away of what cannot be started now, - of what was lost."""
        if self.model is not None and self.model.state != "stored":
            return "away" if self.model.state == "away" else "-"
        if self.fit is None or not self.fit.plan_bytes:
            return "?"
        return "yes" if self.fit.fits else "no"

    @property
    def licence(self) -> str:
        """The stored file's, else what the catalogue says."""
        return (self.model.licence if self.model else "") or (self.entry.licence if self.entry else "")

    @property
    def state(self) -> str:
        """stored, quarantined, missing, away; of what is not stored: catalogue."""
        return self.model.state if self.model is not None else "catalogue"


def offers(
    models: Mapping[str, Model], entries: Iterable[CatalogueEntry], fits: Fits | None,
    deployments: Iterable[Deployment],
) -> list[Offer]:  # fmt: skip
    """What is stored, by name, then what of the catalogue is not."""
    users: dict[str, list[str]] = {}
    for each in deployments:
        users.setdefault(each.spec.model_name, []).append(each.spec.name)
    listed = {each.name: each for each in entries}
    weighed = fits.models if fits is not None else ()
    here = {each.name: each for each in weighed if each.stored}
    there = {each.name: each for each in weighed if not each.stored}
    found, taken = [], set()
    for name, model in sorted(models.items()):
        fit = here.get(name)
        known = fit.entry if fit is not None else ""  # never by its name, which somebody typed
        taken.add(known)
        found.append(Offer(name, name, model, listed.get(known), fit, tuple(sorted(users.get(name, ())))))
    found += [
        Offer(LISTED + name, name, None, entry, there.get(name))
        for name, entry in sorted(listed.items())
        if name not in taken
    ]
    return found


def row(offer: Offer, ascii: bool = False) -> Row:
    """As the table draws it."""
    model, entry, fit = offer.model, offer.entry, offer.fit
    uses = " ".join(offer.uses)
    if model is not None:
        live = f"@{model.version}/{model.versions}" if model.versions > 1 else f"@{model.version}"
        cells = (
            offer.name, state(model.state, ascii), "!" if model.flags else "", live, size(model.bytes),
            model.shape.quantization, params(model.shape.n_params), offer.fits, model.tier, offer.licence or "-",
            ", ".join(offer.users) or "-", uses,
        )  # fmt: skip
        return Row(offer.key, cells)
    known = fit is not None and fit.bytes
    took = f"{'~' if fit.computed else ''}{size(fit.bytes)}" if fit is not None and known else "?"
    cells = (
        offer.name, state("catalogue", ascii), "", "-", took, fit.quantization if fit is not None and known else "?",
        params(entry.params if entry else 0), offer.fits, "-", offer.licence or "?", "-", uses,
    )  # fmt: skip
    return Row(offer.key, cells, dim=True)


class Filter:
    """What is typed after `/`: words that stand in a row, `-word` for those that may not, and `use:code`, `fit:yes`,
    `tier:fast`, `licence:apache`, `state:away`, `by:chat`, `flag:yes`. Half a word is enough, so that it narrows while
    one types."""

    KEYS = ("use", "fit", "tier", "licence", "state", "by", "flag")

    def __init__(self, text: str) -> None:
        self._words: list[tuple[bool, str, str]] = []
        self.unknown = ""
        """What stands before a colon and is none of `KEYS`; it is sought as it was typed."""
        for each in text.casefold().split():
            wanted, word = not (each.startswith("-") and len(each) > 1), each.removeprefix("-")
            key, colon, value = word.partition(":")
            if colon and key in self.KEYS:
                if value:
                    self._words.append((wanted, key, value))
            else:
                self.unknown = self.unknown or (key if colon and key.isalpha() else "")
                self._words.append((wanted, "", word))

    def takes(self, offer: Offer, cells: Sequence[str]) -> bool:
        """Whether the row of `offer`, which is drawn as `cells`, is shown."""
        return all(_fits(offer, cells, key, word) is wanted for wanted, key, word in self._words)


def _fits(offer: Offer, cells: Sequence[str], key: str, word: str) -> bool:
    match key:
        case "use":
            return any(each.startswith(word) for each in offer.uses)
        case "fit":
            return offer.fits.startswith(word)
        case "tier":
            return offer.model is not None and offer.model.tier.casefold().startswith(word)
        case "licence":
            return word in offer.licence.casefold()
        case "state":
            return offer.state.startswith(word)
        case "by":
            return any(each.startswith(word) for each in offer.users)
        case "flag":
            return ("yes" if offer.model is not None and offer.model.flags else "no").startswith(word)
    return word in " ".join(cells).casefold()


def source_of(offer: Offer) -> str:
    """What pulls it: `hf:ORG/REPO:QUANT` of an entry, or where a stored one came from; "" where nothing is known."""
    if offer.entry is not None and offer.entry.repo:
        quant = offer.fit.quantization if offer.fit is not None and not offer.fit.stored else ""
        return f"hf:{offer.entry.repo}" + (f":{quant}" if quant else "")
    origin = offer.model.origin if offer.model is not None else ""
    return origin if re.match(r"hf:|https://", origin) else ""
