"""What the rest of Corral may ask of an inference server. Adding an engine is one module and one test.

An adapter never starts anything: it says what to start (`Command`), and the node's keeper does. It speaks HTTP to
an `Endpoint` for health and counters, with the standard asyncio streams and short time-outs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from core.errors import Invalid
from core.gateway import apis
from core.nouns import Counters, DeploymentSpec, ModelShape, Noun
from core.settings import EnginesTable

ADAPTER = "its adapter does not fit the model"
PROJECTOR = "its projector is another model's, damaged, or of a kind that this engine does not know"
"""How the reason begins of a failure that a version brings with it: as it is, it can never be started."""


class Availability(Noun, frozen=True, kw_only=True):
    """Whether the engine can be started on this host, and the sentence that says why not and what to do."""

    found: bool
    version: str = ""
    path: str = ""
    reason: str = ""


class Abilities(Noun, frozen=True, kw_only=True):
    """What an engine can do; callers ask this and never the engine's name."""

    starts: bool = True
    """False: attach only, watched and routed to."""
    unix_socket: bool = True
    parallel: bool = True
    """Serves several requests at once (slots)."""
    routes: tuple[str, ...] = (apis.CHAT.path, apis.COMPLETIONS.path, apis.EMBEDDINGS.path)
    """Those of core.gateway.apis that its server has; `serves` says which of them a deployment serves."""
    alias: bool = True
    """Serves its model under the deployment's name; else it is asked by the model's own."""
    stream_usage: bool = True
    """Understands stream_options.include_usage."""
    prompt_progress: bool = False
    """Tells in a stream, when asked, how much of the prompt it has read: what a stream that is cut has cost."""
    counters: bool = True
    cache_types: tuple[str, ...] = ("f16", "q8_0", "q4_0")
    program_bytes: int = 61 << 19
    """Resident memory of the program itself, just ready: a part of the plan, measured."""
    checkpoints: int = 0
    """States that a slot keeps of layers that see a window, so that its conversation can go back: `command` says so."""
    early_scores: bool = False
    """With embeddings, it touches half of the scores of a batch when it loads (measured)."""
    unpooled: bool = False
    """Embeds with a model that pools nothing, too: it answers with those of the tokens."""
    whole_window: bool = False
    """Keeps the cache of the whole context for layers, too, that see a window of it alone."""
    projector: bool = False
    """Takes pictures or sound through a projector beside the model."""
    adapters: bool = False
    """Takes LoRA adapters."""
    template: bool = False
    """Takes a chat template in place of that of the model's file."""
    defaults: bool = False
    """Takes what is used where a request says nothing of temperature and the like."""
    term_again_s: float = 0.0
    """Seconds after which a second SIGTERM ends an engine that may hang in its clean-up after the first; 0 = the
    first one suffices."""


def serves(abilities: Abilities, spec: DeploymentSpec) -> tuple[str, ...]:
    """The routes of a deployment. What an engine is started for decides; a server of somebody else is asked for
    everything, and says itself what it lacks."""
    if not abilities.starts:
        return abilities.routes
    if spec.rerank:
        kept = {apis.RERANK, apis.TOKENIZE, apis.DETOKENIZE}
    else:
        kept = {*apis.APIS} - {apis.RERANK} - (set() if spec.embedding else {apis.EMBEDDINGS})
    return tuple(api.path for api in apis.APIS if api in kept and api.path in abilities.routes)


class LaunchPlan(Noun, frozen=True, kw_only=True):
    """All that an adapter needs to build a command line."""

    spec: DeploymentSpec
    alias: str
    """The name it must show itself under (the deployment's): never the file's path."""
    model_path: str
    shape: ModelShape
    ctx: int
    parallel: int
    threads: int
    secret: str
    """Per launch; goes into the environment only."""
    cache_ram_mib: int = 256
    projector_path: str = ""
    adapter_paths: tuple[str, ...] = ()
    template: str = ""
    """In place of the file's own; "" for that."""
    defaults: dict[str, float] = {}
    """temperature, top_p, top_k, min_p where a request does not say."""


class Command(Noun, frozen=True, kw_only=True):
    """What the keeper executes. It runs in the launch folder; a Unix socket is `e.sock` there."""

    argv: tuple[str, ...]
    env: dict[str, str]
    """The whole environment. Nothing is inherited beside it."""
    listens: Literal["unix", "tcp"] = "unix"
    port_file: str = ""
    """With `tcp`: the file in the launch folder in which the child writes its port."""


class Endpoint(Noun, frozen=True, kw_only=True):
    """Where a replica listens: exactly one of `socket` (absolute path) and `host`/`port`."""

    socket: str = ""
    host: str = ""
    port: int = 0
    secret: str = ""
    prefix: str = ""
    """Path before /v1, for attached servers."""
    tls: bool = False
    at: str = ""
    """The address to connect to in place of what `host` means by then; it was looked at."""


class Health(Noun, frozen=True, kw_only=True):
    """`starting`: nothing listens yet; `loading`: it answers but is not ready; `ready`; `lost`: it was there."""

    state: Literal["starting", "loading", "ready", "lost"]
    reason: str = ""
    wants_key: bool = False
    """It is there and refused what it was asked, for want of a key that it takes."""


class Failure(Noun, frozen=True, kw_only=True):
    """Why a launch ended, for a person. `permanent` = the same start can never work: don't repeat it."""

    reason: str
    permanent: bool = False
    lines: tuple[str, ...] = ()
    """The engine's own lines that say so, at most three."""


class Engine(ABC):
    """An inference server program."""

    name: ClassVar[str]
    abilities: ClassVar[Abilities]

    def __init__(self, settings: EnginesTable) -> None:
        self.settings = settings

    @abstractmethod
    def availability(self) -> Availability:
        """Can it be started here? May touch the disk, never the network."""

    def build(self) -> str:
        """What tells this build from others: its version, or the program's size and age where it tells none."""
        there = self.availability()
        if there.version or not there.path:
            return there.version
        try:
            found = Path(there.path).stat()
        except OSError:
            return ""
        return f"{found.st_size:x}-{int(found.st_mtime):x}"

    @abstractmethod
    def command(self, plan: LaunchPlan) -> Command:
        """The program, its arguments and its whole environment for one launch."""

    def untouched_bytes(self, shape: ModelShape) -> int:
        """Private memory that it maps and never touches: room under its data limit beside the plan, not in the host."""
        return 0

    @abstractmethod
    async def health(self, endpoint: Endpoint) -> Health:
        """One look, 2 s at most, never raises for a server that is down."""

    @abstractmethod
    async def counters(self, endpoint: Endpoint) -> Counters | None:
        """What it counted since its start, or None if it does not say. Asked only while requests run."""

    @abstractmethod
    def explain(self, *, code: int | None, signal: int | None, log_tail: Sequence[str], was_ready: bool) -> Failure:
        """The reason a person understands, from exit code or signal and the engine's own last lines."""


class EngineRegistry:
    """The engines that this daemon knows, by name."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = {engine.name: engine for engine in engines}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._engines)

    def follow(self, settings: EnginesTable) -> None:
        """What is started from now on is started with these settings."""
        for engine in self._engines.values():
            engine.settings = settings

    def get(self, name: str) -> Engine:
        """Raises `Invalid` with the names there are."""
        try:
            return self._engines[name]
        except KeyError:
            known = ", ".join(self._engines)
            raise Invalid(f"no engine {name!r}", f"this daemon knows {known}", "name one of them") from None
