"""An engine for the length of a measurement: started under a keeper as a replica is, on nobody's route, gone after it.

Its launch has the kind `bench`: it is no replica, and a daemon that finds one of an earlier daemon ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from signal import SIGKILL, SIGTERM

from core.engines.base import Command, Endpoint, Engine, LaunchPlan
from core.errors import CorralError, Failed
from core.nodes.base import LaunchOrder, LaunchState, Limits, Node, new_launch_id

KIND = "bench"
LOOK_S = 0.05
TERM_S = 5.0
GONE_S = 10.0
STACK_BYTES = 8 << 20
"""As of a replica's threads (core/deployments/order.py), and so many beside them."""
MORE_THREADS = 16


def new_secret() -> str:
    """Of one launch."""
    return secrets.token_urlsafe(32)


@contextlib.asynccontextmanager
async def engine_for(
    node: Node, engine: Engine, plan: LaunchPlan, *, owner: str, plan_bytes: int, cpus: int, ready_s: float
) -> AsyncIterator[Endpoint]:
    """The endpoint of an engine that is ready; it has ended when the block is left. `plan_bytes` limit its memory as a
    replica's. Raises `Failed` with the reason when it does not start."""
    command: Command = engine.command(plan)
    order = LaunchOrder(
        id=new_launch_id(),
        kind="bench",
        owner=owner,
        argv=command.argv,
        env=command.env,
        limits=Limits(
            data_bytes=plan_bytes + engine.untouched_bytes(plan.shape) + STACK_BYTES * (plan.threads + cpus
                                                                                         + MORE_THREADS),
            stack_bytes=STACK_BYTES, log_bytes=1 << 20, log_files=1, offline=command.listens == "unix",
        ),
        spec={"engine": engine.name, "threads": plan.threads},
    )  # fmt: skip
    starting = asyncio.create_task(node.launch(order))
    try:
        yield await _ready(node, engine, await asyncio.shield(starting), plan.secret, ready_s)
    finally:
        await asyncio.shield(_finish(node, starting, order.id))


async def _finish(node: Node, starting: asyncio.Task[LaunchState], launch: str) -> None:
    """End it, also when nobody waits for its start any more: before that it could not be told to end."""
    await asyncio.wait({starting})
    if not starting.cancelled():
        starting.exception()  # whoever waited was told
    await end(node, launch)


async def end(node: Node, launch: str) -> None:
    """End a launch of this kind and remove its folders; what does not go is found again by the next daemon."""
    for signal, patience in ((SIGTERM, TERM_S), (SIGKILL, GONE_S)):
        with contextlib.suppress(CorralError, TimeoutError):
            if not node.lives(launch):
                break
            await node.signal(launch, signal)
            async with asyncio.timeout(patience):
                while node.lives(launch):  # noqa: ASYNC110 - a host is asked, it does not tell
                    await asyncio.sleep(LOOK_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GONE_S):
            while True:  # its keeper writes its last words
                try:
                    await node.remove(launch)
                    return
                except CorralError:
                    await asyncio.sleep(LOOK_S)


async def end_all(node: Node) -> int:
    """End what measurements of an earlier daemon left; how many there were."""
    left = [each.id for each in await node.launches() if each.kind == KIND]
    for launch in left:
        await end(node, launch)
    return len(left)


async def _ready(node: Node, engine: Engine, launch: LaunchState, secret: str, ready_s: float) -> Endpoint:
    try:
        async with asyncio.timeout(ready_s):
            while True:
                endpoint = _endpoint(node, engine, launch, secret)
                if endpoint is not None and (await engine.health(endpoint)).state == "ready":
                    return endpoint
                if not node.lives(launch.id):
                    raise Failed("the engine did not start", await _why(node, engine, launch.id))
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise Failed("the engine did not start", f"it was not ready after {ready_s:.0f} s") from None


def _endpoint(node: Node, engine: Engine, launch: LaunchState, secret: str) -> Endpoint | None:
    if engine.abilities.unix_socket:
        socket = node.socket(launch)
        return Endpoint(socket=socket, secret=secret) if socket else None
    port = node.port(launch)
    return Endpoint(host="127.0.0.1", port=port, secret=secret) if port is not None else None


async def _why(node: Node, engine: Engine, launch: str) -> str:
    """From its last lines and how it ended, once its keeper has written that."""
    exit = None
    with contextlib.suppress(TimeoutError, CorralError):
        async with asyncio.timeout(TERM_S):
            while exit is None:
                exit = next((each.exit for each in await node.launches() if each.id == launch), None)
                if exit is None:
                    await asyncio.sleep(LOOK_S)
    lines: list[str] = []
    with contextlib.suppress(CorralError):
        piece = await node.read_log(launch, -65536, 65536)
        lines = piece.data.decode("utf-8", "replace").splitlines()
    code, signal = (exit.code, exit.signal) if exit is not None else (None, None)
    failure = engine.explain(code=code, signal=signal, log_tail=lines, was_ready=False)
    return "; ".join([failure.reason, *failure.lines[:1]])
