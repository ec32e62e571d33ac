"""One import's files, from what a person named to a version with its header: read, checked, copied and hashed.

Runs in a thread, knows no database: `Imports` gives it a folder to fill and takes what it found.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from core.catalog import beside as beside_it
from core.catalog import files, template
from core.catalog.references import LIVE, PREVIOUS
from core.catalog.shape import shape_of
from core.catalog.sizing import projector as towers
from core.catalog.tables import joint, object_of
from core.errors import BadModel, Conflict, Invalid
from core.nouns import ImportOptions, Model, ModelFile

Progress = Callable[[str, int, int], None]
"""State, bytes done and bytes in all; may raise to end it."""
Room = Callable[[int], Path]
"""Promises room for so many bytes and gives the folder to fill, which is not there yet; raises if there is none."""
Held = Callable[[int, str], bool]
"""Whether an object of so many bytes, with this hash if one is given, is in the store."""
DEFAULTS = {"temperature": (0.0, 5.0), "top_p": (0.0, 1.0), "top_k": (0.0, 1000.0), "min_p": (0.0, 1.0)}
"""What a version may be asked with where a request says nothing, with the least and the most."""
LABEL_CHARACTERS = 100
NOTES_CHARACTERS = 4000
HEADER_TEXT = 1000
"""Characters of a text of the header that are kept beside the version."""


class Stored(NamedTuple):
    """A file whose bytes are in the store: where, and their SHA-256."""

    path: Path
    sha256: str


class Vanished(Conflict):
    """What was in the store is not there any more, or elsewhere."""

    code = "vanished"

    def __init__(self) -> None:
        super().__init__("the stored bytes were moved or removed meanwhile", todo="say it again")


class Source(NamedTuple):
    """Where files come from. `expected`: the SHA-256 that the model must have, where it is known."""

    path: Path
    origin: str
    expected: str = ""
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()
    own: bool = False
    """They lie in a folder of Corral's own, where nobody writes to them: on the same disk none is copied."""
    licence: str = ""
    """The word of where it comes from, for a file that says none."""
    parts: tuple[str, ...] = ()
    """Names of the model's own files beside `path`; empty: what `path` names."""
    stored: Mapping[str, Stored] = MappingProxyType({})
    """By name, those of its files that are in the store: they are neither read in whole nor copied."""


class Taken(NamedTuple):
    """A version without its number, what its file says of itself, and its chat template. `held`: the objects that were
    found in the store and not copied."""

    model: Model
    header: dict[str, Any]
    template: str
    held: frozenset[str] = frozenset()


