"""In what two versions differ, for people who decide whether to go over: files, licence, header, template, words."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import msgspec

from core.nouns import Model, ModelFile, VersionDifference

_SHAPE = (
    "arch", "n_layer", "n_embd", "n_ff", "n_head", "n_vocab", "ctx_train", "n_swa", "n_params", "n_expert",
    "quantization", "tensor_bytes",
)  # fmt: skip
TEMPLATE_LINES = 200
"""Changed lines of a template that are shown."""


def between(
    old: Model, new: Model, old_said: tuple[dict[str, Any], str], new_said: tuple[dict[str, Any], str]
) -> list[VersionDifference]:
    """`…_said`: the kept header of each and its template."""
    found = [*_files(old, new)]
    found += _pair("size", "bytes", old.bytes, new.bytes)
    found += _pair("licence", "licence", old.licence, new.licence)
    for field in _SHAPE:
        found += _pair("shape", field, getattr(old.shape, field), getattr(new.shape, field))
    found += _pair("served with", "defaults", _json(old.defaults), _json(new.defaults))
    for key in sorted(old_said[0].keys() | new_said[0].keys()):
        kind = "tokenizer" if key.startswith("tokenizer.") else "header"
        found += _pair(kind, key, _json(old_said[0].get(key)), _json(new_said[0].get(key)))
    return found + _template(old_said[1], new_said[1])


def _pair(kind: str, what: str, old: object, new: object) -> list[VersionDifference]:
    if old == new:
        return []
    return [VersionDifference(kind=kind, what=what, old=_text(old), new=_text(new))]


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _json(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if value != {} else None


def _files(old: Model, new: Model) -> Iterator[VersionDifference]:
    def named(model: Model) -> dict[str, ModelFile]:
        whole = {f"part {n}" if len(model.files) > 1 else "model": part for n, part in enumerate(model.files, 1)}
        whole |= {"projector": model.projector} if model.projector else {}
        return whole | {f"adapter {n}": part for n, part in enumerate(model.adapters, 1)}

    before, after = named(old), named(new)
    for what in dict.fromkeys([*before, *after]):
        one, other = before.get(what), after.get(what)
        if (one and one.sha256) != (other and other.sha256):
            yield VersionDifference(
                kind="files", what=what, old=_file(one) if one else None, new=_file(other) if other else None
            )


def _file(part: ModelFile) -> str:
    return f"{part.name} {part.bytes} bytes sha256:{part.sha256[:16]}"


def _template(old: str, new: str) -> list[VersionDifference]:
    """The changed lines, as `diff -u` shows them."""
    if old == new:
        return []
    if not old or not new:
        return [VersionDifference(kind="template", what="chat template", old=old or None, new=new or None)]
    lines = [
        line
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    gone = [line[1:] for line in lines if line.startswith("-")][:TEMPLATE_LINES]
    come = [line[1:] for line in lines if line.startswith("+")][:TEMPLATE_LINES]
    return [
        VersionDifference(
            kind="template", what="chat template", old="\n".join(gone) or None, new="\n".join(come) or None
        )
    ]
