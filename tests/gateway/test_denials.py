"""Who is turned away at the gateway is found in the audit trail: at once, once for a flood, and never twice."""

import asyncio
import hashlib
import os
import socket
from types import SimpleNamespace

import msgspec
import pytest

from core.access import Gate, Rights
from core.audit import Audit
from core.deployments.gatewaylink import GatewayLink
from core.gateway import wire
from core.gateway.denials import MOST, WINDOW_S, Denials
from core.nouns import Key, Subject
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


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def key_for(name: str, **fields) -> wire.Key:
    """Whose secret is its name, and so is its id."""
    hash = hashlib.sha256(name.encode()).hexdigest()
    return wire.Key(id=name, name=name, hash=hash, owner="ann", uid=4242, behind=4242, **fields)


async def denied(gateway, want=lambda each: True) -> list[wire.Denied]:
    while not (found := [each for batch in gateway.usage for each in batch.denied if want(each)]):
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


def test_the_same_reason_for_two_keys_is_told_of_each():
    denials = Denials()
    for key in ("k1", "k2", "k1"):
        denials.note(5, "no", 100.0, key)
    assert [(each.key, each.times) for each in denials.due(100.0)] == [("k1", 2), ("k2", 1)]


async def test_a_known_key_that_is_refused_is_told_by_its_id_with_its_address_once(gateway, stub):
    at = free_port()
    keys = [key_for("net", sources=("10.0.0.0/8",)), key_for("few", endpoints=("embeddings",))]
    await gateway.route(stub, keys=keys, listen=f"127.0.0.1:{at}")
    told = {}
    for name in ("net", "few", "unknown"):
        reader, writer = await asyncio.open_connection("127.0.0.1", at)
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                     f"Authorization: Bearer {name}\r\nContent-Length: 0\r\n\r\n".encode())  # fmt: skip
        async with asyncio.timeout(10):
            assert b" 40" in await reader.read()
        writer.close()
        for each in await denied(gateway, lambda each: each.reason not in told.values()):
            told[each.key] = each.reason
            assert each.uid == (4242 if each.key else -1)
    assert told["net"] == "the key net may not be used from 127.0.0.1"
    assert told["few"] == "the key few may not ask /v1/chat/completions, from 127.0.0.1"
    assert told[""].endswith("from 127.0.0.1") and len(told) == 3


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
    made = {"begins": "corral_a", "created_at": 1.0, "created_by": "ann"}
    keys = {
        "k1": Key(id="k1", name="net", owner=Subject(kind="user", name="ann", id=7), **made),
        "k2": Key(id="k2", name="net", owner=Subject(kind="account", name="ci"), **made),
    }
    link.key_of = keys.get
    for n, key in enumerate(("k1", "k2", "gone"), start=2):
        many = wire.Denied(uid=-1, reason="the key net has expired", times=1, first=1.0, last=1.0, key=key)
        await link._commit(wire.UsageBatch(launch="l", n=n, lines=(), denied=(many,)))
    found = [(each.actor, each.uid, each.object) for each in await audit.ls(verb="gateway.refused")]
    assert sorted(found) == [
        ("account:ci", -1, "key:ci/net"), ("ann", 7, "key:ann/net"), ("stranger", -1, "gateway:local"),
        ("stranger", 7, "gateway:local"),
    ]  # fmt: skip
    assert [each.actor for each in (await audit.find("object:key:ann/net")).records] == ["ann"]
    assert (await audit.verify()).ok
