"""Pulls as they run: whose turn it is, each run from its intent to its outcome, and what is kept of it on the way.

A run that is ended (somebody pauses or cancels, the daemon ends) leaves its row as it is: whoever ended it says what
becomes of it. A hub's token is in this process's memory alone.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable

import msgspec

from core.access import Effect, Gate
from core.catalog.identity import requantized
from core.catalog.pull import rows
from core.catalog.pull.deploying import Deployer, Deploying
from core.catalog.pull.download import Unkept
from core.catalog.pull.find import Ask, Finder, Place
from core.catalog.pull.ground import Ground
from core.catalog.pull.later import Later
from core.catalog.pull.pace import Cap
from core.catalog.pull.refusals import Shut
from core.catalog.pull.rows import Row, replaced
from core.catalog.pull.shelf import Shelf
from core.catalog.pull.storing import stored, there
from core.catalog.pull.web import NotReached
from core.catalog.pull.work import Work
from core.catalog.service import Catalog
from core.catalog.taking import Vanished
from core.catalog.tiers import Away, Reservation
from core.catalog.tiers.moving import whole
from core.errors import CorralError, ErrorBody, Failed, NeedsToken, NoRoom, NotFound, StoreError, TimedOut
from core.events import Bus
from core.nouns import PULL_ENDED, Actor, Model, Pull
from core.settings import PullTable
from core.store import Store

log = logging.getLogger(__name__)
RUNNING = ("pulling", "storing")
TRIES = 3
"""Of what is taken from the store, where somebody removes it meanwhile."""
RESTS = (NotReached, Shut, NoRoom, Away, Unkept, StoreError)
"""Another time these may be otherwise: the pull rests with what is here."""
ENDS_S = 30.0
"""What runs of a pull may take to end."""


class Running:
    """All pulls there are, by id. Only `Pulls` makes one."""

    def __init__(
        self, store: Store, gate: Gate, catalog: Catalog, bus: Bus, settings: Callable[[], PullTable], finder: Finder,
        *, deployer: Deployer, who: Callable[[Actor], Awaitable[Actor]], clock: Callable[[], float],
        wait: Callable[[float], Awaitable[object]],
    ) -> None:  # fmt: skip
        self._store, self._gate, self._catalog, self._bus, self._settings = store, gate, catalog, bus, settings
        self._finder, self._clock, self._wait = finder, clock, wait
        self.ground = Ground(catalog.tiers, catalog.objects)
        self._cap = Cap(lambda: settings().rate_bytes)
        self.rows: dict[str, Row] = {}
        self.secrets: dict[str, str] = {}
        """Tokens, and what follows the `?` of addresses: here and nowhere else."""
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, str] = {}
        """Why a task is being cancelled."""
        self._turns: dict[str, asyncio.Lock] = {}
        """Held by a person who changes what becomes of a pull: one at a time, and it is not begun meanwhile."""
        self.later = Later()
        """Those that a disk that takes no record has stopped: they go on by themselves."""
        self._after = Deploying(gate, catalog, deployer, self, who)
        self._closed = False

    async def start(self) -> None:
        """Go on with what a daemon before left; what nobody wants any more goes."""
        for row in await self._store.read(rows.load):
            state = row.pull.state
            if state in (*RUNNING, "waiting") or (state == "paused" and _by_disk(row.pull)):
                told = _needs_token() if row.secret and state != "storing" else None
                row = replaced(row, state="needs token" if told else "waiting", rate=0.0, left_s=None,
                                error=told.body() if told else None)  # fmt: skip
                row = msgspec.structs.replace(row, begun=state == "pulling" or row.begun)
            if row.pull.state not in PULL_ENDED:
                row = await self.ground.again(row)
            self.rows[row.pull.id] = row
        await self.ground.tidy(self.rows)
        self.schedule()
        for row in list(self.rows.values()):
            self._after.begin(row.pull)

    async def mend(self) -> None:
        """Go on with what stopped because the disk took no record."""
        for id in self.later.due():
            row = self.rows.get(id)
            if row is None or row.pull.state != "paused" or not _by_disk(row.pull) or self._turning(id):
                continue
            async with self.turn(id):
                try:
                    await self.keep(replaced(row, state="waiting", error=None))
                except StoreError:
                    self.later.put(id)
        self.schedule()
        self._after.mend()

    async def close(self) -> None:
        """End what runs; the next daemon goes on with it."""
        self._closed = True
        await self._after.close()
        for id in list(self.tasks):
            self._end_task(id, "the daemon ends; the next one goes on")
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def end(self, id: str, why: str) -> None:
        """End what runs of a pull, for that reason. Raises `TimedOut`."""
        self._end_task(id, why)
        task = self.tasks.get(id)
        if task is not None and (await asyncio.wait({task}, timeout=ENDS_S))[1]:
            raise TimedOut(f"pull {id} has not ended within {ENDS_S:.0f} s", "its disk is slow", "say it again")

    def _end_task(self, id: str, why: str) -> None:
        task = self.tasks.get(id)
        if task is not None and id not in self._ending:  # a second cancel would cut off what clears up after the first
            self._ending[id] = why
            task.cancel()

    def turn(self, id: str) -> asyncio.Lock:
        """To be held by a person who changes what becomes of a pull."""
        return self._turns.setdefault(id, asyncio.Lock())

    def _turning(self, id: str) -> bool:
        return id in self._turns and self._turns[id].locked()

    def schedule(self) -> None:
        """Let those that wait begin, the oldest first, as many as the settings say."""
        for row in sorted(self.rows.values(), key=lambda row: row.pull.started_at):
            if self._closed or len(self.tasks) >= self._settings().at_once:
                return
            id = row.pull.id
            if row.pull.state == "waiting" and id not in self.tasks and not self._turning(id):
                self.tasks[id] = asyncio.create_task(self._carry_out(id))
                self.tasks[id].add_done_callback(functools.partial(self._ran, id))

    def _ran(self, id: str, task: asyncio.Task[None]) -> None:
        """A run is over, also one that was cancelled before its first step."""
        del self.tasks[id]
        self._ending.pop(id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the run of pull %s ended: %s", id, type(error).__name__)
        self.schedule()

    async def _carry_out(self, id: str) -> None:
        """One run, from its intent to its outcome."""
        effect: Effect | None = None
        model: Model | None = None
        row = self.row(id)
        try:
            effect = await self._intent(row)
            model = await there(self._catalog, row) or await self._pulled(row)
            await whole(self._done(id, effect, model))  # who cancels it now comes too late
        except asyncio.CancelledError:
            if effect is not None and model is None:
                await self._gate.outcome(effect, "interrupted", reason=self._ending.get(id, "the daemon ends"))
            if model is None and not self._closed and not self._turning(id):  # whoever ended it has not waited for it
                await self._keep_run(replaced(self.row(id), state="paused", rate=0.0, left_s=None))
        except Exception as error:
            # Anything: a pull that broke must end, and its intent must have an outcome.
            await self._broke(id, effect if model is None else None, error)

    async def _intent(self, row: Row) -> Effect:
        pull = row.pull
        told = {
            "source": pull.source, "revision": pull.revision, "at": pull.bytes_done,
            "files": [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in pull.files],
        }  # fmt: skip
        return await self._gate.intent(row.actor, "models.pull", f"model:{pull.name}", row.request, after=told)

    async def _done(self, id: str, effect: Effect, model: Model) -> None:
        pull = self.row(id).pull
        told = {"sha256": model.sha256, "revision": pull.revision, "source": pull.source}
        await self._gate.outcome(effect, "done", after=told)
        other = requantized(pull.quantization, model)
        if other:  # it is shown as it is, and its origin says what was asked for
            row = self.row(id)
            self.rows[id] = msgspec.structs.replace(row, chosen=row.handle)
        await self._over(
            id, "done", model=model, bytes_done=pull.bytes_total, tier=model.tier,
            quantization=model.shape.quantization if other else pull.quantization,
            notes=(*pull.notes, other) if other and other not in model.flags else pull.notes,
        )  # fmt: skip
        if not self._closed:  # else it is the next daemon's
            self._after.begin(self.row(id).pull)

    async def found(self, id: str) -> None:
        """One that does not run is done, if its model is there: it was stored, and nobody could say so any more."""
        row = self.row(id)
        if row.pull.state not in PULL_ENDED and (model := await there(self._catalog, row)):
            await self._done(id, await self._intent(row), model)

    async def _pulled(self, row: Row) -> Model:
        """Fetch what is missing, and hand the whole to the catalog."""
        self._gate.require(row.actor, "models.import", f"model:{row.pull.name}")  # rights may have changed since
        ask, where = Ask(row.source, row.actor, self.secrets.get(row.pull.id, "")), Place(row.endpoint, row.trusted)
        shelf = self._finder.shelf(ask, where, gated=row.secret)
        for _ in range(TRIES):
            row = replaced(row, files=await shelf.marked(row.pull.files))
            space = await self.ground.space(row)
            if space is not None:
                row = await self._fetched(replaced(row, tier=space.tier), ask, where, shelf, space)
            done = sum(file.bytes for file in row.pull.files)
            row = replaced(row, state="storing", bytes_done=done, rate=0.0, left_s=None, error=None)
            await self._keep_run(row)
            try:
                places = await shelf.places(row.pull.files)
                return await stored(self._catalog, row, self.ground.place(row.pull), space, places)
            except Vanished:
                row = self.row(row.pull.id)
        raise Failed("what was stored already is removed again and again", todo="say it again")

    async def put(self, row: Row) -> None:
        """A pull begins; without its row its room is given back."""
        try:
            await self._store.transact(lambda db: rows.put(db, row))
        except BaseException:
            await self.ground.clear(row.pull)
            raise
        self.show(row)

    async def _fetched(self, row: Row, ask: Ask, where: Place, shelf: Shelf, space: Reservation) -> Row:
        """The row when all files are here."""
        id = row.pull.id
        private = self._gate.may(row.actor, "models.pull-private", f"model:{row.pull.name}")
        net = self._finder.net(ask, where, private=private)
        row = replaced(row, state="pulling", error=None)
        await self._keep_run(row)
        work = Work(
            row, ask.secret, self.ground.room(row.pull, space), self._finder, shelf, net, self._cap,
            Cap(lambda: self.row(id).pull.limit), put=self._keep_run, tell=self._progress, wait=self._wait,
        )  # fmt: skip
        try:
            got = await work.run()
        finally:
            await net.close()
        return replaced(msgspec.structs.replace(work.row, begun=False), files=tuple(got))  # all is here: no more to ask

    async def _broke(self, id: str, effect: Effect | None, error: Exception) -> None:
        if isinstance(error, Unkept) or not isinstance(error, RESTS):
            # Whatever broke: a tier that was unmounted under it says so in many ways.
            error = await self.ground.away(self.row(id).pull) or error
        told = error if isinstance(error, CorralError) else Failed("the pull failed", type(error).__name__)
        if not isinstance(error, CorralError):
            log.error("pull %s failed: %s", id, type(error).__name__)
        if effect is not None:
            await self._gate.outcome(effect, "failed", reason=str(told))
        # Another time it may be otherwise, and what is here counts.
        rests = replaced(self.row(id), state="paused", rate=0.0, left_s=None)
        stopped = isinstance(error, StoreError)
        try:
            if isinstance(error, NeedsToken):
                self.secrets.pop(id, None)
                row = msgspec.structs.replace(self.row(id), secret=True)
                await self._keep_run(
                    replaced(row, state="needs token", error=_resumed(told, id), rate=0.0, left_s=None)
                )
            elif isinstance(error, StoreError):
                await self._keep_run(replaced(rests, error=_by_itself(error)))
            elif isinstance(error, RESTS):
                await self._keep_run(replaced(rests, error=_resumed(told, id)))
            else:
                await self._over(id, "failed", error=told.body())
        except StoreError as unwritten:
            log.error("what became of pull %s is not recorded: %s", id, unwritten)
            self.show(replaced(rests, error=_by_itself(unwritten)))
            stopped = True
        if stopped:
            self.later.put(id)

    async def _over(self, id: str, state: str, **fields: object) -> None:
        over = replaced(self.row(id), state=state, ended_at=self._clock(), rate=0.0, left_s=None, **fields)
        await self._keep_run(over)
        self.later.drop(id)

    async def limit(self, id: str, limit: int) -> None:
        """Another cap of its own. What runs of it writes its row meanwhile, so that this changes that alone."""
        self.show(replaced(self.row(id), limit=limit))
        await self._store.transact(lambda db: rows.limit(db, id, limit))

    async def _keep_run(self, row: Row) -> None:
        """As `keep`, of a run, which does not know of what a person has changed meanwhile."""
        await self._store.transact(lambda db: rows.put_run(db, row))
        now = self.row(row.pull.id).pull
        await self.told(replaced(row, limit=now.limit, deploy=now.deploy))

    async def keep(self, row: Row) -> None:
        await self._store.transact(lambda db: rows.put(db, row))
        await self.told(row)

    async def told(self, row: Row) -> None:
        """Show what is committed; of one that is over, when nothing of it is left."""
        if row.pull.state in PULL_ENDED:
            self.secrets.pop(row.pull.id, None)
            await self.ground.clear(row.pull)
        self.show(row)

    def show(self, row: Row) -> None:
        self.rows[row.pull.id] = row
        over = [id for id, each in self.rows.items() if not each.pull.open]
        for id in over[: -rows.KEPT]:
            del self.rows[id]
            self._turns.pop(id, None)
        self._bus.publish("pull", f"pull:{row.pull.id}", row.pull)

    def _progress(self, pull: Pull) -> None:
        row = self.rows[pull.id]
        now = msgspec.structs.replace(pull, limit=row.pull.limit, deploy=row.pull.deploy)  # as in `_keep_run`
        self.show(msgspec.structs.replace(row, pull=now))

    def row(self, id: str) -> Row:
        if id not in self.rows:
            raise NotFound(f"no pull {id!r}", todo="see `corral models pulls`")
        return self.rows[id]


def _by_disk(pull: Pull) -> bool:
    """It stands because a record could not be written, and nobody decided that."""
    return pull.error is not None and pull.error.code == StoreError.code


def _by_itself(error: StoreError) -> ErrorBody:
    return StoreError(error.what, error.why, "it goes on by itself as soon as the disk takes records again").body()


def _resumed(error: CorralError, id: str) -> ErrorBody:
    """What a pull rests for that a person must mend, with what takes this one further then."""
    again = f"corral models pulls resume {id}"
    if error.todo.endswith("pulls resume"):
        error.todo += f" {id}"
    elif "resume" in error.todo:
        error.todo = error.todo.replace("resume ID", f"resume {id}")
    else:
        error.todo = f"{error.todo}, then: {again}" if error.todo else f"when that is mended: {again}"
    return error.body()


def _needs_token() -> NeedsToken:
    return NeedsToken(
        "it needs a token", "the daemon that had it has ended, and it is kept nowhere else",
        "its owner gives it again: corral models pulls resume",
    )  # fmt: skip
