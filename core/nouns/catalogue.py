"""The curated list: what a model is for, how large it is, what it scores, and where each of these figures was read."""

from __future__ import annotations

from typing import Any

from core.nouns.base import Noun
from core.nouns.models import ModelShape

USES = (
    "general", "code", "mathematics", "reasoning", "long-context", "languages", "vision", "embedding", "rerank",
    "medicine", "law",
)  # fmt: skip
"""What a model may be for."""


class Source(Noun, frozen=True, kw_only=True):
    """Where a figure was read."""

    what: str
    """`github:OWNER/NAME`, `hf:ORG/REPO`, `pypi:PACKAGE`, or a page's address."""
    path: str = ""
    """The file in it; empty for a page."""
    commit_or_date: str
    """The commit or version that was read, or the day (2026-11-26)."""


class CatalogueFile(Noun, frozen=True, kw_only=True):
    """One quantisation of a model."""

    quantization: str
    """As llama.cpp says it: Q4_K_M, Q8_0, F16."""
    bytes: int
    """Of all its parts together."""
    computed: bool = False
    """Of the shape's tensors and the quantisation's own bits, not read: what lies before the tensors is left out."""
    source: Source | None = None
    """Where the bytes were read; None if they are computed, or of an own entry that names none."""


class Score(Noun, frozen=True, kw_only=True):
    """A public score. Only scores of the same benchmark say which of two models is the better one, and the less so the
    more their variants differ."""

    use: str
    """Which of `USES` it tells of."""
    benchmark: str
    """As everybody calls it: `HumanEval`."""
    variant: str = ""
    """How it was run, as its source says: `0-shot`, `simple-evals`."""
    value: float
    of: float = 100
    """The best possible value."""
    source: Source | None
    """None only in an own entry that names none."""


class CatalogueEntry(Noun, frozen=True, kw_only=True):
    """One model. What isn't known is empty or 0, and named in `unknown`."""

    name: str
    family: str
    title: str
    uses: tuple[str, ...]
    params: int = 0
    active_params: int = 0
    """Of a mixture of experts: those that one token passes. Of any other model: all."""
    ctx: int = 0
    """Tokens that it was made for."""
    licence: str = ""
    licence_source: Source | None = None
    repo: str = ""
    """`ORG/REPO` where its GGUF files are pulled from."""
    files: tuple[CatalogueFile, ...] = ()
    shape: ModelShape | None = None
    """For sizing, with the tensors of the first of `files` for whose quantisation there is a rule;
    `core.catalog.curated.shape_for` makes that of another."""
    header: dict[str, Any] = {}
    """What a GGUF header says of this shape, as the model's own configuration does (`block_count`, …)."""
    template_sha256: str = ""
    """Of its chat template as its makers publish it (UTF-8, as it stands)."""
    scores: tuple[Score, ...] = ()
    notes: str = ""
    unknown: tuple[str, ...] = ()
    """What is not known of it: `licence`, `scores`, …"""
    unsourced: tuple[str, ...] = ()
    """Figures without a source; only own entries may have them."""
    computed: tuple[str, ...] = ()
    """Figures that were counted from the shape: `params`, `active_params`."""
    cited: dict[str, Source] = {}
    """The source of each other figure: `uses`, `params`, `active_params`, `ctx`, `licence`, `repo`, `shape`,
    `template`."""
    sources: tuple[Source, ...] = ()
    """All of them, each once."""
    own: bool = False
    """It stands in the folder of the user's own entries."""


class Advice(Noun, frozen=True, kw_only=True):
    """What one would say of a use without looking at figures; figures may overrule it."""

    use: str
    family: str
    """Empty: no family in the list is made for it."""
    reason: str


class CatalogueProblem(Noun, frozen=True, kw_only=True):
    """A file of own entries that could not be read, and was left out."""

    file: str
    line: int
    what: str
    why: str
    todo: str = ""


class Catalogue(Noun, frozen=True, kw_only=True):
    """The whole list."""

    entries: tuple[CatalogueEntry, ...]
    advice: dict[str, Advice]
    """By use."""
    own_folder: str = ""
    """Where own entries are looked for."""
    problems: tuple[CatalogueProblem, ...] = ()
