"""The client-side picture: fed by the event stream, read by every screen; it outlives the connection, with its age."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from core import program_version
from core.errors import CorralError, NoDaemon, VersionMismatch
from core.nouns import (
    AuditRecord,
    BenchJob,
    Deployment,
    Event,
    ImportJob,
    Model,
    MoveJob,
    NodeFacts,
    NodeSample,
    Picture,
    Pull,
    Replica,
    Status,
    Tier,
    Verified,
    Whoami,
)
from tui.words import releases

AUDIT_KEPT = 300
SAMPLES_KEPT = 600
"""Ten minutes of a look each second."""

Connect = Callable[[], Awaitable[Any]]
"""Opens a client; see core.client.Client, whose methods the screens call."""


LONGEST_S = 4.0
"""Between two tries to reach a daemon that is away, at most."""
PAST_S = 5.0
"""Seconds that one column of a replica's past stands for."""
PAST_KEPT = 60
"""Columns: five minutes."""


class Past:
    """The last minutes of a replica in columns of `PAST_S`, as far as this console has seen them: each holds the mean
    CPU (per cent of a core), private bytes and tokens a second; None where nothing was seen."""

    def __init__(self) -> None:
        self.columns: deque[tuple[float, float, float] | None] = deque(maxlen=PAST_KEPT)
        self._at = 0
        self._looks = 0

    def add(self, now: float, seen: Replica) -> None:
        """One look at `now` (epoch seconds)."""
        at = int(now // PAST_S)
        if at != self._at or not self.columns:
            if self.columns:
                self.columns.extend([None] * min(PAST_KEPT, max(0, at - self._at - 1)))
            self.columns.append((0.0, 0.0, 0.0))
            self._at, self._looks = at, 0
        mean = self.columns[-1] or (0.0, 0.0, 0.0)
        self._looks += 1
        new = (seen.cpu_percent, float(seen.anon_bytes), seen.tokens_per_second)
        cpu, private, speed = (old + (each - old) / self._looks for old, each in zip(mean, new, strict=True))
        self.columns[-1] = (cpu, private, speed)


class Kept(NamedTuple):
    """Where nouns of one kind are kept: what they are, the attribute of `State` (and of `Picture`), the key."""

    noun: type[Any]
    where: str
    key: Callable[[Any], str]
    pictured: bool = True


def _id(found: Any) -> str:
    return str(found.id)


def _name(found: Any) -> str:
    return str(found.name)


_SHELVES = {
    "deployment": Kept(Deployment, "deployments", lambda found: str(found.spec.name)),
    "replica": Kept(Replica, "replicas", _id),
    "model": Kept(Model, "models", _name),
    "import": Kept(ImportJob, "imports", _id, pictured=False),
    "pull": Kept(Pull, "pulls", _id),
    "tier": Kept(Tier, "tiers", _name),
    "move": Kept(MoveJob, "moves", _id),
    "bench": Kept(BenchJob, "benches", _id),
    "node": Kept(NodeFacts, "facts", _name),
}
"""By the kind of their events."""


class State:
    """What is known. `connection` is connecting, live, reconnecting, ended (somebody shut the daemon down) or failed;
    `problem` says why it isn't live."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.connection = "connecting"
        self.problem: Exception | None = None
        self.seen_at = 0.0
        self.status: Status | None = None
        self.release = ""
        """What to say of a daemon of another release."""
        self.deployments: dict[str, Deployment] = {}
        self.replicas: dict[str, Replica] = {}
        self.models: dict[str, Model] = {}
        self.imports: dict[str, ImportJob] = {}
        self.pulls: dict[str, Pull] = {}
        self.tiers: dict[str, Tier] = {}
        self.moves: dict[str, MoveJob] = {}
        """By id, the oldest first."""
        self.benches: dict[str, BenchJob] = {}
        """Measurements by id, the oldest first."""
        self.verified: Verified | None = None
        """The last verification of stored files, as far as a screen has asked."""
        self.facts: dict[str, NodeFacts] = {}
        self.audit: deque[AuditRecord] = deque(maxlen=AUDIT_KEPT)
        self.me: Whoami | None = None
        """Who we are to the daemon."""
        self.past: dict[str, Past] = {}
        """By replica, its last minutes."""
        self.samples: deque[NodeSample] = deque(maxlen=SAMPLES_KEPT)

    def load(self, picture: Picture) -> None:
        """Take a whole picture."""
        self.status = picture.status
        self.release = releases(picture.status.daemon.version, program_version())
        for shelf in _SHELVES.values():
            if shelf.pictured:
                found = getattr(picture, shelf.where)
                setattr(self, shelf.where, {shelf.key(each): each for each in found})
        self.audit = deque(picture.audit, maxlen=AUDIT_KEPT)
        self.me = picture.me
        if not self.samples:
            self.samples.extend(picture.status.nodes)
        self.seen_at = self.clock()

    def health(self) -> str:
        """What the daemon says is wrong with itself, "" for nothing: seen on every screen."""
        if self.connection == "ended":
            return f"! {self.lost()}"
        if self.status is None:
            return ""
        words = list(self.status.daemon.warnings)
        if not self.status.audit_ok:
            words.insert(0, f"The audit chain is broken: {self.status.audit_message}")
        if self.release:
            words.append(self.release)
        count = f"{len(words)} warnings: " if len(words) > 1 else ""
        return f"! {count}{'; '.join(words)}" if words else ""

    def lost(self) -> str:
        """Why there is no connection and what to do, "" while it is live."""
        if self.connection == "live" or self.problem is None:
            return ""
        if self.connection != "ended":
            return str(self.problem) or type(self.problem).__name__
        told = next((r for r in reversed(self.audit) if r.verb in ("daemon.shutdown", "daemon.start")), None)
        by = f" by {told.actor}" if told is not None and told.verb == "daemon.shutdown" else ""
        return f"The daemon was shut down{by}: F5 starts it again"

    def away(self) -> str:
        """What to say to who asks the daemon for something while there is none."""
        if self.connection == "ended":
            return self.lost()
        return "The daemon does not answer now. It is tried again; then press the key once more"

    def apply(self, event: Event) -> str:
        """Take one event; the answer is the kind of thing that changed, "" for nothing that is drawn."""
        self.seen_at = self.clock()
        kind, _, gone = event.type.partition(".")
        name = event.object.partition(":")[2]
        shelf = _SHELVES.get(kind)
        try:
            if shelf is not None and gone == "gone":
                getattr(self, shelf.where).pop(name, None)
            elif shelf is not None:
                found = msgspec.convert(event.data, shelf.noun)
                getattr(self, shelf.where)[shelf.key(found)] = found
            elif kind == "audit":
                record = msgspec.convert(event.data, AuditRecord)
                if not self.audit or record.seq > self.audit[-1].seq:  # a picture may know it before its event comes
                    self.audit.append(record)
            elif kind == "sample":
                self.samples.append(msgspec.convert(event.data, NodeSample))
                for replica in self.replicas.values():  # one that does nothing has no events of its own
                    self.past.setdefault(replica.id, Past()).add(self.samples[-1].time, replica)
        except msgspec.ValidationError:
            return ""
        if event.type == "replica.gone":
            self.past.pop(name, None)
        return kind


async def follow(
    state: State,
    connect: Connect,
    changed: Callable[[str, Event | None], None],
    attached: Callable[[Any], None],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Keep `state` live for ever: connect, read the picture, follow the events; on a loss say so, wait, begin again.

    `attached` gets each new client, None when it is lost. A version mismatch ends it: waiting can't mend that.
    """
    wait = 0.25
    while True:
        client: Any = None
        try:
            client = await connect()
            picture = await client.picture()
            state.load(picture)
            state.connection, state.problem, wait = "live", None, 0.25
            attached(client)
            changed("all", None)
            async for event in client.events(picture.event):
                if event.type in ("resync", "warning", "access"):  # warnings and rights are in the picture
                    state.load(await client.picture())
                    changed("all", None)
                else:
                    changed(state.apply(event), event)
            state.problem = ConnectionError("the daemon closed the stream")
        except VersionMismatch as error:
            state.connection, state.problem = "failed", error
            changed("connection", None)
            return
        except (CorralError, OSError, EOFError, TimeoutError, msgspec.DecodeError) as error:
            state.problem = error
        finally:
            attached(None)
            if client is not None:
                await _close(client)
        state.connection = "reconnecting" if state.seen_at else "connecting"
        if isinstance(state.problem, NoDaemon) and state.problem.details.get("ended"):
            state.connection = "ended"
        changed("connection", None)
        await pause(wait)
        wait = min(wait * 2, LONGEST_S)


async def _close(client: Any) -> None:
    close = getattr(client, "close", None)
    if close is not None:
        result = close()
        if asyncio.iscoroutine(result):
            await result
