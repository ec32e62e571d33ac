"""What the rest of Corral may ask of a host, however it is reached.

`local` is the first implementation; an SSH host and a Slurm cluster fit the same interface. Every method may raise
`core.errors.Failed` when the host can't be reached; none blocks the event loop; each has a time-out of its own.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import msgspec

from core.nouns import NodeFacts, NodeSample, Noun, ProcessSample


def new_launch_id() -> str:
    """10 characters of 50 random bits."""
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    return "".join(alphabet[byte & 31] for byte in secrets.token_bytes(10))


class Limits(Noun, frozen=True, kw_only=True):
    """Hard limits that the keeper sets on the engine before it executes it. 0 = none."""

    data_bytes: int = 0
    """RLIMIT_DATA: KV cache, compute buffers and heap, not mapped weights."""
    stack_bytes: int = 8 << 20
    """RLIMIT_STACK, and so what each thread maps of the data limit, though it touches little of it; never above the
    host's own limit."""
    cpus: tuple[int, ...] = ()
    """Affinity mask; empty = inherit."""
    nice: int = 5
    oom_score_adj: int = 500
    core_bytes: int = 0
    """RLIMIT_CORE; core dumps are off."""
    log_bytes: int = 4 << 20
    log_files: int = 3
    offline: bool = False
    """It can open no connection to any network (`offline`); local sockets are left to it."""


class LaunchOrder(Noun, frozen=True, kw_only=True):
    """One run of an engine (or of the gateway) to be started. `id` has 10 characters and is committed by the
    daemon before `Node.launch` is called."""

    id: str
    kind: Literal["replica", "gateway", "bench"]
    owner: str
    """The deployment and replica it is for (`chat/0`), or `gateway`."""
    argv: tuple[str, ...]
    env: dict[str, str]
    """The whole environment: an allow-list and the launch's secret."""
    limits: Limits
    spec: dict[str, Any] = {}
    """Whatever the daemon wants to find again when it adopts the launch (kept in launch.json, no secrets)."""
    restart: bool = False
    """The keeper itself starts the program again when it dies (gateway only), with growing pauses."""


class ExitRecord(Noun, frozen=True, kw_only=True):
    """How a launch ended (exit.json). Exactly one of `code` and `signal` is set, both None if nobody can say."""

    code: int | None = None
    signal: int | None = None
    peak_rss_bytes: int = 0
    time: float = 0.0
    reason: str = ""
    """The keeper's own: `keeper lost`, `exec failed: …`, `launch.json could not be written: …`."""
    oom_line: str = ""
    """The kernel's, where it may be read."""


class LaunchState(Noun, frozen=True, kw_only=True):
    """One launch folder as found on the host.

    `alive` = its lock is held. `ready_to_adopt` = launch.json is there and boot id, pid and start time match.
    Neither alive nor `exit` = the host went down or the keeper was killed before it could write.
    """

    id: str
    kind: str
    owner: str
    alive: bool
    keeper_pid: int | None
    pid: int | None
    """The engine's."""
    started_at: float
    boot_id: str
    same_boot: bool
    spec: dict[str, Any]
    folder: str
    """The engine's working folder; its Unix socket is `e.sock` in it."""
    exit: ExitRecord | None
    runs: int = 1
    """How often a keeper with `restart` has started the program."""
    before: ExitRecord | None = None
    """How the run before this one ended, if the keeper has restarted it."""


class LogPiece(Noun, frozen=True, kw_only=True):
    """Bytes `start:end` of a launch's log, counted from the launch's first byte, over rotated files too."""

    start: int
    end: int
    data: bytes
    lost: int = 0
    """Bytes before `start` that were asked for and have been rotated away."""


class Node(ABC):
    """A host. One instance per host for the daemon's life."""

    name: str

    @abstractmethod
    async def facts(self) -> NodeFacts:
        """What the host is; read again when asked, cheap enough for each admission."""

    @abstractmethod
    async def sample(self) -> NodeSample:
        """One look at CPU, load, memory, pressure and disk. `free_bytes` is what admission counts with."""

    @abstractmethod
    async def launch(self, order: LaunchOrder) -> LaunchState:
        """Start one launch under a keeper and return when launch.json is there (10 s at most). Raises `Failed`
        with the keeper's reason; then nothing runs and the folder holds an exit.json. Repeating the call with
        an id that was started is refused: there is never a second copy."""

    @abstractmethod
    async def launches(self) -> list[LaunchState]:
        """All launch folders on the host, the ended ones too. Raises `Failed` if any cannot be looked at: a launch that
        lives must not be missing."""

    @abstractmethod
    def watch(self) -> AsyncIterator[LaunchState]:
        """Yield a launch's state when it ends (and when a keeper with `restart` has restarted it), for all
        launches, adopted ones too, within a second of it."""

    @abstractmethod
    def lives(self, launch: str) -> bool:
        """Whether a launch's program runs at this moment, as far as the host can say without being asked over a
        network: True where it can't. Cheap enough for each look at a state, and never ahead of `watch` by more than
        the keeper's last words."""

    @abstractmethod
    async def signal(self, launch: str, signal: int) -> bool:
        """Send a signal to the engine; False if it has ended. A pid whose start time differs is never hit."""

    @abstractmethod
    async def samples(self, launches: Sequence[str], *, pss: bool = False) -> list[ProcessSample]:
        """One look at each launch that lives. `pss` also measures PSS (4-5 ms and more each)."""

    @abstractmethod
    async def read_log(self, launch: str, start: int, limit: int) -> LogPiece:
        """Up to `limit` bytes from `start`; a negative `start` counts from the end."""

    @abstractmethod
    async def log_since(self, launch: str, moment: float) -> int:
        """The byte of a launch's log from which on all stands that was written since `moment` (unix seconds), to a
        second while the log is short and coarser later; 0 where nobody can say."""

    @abstractmethod
    async def remove(self, launch: str) -> None:
        """Remove an ended launch's folders. Raises `Conflict` while it lives, and `Failed`: then it is still found."""

    @abstractmethod
    def socket(self, launch: LaunchState) -> str:
        """Absolute path of the launch's Unix socket; empty until it is there."""

    @abstractmethod
    def port(self, launch: LaunchState, file: str = "port") -> int | None:
        """The loopback port that the launch wrote into `file` in its folder; None until it is there."""


encode_launch = msgspec.json.Encoder().encode
