"""Which snapshot is in force: an older one never, another database's always; and the daemon's end after its clock was
set back."""

import asyncio
import os
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from core import program_version
from core.access import Gate, Rights
from core.audit import Audit
from core.deployments.gatewaylink import GatewayLink
from core.gateway import wire
from core.paths import Paths
from core.settings import Settings
from core.store import Store


def snapshot(name: str, epoch: int, n: int, database: str = "d") -> wire.Snapshot:
    route = wire.Route(name=name, model="m", state="starting", replicas=())
    allowed = wire.Allowed(uids=(os.getuid(),))
    return wire.Snapshot(
        database=database, epoch=epoch, n=n, routes=(route,), allowed=allowed, limits=wire.GatewayLimits()
    )


async def models(gateway) -> bytes:
    return (await gateway.raw(b"GET /v1/models HTTP/1.0\r\n\r\n")).partition(b"\r\n\r\n")[2]


async def taken(gateway, new: wire.Snapshot) -> None:
    gateway.send(new)
    ack = await gateway.expect(wire.SnapshotAck)
    assert (ack.database, ack.epoch, ack.n) == (new.database, new.epoch, new.n)


async def test_an_older_snapshot_is_refused_also_after_a_restart(gateway):
    await taken(gateway, snapshot("first", 2, 5))
    for stale in (snapshot("stale", 2, 4), snapshot("stale", 1, 9)):
        gateway.send(stale)
        assert "older than 2/5" in (await gateway.expect(wire.Refused)).reason
    assert b'"first"' in await models(gateway)
    gateway.hang_up()
    gateway.stop(signal.SIGKILL)
    gateway.start()
    welcome = await gateway.connect()
    assert (welcome.database, welcome.epoch, welcome.n) == ("d", 2, 5)
    gateway.send(snapshot("stale", 2, 4))
    assert "older than 2/5" in (await gateway.expect(wire.Refused)).reason
    assert b'"first"' in await models(gateway)


async def test_a_later_epoch_wins_whatever_its_number_and_the_same_is_acknowledged_again(gateway):
    await taken(gateway, snapshot("first", 1, 9))
    await taken(gateway, snapshot("second", 2, 1))
    await taken(gateway, snapshot("second", 2, 1))
    assert b'"second"' in await models(gateway)


async def test_another_database_wins_with_whatever_number(gateway):
    await taken(gateway, snapshot("first", 7, 7, "old"))
    await taken(gateway, snapshot("second", 1, 1, "new"))
    assert b'"second"' in await models(gateway) and b'"first"' not in await models(gateway)


async def test_a_snapshot_that_cannot_be_kept_is_refused_and_changes_nothing(gateway):
    await taken(gateway, snapshot("first", 1, 1))
    (gateway.folder / "snapshot.new").mkdir()
    gateway.send(snapshot("second", 1, 2))
    assert "could not be kept" in (await gateway.expect(wire.Refused)).reason
    assert b'"first"' in await models(gateway)


class Host:
    """Stands for a node on which one gateway runs already; it starts and ends nothing."""

    async def launches(self):
        return [SimpleNamespace(id="launch0001", kind="gateway", alive=True, exit=None, before=None, runs=1, pid=1)]


@pytest.fixture
async def store(tmp_path):
    paths = Paths(tmp_path / "home", tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir(parents=True)
    store = await Store.open(paths)
    yield store, paths
    await store.close()


async def test_a_daemon_whose_clock_was_set_back_is_obeyed(gateway, store):
    store, paths = store
    paths.gateway.symlink_to(gateway.folder)
    await taken(gateway, snapshot("old", 2_000_000_000_000, 40, store.database_id))
    gateway.hang_up()
    link = GatewayLink(
        Host(), store, Gate(store, Audit(store, paths), Rights(mode="user", owner_uid=os.getuid())), paths,
        Settings, allowed=lambda: wire.Allowed(uids=(os.getuid(),)), on_live=lambda live: None, clock=lambda: 1.0,
    )  # fmt: skip
    running = asyncio.create_task(link.run())
    try:
        n = link.set_routes((wire.Route(name="new", model="m", state="starting", replicas=()),))
        assert await link.acknowledged(n, 10)
        assert b'"new"' in await models(gateway)
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_gateway_is_not_called_ready_before_it_has_told_what_it_does(store):
    """A new daemon said that nothing ran and that nothing was left to commit: it had not been told yet."""
    store, paths = store
    told = asyncio.Event()

    async def serve(reader, writer):
        await reader.readline()
        writer.write(
            msgspec.json.encode(
                wire.Welcome(
                    version=wire.WIRE_VERSION, launch="l0", pid=os.getpid(), program=program_version(), database="",
                    epoch=0, n=0, usage_from=1, usage_to=7,
                )
            )
            + b"\n"
        )  # fmt: skip
        await told.wait()
        live = wire.Live(requests=9, in_flight=2, queued={}, replicas=(), connections=2, spooled=7)
        writer.write(msgspec.json.encode(live) + b"\n")
        await reader.read()
        writer.close()

    short = tempfile.TemporaryDirectory(prefix="c-")  # a socket's path has 107 bytes at most
    paths.gateway.symlink_to(short.name)
    server = await asyncio.start_unix_server(serve, Path(short.name) / paths.gateway_control.name)
    link = GatewayLink(
        Host(), store, Gate(store, Audit(store, paths), Rights(mode="user", owner_uid=os.getuid())), paths,
        Settings, allowed=lambda: wire.Allowed(uids=(os.getuid(),)), on_live=lambda live: None,
    )  # fmt: skip
    running = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(10):
            while not link.status().version:
                await asyncio.sleep(0.005)
            assert link.status().state == "starting"
            told.set()
            while link.status().state != "ready":
                await asyncio.sleep(0.005)
        assert (link.status().in_flight, link.status().spooled) == (2, 7)
    finally:
        running.cancel()
        await asyncio.wait({running})
        server.close()
        short.cleanup()
