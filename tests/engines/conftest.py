"""Real engines under real keepers, started as the daemon starts them; those that are not installed are skipped."""

import asyncio
import importlib.util
import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from pooled import pooled

from core.catalog.shape import shape_of
from core.engines.base import Command, Endpoint, Engine, Failure, LaunchPlan
from core.engines.registry import registry
from core.keeper import gguf
from core.nodes.base import LaunchOrder, LaunchState, Limits
from core.nodes.local import Local
from core.nouns import DeploymentSpec, ModelShape
from core.paths import Paths
from core.settings import EnginesTable

_spec = importlib.util.spec_from_file_location("engines_build", Path(__file__).with_name("build.py"))
assert _spec and _spec.loader
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

REQUIRED = os.environ.get("CORRAL_TEST_ENGINES") == "required"
"""Set by `make test-engines`: an engine that is absent fails instead of being skipped."""
STARTED = [
    pytest.param("xllamacpp"),
    pytest.param("llama-server", marks=pytest.mark.engines),
    pytest.param("llama-cpp-python", marks=pytest.mark.engines),
]


def engines_table() -> EnginesTable:
    """What `make test-engines` built, where PATH and Corral's own Python have nothing."""
    built = build.found()
    if built is None:
        return EnginesTable()
    own = importlib.util.find_spec("llama_cpp") is not None
    return EnginesTable(
        llama_server=shutil.which("llama-server") or str(built.llama_server),
        llama_cpp_python="" if own else str(built.python),
    )


