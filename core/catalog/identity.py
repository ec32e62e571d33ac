"""Which entry of the catalogue a stored model is: by its hash, or by where it was pulled from and what its header says.
Never by the name that somebody typed, nor by a repository's alone: its uses and scores would be another model's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from core.catalog import sample
from core.nouns import CatalogueEntry, Model

HASHES = {sample.SHA256: sample.ENTRY}
"""Files that were looked at, by SHA-256, to their entry."""
PARAMS = (0.8, 1.25)
"""By how much counts may differ: some files hold the table of words twice."""
BYTES = (0.9, 1.1)
"""By how much files of one quantisation may: makers mix types a little otherwise from one upload to the next."""
_HUB = re.compile(r"(?:hf:|https://huggingface\.co/)([\w.-]+/[\w.-]+)(?:[:@/]|$)")
_BITS = re.compile(r"[-_.](i?q\d\w*|bf16|f16|f32|fp16|mxfp4\w*|ud)$", re.IGNORECASE)
QUANT = re.compile(
    r"(?<![A-Za-z0-9])(UD-)?(I?Q[1-8]_(?:K_)?(?:[0-9A-Z]{1,3}(?:_(?:L|XL|[48]_[48]))?)|Q[2-6]_K|TQ[12]_0|MXFP4(?:_MOE)?"
    r"|BF16|F16|FP16|F32|FP32)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_KIND = re.compile(r"(IQ|Q|TQ|BF|F|MXFP)(\d+)(_[01])?")


def entry_of(model: Model, entries: Sequence[CatalogueEntry]) -> CatalogueEntry | None:
    """The entry that a stored model is; None where it is none, or nobody knows."""
    known = HASHES.get(model.files[0].sha256, "") if len(model.files) == 1 else ""
    if known:
        return next((each for each in entries if each.name == known), None)
    return next((each for each in _from(model, entries) if not _other(model, each)), None)


def mistaken(model: Model, entries: Sequence[CatalogueEntry]) -> str:
    """Why a stored model is not the entry that its origin or its name lets one expect, as a sentence; "" where nothing
    does, or it is."""
    if entry_of(model, entries) is not None:
        return ""
    if told := elsewise(model, entries):
        return told
    named = next((each for each in entries if _slug(each.name) == _slug(model.name)), None)
    if named is None:
        return ""
    why = _other(model, named) or "a name says nothing of what is in a file, and neither its hash nor its origin does"
    return f"it is called as {named.title} of the catalogue, whose scores are not taken for it: {why}"


def elsewise(model: Model, entries: Sequence[CatalogueEntry]) -> str:
    """How a model is not what the catalogue says of the repository that it came from, as a sentence."""
    found = [(each, why) for each in _from(model, entries) if (why := _other(model, each))]
    if not found or entry_of(model, entries) is not None:
        return ""
    entry, why = found[0]
    return f"it came from the repository of {entry.title}, and is not that: {why}"


def requantized(asked: str, model: Model) -> str:
    """How its header speaks of another quantisation than was asked for or its file is named by, as a sentence."""
    said = model.shape.quantization
    if not asked or not said or _kind(asked) == _kind(said):
        return ""
    return f"it is named {asked}, and its header says {said}"


def label(name: str) -> str:
    """The quantisation that a file's name says, as people write it; "" if it says none."""
    found = list(QUANT.finditer(name))
    return found[-1][0].upper().replace("FP16", "F16").replace("FP32", "F32") if found else ""


def _from(model: Model, entries: Sequence[CatalogueEntry]) -> list[CatalogueEntry]:
    hub = _HUB.match(model.origin)
    return [each for each in entries if hub and each.repo.lower() == hub[1].lower()]


def _other(model: Model, entry: CatalogueEntry) -> str:
    """In what a header differs from an entry; "" if in nothing that is known of both."""
    shape, header = model.shape, entry.header
    for what, mine, its in (
        ("architecture", shape.arch, header.get("architecture")),
        ("layers", shape.n_layer, header.get("block_count")),
        ("width", shape.n_embd, header.get("embedding_length")),
    ):  # fmt: skip
        if its and mine and mine != its:
            return f"its header says {what} {mine:.40}, where {its} is known" if what == "architecture" else (
                f"its header says {mine} for its {what}, where {its} is known"
            )  # fmt: skip
    if entry.params and not PARAMS[0] <= shape.n_params / entry.params <= PARAMS[1]:
        return f"it has {_millions(shape.n_params)} parameters, where {_millions(entry.params)} are known"
    size = sum(file.bytes for file in model.files)
    for file in entry.files:
        same = size and not file.computed and file.quantization == shape.quantization
        if same and not BYTES[0] <= size / file.bytes <= BYTES[1]:
            return f"it has {size} bytes in {file.quantization}, where {file.bytes} are known"
    return ""


def _millions(count: int) -> str:
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"


def _kind(quantization: str) -> tuple[str, ...] | str:
    """What of a name says how weights are kept: makers call the same mix by many names (UD-Q4_K_XL)."""
    found = _KIND.search(quantization.upper().replace("FP16", "F16").replace("FP32", "F32"))
    return tuple(each or "" for each in found.groups()) if found else quantization


@lru_cache(maxsize=4096)
def _slug(name: str) -> str:
    plain = name.lower()
    while (shorter := _BITS.sub("", plain)) != plain:
        plain = shorter
    return re.sub(r"[^a-z0-9]", "", plain)