class Taking:
    """One import; `take` fills a folder with its files."""

    def __init__(self, name: str, source: Source, options: ImportOptions, now: float, by: str) -> None:
        self._name, self._source, self._options, self._now, self._by = name, source, options, now, by

    def take(self, room: Room, progress: Progress, held: Held) -> Taken:
        """Raises `BadModel`, `NotFound`, `NoRoom`, `Invalid`, and what `progress` raises."""
        check_options(self._options)
        source = self._source
        own = [source.path.with_name(name) for name in source.parts] or files.find_set(source.path)
        beside = [*((source.projector,) if source.projector else ()), *source.adapters]
        names = [each.name for each in (*own, *beside)]
        if len(set(names)) != len(names):
            raise Invalid("two of the files have the same name", "they lie in one folder", "rename one of them")
        with contextlib.ExitStack() as stack:
            fds = []
            for file in (*own, *beside):
                known = source.stored.get(file.name)
                if known and not known.path.exists():
                    raise Vanished
                fd = files.open_regular(known.path if known else file)
                stack.callback(os.close, fd)
                fds.append(fd)
            headers = [files.header_of(fd, name) for fd, name in zip(fds, names, strict=True)]
            mine, others = headers[: len(own)], headers[len(own) :]
            files.check_parts(mine)
            shape = shape_of(mine)
            if not shape.tensor_bytes:
                raise Invalid(f"{own[0].name} holds no tensors", "it is a vocabulary or an empty model")
            for n, (header, name) in enumerate(zip(others, names[len(own) :], strict=True)):
                if source.projector and n == 0:
                    beside_it.check_projector(header, name, shape)
                else:
                    beside_it.check_adapter(header, name, shape, mine)
            total = sum(header["bytes"] for header in headers)
            there = self._there([own, *([each] for each in beside)], fds, progress, held)
            need = sum(os.fstat(fd).st_size for fd, name in zip(fds, names, strict=True) if name not in there)
            work = Path()
            if need:
                work = room(need)
                work.mkdir(mode=0o700, parents=True)
            parts = _copy(fds, [*own, *beside], work, progress, there, taken=source.own)
        sha256 = object_of(parts[: len(own)])
        if source.expected and sha256 != source.expected:
            raise BadModel(
                "the file is not the one it should be",
                f"its SHA-256 is {sha256[:16]}… and {source.expected[:16]}… is expected",
                "get it again from where it came from",
            )
        progress("storing", total, total)
        meta = mine[0]["metadata"]
        found = meta.get("tokenizer.chat_template")
        text = self._options.template or (found if isinstance(found, str) else "")
        projector = parts[len(own)] if source.projector else None
        adapters = tuple(parts[len(own) + (projector is not None) :])
        licence = self._options.licence or meta.get("general.license") or source.licence
        model = Model(
            name=self._name,
            version=0,
            sha256=_identity(sha256, projector, adapters, self._options),
            files=tuple(parts[: len(own)]),
            bytes=total,
            shape=shape,
            licence=licence[:HEADER_TEXT] if isinstance(licence, str) else "",
            origin=source.origin,
            imported_at=self._now,
            imported_by=self._by,
            label=self._options.label,
            notes=self._options.notes,
            projector=projector,
            projector_graph=towers.graph_bytes(others[0]["metadata"], shape.n_embd) if projector else 0,
            projector_rules=towers.RULES if projector else 0,
            adapters=adapters,
            template_sha256=template.digest(text),
            own_template=bool(self._options.template),
            defaults=self._options.defaults,
            flags=template.flags(text),
        )
        kept = {sha256} if own[0].name in there else set()
        kept |= {part.sha256 for part in parts[len(own) :] if part.name in there}
        return Taken(model, kept_header(meta), text, frozenset(kept))

    def _there(
        self, objects: Sequence[Sequence[Path]], fds: Sequence[int], progress: Progress, held: Held
    ) -> dict[str, ModelFile]:
        """By name, the files whose objects are in the store. Where one of the same size is, a file that would have to
        be copied is hashed first: to read it twice costs less than room that is not there."""
        found: dict[str, ModelFile] = {}
        left = list(fds)
        for group in objects:
            mine, left = left[: len(group)], left[len(group) :]
            sizes = [os.fstat(fd).st_size for fd in mine]
            if all(file.name in self._source.stored for file in group):
                hashes = [self._source.stored[file.name].sha256 for file in group]
            elif self._source.own or not held(sum(sizes), ""):
                continue
            else:
                hashes = _hashed(mine, sizes, progress)
            parts = [
                ModelFile(name=file.name, bytes=size, sha256=sha256)
                for file, size, sha256 in zip(group, sizes, hashes, strict=True)
            ]
            if group[0].name in self._source.stored or held(sum(sizes), object_of(parts)):
                found |= {part.name: part for part in parts}
        return found


def check_options(options: ImportOptions) -> None:
    """Raises `Invalid` for what a version cannot have, before anything is read or fetched for it."""
    check_words(options.label, options.notes, options.licence)
    check_defaults(options.defaults)
    check_template(options.template)


