"""Who is turned away at the gateway is found in the audit trail: at once, once for a flood, and never twice."""

import asyncio
import os
from types import SimpleNamespace

import msgspec
import pytest

from core.access import Gate, Rights
from core.audit import Audit
from core.deployments.gatewaylink import GatewayLink
from core.gateway import wire
from core.gateway.denials import MOST, WINDOW_S, Denials
from core.paths import Paths
from core.settings import Settings
from core.store import Store


def told(denials: Denials, now: float, **how) -> list[tuple[int, str, int]]:
    return [(each.uid, each.reason, each.times) for each in denials.due(now, **how)]


def test_the_first_is_told_at_once_and_the_rest_of_a_minute_as_one():
    denials = Denials()
    denials.note(5, "no", 100.0)
    assert told(denials, 101.0) == [(5, "no", 1)]
    for n in range(1000):
        denials.note(5, "no", 101.0 + n / 100)
    assert told(denials, 102.0 + 10) == []
    (rest,) = denials.due(101.0 + WINDOW_S)
    assert (rest.times, rest.first, rest.last) == (1000, 101.0, 110.99)
    assert told(denials, 101.0 + 2 * WINDOW_S + 1) == []


def test_another_uid_or_reason_is_told_at_once_too():
    denials = Denials()
    denials.note(5, "no", 100.0)
    assert told(denials, 100.0)
    denials.note(6, "no", 100.0)
    denials.note(5, "never", 100.0)
    assert told(denials, 100.0) == [(6, "no", 1), (5, "never", 1)]


def test_a_flood_of_users_and_reasons_is_bounded_and_none_is_lost():
    denials = Denials()
    for n in range(10 * MOST):
        denials.note(n, f"reason {n}", 100.0)
        if n % 7 == 0:
            denials.due(100.0)
    left = denials.due(100.0, all=True)
    assert len(left) <= MOST + 1 and any(each.uid == wire.SEVERAL for each in left)
    many = Denials()
    for n in range(10 * MOST):
        many.note(n, "no", 100.0)
    assert sum(times for _, _, times in told(many, 100.0)) == 10 * MOST


def test_what_is_untold_at_the_end_is_told_then():
    denials = Denials()
    denials.note(5, "no", 100.0)
    denials.due(100.0)
    denials.note(5, "no", 100.5)
    assert told(denials, 101.0, all=True) == [(5, "no", 1)]


def test_a_clock_that_is_set_back_keeps_nothing_back():
    denials = Denials()
    denials.note(5, "no", 10_000.0)
    denials.due(10_000.0)
    denials.note(5, "no", 100.0)
    assert told(denials, 100.0) == [(5, "no", 1)]


async def denied(gateway) -> list[wire.Denied]:
    while not (found := [each for batch in gateway.usage for each in batch.denied]):
        await gateway.expect(wire.UsageBatch)
    return found


async def test_the_gateway_tells_whom_it_has_turned_away(gateway, stub):
    await gateway.route(stub, uids=())
    for _ in range(5):
        assert b"403" in await gateway.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    first = (await denied(gateway))[0]
    assert (first.uid, first.reason) == (os.getuid(), f"uid {os.getuid()} may not use this gateway")


async def test_they_outlive_a_gateway_that_is_killed_with_nobody_to_tell(gateway, stub):
    await gateway.route(stub, uids=())
    gateway.hang_up()
    assert b"403" in await gateway.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        while b'"denied":[{' not in b"".join(each.read_bytes() for each in gateway.folder.rglob("*.jsonl")):
            await asyncio.sleep(0.05)
    gateway.stop(9)
    gateway.start()
    await gateway.connect()
    assert (await denied(gateway))[0].times == 1


class Before(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="usagebatch"):
    """`UsageBatch` as the release before knew it."""

    launch: str
    n: int
    lines: tuple[wire.UsageLine, ...]


def test_a_daemon_of_the_release_before_takes_the_batch_without_them():
    new = wire.UsageBatch(
        launch="l", n=1, lines=(), denied=(wire.Denied(uid=1, reason="no", times=1, first=1.0, last=1.0),)
    )
    assert msgspec.json.decode(msgspec.json.encode(new), type=Before).n == 1
    old = msgspec.json.encode(Before(launch="l", n=1, lines=()))
    assert msgspec.json.decode(old, type=wire.UsageBatch).denied == ()


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


async def test_the_audit_trail_has_who_was_turned_away_once_however_often_it_is_told(gateway, store):
    store, paths = store
    audit = Audit(store, paths)
    gate = Gate(store, audit, Rights(mode="user", owner_uid=os.getuid()))

    async def name(uid: int) -> str:
        return "stranger"

    link = GatewayLink(
        Host(), store, gate, paths, Settings, allowed=wire.Allowed, on_live=lambda live: None, name=name
    )  # fmt: skip
    one = wire.Denied(uid=7, reason="uid 7 may not use this gateway", times=3, first=10.0, last=12.0)
    for _ in range(2):
        await link._commit(wire.UsageBatch(launch="l", n=1, lines=(), denied=(one,)))
    (record,) = await audit.ls(verb="gateway.refused")
    assert (record.actor, record.uid, record.outcome) == ("stranger", 7, "refused")
    assert record.reason == "uid 7 may not use this gateway (3 times within 2.0 s)"
    assert (await audit.verify()).ok
