"""Reads the curated list and the user's own entries, and refuses a figure that does not say where it is from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

from core.catalog.curated.entry import Bad, Family, entries
from core.catalog.curated.lines import line_of, place_of
from core.catalog.curated.sizes import shape_for
from core.nouns import USES, Advice, Catalogue, CatalogueEntry, CatalogueProblem

__all__ = ["advice", "load", "read", "shape_for", "templates"]

FOLDER = Path(__file__).parent
ADVICE = "advice.toml"
LARGEST = 1 << 20
"""Bytes of one file of own entries."""
MOST = 256
"""Files of own entries."""
TODO = "mend the line; until then this file is left out (docs/catalogue.md)"


def load(own: Path | None = None) -> list[CatalogueEntry]:
    """All entries by name; those in the folder `own` override. A bad file there is left out: `read` tells why."""
    return list(read(own).entries)


def read(own: Path | None = None) -> Catalogue:
    """The whole list, with what could not be read of the folder `own`, which need not exist."""
    found = dict(_curated())
    problems: list[CatalogueProblem] = []
    mine: dict[str, str] = {}
    for path in _own_files(own, problems):
        try:
            new = entries_of(_text(path), own=True)
            for place, entry in enumerate(new):
                if entry.name in mine:
                    raise Bad(("models", place, "name"), f"{entry.name} is here twice", f"also in {mine[entry.name]}")
        except _Unreadable as error:
            problems.append(
                CatalogueProblem(file=path.name, line=error.line, what=error.what, why=error.why, todo=TODO)
            )
            continue
        except Bad as bad:
            line = line_of(_text(path), bad.place)
            problems.append(CatalogueProblem(file=path.name, line=line, what=bad.what, why=bad.why, todo=TODO))
            continue
        mine.update((entry.name, path.name) for entry in new)
        found.update((entry.name, entry) for entry in new)
    return Catalogue(
        entries=tuple(found[name] for name in sorted(found)),
        advice=dict(advice()),
        own_folder=str(own) if own else "",
        problems=tuple(problems),
    )


def templates(name: str, origin: str) -> dict[str, str]:
    """SHA-256 of the chat templates that a model of this name, or from this origin (`hf:ORG/REPO…`), should have, by
    whose they are. Own entries say nothing of this: what ships is what was looked at."""
    repo = re.split("[:@]", origin.removeprefix("hf:"), maxsplit=1)[0] if origin.startswith("hf:") else ""
    return {
        f"{each.name} in the catalogue": each.template_sha256
        for each in _curated().values()
        if each.template_sha256 and (each.name == name or (repo and each.repo.lower() == repo.lower()))
    }


@cache
def advice() -> dict[str, Advice]:
    """The plain advice, by use."""
    told = tomllib.loads((FOLDER / ADVICE).read_text(encoding="utf-8"))
    return {use: Advice(use=use, family=told[use]["family"], reason=told[use]["reason"]) for use in USES}


def entries_of(text: str, *, own: bool = False) -> list[CatalogueEntry]:
    """The entries of one file. Raises `Bad`, or `_Unreadable` for what is no such TOML."""
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise _Unreadable(1, "not valid TOML", "it is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise _Unreadable(place_of(error, text), "not valid TOML", str(error)) from None
    except ValueError:
        raise _Unreadable(1, "not valid TOML", "a number in it has thousands of digits") from None
    try:
        family = msgspec.convert(data, Family)
    except msgspec.ValidationError as error:
        why, place = _apart(str(error))
        raise Bad(place, "an entry is not as it should be", why) from None
    return entries(family, own=own)


@cache
def _curated() -> dict[str, CatalogueEntry]:
    found: dict[str, CatalogueEntry] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        if path.name != ADVICE:
            for entry in entries_of(path.read_text(encoding="utf-8")):
                if entry.name in found:
                    raise Bad(("models",), f"{entry.name} is in the list twice", f"a second time in {path.name}")
                found[entry.name] = entry
    return found


class _Unreadable(Exception):
    def __init__(self, line: int, what: str, why: str) -> None:
        super().__init__(what)
        self.line, self.what, self.why = line, what, why


def _own_files(own: Path | None, problems: list[CatalogueProblem]) -> Iterable[Path]:
    if own is None:
        return []
    try:
        found = sorted(path for path in own.iterdir() if path.suffix == ".toml")
    except FileNotFoundError:
        return []
    except OSError as error:
        why = error.strerror or "it cannot be read"
        problems.append(CatalogueProblem(file=str(own), line=0, what="the folder was not read", why=why, todo=""))
        return []
    if len(found) > MOST:
        more = f"there are {len(found)}, and {MOST} are read"
        problems.append(CatalogueProblem(file=found[MOST].name, line=0, what="too many files", why=more, todo=""))
    return found[:MOST]


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise _Unreadable(0, "it is no file", "only files are read")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise _Unreadable(0, "it is too long", f"at most {LARGEST >> 20} MiB are read")
        return data.decode("utf-8")
    except OSError as error:
        raise _Unreadable(0, "it cannot be read", error.strerror or "unknown") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _Unreadable(line, "it is not UTF-8", f"byte {error.start} is none") from None


def _apart(message: str) -> tuple[str, tuple[str | int, ...]]:
    """msgspec's message as its reason and the place: `Expected ... - at $.models[0].ctx`."""
    why, _, path = message.partition(" - at `$")
    place: list[str | int] = []
    for part in path.rstrip("`").replace("[", ".[").split("."):
        if part.startswith("["):
            inside = part[1:-1]
            place.append(int(inside) if inside.isdigit() else inside)
        elif part:
            place.append(part)
    return why, tuple(place)
