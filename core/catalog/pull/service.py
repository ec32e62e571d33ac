"""Pulls: jobs that outlive terminal and daemon, and end with a model in the catalog or with nothing.

What is wanted is a row in the database, what is here lies in `pulls/ID` beside the objects; a daemon that starts goes
on with both. A hub's token is in this process's memory alone.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from core.access import Gate
from core.catalog.identity import label
from core.catalog.pull import choice, rows
from core.catalog.pull.deploying import Deployer, cells, deploy_of
from core.catalog.pull.find import Ask, Finder, Found, Place, check_secret, place
from core.catalog.pull.rows import Row, replaced
from core.catalog.pull.running import RUNNING, Running
from core.catalog.pull.shelf import Shelf
from core.catalog.pull.source import Hub, parse
from core.catalog.pull.storing import made_of, name_of
from core.catalog.references import check_name
from core.catalog.service import Catalog
from core.catalog.taking import check_options
from core.errors import Conflict, CorralError, Invalid, NeedsToken, NotAllowed
from core.events import Bus
from core.nouns import NO_OPTIONS, PULL_ENDED, Actor, ImportOptions, Pull, PullChoice, PulledDeploy, PullPlan
from core.paths import Paths
from core.settings import PullTable
from core.store import Store

UNDER_WAY = 100
"""Pulls that are not over, at most."""


class Pulls:
    """All pulls. `plan` and `left` are the deployments' word on memory (core.catalog.pull.find)."""

    def __init__(
        self, store: Store, gate: Gate, catalog: Catalog, paths: Paths, bus: Bus, settings: Callable[[], PullTable], *,
        plan: choice.Planner, left: Callable[[], Awaitable[int]], deployer: Deployer,
        who: Callable[[Actor], Awaitable[Actor]], clock: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ, wait: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._store, self._gate, self._settings, self._clock = store, gate, settings, clock
        self._catalog, self._deployer = catalog, deployer

        def shelf(actor: Actor, public: bool) -> Shelf:
            return Shelf(store, gate, catalog.objects, actor, public=public)

        self._finder = Finder(plan, left, catalog.tiers.room, shelf, environ)
        self._running = Running(
            store, gate, catalog, bus, settings, self._finder, deployer=deployer, who=who, clock=clock, wait=wait
        )
        self._admitting = asyncio.Lock()

    async def start(self) -> None:
        """Go on with what a daemon before left; what nobody wants any more goes."""
        await self._running.start()

    async def close(self) -> None:
        """End what runs; the next daemon goes on with it."""
        await self._running.close()

    async def mend(self) -> None:
        """Go on with what stopped because the disk took no record."""
        await self._running.mend()

    def follow(self) -> None:
        """Obey the settings in force."""
        self._running.schedule()

    # ---------------------------------------------------------------------------------------- what is there

    def ls(self) -> list[Pull]:
        """The oldest first."""
        return [row.pull for row in self._running.rows.values()]

    def get(self, id: str) -> Pull:
        """Raises `NotFound`."""
        return self._running.row(id).pull

    async def plan(self, actor: Actor, request: str, source: str, *, secret: str, endpoint: str, ctx: int) -> PullPlan:
        """What a source has, what of it fits, and what would be chosen; nothing is stored."""
        return (await self._find(actor, request, source, None, secret, endpoint, ctx, ""))[1].plan

    # ---------------------------------------------------------------------------------------- verbs

    async def begin(
        self, actor: Actor, request: str, source: str, *, name: str | None, secret: str, endpoint: str, ctx: int = 0,
        limit: int = 0, sha256: str = "", options: ImportOptions = NO_OPTIONS, projector: str = "",
        deploy: PulledDeploy | None = None,
    ) -> Pull:  # fmt: skip
        """Begin to pull, and `deploy` it when it is here; what cannot be is refused before the first byte. Raises
        whatever is wrong."""
        if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Invalid("--sha256 is no SHA-256", "it has 64 hex digits", "copy it from whoever publishes the file")
        if sha256 and isinstance(parse(source)[0], Hub):
            raise Invalid("--sha256 is for an address", "a hub says itself what its files are", "leave it out")
        if deploy is not None:
            await self._may_deploy(actor, request, deploy, name or name_of(parse(source)[0]))
            ctx = ctx or cells(deploy.spec)
        ask, found, where = await self._find(actor, request, source, name, secret, endpoint, ctx, sha256)
        chosen = choice.chosen(found.plan.choices, str(ask.source), found.others)
        if projector:
            beside = choice.projector(found.plan.projectors, projector)
            chosen = msgspec.structs.replace(
                chosen, files=(*chosen.files, beside), bytes=chosen.bytes + beside.bytes
            )  # fmt: skip
        named = name or name_of(ask.source)
        if deploy is not None and not await made_of(self._catalog, named, chosen.files):
            await self._deployer.foresee(deploy.spec, replace=deploy.replace)  # here it would be another one's
        shelf = self._finder.shelf(ask, where, gated=found.gated)
        async with self._admitting:
            await self._admit(actor, request, named, str(ask.source), chosen, options)
            files, id = await shelf.marked(chosen.files), secrets.token_hex(4)
            fetched = await shelf.why_not(files)
            tier, notes = await self._running.ground.find(id, named, files)
            pull = Pull(
                id=id, name=named, source=str(ask.source), state="waiting", owner=actor.name, started_at=self._clock(),
                files=files, bytes_total=chosen.bytes, quantization=label(chosen.quantization),
                revision=found.plan.revision, licence=found.plan.licence, limit=limit, tier=tier,
                notes=(*notes, *fetched), deploy=deploy and deploy_of(deploy, named),
            )  # fmt: skip
            urls = {file.name: found.urls[file.name] for file in chosen.files}
            row = Row(
                pull, actor, request, ask.source, urls, where.endpoint, where.trusted, found.gated, options,
                chosen="" if pull.quantization == chosen.quantization else chosen.quantization,
            )  # fmt: skip
            if ask.secret:
                self._running.secrets[pull.id] = ask.secret
            await self._running.put(row)
        self._running.schedule()
        return self.get(pull.id)

    async def pause(self, actor: Actor, request: str, id: str) -> Pull:
        """End what runs of it and keep what is here."""
        row = self._live(id)
        if row.pull.state == "storing":
            raise Conflict(f"pull {id} is being stored", "all of it is here", "wait a moment, or cancel it")
        return await self._turn(actor, request, row, "pause", f"{actor.name} paused it", state="paused")

    async def resume(
        self, actor: Actor, request: str, id: str, *, secret: str = "", source: str = "", limit: int | None = None
    ) -> Pull:
        """Go on. `secret`: its owner's token; `source`: its address anew, where what follows the `?` is needed."""
        row = self._live(id)
        if source:
            same, secret = parse(source)
            if same != row.source:
                why = f"it pulls {row.pull.source}"
                raise Invalid("this is another address than the pull's", why, "begin a new pull")
        given = check_secret(secret)
        if given and actor.uid != row.actor.uid:
            given = ""  # a token of one's own is no part of somebody else's pull
        if row.secret and not (given or self._running.secrets.get(id)):
            todo = "log in (`hf auth login`, or HF_TOKEN) and say it again" if actor.uid == row.actor.uid else ""
            raise NeedsToken(f"pull {id} needs a token", f"{row.pull.owner} began it", todo or f"ask {row.pull.owner}")
        if given:
            self._running.secrets[id] = given
        fields: dict[str, object] = {} if limit is None else {"limit": limit}
        if row.pull.state in (*RUNNING, "waiting"):
            if limit is None:
                return row.pull
            await self._required(actor, request, "models.import", f"model:{row.pull.name}")
            await self._running.limit(id, limit)
            return self.get(id)
        return await self._turn(actor, request, row, "resume", "", state="waiting", error=None, ended_at=None, **fields)

    async def cancel(self, actor: Actor, request: str, id: str) -> Pull:
        """End it; nothing of it is left. One that is over stays as it is."""
        row = self._running.row(id)
        if row.pull.state in PULL_ENDED:
            return row.pull
        return await self._turn(actor, request, row, "cancel", f"{actor.name} cancelled it", state="cancelled")

    async def undeploy(self, actor: Actor, request: str, id: str) -> Pull:
        """Leave it undeployed when it is here; the pull goes on. Raises `Conflict` where nothing waits."""
        row = self._running.row(id)
        await self._required(actor, request, "models.import", f"model:{row.pull.name}")

        def work(db: sqlite3.Connection) -> tuple[PulledDeploy, object, object]:
            now = rows.one(db, id)
            wanted = now.pull.deploy if now is not None else None
            if now is None or wanted is None or wanted.state != "waits":
                why = f"{wanted.spec.name} was {wanted.state}" if wanted is not None else "nothing was to be"
                raise Conflict(f"nothing is deployed when pull {id} is here", why, "see `corral models pulls`")
            left = msgspec.structs.replace(wanted, state="dropped", error=None)
            rows.put(db, replaced(now, deploy=left))
            return left, {"deployment": wanted.spec.name}, None

        subject = f"model:{row.pull.name}"
        try:
            async with self._running.turn(id):
                left = await self._gate.act(
                    actor, "models.pull-undeploy", subject, request, work, permission="models.import"
                )  # fmt: skip
                self._running.show(replaced(self._running.row(id), deploy=left))
        finally:
            self._running.schedule()
        return self.get(id)

    # ---------------------------------------------------------------------------------------- how

    async def _may_deploy(self, actor: Actor, request: str, wanted: PulledDeploy, name: str) -> None:
        """Raises what would be refused when it is here, as far as that is known now."""
        await self._required(actor, request, "deployments.create", f"deployment:{wanted.spec.name}")
        await self._required(actor, request, "models.read", f"model:{name}")
        await self._deployer.foresee(wanted.spec, replace=True)  # what is stored may run already as it is said

    async def _find(
        self, actor: Actor, request: str, text: str, name: str | None, secret: str, endpoint: str, ctx: int, sha256: str
    ) -> tuple[Ask, Found, Place]:
        source, query = parse(text)
        given = check_secret(secret) if isinstance(source, Hub) else query
        ask = Ask(source, actor, given, endpoint, ctx, sha256)
        where = place(endpoint if isinstance(source, Hub) else "", self._settings().hub)
        subject = f"model:{name or name_of(source)}"
        await self._required(actor, request, "models.import", subject)
        net = self._finder.net(ask, where, private=self._gate.may(actor, "models.pull-private", subject))
        try:
            return ask, await self._finder.find(ask, where, net), where
        except NotAllowed as error:
            await self._gate.refuse(actor, "models.pull", subject, request, str(error))
            error.recorded = True
            raise
        finally:
            await net.close()

    async def _admit(
        self, actor: Actor, request: str, name: str, source: str, chosen: PullChoice, options: ImportOptions
    ) -> None:  # fmt: skip
        """Raises `Conflict`, `Invalid`, `NotAllowed`."""
        check_name(name)
        check_options(options)
        await self._required(actor, request, "models.import", f"model:{name}")
        if options.live:
            await self._required(actor, request, "models.alias", f"model:{name}")
        under_way = [row for row in self._running.rows.values() if row.pull.state not in PULL_ENDED]
        mine = (name, source, chosen.quantization)
        same = next((each.pull for each in under_way if (each.pull.name, each.pull.source, each.handle) == mine), None)
        if same is not None:
            raise Conflict(
                f"{source} is being pulled as {name} already", f"{same.owner} began it, and it is {same.state}",
                f"see to it: corral models pulls, or {_go_on(same)}",
            )  # fmt: skip
        if len(under_way) >= UNDER_WAY:
            raise Conflict("too many pulls are under way", f"{UNDER_WAY} at most", "cancel some, or wait")

    async def _required(self, actor: Actor, request: str, permission: str, subject: str) -> None:
        try:
            self._gate.require(actor, permission, subject)
        except CorralError as error:
            await self._gate.refuse(actor, permission, subject, request, str(error))
            error.recorded = True
            raise

    async def _turn(self, actor: Actor, request: str, row: Row, verb: str, why: str, **fields: object) -> Pull:
        """One change by a person: permitted and recorded together with the row; what runs is ended before it."""
        id, subject = row.pull.id, f"model:{row.pull.name}"
        await self._required(actor, request, "models.import", subject)
        try:
            async with self._running.turn(id):  # one that is about to begin would begin between its end and its row
                if why:
                    await self._running.end(id, why)
                    await self._running.found(id)
                row = self._running.row(id)
                goes_on = not why and row.pull.state in (*RUNNING, "waiting")
                if row.pull.state in PULL_ENDED or goes_on:  # it came to its end meanwhile, or somebody else resumed it
                    return row.pull
                if fields["state"] in PULL_ENDED:
                    fields["ended_at"] = self._clock()
                new = replaced(row, rate=0.0, left_s=None, **fields)

                def work(db: sqlite3.Connection) -> tuple[None, object, object]:
                    rows.put(db, new)
                    after = {"id": id, "state": new.pull.state, "source": new.pull.source}
                    return None, {"state": row.pull.state}, after

                await self._gate.act(
                    actor, f"models.pull-{verb}", subject, request, work, permission="models.import"
                )  # fmt: skip
                self._running.later.drop(id)
                await self._running.told(new)
        finally:
            self._running.schedule()
        return self.get(id)

    def _live(self, id: str) -> Row:
        """Raises `NotFound`; `Conflict` for one that is over."""
        row = self._running.row(id)
        if row.pull.state in PULL_ENDED:
            raise Conflict(f"pull {id} is over", f"it is {row.pull.state}", "begin a new one")
        return row


def _go_on(pull: Pull) -> str:
    """What takes a pull further that does not run."""
    return f"corral models pulls {'cancel' if pull.state in (*RUNNING, 'waiting') else 'resume'} {pull.id}"
