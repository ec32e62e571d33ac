"""Routes of models: versions, aliases, imports, what they need; the files behind them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from core.access import Gate
from core.api.fits import point_to_catalogue
from core.api.server import Call, Server
from core.api.sight import Sight
from core.catalog import Catalog, sizing
from core.catalog.taking import Source
from core.deployments.service import Deployments
from core.engines.base import EngineRegistry
from core.errors import Invalid, NotFound
from core.nouns import DeploymentSpec, ImportOptions

MODEL = "model:{name}"
MOST_GPUS = 64


class ImportBody(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    name: str | None = None
    options: ImportOptions = ImportOptions()
    projector: str = ""
    adapters: list[str] = []


class NameBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None


class UploadFile(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    bytes: int


class UploadBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None
    files: list[UploadFile]
    options: ImportOptions = ImportOptions()
    projector: str = ""
    adapters: list[str] = []


class AliasBody(msgspec.Struct, forbid_unknown_fields=True):
    to: str
    """What it shall mean: a number, an alias, or sha256: and a hash."""
    move: bool = True
    """False: only tell what moving it would touch."""
    seen: int | None = None
    """The version that it meant when somebody was asked (0: none); None: nobody was."""


class NoteBody(msgspec.Struct, forbid_unknown_fields=True):
    label: str | None = None
    notes: str | None = None


class GcBody(msgspec.Struct, forbid_unknown_fields=True):
    dry_run: bool = False
    older_than_days: float = 0
    seen: list[str] | None = None
    """What was shown to go when somebody was asked; None: nobody was."""


class RemoveBody(msgspec.Struct, forbid_unknown_fields=True):
    seen: list[str] | None = None
    """The versions that were shown, as above."""


class VerifyBody(msgspec.Struct, forbid_unknown_fields=True):
    models: list[str] = []
    """None: all."""


def add_models(
    server: Server, catalog: Catalog, deployments: Deployments, engines: EngineRegistry, gate: Gate,
    sight: Callable[[Call], Sight], owner_uid: int, own: Path,
) -> None:  # fmt: skip
    """Declare them; `own` is the folder of the user's own entries of the catalogue."""
    _read(server, catalog, sight)
    _imports(server, catalog, gate, sight, owner_uid)
    _changes(server, catalog)

    async def fit(call: Call) -> Any:
        spec = await call.body(DeploymentSpec)
        try:
            gate.require(call.actor, "models.read", f"model:{spec.model_name}")
            return await deployments.plan(spec, _gpus(call))
        except NotFound as error:
            await point_to_catalogue(error, spec.model_name, deployments, own)
            raise

    async def all_engines(call: Call) -> Any:
        return [{"name": name, **msgspec.to_builtins(engines.get(name).availability())} for name in engines.names]

    server.add("POST", "/fit", "models.read", fit)
    server.add("GET", "/engines", "models.read", all_engines)


def _gpus(call: Call) -> sizing.Gpus | None:
    """The GPUs that the query asks a plan over: bytes free of each, and how the layers are split. Raises `Invalid`."""
    told = call.text("gpus")
    if not told:
        return None
    free = told.split(",")
    if len(free) > MOST_GPUS or not all(re.fullmatch(r"[0-9]{1,15}", each) for each in free):
        raise Invalid("the GPUs are not understood", f"gpus is 1 to {MOST_GPUS} numbers of bytes, with commas between")
    layers, moe = (call.whole(key, -1, -1, 1 << 16) for key in ("gpu_layers", "cpu_moe"))
    return sizing.Gpus(tuple(map(int, free)), layers if layers >= 0 else None, moe if moe >= 0 else None)


def _of(call: Call, which: str = "of") -> str:
    """The version that a route's name and its query mean: `chat@3`."""
    return call.path("name") + (call.text(which) or "")


def _read(server: Server, catalog: Catalog, sight: Callable[[Call], Sight]) -> None:
    async def ls(call: Call) -> Any:
        return sight(call).models(await (catalog.all() if call.whole("versions", 0) else catalog.ls()))

    async def names(call: Call) -> list[str]:
        return [model.name for model in sight(call).models(await catalog.ls())]

    async def one(call: Call) -> Any:
        return await catalog.get(_of(call))

    async def versions(call: Call) -> Any:
        return await catalog.versions(call.path("name"))

    async def history(call: Call) -> Any:
        return await catalog.history(call.path("name"), call.whole("limit", 200, 1, 10_000))

    async def template(call: Call) -> dict[str, Any]:
        model = await catalog.get(_of(call))
        return {
            "model": model.name, "version": model.version, "sha256": model.template_sha256, "flags": model.flags,
            "template": await catalog.template(model),
        }  # fmt: skip

    async def diff(call: Call) -> Any:
        return await catalog.diff(await catalog.get(_of(call, "old")), await catalog.get(_of(call, "new")))

    server.names["model"] = names
    server.add("GET", "/models", "models.read", ls)
    server.add("GET", "/models/{name}", "models.read", one, on=MODEL)
    server.add("GET", "/models/{name}/versions", "models.read", versions, on=MODEL)
    server.add("GET", "/models/{name}/history", "models.read", history, on=MODEL)
    server.add("GET", "/models/{name}/template", "models.read", template, on=MODEL)
    server.add("GET", "/models/{name}/diff", "models.read", diff, on=MODEL)


