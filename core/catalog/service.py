"""The catalog: names, their versions and aliases, and the files behind them."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from core.access import Gate
from core.catalog import agreed, differences, files, references, tables, template
from core.catalog.collecting import Collecting
from core.catalog.corrections import Corrections
from core.catalog.imports import Imports
from core.catalog.objects import Objects
from core.catalog.references import LIVE, PREVIOUS, Reference
from core.catalog.shape import shape_of
from core.catalog.sizing import projector as towers
from core.catalog.taking import check_words, kept_header
from core.catalog.tiers import Demoting, Loads, Moves, Tiers
from core.catalog.uploads import IDLE_S
from core.catalog.uses import Use, Uses
from core.catalog.verifying import Verifying
from core.errors import Conflict, CorralError, NotFound, missing
from core.events import Bus
from core.nouns import Actor, AliasMoved, Model, ModelChange, ModelFile, ModelShape, TierDetail, VersionDifference
from core.paths import Paths
from core.store import Store

log = logging.getLogger(__name__)


class Serving(NamedTuple):
    """What an engine is started with for a version: paths of files, and a chat template in place of the file's own."""

    model: Model
    path: str
    projector: str
    adapters: tuple[str, ...]
    template: str


def unusable(model: Model) -> Conflict | None:
    """Why a version cannot be served now, and what to do; None for one that can."""
    anew = f"import or pull it again as {model.name}, or name another version: corral models versions {model.name}"
    back = f"mount it (corral tiers check {model.tier}), or name another version: corral models versions {model.name}"
    if model.state == "stored":
        return None
    why, todo = {
        "quarantined": ("its bytes are not what they were and were set aside", anew),
        "missing": ("its file is gone", anew), "away": (f"the tier {model.tier} is not there", back),
    }.get(model.state, (f"it is {model.state}", f"see `corral models versions {model.name}`"))  # fmt: skip
    return Conflict(f"{model.reference} cannot be served now", why, todo)


