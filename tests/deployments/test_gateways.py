"""The gateway's processes: what goes wrong with one is recorded once, with its reason, and leaves no effect open."""

import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from doubles import HostDouble

from core.access import Gate, Rights
from core.audit import Audit
from core.deployments import certificates
from core.deployments.certificates import Certificates
from core.deployments.gateways import Gateways
from core.errors import Failed
from core.gateway import wire
from core.nodes.base import ExitRecord, LaunchOrder, LaunchState
from core.nouns import CORRAL
from core.paths import Paths
from core.settings import Settings
from core.store import Store

PACKAGES = ("core.store", "core.audit", "core.deployments")


class Host(HostDouble):
    """A host whose folders can be such that nobody removes them."""

    def __init__(self) -> None:
        super().__init__()
        self.sticky = False
        self.breaks: Exception | None = None
        self.waits_in: Path | None = None
        """Where a gateway that is started waits to be handed the listener."""

    async def launch(self, order: LaunchOrder) -> LaunchState:
        if self.breaks is not None:
            raise self.breaks
        if self.waits_in is not None:
            (self.waits_in / f"next-{order.id}.sock").touch()
        return await super().launch(msgspec.structs.replace(order, owner=order.id))

    async def remove(self, launch: str) -> None:
        await super().remove(launch)
        if self.sticky:
            raise Failed(f"{launch} was not removed", "Read-only file system")
        del self.launched[launch]


class Place:
    """A store with its trail, a host, and the gateways on it."""

    def __init__(self, paths: Paths, store: Store, gate: Gate, audit: Audit) -> None:
        self.paths, self.store, self.gate, self.audit = paths, store, gate, audit
        self.host = Host()
        self.gateways = Gateways(self.host, store, gate, paths, Settings)

    async def told(self, verb: str) -> list[tuple[str, str]]:
        found = await self.audit.ls(limit=1000)
        return [(each.outcome, each.reason) for each in found if each.verb == verb]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=PACKAGES)
    audit = Audit(store, paths)
    yield Place(paths, store, Gate(store, audit, Rights(mode="user", owner_uid=os.getuid())), audit)
    await store.close()


async def test_a_death_is_recorded_once_though_its_folders_cannot_be_removed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    launch = await place.gateways.ensure()
    place.host.sticky = True
    ended = ExitRecord(signal=9, reason="killed")
    place.host.launched[launch.id] = msgspec.structs.replace(launch, alive=False, exit=ended)
    for _ in range(5):
        await place.gateways.sweep()
    assert await place.told("gateway.died") == [("done", "killed")]
    assert caplog.text.count("was not removed") == 1
    place.host.sticky = False
    await place.gateways.sweep()
    assert not place.host.launched


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Failed("it was not started", "the keeper ended at once"), "it was not started; the keeper ended at once"),
        (RuntimeError("a secret"), "an error of the daemon, told in its log: RuntimeError"),
    ],
)
async def test_a_start_that_fails_has_its_outcome_whatever_the_error_is(
    place: Place, error: Exception, reason: str
) -> None:
    place.host.breaks = error
    with pytest.raises(type(error)):
        await place.gateways.ensure()
    assert sorted(await place.told("gateway.start")) == [("failed", reason), ("intent", "")]


@pytest.mark.parametrize("error", [Failed("no"), RuntimeError("a secret")], ids=["told", "ours"])
async def test_a_gateway_that_could_not_take_over_is_ended_whatever_the_error_is(
    place: Place, error: Exception
) -> None:
    first = await place.gateways.ensure()
    place.paths.gateway.mkdir()
    place.host.waits_in = place.paths.gateway

    async def hand_over(path: Path) -> wire.Report:
        raise error

    with pytest.raises(type(error)):
        await place.gateways.replace(hand_over)
    assert [each.id for each in place.host.living()] == [first.id]
    outcomes = [outcome for outcome, _ in await place.told("gateway.replace")]
    assert sorted(outcomes) == ["failed", "intent"]
    assert all("secret" not in reason for _, reason in await place.told("gateway.replace"))


async def test_a_certificate_does_not_wait_for_a_name_server_that_is_silent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, answered = threading.Event(), threading.Event()

    def full_name() -> str:
        silent.wait(20)
        answered.set()
        return "late.example"

    monkeypatch.setattr(certificates, "FULL_NAME_S", 0.05)
    monkeypatch.setattr(socket, "getfqdn", full_name)
    made = await Certificates(place.gate, place.paths, None).make(CORRAL, "r", (), 10, replace=False)
    assert not answered.is_set() and {"localhost", socket.gethostname()} <= set(made.names)
    silent.set()


async def test_a_certificate_that_fails_by_an_error_of_ours_has_its_outcome(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(certificates, "make", make)
    with pytest.raises(ZeroDivisionError):
        await Certificates(place.gate, place.paths, None).make(CORRAL, "r", (), 10, replace=False)
    told = await place.told("gateway.certificate")
    assert sorted(told) == [("failed", "an error of the daemon, told in its log: ZeroDivisionError"), ("intent", "")]
