"""One file of entries, and what it has to say to be taken."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from core.catalog.curated.layout import NoLayout
from core.catalog.curated.lines import Place
from core.catalog.curated.mixture import BASE
from core.catalog.curated.sizes import Sized
from core.errors import BadModel
from core.nouns import USES, CatalogueEntry, CatalogueFile, ModelShape, Score, Source

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
WITHOUT = {"embedding", "rerank", "languages", "long-context"}
"""Uses of models that nobody chats with: they need no template."""
LARGEST = 1 << 50
"""Bytes or parameters: more is a slip of the keyboard."""


class Bad(Exception):
    """Something in a file of entries that is not taken: where, what and why."""

    def __init__(self, place: Place, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.place, self.what, self.why = place, what, why


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Number(_Strict, kw_only=True):
    is_: int = msgspec.field(name="is")
    source: str = ""


class Words(_Strict, kw_only=True):
    is_: str = msgspec.field(name="is")
    source: str = ""


class FileOf(_Strict, kw_only=True):
    quantization: str
    bytes: int = 0
    computed: bool = False
    source: str = ""


class ScoreOf(_Strict, kw_only=True):
    use: str
    benchmark: str
    variant: str = ""
    value: float
    of: float = 100
    source: str = ""


class Entry(_Strict, kw_only=True):
    """A model as the file says it. A bare number or word has no source."""

    name: str
    title: str = ""
    uses: list[str]
    uses_source: str = ""
    params: int | Number | None = None
    active_params: int | Number | None = None
    ctx: int | Number | None = None
    licence: str | Words | None = None
    repo: str | Words | None = None
    files: list[FileOf] = []
    shape: dict[str, Any] = {}
    template: str | Words | None = None
    scores: list[ScoreOf] = []
    notes: str = ""


class SourceOf(_Strict, kw_only=True):
    what: str
    path: str = ""
    commit_or_date: str


class Family(_Strict, kw_only=True):
    family: str
    title: str = ""
    sources: dict[str, SourceOf] = {}
    models: list[Entry]


def entries(family: Family, *, own: bool = False) -> list[CatalogueEntry]:
    """The entries of a file. Raises `Bad`: without `own`, also for a figure without a source."""
    if not NAME.fullmatch(family.family):
        raise Bad(("family",), f"{family.family!r:.60} is no name", "small letters, digits, dots and dashes")
    for key, source in family.sources.items():
        if not source.what or not source.commit_or_date:
            raise Bad(("sources", key), f"the source {key} says too little", "it names what was read, and which state")
    names: set[str] = set()
    out = []
    for place, told in enumerate(family.models):
        if told.name in names:
            raise Bad(("models", place, "name"), f"{told.name} is here twice", "each name stands once")
        names.add(told.name)
        out.append(_Reading(family, told, place, own).entry())
    return out


class _Reading:
    """One entry on its way, with the sources it named."""

    def __init__(self, family: Family, told: Entry, place: int, own: bool) -> None:
        self.family, self.told, self.place, self.own = family, told, place, own
        self.cited: dict[str, Source] = {}
        self.sources: list[Source] = []
        self.unsourced: list[str] = []
        self.computed: list[str] = []

    def bad(self, key: str, what: str, why: str, *more: str | int) -> Bad:
        return Bad(("models", self.place, key, *more), f"{self.told.name}: {what}", why)

    def entry(self) -> CatalogueEntry:
        told = self.told
        if not NAME.fullmatch(told.name):
            raise self.bad("name", f"{told.name!r:.60} is no name", "small letters, digits, dots and dashes")
        wrong = [use for use in told.uses if use not in USES]
        if wrong or not told.uses or len(set(told.uses)) != len(told.uses):
            said = f"{wrong[0]!r:.40} is no use" if wrong else "it has no use, or one twice"
            raise self.bad("uses", said, f"uses are {', '.join(USES)}")
        if source := self.source("uses", told.uses_source, "uses_source"):
            self.cited["uses"] = source
        header = self.header()
        sized = self.sized(header)
        files = self.files(sized)
        params, active = self.params(sized)
        found = CatalogueEntry(
            name=told.name,
            family=self.family.family,
            title=told.title or told.name,
            uses=tuple(told.uses),
            params=params,
            active_params=active,
            ctx=self.number("ctx"),
            licence=self.words("licence"),
            repo=self.repo(),
            files=files,
            shape=self.shape(sized, files),
            header=header,
            template_sha256=self.template(),
            scores=self.scores(),
            notes=told.notes,
            own=self.own,
        )
        unknown = [each for each in ("params", "active_params", "ctx", "licence", "repo", "files", "shape", "scores")
                   if not getattr(found, each)]  # fmt: skip
        if not found.template_sha256 and not set(told.uses) <= WITHOUT:
            unknown.append("template")
        return msgspec.structs.replace(
            found,
            licence_source=self.cited.get("licence"),
            cited=self.cited,
            sources=tuple(dict.fromkeys(self.sources)),
            unsourced=tuple(self.unsourced),
            computed=tuple(self.computed),
            unknown=tuple(unknown),
        )

    def source(self, figure: str, key: str, *at: str | int) -> Source | None:
        """Where a figure was read. None only in an own entry that does not say."""
        where = at or (figure, "source")
        if not key:
            if not self.own:
                raise self.bad(str(where[0]), f"{figure} has no source", "a figure enters only with its source",
                               *where[1:])  # fmt: skip
            self.unsourced.append(figure)
            return None
        if key not in self.family.sources:
            raise self.bad(str(where[0]), f"{figure} names the source {key!r:.40}", "[sources] has none of that name",
                           *where[1:])  # fmt: skip
        told = self.family.sources[key]
        found = Source(what=told.what, path=told.path, commit_or_date=told.commit_or_date)
        self.sources.append(found)
        return found

    def number(self, figure: str) -> int:
        told = getattr(self.told, figure)
        if told is None:
            return 0
        value, key = (told.is_, told.source) if isinstance(told, Number) else (told, "")
        if isinstance(value, bool) or not 0 < value <= LARGEST:
            raise self.bad(figure, f"{figure} is {value}", "it is a whole number above 0")
        if source := self.source(figure, key):
            self.cited[figure] = source
        return int(value)

    def words(self, figure: str) -> str:
        told = getattr(self.told, figure)
        if told is None:
            return ""
        value, key = (told.is_, told.source) if isinstance(told, Words) else (told, "")
        if not value.strip() or not value.isprintable():
            raise self.bad(figure, f"{figure} is {value!r:.40}", "leave it out if it is not known")
        if source := self.source(figure, key):
            self.cited[figure] = source
        return str(value)

    def template(self) -> str:
        found = self.words("template")
        if found and not re.fullmatch("[0-9a-f]{64}", found):
            raise self.bad("template", f"template is {found!r:.80}", "it is a SHA-256: 64 digits and small letters")
        return found

    def repo(self) -> str:
        found = self.words("repo")
        if found and not re.fullmatch(r"[\w.-]+/[\w.-]+", found):
            raise self.bad("repo", f"repo is {found!r:.60}", "it is ORG/REPO, without a host or a file")
        return found

    def header(self) -> dict[str, Any]:
        if not self.told.shape:
            return {}
        told = dict(self.told.shape)
        key = told.pop("source", "")
        if not isinstance(key, str):
            raise self.bad("shape", "the source of the shape is no text", "it names one of [sources]", "source")
        if source := self.source("shape", key):
            self.cited["shape"] = source
        return _flat(told)

    def sized(self, header: dict[str, Any]) -> Sized | None:
        try:
            return Sized(header) if header else None
        except NoLayout as error:
            raise self.bad("shape", "the shape cannot be sized", str(error)) from None

    def shape(self, sized: Sized | None, files: tuple[CatalogueFile, ...]) -> ModelShape | None:
        if sized is None:
            return None
        kind = next((each.quantization for each in files if each.quantization in BASE), "F16")
        try:
            return sized.shape(kind)
        except (KeyError, BadModel) as error:
            raise self.bad("shape", "the shape cannot be sized", f"it lacks {error}") from None

    def params(self, sized: Sized | None) -> tuple[int, int]:
        params, active = self.number("params"), self.number("active_params")
        if sized is not None and not (params and active):
            all_of, passed = sized.counted()
            if not params:
                params = all_of
                self.computed.append("params")
            if not active:
                active = passed if passed != all_of else params
                self.computed.append("active_params")
        if active > params:
            raise self.bad("active_params", f"{active} of {params} parameters are used", "that is more than there are")
        return params, active

    def files(self, sized: Sized | None) -> tuple[CatalogueFile, ...]:
        out: list[CatalogueFile] = []
        for place, told in enumerate(self.told.files):
            figure = f"files {told.quantization}"
            if any(each.quantization == told.quantization for each in out):
                raise self.bad("files", f"{told.quantization} is there twice", "one size a quantisation", place)
            if not told.bytes:
                if not told.computed:
                    raise self.bad("files", f"{figure} has no size", "say its bytes, or `computed = true`", place)
                if sized is None:
                    raise self.bad("files", f"{figure} cannot be computed", "there is no shape", place)
                if told.quantization not in BASE:
                    raise self.bad("files", f"{figure} cannot be computed", f"there is a rule for {', '.join(BASE)}",
                                   place)  # fmt: skip
                size = sized.bytes(told.quantization)
                out.append(CatalogueFile(quantization=told.quantization, bytes=size, computed=True))
                continue
            if told.computed:
                raise self.bad("files", f"{figure} is said to be computed and has bytes", "leave the bytes out", place)
            if not 0 < told.bytes <= LARGEST:
                raise self.bad("files", f"{figure} has {told.bytes} bytes", "that is no size of a file", place)
            source = self.source(figure, told.source, "files", place)
            out.append(CatalogueFile(quantization=told.quantization, bytes=told.bytes, source=source))
        return tuple(out)

    def scores(self) -> tuple[Score, ...]:
        out: list[Score] = []
        for place, told in enumerate(self.told.scores):
            if told.use not in USES:
                raise self.bad("scores", f"{told.use!r:.40} is no use", f"uses are {', '.join(USES)}", place)
            if not 0 <= told.value <= told.of:
                raise self.bad("scores", f"{told.benchmark} is {told.value:g}", f"it lies from 0 to {told.of:g}", place)
            if any((each.use, each.benchmark) == (told.use, told.benchmark) for each in out):
                raise self.bad("scores", f"{told.benchmark} is there twice", "one value a use and benchmark", place)
            if not told.benchmark.strip():
                raise self.bad("scores", "a score has no benchmark", "a number alone says nothing", place)
            source = self.source(f"score {told.benchmark}", told.source, "scores", place)
            out.append(
                Score(use=told.use, benchmark=told.benchmark, variant=told.variant, value=told.value, of=told.of,
                      source=source)
            )  # fmt: skip
        return tuple(out)


def _flat(table: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Dotted keys as a GGUF header has them."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            out.update(_flat(value, f"{before}{key}."))
        else:
            out[before + key] = value
    return out