class Catalog:
    """Models by name and version. `close` cancels running imports."""

    def __init__(
        self, store: Store, gate: Gate, paths: Paths, bus: Bus, *, clock: Callable[[], float] = time.time,
        idle_s: float = IDLE_S, uses: Callable[[sqlite3.Connection], list[Use]] = lambda db: [],
        engines: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        """`engines`: uid and gid of the account that opens models, where that is another one."""
        self._store, self._gate, self._paths, self._bus, self._clock = store, gate, paths, bus, clock
        self._uses = Uses(uses)
        self.objects = Objects(paths.models)
        self.on_moved: Callable[[], Awaitable[None]] | None = None
        """Awaited when a name or an alias may mean another version."""
        self.collecting = Collecting(store, gate, self.objects, self._uses, clock=clock, tell=self.tell)
        self.corrections = Corrections(store, gate, clock=clock)
        self.tiers = Tiers(store, gate, self.objects, paths, bus, clock=clock, engines=engines, tell=self.tell)
        self.moves = Moves(
            store, gate, self.objects, self.tiers, bus, clock=clock, uses=self._uses, tell=self.tell
        )  # fmt: skip
        self.demoting = Demoting(store, gate, self.tiers, self.moves, clock=clock, uses=self._uses)
        self.verifying = Verifying(
            store, gate, self.objects, self.tiers, self._uses, bus, clock=clock, tell=self.tell
        )  # fmt: skip
        self.loads = Loads(store, self.objects, clock)
        self.imports = Imports(
            store, gate, self.objects, self.tiers, bus, clock=clock, idle_s=idle_s, tell=self.tell
        )  # fmt: skip

    async def start(self) -> None:
        """Remove what imports and moves of a dead daemon left behind, and read the headers that an older program did
        not keep."""
        await self.tiers.start()
        await self._complete()
        await self._projectors()
        await self.corrections.refresh()
        await self.verifying.resume()

    async def close(self) -> None:
        await self.verifying.close()
        await self.moves.close()
        await self.imports.close()
        self.tiers.close()

    # ---------------------------------------------------------------------------------------- what is there

    async def ls(self) -> list[Model]:
        """What each name means, by name."""
        return await self._store.read(tables.live)

    async def all(self) -> list[Model]:
        """Every version of every name."""
        return await self._store.read(tables.versions)

    async def get(self, wanted: str) -> Model:
        """A version by what a person calls it. Raises `NotFound`, `Invalid`."""
        meant = references.split(wanted)
        return await self._store.read(lambda db: tables.find(db, meant))

    async def versions(self, name: str) -> list[Model]:
        """All of a name, by number. Raises `NotFound`."""
        return await self._store.read(lambda db: tables.versions(db, name))

    async def history(self, name: str, limit: int = 200) -> list[ModelChange]:
        """What happened to a name, newest first. Raises `NotFound` for one that never was."""
        found = await self._store.read(lambda db: tables.changes(db, name, limit))
        if not found:
            raise missing("model", name)
        return found

    async def lost(self, model: Model) -> tuple[float, str]:
        """When the bytes of a version were last found rotten or gone (UTC seconds), and which (`quarantined`,
        `missing`); 0 and "": never. They may be whole again."""
        return await self._store.read(lambda db: tables.lost(db, model))

    async def template(self, model: Model) -> str:
        """The chat template that a version is served with; "" for none."""
        return (await self._store.read(lambda db: tables.said(db, model)))[1]

    async def pools(self, model: Model) -> bool:
        """Whether its file says how its embeddings come of those of its tokens; also where no header is known. Without
        that llama.cpp has none for a text as a whole."""
        header = (await self._store.read(lambda db: tables.said(db, model)))[0]
        return not header or bool(header.get(f"{model.shape.arch}.pooling_type"))

    async def diff(self, old: Model, new: Model) -> list[VersionDifference]:
        """In what two versions differ."""
        said = await self._store.read(lambda db: (tables.said(db, old), tables.said(db, new)))
        return differences.between(old, new, *said)

    async def tier_detail(self, name: str, sees: Callable[[Model], bool]) -> TierDetail:
        """A tier and what lies in it, as far as the asker sees it. Raises `NotFound`."""
        await self.tiers.look(name)
        tier = await self.tiers.get(name)
        return TierDetail(tier=tier, models=tuple(await self.loads.of_tier(name, sees)))

    def path(self, model: Model) -> str:
        """The file that an engine opens (the first part of a split model)."""
        return str(self.objects.path(model))

    async def serving(self, wanted: str) -> Serving:
        """What a version is served with. Raises `NotFound`, and `Conflict` for one whose bytes are not there."""
        model = await self.get(wanted)
        lying = await self._store.read(lambda db: tables.lying(db, tables.objects_of(model)))
        for tier in sorted(set(lying.values())):
            if await self.tiers.here(tier):
                model = await self.get(model.reference)
        self._usable(model)
        template = await self.template(model) if model.own_template else ""

        def beside(part: ModelFile) -> str:
            return str(self.objects.place(part.sha256, lying[part.sha256]))

        projector = beside(model.projector) if model.projector else ""
        adapters = tuple(map(beside, model.adapters))
        return Serving(model, self.path(model), projector, adapters, template)

    # ---------------------------------------------------------------------------------------- change

    async def alias(
        self, actor: Actor, request: str, name: str, alias: str, to: str, *, move: bool = True, seen: int | None = None
    ) -> AliasMoved:
        """Have `alias` mean the version `to` (`3`, `canary`, `previous`, `sha256:…`); without `move` only tell what
        that would touch. Raises `NotFound`, `Invalid`; `Changed` where it means another version than `seen` (0: none)
        by now."""
        references.check_alias(alias)
        meant = references.of(name, to)

        def asked(db: sqlite3.Connection) -> AliasMoved:
            model = tables.find(db, meant)
            before = tables.aliases(db, name).get(alias)
            wanted = {Reference(name, alias)} | ({Reference(name, PREVIOUS)} if alias == LIVE else set())
            touched = [
                use.deployment
                for use in self._uses.all(db)
                if references.split(use.wants) in wanted
                and (references.split(use.wants).alias != alias or use.version != model.version)
            ]
            return AliasMoved(
                model=name, alias=alias, version=model.version, before=before, touches=tuple(sorted(touched)),
                moved=False,
            )  # fmt: skip

        if not move:
            return await self._store.read(asked)

        def work(db: sqlite3.Connection) -> tuple[AliasMoved, object, object]:
            told = asked(db)
            agreed.alias(f"{name}:{alias}", seen, told.before, told.version)
            self._usable(tables.find(db, Reference(name, version=told.version)))
            tables.move(db, name, alias, told.version, self._clock(), actor.name)
            return (
                msgspec.structs.replace(told, moved=told.before != told.version),
                {"alias": alias, "version": told.before}, {"alias": alias, "version": told.version},
            )  # fmt: skip

        found = await self._gate.act(actor, "models.alias", f"model:{name}", request, work)
        await self.tell(name)
        return found

    async def drop_alias(self, actor: Actor, request: str, name: str, alias: str) -> None:
        """Take an alias away. Raises `NotFound`; `Conflict` for the one that the bare name means, and naming the
        deployments that want it."""

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            before = tables.aliases(db, name).get(alias)
            if alias == LIVE and before is not None:
                raise Conflict(
                    f"{name}:{LIVE} stays", f"it is what {name} means", f"move it: corral models alias {name} live N"
                )
            wanting = [
                use.deployment for use in self._uses.all(db) if references.split(use.wants) == (name, alias, 0, "")
            ]
            if wanting:
                raise Conflict(f"{name}:{alias} is in use", f"by {', '.join(wanting)}", "deploy these otherwise first")
            tables.drop_alias(db, name, alias, self._clock(), actor.name)
            return None, {"alias": alias, "version": before}, {"alias": alias, "version": None}

        await self._gate.act(actor, "models.alias", f"model:{name}", request, work)
        await self.tell(name)

    async def note(
        self, actor: Actor, request: str, wanted: str, *, label: str | None = None, notes: str | None = None
    ) -> Model:
        """Give a version a label or notes; None leaves what is there."""
        meant = references.split(wanted)
        check_words(label, notes)
        told = {key: value for key, value in (("label", label), ("notes", notes)) if value is not None}

        def work(db: sqlite3.Connection) -> tuple[Model, object, object]:
            old = tables.find(db, meant)
            new = msgspec.structs.replace(old, **told)
            tables.change(db, new)
            return new, {key: getattr(old, key) for key in told}, {"version": old.version, **told}

        found = await self._gate.act(
            actor, "models.note", f"model:{meant.name}", request, work, permission="models.alias"
        )
        await self.tell(meant.name)
        return found

    async def rm(
        self, actor: Actor, request: str, wanted: str, *, seen: Sequence[str] | None = None
    ) -> list[Model]:  # fmt: skip
        """Remove a name with all its versions, or the one version that `chat@3` names; what was removed. Raises
        `Conflict` naming the deployments and aliases that need it; `Changed` where that is not what was `seen`
        (`chat@3`)."""
        meant = references.split(wanted)
        whole = wanted == meant.name
        if not whole and meant.alias:
            raise Conflict(
                f"{meant} is an alias", "what it means is removed by its number",
                f"corral models alias {meant.name} {meant.alias} --rm takes the alias away",
            )  # fmt: skip

        def work(db: sqlite3.Connection) -> tuple[tuple[list[Model], list[tuple[str, str]]], object, object]:
            gone = tables.versions(db, meant.name) if whole else [tables.find(db, meant)]
            agreed.to_go(seen, [model.reference for model in gone])
            for model in gone:
                self._unneeded(db, model, aliases=not whole and model.versions > 1)
            free = [each for model in gone for each in tables.drop(db, model, self._clock(), actor.name)]
            return (gone, free), [{"version": m.version, "sha256": m.sha256, "bytes": m.bytes} for m in gone], None

        async with self.objects.lock:
            gone, free = await self._gate.act(actor, "models.rm", f"model:{meant.name}", request, work)
            for sha256, tier in free:
                await asyncio.to_thread(self.objects.remove, sha256, tier)
        await self.tell(meant.name)
        return gone

    def _unneeded(self, db: sqlite3.Connection, model: Model, *, aliases: bool) -> None:
        """Raises `Conflict` naming what needs a version."""
        if users := self._uses.names(db, model):
            raise Conflict(
                f"model {model.reference if model.versions > 1 else model.name} is in use", f"by {', '.join(users)}",
                "deploy these with another version (corral deploy MODEL@N --name NAME --replace), or remove them",
            )  # fmt: skip
        if aliases and model.aliases:
            raise Conflict(
                f"{model.reference} is needed", tables.meaning(model), "have that mean another version first"
            )

    def _usable(self, model: Model) -> None:
        """Raises `Conflict` for a version that could not be served."""
        if refusal := unusable(model):
            raise refusal

    async def tell(self, name: str) -> None:
        """Have those who watch see what the name means now."""
        if self.on_moved is not None:
            await self.on_moved()
        try:
            self._bus.publish("model", f"model:{name}", await self.get(name))
        except NotFound:
            self._bus.publish("model.gone", f"model:{name}")

    # ---------------------------------------------------------------------------------------- older programs

    async def _complete(self) -> None:
        """Versions of a program that kept no header and no template, or knew less of a shape, get them."""
        sql = (
            "SELECT model, version FROM model_versions WHERE header = '{}'"
            " OR json_extract(data, '$.shape.base_bytes') IS NULL"
        )
        for name, version in await self._store.read(lambda db: db.execute(sql).fetchall()):
            model = await self.get(f"{name}@{version}")
            try:
                header, text, shape = await asyncio.to_thread(self._read_again, model)
            except (CorralError, OSError) as error:
                log.warning("the header of %s could not be read again: %s", model.reference, error)
                continue
            whole = msgspec.structs.replace(model, shape=shape)
            if model.own_template:
                text = await self.template(model)
            else:
                whole = msgspec.structs.replace(
                    whole, template_sha256=template.digest(text), flags=template.flags(text)
                )
            await self._store.transact(lambda db, m=whole, h=header, t=text: tables.complete(db, m, h, t))  # type: ignore[misc]

    def _read_again(self, model: Model) -> tuple[dict[str, object], str, ModelShape]:
        first, headers = self.objects.path(model), []
        for file in model.files:
            fd = files.open_regular(first if len(model.files) == 1 else first.with_name(file.name))
            try:
                headers.append(files.header_of(fd, file.name))
            finally:
                os.close(fd)
        meta = headers[0]["metadata"]
        text = meta.get("tokenizer.chat_template", "")
        return kept_header(meta), text if isinstance(text, str) else "", shape_of(headers)

    async def _projectors(self) -> None:
        """What projectors take beside their files is read again where sizing knew less of them, or nothing."""
        sql = (
            "SELECT model, version FROM model_versions WHERE json_extract(data, '$.projector') IS NOT NULL"
            " AND ifnull(json_extract(data, '$.projector_rules'), 0) < ?"
        )
        for name, version in await self._store.read(lambda db: db.execute(sql, (towers.RULES,)).fetchall()):
            model = await self.get(f"{name}@{version}")
            assert model.projector is not None
            try:
                header = await asyncio.to_thread(_header, (await self.serving(model.reference)).projector)
            except (CorralError, OSError) as error:
                log.warning("the projector of %s could not be read again: %s", model.reference, error)
                continue
            whole = msgspec.structs.replace(
                model, projector_graph=towers.graph_bytes(header["metadata"], model.shape.n_embd),
                projector_rules=towers.RULES,
            )  # fmt: skip
            await self._store.transact(lambda db, m=whole: tables.change(db, m))  # type: ignore[misc]


def _header(path: str) -> dict[str, Any]:
    """Raises `BadModel`, OSError."""
    fd = files.open_regular(Path(path))
    try:
        return files.header_of(fd, Path(path).name)
    finally:
        os.close(fd)
