"""Pulls: jobs that outlive terminal and daemon, and end with a model in the catalog or with nothing.

What is wanted is a row in the database, what is here lies in `pulls/ID` beside the objects; a daemon that starts goes
on with both. A hub's token is in this process's memory alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from core.access import Effect, Gate
from core.catalog.pull import choice, rows
from core.catalog.pull.find import Ask, Finder, Found, Place, check_secret, place
from core.catalog.pull.folder import here, tidy
from core.catalog.pull.pace import Cap
from core.catalog.pull.rows import Row
from core.catalog.pull.source import Hub, parse
from core.catalog.pull.storing import name_of, stored, there
from core.catalog.pull.web import NotReached
from core.catalog.pull.work import Work
from core.catalog.references import check_name
from core.catalog.service import Catalog
from core.catalog.taking import check_options
from core.errors import (
    Conflict,
    CorralError,
    Failed,
    Invalid,
    NeedsToken,
    NoRoom,
    NotAllowed,
    NotFound,
    StoreError,
    TimedOut,
)
from core.events import Bus
from core.nouns import NO_OPTIONS, PULL_ENDED, Actor, ImportOptions, Model, Pull, PullChoice, PullPlan
from core.paths import Paths
from core.settings import PullTable
from core.store import Store

log = logging.getLogger(__name__)
RUNNING = ("pulling", "storing")
ENDS_S = 30.0
"""What runs of a pull may take to end."""
UNDER_WAY = 100
"""Pulls that are not over, at most."""


class Pulls:
    """All pulls. `plan` and `left` are the deployments' word on memory (core.catalog.pull.find)."""

    def __init__(
        self, store: Store, gate: Gate, catalog: Catalog, paths: Paths, bus: Bus, settings: Callable[[], PullTable], *,
        plan: choice.Planner, left: Callable[[], Awaitable[int]], clock: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ, wait: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._store, self._gate, self._catalog, self._bus, self._settings = store, gate, catalog, bus, settings
        self._folder, self._clock, self._wait = paths.models / "pulls", clock, wait
        self.finder = Finder(self._folder, plan, left, self._promised, environ)
        self._cap = Cap(lambda: settings().rate_bytes)
        self._rows: dict[str, Row] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, str] = {}
        """Why a task is being cancelled."""
        self._secrets: dict[str, str] = {}
        """Tokens, and what follows the `?` of addresses: here and nowhere else."""
        self._admitting = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Go on with what a daemon before left; what nobody wants any more goes."""
        for row in await self._store.read(rows.load):
            state = row.pull.state
            if state in (*RUNNING, "waiting"):
                told = _needs_token() if row.secret and state != "storing" else None
                row = _replaced(row, state="needs token" if told else "waiting", rate=0.0, left_s=None,
                                error=told.body() if told else None)  # fmt: skip
                row = msgspec.structs.replace(row, begun=state == "pulling" or row.begun)
            if row.pull.state not in PULL_ENDED:
                row = _replaced(row, bytes_done=await asyncio.to_thread(here, self._folder / row.pull.id))
            self._rows[row.pull.id] = row
        wanted = {id for id, row in self._rows.items() if row.pull.state not in PULL_ENDED}
        await asyncio.to_thread(tidy, self._folder, wanted)
        self._schedule()

    async def close(self) -> None:
        """End what runs; the next daemon goes on with it."""
        self._closed = True
        for id in list(self._tasks):
            self._end_task(id, "the daemon ends; the next one goes on")
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def follow(self) -> None:
        """Obey the settings in force."""
        self._schedule()

    # ---------------------------------------------------------------------------------------- what is there

    def ls(self) -> list[Pull]:
        """The oldest first."""
        return [row.pull for row in self._rows.values()]

    def get(self, id: str) -> Pull:
        """Raises `NotFound`."""
        return self._row(id).pull

    async def plan(self, actor: Actor, request: str, source: str, *, secret: str, endpoint: str, ctx: int) -> PullPlan:
        """What a source has, what of it fits, and what would be chosen; nothing is stored."""
        return (await self._find(actor, request, source, None, secret, endpoint, ctx, ""))[1].plan

    # ---------------------------------------------------------------------------------------- verbs

    async def begin(
        self, actor: Actor, request: str, source: str, *, name: str | None, secret: str, endpoint: str, ctx: int = 0,
        limit: int = 0, sha256: str = "", options: ImportOptions = NO_OPTIONS, projector: str = "",
    ) -> Pull:  # fmt: skip
        """Begin to pull; what cannot be pulled is refused before the first byte. Raises whatever is wrong."""
        if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Invalid("--sha256 is no SHA-256", "it has 64 hex digits", "copy it from whoever publishes the file")
        if sha256 and isinstance(parse(source)[0], Hub):
            raise Invalid("--sha256 is for an address", "a hub says itself what its files are", "leave it out")
        ask, found, where = await self._find(actor, request, source, name, secret, endpoint, ctx, sha256)
        chosen = choice.chosen(found.plan.choices, str(ask.source), found.others)
        if projector:
            beside = choice.projector(found.plan.projectors, projector)
            chosen = msgspec.structs.replace(
                chosen, files=(*chosen.files, beside), bytes=chosen.bytes + beside.bytes
            )  # fmt: skip
        named = name or name_of(ask.source)
        async with self._admitting:
            await self._admit(actor, request, named, str(ask.source), chosen, options)
            pull = Pull(
                id=secrets.token_hex(4), name=named, source=str(ask.source), state="waiting", owner=actor.name,
                started_at=self._clock(), files=chosen.files, bytes_total=chosen.bytes,
                quantization=chosen.quantization, revision=found.plan.revision, licence=found.plan.licence, limit=limit,
            )  # fmt: skip
            urls = {file.name: found.urls[file.name] for file in chosen.files}
            row = Row(pull, actor, request, ask.source, urls, where.endpoint, where.trusted, found.gated, options)
            if ask.secret:
                self._secrets[pull.id] = ask.secret
            await self._store.transact(lambda db: rows.put(db, row))
            self._show(row)
        self._schedule()
        return self.get(pull.id)

    async def pause(self, actor: Actor, request: str, id: str) -> Pull:
        """End what runs of it and keep what is here."""
        row = self._row(id)
        self._live(row)
        if row.pull.state == "storing":
            raise Conflict(f"pull {id} is being stored", "all of it is here", "wait a moment, or cancel it")
        return await self._turn(actor, request, row, "pause", f"{actor.name} paused it", state="paused")

    async def resume(
        self, actor: Actor, request: str, id: str, *, secret: str = "", source: str = "", limit: int | None = None
    ) -> Pull:
        """Go on. `secret`: its owner's token; `source`: its address anew, where what follows the `?` is needed."""
        row = self._row(id)
        self._live(row)
        if source:
            same, secret = parse(source)
            if same != row.source:
                why = f"it pulls {row.pull.source}"
                raise Invalid("this is another address than the pull's", why, "begin a new pull")
        given = check_secret(secret)
        if given and actor.uid != row.actor.uid:
            given = ""  # a token of one's own is no part of somebody else's pull
        if row.secret and not (given or self._secrets.get(id)):
            todo = "log in (`hf auth login`, or HF_TOKEN) and say it again" if actor.uid == row.actor.uid else ""
            raise NeedsToken(f"pull {id} needs a token", f"{row.pull.owner} began it", todo or f"ask {row.pull.owner}")
        if given:
            self._secrets[id] = given
        fields: dict[str, object] = {} if limit is None else {"limit": limit}
        if row.pull.state in (*RUNNING, "waiting"):
            if limit is None:
                return row.pull
            self._gate.require(actor, "models.import", f"model:{row.pull.name}")
            await self._keep(_replaced(self._row(id), **fields))
            return self.get(id)
        return await self._turn(actor, request, row, "resume", "", state="waiting", error=None, ended_at=None, **fields)

    async def cancel(self, actor: Actor, request: str, id: str) -> Pull:
        """End it; nothing of it is left. One that is over stays as it is."""
        row = self._row(id)
        if row.pull.state in PULL_ENDED:
            return row.pull
        return await self._turn(actor, request, row, "cancel", f"{actor.name} cancelled it", state="cancelled")

    # ---------------------------------------------------------------------------------------- how

    async def _find(
        self, actor: Actor, request: str, text: str, name: str | None, secret: str, endpoint: str, ctx: int, sha256: str
    ) -> tuple[Ask, Found, Place]:
        source, query = parse(text)
        ask = Ask(source, check_secret(secret) if isinstance(source, Hub) else query, endpoint, ctx, sha256)
        where = place(endpoint if isinstance(source, Hub) else "", self._settings().hub)
        subject = f"model:{name or name_of(source)}"
        await self._required(actor, request, "models.import", subject)
        net = self.finder.net(ask, where, private=self._gate.may(actor, "models.pull-private", subject))
        try:
            return ask, await self.finder.find(ask, where, net), where
        except NotAllowed as error:
            await self._gate.refuse(actor, "models.pull", subject, request, str(error))
            error.recorded = True
            raise
        finally:
            await net.close()

    async def _admit(
        self, actor: Actor, request: str, name: str, source: str, chosen: PullChoice, options: ImportOptions
    ) -> None:  # fmt: skip
        """Raises `Conflict`, `NoRoom`, `Invalid`, `NotAllowed`."""
        check_name(name)
        check_options(options)
        await self._required(actor, request, "models.import", f"model:{name}")
        if options.live:
            await self._required(actor, request, "models.alias", f"model:{name}")
        under_way = [row.pull for row in self._rows.values() if row.pull.state not in PULL_ENDED]
        mine = (name, source, chosen.quantization)
        same = next((pull for pull in under_way if (pull.name, pull.source, pull.quantization) == mine), None)
        if same is not None:
            raise Conflict(
                f"{source} is being pulled as {name} already", f"{same.owner} began it, and it is {same.state}",
                f"see to it: corral models pulls, or {_go_on(same)}",
            )  # fmt: skip
        if len(under_way) >= UNDER_WAY:
            raise Conflict("too many pulls are under way", f"{UNDER_WAY} at most", "cancel some, or wait")
        self.finder.check_room(chosen.bytes)

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
        if why:
            self._end_task(id, why)
            task = self._tasks.get(id)
            if task is not None and (await asyncio.wait({task}, timeout=ENDS_S))[1]:
                raise TimedOut(f"pull {id} has not ended within {ENDS_S:.0f} s", "its disk is slow", "say it again")
        row = self._row(id)
        if row.pull.state in PULL_ENDED:  # it came to its end meanwhile
            return row.pull
        if fields["state"] in PULL_ENDED:
            fields["ended_at"] = self._clock()
        new = _replaced(row, rate=0.0, left_s=None, **fields)

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            rows.put(db, new)
            return None, {"state": row.pull.state}, {"id": id, "state": new.pull.state, "source": new.pull.source}

        await self._gate.act(actor, f"models.pull-{verb}", subject, request, work, permission="models.import")
        await self._told(new)
        self._schedule()
        return self.get(id)

    def _end_task(self, id: str, why: str) -> None:
        task = self._tasks.get(id)
        if task is not None:
            self._ending.setdefault(id, why)
            task.cancel()

    def _schedule(self) -> None:
        """Let those that wait begin, the oldest first, as many as the settings say."""
        for row in sorted(self._rows.values(), key=lambda row: row.pull.started_at):
            if self._closed or len(self._tasks) >= self._settings().at_once:
                return
            if row.pull.state == "waiting" and row.pull.id not in self._tasks:
                self._tasks[row.pull.id] = asyncio.create_task(self._carry_out(row.pull.id))

    async def _carry_out(self, id: str) -> None:
        """One run, from its intent to its outcome."""
        effect: Effect | None = None
        row = self._row(id)
        pull = row.pull
        try:
            told = {
                "source": pull.source, "revision": pull.revision, "at": pull.bytes_done,
                "files": [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in pull.files],
            }  # fmt: skip
            effect = await self._gate.intent(row.actor, "models.pull", f"model:{pull.name}", row.request, after=told)
            model = await there(self._catalog, row) or await self._pulled(row)
            await self._gate.outcome(
                effect, "done", after={"sha256": model.sha256, "revision": self.get(id).revision, "source": pull.source}
            )
            await self._over(id, "done", model=model, bytes_done=self.get(id).bytes_total)
        except asyncio.CancelledError:
            why = self._ending.pop(id, "the daemon ends")
            if effect is not None:
                await self._gate.outcome(effect, "interrupted", reason=why)
        except Exception as error:
            # Anything: a pull that broke must end, and its intent must have an outcome.
            await self._broke(id, effect, error)
        finally:
            self._ending.pop(id, None)
            self._tasks.pop(id, None)
            self._schedule()

    async def _pulled(self, row: Row) -> Model:
        """Fetch what is missing, and hand the whole to the catalog."""
        id, secret = row.pull.id, self._secrets.get(row.pull.id, "")
        self._gate.require(row.actor, "models.import", f"model:{row.pull.name}")  # rights may have changed since
        private = self._gate.may(row.actor, "models.pull-private", f"model:{row.pull.name}")
        net = self.finder.net(Ask(row.source, secret), Place(row.endpoint, row.trusted), private=private)
        row = _replaced(row, state="pulling", error=None)
        await self._keep(row)
        work = Work(
            row, secret, self._folder / id, self.finder, net, self._cap, Cap(lambda: self._row(id).pull.limit),
            put=self._keep_run, tell=self._progress, wait=self._wait,
        )  # fmt: skip
        try:
            got = await work.run()
        finally:
            await net.close()
        row = msgspec.structs.replace(work.row, begun=False)  # all is here: no more to ask
        done = sum(file.bytes for file in got)
        row = _replaced(row, state="storing", files=tuple(got), bytes_done=done, rate=0.0, left_s=None)
        await self._keep(row)
        return await stored(self._catalog, row, self._folder / id)

    async def _broke(self, id: str, effect: Effect | None, error: Exception) -> None:
        told = error if isinstance(error, CorralError) else Failed("the pull failed", type(error).__name__)
        if not isinstance(error, CorralError):
            log.error("pull %s failed: %s", id, type(error).__name__)
        if effect is not None:
            await self._gate.outcome(effect, "failed", reason=str(told))
        # Another time it may be otherwise, and what is here counts.
        rests = _replaced(self._row(id), state="paused", error=told.body(), rate=0.0, left_s=None)
        try:
            if isinstance(error, NeedsToken):
                self._secrets.pop(id, None)
                row = msgspec.structs.replace(self._row(id), secret=True)
                await self._keep(_replaced(row, state="needs token", error=told.body(), rate=0.0, left_s=None))
            elif isinstance(error, NotReached | NoRoom | StoreError):
                await self._keep(rests)
            else:
                await self._over(id, "failed", error=told.body())
        except StoreError as unwritten:
            log.error("what became of pull %s is not recorded: %s", id, unwritten)
            self._show(rests)

    async def _over(self, id: str, state: str, **fields: object) -> None:
        await self._keep(_replaced(self._row(id), state=state, ended_at=self._clock(), rate=0.0, left_s=None, **fields))

    async def _keep_run(self, row: Row) -> None:
        """As `_keep`, of a run, which does not know of a limit that was changed meanwhile."""
        await self._keep(_replaced(row, limit=self._row(row.pull.id).pull.limit))

    async def _keep(self, row: Row) -> None:
        await self._store.transact(lambda db: rows.put(db, row))
        await self._told(row)

    async def _told(self, row: Row) -> None:
        """Show what is committed; of one that is over, when nothing of it is left."""
        if row.pull.state in PULL_ENDED:
            self._secrets.pop(row.pull.id, None)
            await asyncio.to_thread(shutil.rmtree, self._folder / row.pull.id, True)
        self._show(row)

    def _show(self, row: Row) -> None:
        self._rows[row.pull.id] = row
        over = [id for id, each in self._rows.items() if each.pull.state in PULL_ENDED]
        for id in over[: -rows.KEPT]:
            del self._rows[id]
        self._bus.publish("pull", f"pull:{row.pull.id}", row.pull)

    def _progress(self, pull: Pull) -> None:
        row = self._rows[pull.id]
        limited = msgspec.structs.replace(pull, limit=row.pull.limit)  # it may have been changed meanwhile
        self._show(msgspec.structs.replace(row, pull=limited))

    def _promised(self) -> int:
        """Bytes that the pulls under way will still take of the disk."""
        live = (row.pull for row in self._rows.values() if row.pull.state not in (*PULL_ENDED, "storing"))
        return sum(max(0, pull.bytes_total - pull.bytes_done) for pull in live)

    def _row(self, id: str) -> Row:
        if id not in self._rows:
            raise NotFound(f"no pull {id!r}", todo="see `corral models pulls`")
        return self._rows[id]

    def _live(self, row: Row) -> None:
        if row.pull.state in PULL_ENDED:
            raise Conflict(f"pull {row.pull.id} is over", f"it is {row.pull.state}", "begin a new one")


def _replaced(row: Row, **fields: object) -> Row:
    """A row whose pull has other fields."""
    return msgspec.structs.replace(row, pull=msgspec.structs.replace(row.pull, **fields))


def _go_on(pull: Pull) -> str:
    """What takes a pull further that does not run."""
    return f"corral models pulls {'cancel' if pull.state in (*RUNNING, 'waiting') else 'resume'} {pull.id}"


def _needs_token() -> NeedsToken:
    return NeedsToken(
        "it needs a token", "the daemon that had it has ended, and it is kept nowhere else",
        "its owner gives it again: corral models pulls resume",
    )  # fmt: skip