def _imports(
    server: Server, catalog: Catalog, gate: Gate, sight: Callable[[Call], Sight], owner_uid: int
) -> None:  # fmt: skip
    imports = catalog.imports

    async def start(call: Call) -> Any:
        body = await call.body(ImportBody)
        if call.actor.uid != owner_uid:
            raise Invalid(
                "the daemon does not open files that another user names",
                f"it runs as uid {owner_uid} and you are uid {call.actor.uid}",
                "`corral models import` reads the file itself and sends it",
            )
        source = Source(
            Path(body.path), origin=body.path, projector=Path(body.projector) if body.projector else None,
            adapters=tuple(map(Path, body.adapters)),
        )  # fmt: skip
        return await imports.start(call.actor, call.request, source, body.name, body.options)

    async def sample(call: Call) -> Any:
        body = await call.body(NameBody)
        return await imports.start_sample(call.actor, call.request, body.name)

    async def upload(call: Call) -> Any:
        body = await call.body(UploadBody)
        return await imports.start_upload(
            call.actor, call.request, body.name, [(each.name, each.bytes) for each in body.files], body.options,
            projector=body.projector, adapters=body.adapters,
        )  # fmt: skip

    async def write(call: Call) -> Any:
        await imports.write(call.actor, call.path("id"), int(call.path("n")), call.http.content.iter_chunked(1 << 20))
        return imports.job(call.path("id"))

    async def job(call: Call) -> Any:
        found = imports.job(call.path("id"))
        if not sight(call).job(found):
            raise NotFound(f"no import {call.path('id')!r}")
        return found

    async def cancel(call: Call) -> Any:
        found = imports.job(call.path("id"))
        gate.require(call.actor, "models.import", f"model:{found.name}")
        await imports.cancel(call.path("id"))
        return imports.job(call.path("id"))

    server.add("POST", "/models", "models.import", start)
    server.add("POST", "/models/sample", "models.import", sample)
    server.add("POST", "/models/upload", "models.import", upload)
    server.add("PUT", "/imports/{id}/files/{n:[0-9]{1,9}}", "models.import", write)
    server.add("GET", "/imports/{id}", "models.read", job)
    server.add("DELETE", "/imports/{id}", "models.import", cancel)


def _changes(server: Server, catalog: Catalog) -> None:
    async def alias(call: Call) -> Any:
        body = await call.body(AliasBody)
        return await catalog.alias(
            call.actor, call.request, call.path("name"), call.path("alias"), body.to, move=body.move, seen=body.seen
        )

    async def drop_alias(call: Call) -> dict[str, str]:
        await catalog.drop_alias(call.actor, call.request, call.path("name"), call.path("alias"))
        return {"removed": f"{call.path('name')}:{call.path('alias')}"}

    async def note(call: Call) -> Any:
        body = await call.body(NoteBody)
        return await catalog.note(call.actor, call.request, _of(call), label=body.label, notes=body.notes)

    async def remove(call: Call) -> dict[str, Any]:
        body = await call.body(RemoveBody)
        gone = await catalog.rm(call.actor, call.request, _of(call), seen=body.seen)
        return {"removed": call.path("name"), "versions": [model.version for model in gone]}

    async def gc(call: Call) -> Any:
        body = await call.body(GcBody)
        if body.older_than_days < 0:
            raise Invalid(f"older_than_days is {body.older_than_days}", "it may be 0 or more")
        return await catalog.collecting.gc(
            call.actor, call.request, dry_run=body.dry_run, older_than_s=body.older_than_days * 86400, seen=body.seen
        )

    async def verify(call: Call) -> Any:
        body = await call.body(VerifyBody)
        return await catalog.verifying.start(call.actor, call.request, body.models)

    async def verified(call: Call) -> Any:
        return await catalog.verifying.last(call.actor)

    async def cancel(call: Call) -> Any:
        return await catalog.verifying.cancel(call.actor, call.request)

    server.add("PUT", "/models/{name}/aliases/{alias}", "models.alias", alias, on=MODEL)
    server.add("DELETE", "/models/{name}/aliases/{alias}", "models.alias", drop_alias, on=MODEL)
    server.add("PATCH", "/models/{name}", "models.alias", note, on=MODEL)
    server.add("DELETE", "/models/{name}", "models.rm", remove, on=MODEL)
    server.add("POST", "/gc", "models.gc", gc)
    server.add("POST", "/verify", "models.verify", verify)
    server.add("GET", "/verify", "models.read", verified)
    server.add("DELETE", "/verify", "models.verify", cancel)