def check_words(label: str | None, notes: str | None, licence: str = "") -> None:
    """Raises `Invalid` for a label, notes or a licence that no list could show."""
    for what, text, most in (
        ("label", label, LABEL_CHARACTERS), ("notes", notes, NOTES_CHARACTERS), ("licence", licence, HEADER_TEXT),
    ):  # fmt: skip
        if text is not None and len(text) > most:
            raise Invalid(f"the {what} is too long", f"it has {len(text)} characters, {most} are taken")
    if label in (LIVE, PREVIOUS):
        raise Invalid(f"{label!r} is no label that can be set", "it would be taken for the alias",
                      "move the alias: corral models alias NAME live N")  # fmt: skip
    if label is not None and label.isdecimal():
        raise Invalid(f"{label!r} is no label that can be set", "it would be taken for the number of a version")


def check_template(text: str) -> None:
    """Raises `Invalid`."""
    if len(text.encode()) > template.LARGEST:
        raise Invalid(
            "the chat template is too large",
            f"it has {len(text.encode()) >> 10} KiB, {template.LARGEST >> 10} are taken",
        )


def check_defaults(defaults: dict[str, float]) -> None:
    """Raises `Invalid` for what no engine takes."""
    for name, value in defaults.items():
        if name not in DEFAULTS:
            raise Invalid(
                f"{name[:40]!r} is nothing that a version has a default for", f"it may be {', '.join(DEFAULTS)}"
            )
        low, high = DEFAULTS[name]
        if not low <= value <= high:
            raise Invalid(f"{name} is {value}", f"it may be {low:g} to {high:g}")


def kept_header(meta: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a header to be shown and compared: long texts are cut and lists counted."""
    kept: dict[str, Any] = {}
    for key, value in meta.items():
        if key == "tokenizer.chat_template":
            continue
        if isinstance(value, str):
            kept[key] = value[:HEADER_TEXT]
        elif isinstance(value, list):
            kept[key] = value if len(value) <= 64 else {"count": len(value)}
        elif isinstance(value, float) and value != value:
            kept[key] = "nan"
        else:
            kept[key] = value
    return kept


def _identity(
    sha256: str, projector: ModelFile | None, adapters: Sequence[ModelFile], options: ImportOptions
) -> str:  # fmt: skip
    """The hash of a version: that of its files, and of what it is served with where that is something else."""
    beside = [projector.sha256] if projector else []
    beside += [each.sha256 for each in adapters]
    if options.template:
        beside.append(template.digest(options.template))
    if options.defaults:
        beside.append(msgspec.json.encode(options.defaults, order="sorted").decode())
    return joint([sha256, *beside]) if beside else sha256


def _hashed(fds: Sequence[int], sizes: Sequence[int], progress: Progress) -> list[str]:
    """The SHA-256 of each. Raises what `progress` does."""
    found, done = [], 0
    for fd in fds:
        digest, at = hashlib.sha256(), 0
        while data := os.pread(fd, files.CHUNK, at):
            digest.update(data)
            at += len(data)
            progress("hashing", done + at, sum(sizes))
        done += at
        found.append(digest.hexdigest())
    return found


def _copy(
    fds: Sequence[int], paths: Sequence[Path], work: Path, progress: Progress, there: Mapping[str, ModelFile], *,
    taken: bool,
) -> list[ModelFile]:  # fmt: skip
    """All files, those that are not `there` put into `work`."""
    parts: list[ModelFile] = []
    before = 0
    total = sum(os.fstat(fd).st_size for fd, path in zip(fds, paths, strict=True) if path.name not in there)
    for path, fd in zip(paths, fds, strict=True):
        if path.name in there:
            parts.append(there[path.name])
            continue
        progress("hashing", before, total)

        def told(done: int, before: int = before) -> None:
            progress("hashing", before + done, total)

        target = work / path.name
        digest = files.take_in(fd, path, target, told) if taken else files.copy_in(fd, target, told)
        size = os.fstat(fd).st_size
        parts.append(ModelFile(name=path.name, bytes=size, sha256=digest))
        before += size
    return parts
