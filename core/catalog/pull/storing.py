"""The end of a pull: its files become a version of the catalog's, with the name and the origin that it has."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.catalog.imports import name_from
from core.catalog.pull.rows import Row
from core.catalog.pull.source import Hub, Source
from core.catalog.references import LIVE
from core.catalog.service import Catalog
from core.catalog.tables import object_of
from core.catalog.taking import Source as Files
from core.catalog.taking import Stored, Vanished
from core.catalog.tiers import Reservation
from core.errors import Failed, from_body
from core.nouns import Model, ModelFile, PullFile


async def stored(
    catalog: Catalog, row: Row, folder: Path, space: Reservation | None, places: Mapping[str, Stored]
) -> Model:
    """The version that the complete files in `folder` become, and those that lie in the store (`places`), by an import,
    which checks all that any is checked for. Cancelled, it leaves nothing. Raises why it failed; `Vanished` where what
    lay in the store does no more."""
    if any(file.stored and file.name.rpartition("/")[2] not in places for file in row.pull.files):
        raise Vanished
    own = [
        ModelFile(name=file.name, bytes=file.bytes, sha256=file.sha256) for file in row.pull.files if not file.kind
    ]  # fmt: skip
    beside = [folder / file.name.rpartition("/")[2] for file in row.pull.files if file.kind == "projector"]
    files = Files(
        folder / own[0].name.rpartition("/")[2], origin_of(row), object_of(own), own=True,
        projector=beside[0] if beside else None, licence=row.pull.licence, stored=places,
        parts=tuple(file.name.rpartition("/")[2] for file in own),
    )  # fmt: skip
    job = await catalog.imports.start(row.actor, row.request, files, row.pull.name, row.options, space=space)
    try:
        done = await catalog.imports.ended(job.id)
    except asyncio.CancelledError:
        await catalog.imports.cancel(job.id)
        done = await catalog.imports.ended(job.id)  # however long its disk takes: what comes of it is not known before
        task = asyncio.current_task()
        if done.model is None or task is None:
            raise
        task.uncancel()  # it came too late: the model is there
    if done.model is None:
        if done.error is not None and done.error.code == Vanished.code:
            raise Vanished
        if done.error is not None and (same := done.error.details.get("same")) and row.pull.deploy is not None:
            model = await catalog.get(same)  # what it is to be deployed of: who repeats his command wants that
            if not row.options.live or LIVE in model.aliases:
                return model
        raise from_body(done.error) if done.error is not None else Failed(f"the import was {done.state}")
    return done.model


async def there(catalog: Catalog, row: Row) -> Model | None:
    """The version, where the daemon before ended between storing it and saying so."""
    sha256s = [file.sha256 for file in row.pull.files if not file.kind]
    for model in await catalog.all():
        same = model.name == row.pull.name and [file.sha256 for file in model.files] == sha256s
        if same and model.imported_at >= row.pull.started_at and model.origin == origin_of(row):
            return model
    return None


async def made_of(catalog: Catalog, name: str, files: Sequence[PullFile]) -> Model | None:
    """The version of a name that is made of just these files, as far as their hashes are known beforehand."""
    sha256s = [file.sha256 for file in files]
    for model in await catalog.all():
        own = [*model.files, *([model.projector] if model.projector else [])]
        plain = model.name == name and not model.adapters and not model.own_template
        if plain and [file.sha256 for file in own] == sha256s:
            return model
    return None


def origin_of(row: Row) -> str:
    """What the version says of where it came from."""
    pull = row.pull
    if not pull.revision:
        return pull.source
    wanted = "" if ":" in pull.source.removeprefix("hf:") else f":{row.handle}"
    return f"{pull.source.partition('@')[0]}{wanted}@{pull.revision}"


def name_of(source: Source) -> str:
    """The name of the model, where nobody says one: the repository's, or the file's."""
    if isinstance(source, Hub):
        return name_from(Path(re.sub(r"[-_.]gguf$", "", source.repo.partition("/")[2], flags=re.IGNORECASE)))
    return name_from(Path(source.name))