@dataclass
class Stream:
    """An open stream: its events as they come."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    events: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    async def take(self, count: int = 1 << 30) -> list[dict[str, Any]]:
        """Read until `count` events are here, `[DONE]` or the end; 30 s at most."""
        async with asyncio.timeout(30):
            while len(self.events) < count and not self.done:
                line = await self.reader.readline()
                if not line:
                    break
                if line.startswith(b"data: [DONE]"):
                    self.done = True
                elif line.startswith(b"data: {"):
                    self.events.append(json.loads(line[6:]))
        return self.events


@dataclass
class Served:
    """One launch of an engine."""

    engine: Engine
    plan: LaunchPlan
    command: Command
    node: Local
    state: LaunchState
    endpoint: Endpoint
    seen: list[str] = field(default_factory=list)
    """The states of health until it was ready."""

    async def until_ready(self) -> None:
        async with asyncio.timeout(60):
            while not self.seen or self.seen[-1] != "ready":
                health = await self.engine.health(self.endpoint)
                self.seen.append(health.state)
                now = await self.now()
                assert now.alive, f"{now.exit}\n{await self.log()}"

    async def now(self) -> LaunchState:
        return next(each for each in await self.node.launches() if each.id == self.state.id)

    async def log(self) -> str:
        return (await self.node.read_log(self.state.id, -(4 << 20), 4 << 20)).data.decode("utf-8", "replace")

    async def end(self, seconds: float = 15) -> LaunchState:
        """Wait for its end."""
        async with asyncio.timeout(seconds):
            async for state in self.node.watch():
                if state.id == self.state.id and not state.alive:
                    return state
        raise AssertionError

    async def why(self, *, was_ready: bool) -> Failure:
        """Its end, explained as the daemon does it."""
        last = await self.end()
        assert last.exit is not None
        return self.engine.explain(
            code=last.exit.code, signal=last.exit.signal, log_tail=(await self.log())[-16384:].splitlines(),
            was_ready=was_ready,
        )  # fmt: skip

    async def signal(self, number: int) -> None:
        assert await self.node.signal(self.state.id, number)

    async def stop(self) -> tuple[float, LaunchState]:
        """TERM, and a second one where the engine needs it, as the daemon does; seconds and how it ended."""
        began = time.monotonic()
        await self.signal(signal.SIGTERM)
        again = self.engine.abilities.term_again_s
        if again:
            try:
                last = await self.end(again)
            except TimeoutError:
                await self.signal(signal.SIGTERM)
            else:
                return time.monotonic() - began, last
        last = await self.end(10)
        return time.monotonic() - began, last

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, secret: str | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.endpoint.socket:
            reader, writer = await asyncio.open_unix_connection(self.endpoint.socket, limit=8 << 20)
        else:
            reader, writer = await asyncio.open_connection(self.endpoint.host, self.endpoint.port, limit=8 << 20)
        data = b"" if body is None else json.dumps(body).encode()
        key = self.endpoint.secret if secret is None else secret
        bearer = f"Authorization: Bearer {key}\r\n" if key else ""
        writer.write(
            f"{method} {path} HTTP/1.0\r\nHost: localhost\r\n{bearer}Content-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        return reader, writer

    async def call(
        self, path: str, body: dict[str, Any] | None = None, *, secret: str | None = None, timeout: float = 30
    ) -> tuple[int, str]:
        """Status and body of one request."""
        async with asyncio.timeout(timeout):
            reader, writer = await self._send("GET" if body is None else "POST", path, body, secret)
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((line for line in head.lower().splitlines() if line.startswith("content-length")), "")
                text = await (reader.readexactly(int(length.split(":")[1])) if length else reader.read())
                return int(head.split()[1]), text.decode()
            finally:
                writer.transport.abort()

    async def chat(self, **options: Any) -> dict[str, Any]:
        status, text = await self.call("/v1/chat/completions", question(**options))
        assert status == 200, text
        return json.loads(text)

    @asynccontextmanager
    async def stream(self, **options: Any) -> AsyncIterator[Stream]:
        options = {"stream_options": {"include_usage": True}} | options
        reader, writer = await self._send("POST", "/v1/chat/completions", question(stream=True, **options), None)
        try:
            async with asyncio.timeout(30):
                head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head.splitlines()[0], head
            yield Stream(reader, writer)
        finally:
            writer.transport.abort()


def question(**options: Any) -> dict[str, Any]:
    """A request whose answer goes on for as long as `max_tokens` lets it."""
    text = options.pop("text", "Count zebras: one zebra, two zebras, three")
    asked = {
        "model": "herd",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
        "temperature": 0,
        "logit_bias": {"0": -100, "2": -100},  # the sample's end marks: it never stops by itself
    }
    return asked | options


class Yard:
    """Starts engines in a folder with a short path, and ends what it started."""

    def __init__(self, folder: Path, sample: Path, table: EnginesTable) -> None:
        paths = Paths(folder, folder / "corral.toml", "0badcafe")
        paths.launches.mkdir(parents=True)
        paths.records.mkdir()
        self.paths, self.node, self.sample = paths, Local(paths), sample
        self.engines = registry(table)
        with sample.open("rb") as file:
            self.shape: ModelShape = shape_of([gguf.read_header(file.fileno())])

    def engine(self, name: str) -> Engine:
        """Skips (or fails) by name with the reason where it is absent."""
        engine = self.engines.get(name)
        there = engine.availability()
        if not there.found:
            (pytest.fail if REQUIRED else pytest.skip)(f"{name}: {there.reason} (make test-engines)")
        return engine

    def plan(self, engine: Engine, **changes: Any) -> LaunchPlan:
        spec = DeploymentSpec(
            name="herd", model="sample", engine=engine.name,
            cache_type=changes.pop("cache_type", "f16"), embedding=changes.pop("embedding", False),
            rerank=changes.pop("rerank", False),
        )  # fmt: skip
        plan = LaunchPlan(
            spec=spec, alias="herd", model_path=str(self.sample), shape=self.shape, ctx=2048,
            parallel=2 if engine.abilities.parallel else 1, threads=1, secret=secrets.token_urlsafe(32),
        )  # fmt: skip
        return msgspec.structs.replace(plan, **changes)

    async def start(self, engine: Engine, limits: Limits | None = None, **changes: Any) -> Served:
        """Launch it; it may not be ready yet."""
        plan = self.plan(engine, **changes)
        command = engine.command(plan)
        order = LaunchOrder(
            id=secrets.token_hex(5), kind="replica", owner="herd/0", argv=command.argv, env=command.env,
            limits=msgspec.structs.replace(limits or Limits(), offline=command.listens == "unix"),
        )  # fmt: skip
        state = await self.node.launch(order)
        endpoint = Endpoint(socket=f"{state.folder}/e.sock", secret=plan.secret)
        return Served(engine, plan, command, self.node, state, endpoint)

    async def ready(self, engine: Engine, limits: Limits | None = None, **changes: Any) -> Served:
        served = await self.start(engine, limits, **changes)
        await served.until_ready()
        return served

    async def close(self) -> None:
        """Kill the engines, and wait for their keepers."""
        for state in await self.node.launches():
            if state.alive:
                await self.node.signal(state.id, signal.SIGKILL)
        async with asyncio.timeout(15):
            while any(state.alive for state in await self.node.launches()):
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def yard(sample: Path) -> AsyncIterator[Yard]:
    folder = Path(tempfile.mkdtemp(prefix="c-"))
    yard = Yard(folder, sample, engines_table())
    yield yard
    await yard.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=STARTED)
async def engine(request: pytest.FixtureRequest, yard: Yard) -> Engine:
    """Each engine that Corral starts, one after the other."""
    return yard.engine(request.param)


@pytest.fixture(scope="module")
def hostile_environment() -> Iterator[dict[str, str]]:
    """What a person's shell may hold and an engine must not see."""
    told = {
        "HOST": "0.0.0.0",
        "PORT": "8000",
        "HF_TOKEN": "hf_not_for_engines",
        "N_CTX": "9",
        "LLAMA_ARG_CTX_SIZE": "9",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in told.items():
            patch.setenv(key, value)
        yield told


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(yard: Yard, engine: Engine, hostile_environment: dict[str, str]) -> AsyncIterator[Served]:
    """One launch that the tests which leave it whole share."""
    served = await yard.ready(engine)
    yield served
    await served.signal(signal.SIGKILL)
    await served.end()


@pytest.fixture(scope="session")
def spoiled(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Files made of the sample: what no engine can load, and `pooled`, a model that makes embeddings."""
    folder = tmp_path_factory.mktemp("spoiled")

    def make(kind: str) -> Path:
        path = folder / f"{kind}.gguf"
        if kind == "cut":
            with sample.open("rb") as file:
                path.write_bytes(file.read(8 << 20))
        elif kind == "garbage":
            path.write_bytes(b"\x93NUMPY no model at all" * 1000)
        elif kind == "stranger":
            data = sample.read_bytes()
            at = data.index(b"llama", data.index(b"general.architecture"))
            path.write_bytes(data[:at] + b"zlama" + data[at + 5 :])
        elif kind == "pooled":
            path.write_bytes(pooled(sample.read_bytes()))
        return path

    return make
