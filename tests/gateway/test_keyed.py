"""Keys at the gateway: who has one, what it may, and how much; over TCP nothing goes without one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.gateway import wire
from core.gateway.keys import LEFT, MAY, Holder, Keys, allowed
from core.gateway.subjects import Subjects

SECRET = "corral_right"
ASK = {"model": "chat", "messages": []}


def port() -> int:
    """One that is free."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def key(secret: str = SECRET, **fields) -> wire.Key:
    limits = wire.Limits(**{name: fields.pop(name) for name in wire.Limits.__struct_fields__ if name in fields})
    base = {"id": "k1", "name": "ci", "owner": "ann", "uid": 4242, "behind": 4242}
    return wire.Key(hash=hashlib.sha256(secret.encode()).hexdigest(), limits=limits, **(base | fields))


def bearer(secret: str = SECRET) -> str:
    return f"Authorization: Bearer {secret}\r\n"


async def over_tcp(at: int, fields: dict | None, headers: str = "", path: str = "/v1/chat/completions") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", at)
    body = json.dumps(fields).encode() if fields is not None else b""
    method = "POST" if fields is not None else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def streaming(gateway, secret: str = SECRET):
    reader, writer = await gateway.open()
    body = json.dumps({**ASK, "stream": True, "max_tokens": 20}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{bearer(secret)}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.readuntil(b'"content":"0"')
    return reader, writer


async def test_a_key_decides_and_a_bad_one_never_falls_back(gateway, stub):
    await gateway.route(stub, keys=[key()])  # the peer's uid may use everything
    assert b" 200 " in await gateway.post(ASK, bearer())
    assert b" 200 " in await gateway.post(ASK, f"x-api-key: {SECRET}\r\n")
    for wrong in (bearer("corral_wrong"), bearer(""), "x-api-key: no\r\n", bearer(SECRET + "x"), bearer(SECRET[:-1])):
        answer = await gateway.post(ASK, wrong)
        assert b" 401 " in answer and b'"invalid_api_key"' in answer
    assert not any(b"corral_" in head for head in stub.heads), "no engine gets to see a key"
    line = await gateway.line(lambda line: line.key)
    assert (line.key, line.uid, line.actor) == ("k1", 4242, "ann")
    assert b" 403 " in await gateway.post(ASK, bearer() + "X-Corral-Actor: 0:root\r\n")


async def test_over_tcp_nothing_goes_without_a_key(gateway, stub):
    at = port()
    live = await gateway.route(stub, keys=[key()], listen=f"127.0.0.1:{at}")
    assert live.listens == f"http://127.0.0.1:{at}"
    refused = await over_tcp(at, ASK)
    assert b" 401 " in refused and b"WWW-Authenticate: Bearer" in refused
    assert b" 200 " in await over_tcp(at, ASK, bearer())
    assert b'"id":"chat"' in await over_tcp(at, None, bearer(), "/v1/models")
    assert b" 403 " in await over_tcp(at, None, bearer(), "/corral/turns/x")
    for path in ("/healthz", "http://elsewhere/healthz", "/readyz?verbose"):
        assert b'{"status":"ok"}' in await over_tcp(at, None, "", path)
    for path in ("*", "//healthz", "/healthz/x", "/v1/models?/healthz"):
        assert b" 40" in await over_tcp(at, None, "", path)
    assert b" 200 " in await over_tcp(at, None, "", "/readyz")
    await gateway.route(stub, keys=[key()], listen="")
    with pytest.raises(ConnectionRefusedError):
        await over_tcp(at, ASK)


async def test_a_key_may_what_it_and_its_owner_may(gateway, stub):
    mine = wire.Rule(user=True, id=4242, scope="deployment:ch*")
    for fields, words in (
        ({"deployments": ("other",)}, b"model_not_found"),
        ({"rules": ()}, b"model_not_found"),
        ({"rules": (mine, wire.Rule(user=True, id=4242, scope="*", deny=True))}, b"model_not_found"),
        ({"endpoints": ("embeddings",)}, b"may not ask /v1/chat/completions"),
        ({"until": 1.0}, b"has expired"),
    ):
        await gateway.route(stub, keys=[key(**fields)])
        assert words in await gateway.post(ASK, bearer()), fields
    assert not stub.bodies
    await gateway.route(stub, keys=[key(deployments=("ch*",), endpoints=("chat/completions",), rules=(mine,))])
    assert b" 200 " in await gateway.post(ASK, bearer())


def ended(secret: str, why: str) -> wire.Ended:
    return wire.Ended(hash=hashlib.sha256(secret.encode()).hexdigest(), key="k1", name="ci", uid=4242, why=why)


async def test_a_secret_that_was_rotated_away_is_told_so_during_and_after_its_grace(gateway, stub):
    await gateway.route(stub, keys=[key("corral_new"), key(until=1.0, replaced=True)])
    words = b"this secret of the key ci was rotated away: use the new one"
    refused = await gateway.post(ASK, bearer())
    assert b" 401 " in refused and words in refused and b'"invalid_api_key"' in refused
    await gateway.route(stub, keys=[key("corral_new")], ended=[ended(SECRET, "rotated")])
    refused = await gateway.post(ASK, bearer())
    assert b" 401 " in refused and words in refused
    assert b" 200 " in await gateway.post(ASK, bearer("corral_new"))


@pytest.mark.parametrize(
    ("why", "words"),
    [("expired", b"the key ci has expired"), ("revoked", b"the key ci was revoked"),
     ("owner gone", b"the owner of the key ci is gone"), ("of a later release", b"the key ci works no more")],
)  # fmt: skip
async def test_a_secret_that_ended_opens_nothing_and_is_told_why(gateway, stub, why, words):
    await gateway.route(stub, keys=[], ended=[ended(SECRET, why)])
    refused = await gateway.post(ASK, bearer())
    assert b" 401 " in refused and words in refused and not stub.bodies


SCOPES = st.sampled_from(["*", "deployment:*", "deployment:chat", "deployment:c*", "deployment:mail"])


def rule(scope: str, *, deny: bool = False, until: float | None = None) -> wire.Rule:
    return wire.Rule(user=True, id=1, scope=scope, deny=deny, until=until)


RULES = st.builds(rule, SCOPES, deny=st.booleans(), until=st.none() | st.floats(0, 10))


@given(
    st.none() | st.lists(RULES, max_size=5),
    st.lists(st.tuples(st.floats(0, 12), st.sampled_from(["chat", "mail", "other"])), max_size=20),
)
@example([rule("*", until=5.0)], [(1.0, "chat"), (6.0, "chat")])
@example([rule("*"), rule("*", deny=True, until=5.0)], [(6.0, "chat"), (1.0, "chat")])
def test_what_a_key_may_is_remembered_for_no_longer_than_it_holds(rules, moments):
    holder = Holder(key(rules=None if rules is None else tuple(rules), deployments=("c*", "mail")))
    for now, name in moments:  # also in clocks that are set back
        may = name != "other" and (rules is None or allowed(rules, name, now))
        assert holder.may_use(name, now) == may


def test_names_that_are_asked_for_are_not_remembered_without_end():
    holder = Holder(key())
    for n in range(3 * MAY):
        assert holder.may_use(f"none{n}", 1.0)
    assert len(holder._may) <= MAY


async def test_a_key_of_networks_comes_from_the_unix_socket_only_where_that_is_said(gateway, stub):
    at = port()
    await gateway.route(stub, keys=[key(sources=("127.0.0.0/8",))], listen=f"127.0.0.1:{at}")
    assert b" 200 " in await over_tcp(at, ASK, bearer())
    refused = await gateway.post(ASK, bearer())
    assert b" 403 " in refused and b"keys limit ci --from local" in refused
    assert b" 200 " in await over_tcp(at, ASK, bearer())
    await gateway.route(stub, keys=[key(sources=("127.0.0.0/8",), local=True)], listen=f"127.0.0.1:{at}")
    assert b" 200 " in await gateway.post(ASK, bearer())
    assert b" 200 " in await over_tcp(at, ASK, bearer())
    await gateway.route(stub, keys=[key(sources=("::/128",), local=True)], listen=f"127.0.0.1:{at}")
    assert b" 200 " in await gateway.post(ASK, bearer())
    assert b"may not be used from 127.0.0.1" in await over_tcp(at, ASK, bearer())


async def test_a_key_may_come_from_its_networks_alone(gateway, stub):
    at = port()
    await gateway.route(stub, keys=[key(sources=("10.0.0.0/8",))], listen=f"127.0.0.1:{at}")
    assert b"may not be used from 127.0.0.1" in await over_tcp(at, ASK, bearer())
    assert b" 403 " in await gateway.post(ASK, bearer()), "the Unix socket is none of them"
    await gateway.route(stub, keys=[key(sources=("10.0.0.0/8", "127.0.0.0/8"))], listen=f"127.0.0.1:{at}")
    assert b" 200 " in await over_tcp(at, ASK, bearer())
    live = await gateway.told(lambda live: live.sources.get("k1") == "127.0.0.1")
    assert live.used["k1"] > 1e9


async def test_requests_over_the_limit_are_told_which_and_when(gateway, stub):
    await gateway.route(stub, keys=[key(rpm=2), key("corral_other", id="k2")])
    first = await gateway.post(ASK, bearer())
    assert b"x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 1\r\n" in first
    assert b" 200 " in await gateway.post(ASK, bearer())
    refused = await gateway.post(ASK, bearer())
    assert b" 429 " in refused and b"rate_limit_exceeded" in refused and b"2 requests a minute" in refused
    seconds = int(refused.split(b"Retry-After: ")[1].split(b"\r\n")[0])
    assert 50 <= seconds <= 62
    assert b" 200 " in await gateway.post(ASK, bearer("corral_other")), "another key has limits of its own"


async def test_two_at_once_and_a_client_that_goes_frees_its_place(gateway, stub):
    stub.hold.clear()
    await gateway.route(stub, keys=[key(concurrency=2)], slots=4)
    one, two = await streaming(gateway), await streaming(gateway)
    refused = await gateway.post(ASK, bearer())
    assert b" 429 " in refused and b"2 requests at once" in refused
    one[1].close()
    async with asyncio.timeout(5):
        while b" 429 " in await gateway.post({**ASK, "stream": False}, bearer()):
            await asyncio.sleep(0.02)
    two[1].close()


async def test_tokens_are_reserved_and_settled_by_what_the_engine_counted(gateway, stub):
    """The stub counts 7 tokens an answer that is not streamed; each asks for 20 and the prompt is some 20."""
    ask = {**ASK, "max_tokens": 20}
    await gateway.route(stub, keys=[key(tpm=60)])
    done = 0
    while b" 200 " in (answer := await gateway.post(ask, bearer())):
        done += 1
        assert done < 20
    assert b"tokens a minute" in answer
    assert done == 4, "7 each: 28 used, and 39 more are over 60"
    assert not stub.bodies[done:]


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ({"keys": []}, b"the key ci was revoked"),
        ({"keys": [], "ended": ["revoked"]}, b"the key ci was revoked"),
        ({"keys": [], "ended": ["rotated"]}, b"this secret of the key ci was rotated away"),
        ({"keys": [], "ended": ["expired"]}, b"the key ci has expired"),
    ],
)
async def test_a_key_that_ends_takes_the_answer_along_that_is_being_made(gateway, stub, then, words):
    stub.hold.clear()
    await gateway.route(stub, keys=[key()])
    reader, writer = await streaming(gateway)
    await gateway.route(stub, **{**then, "ended": [ended(SECRET, why) for why in then.get("ended", ())]})
    async with asyncio.timeout(5):
        rest = await reader.readuntil(b"0\r\n\r\n")
    assert words in rest and b'"code":"invalid_api_key"' in rest
    line = await gateway.line()
    assert (line.outcome, line.status, line.key) == ("revoked", 200, "k1"), "it ran, unlike what is refused"
    assert b" 401 " in await gateway.post(ASK, bearer())
    writer.close()


async def test_a_stream_of_messages_is_told_of_its_key_as_this_api_has_it(gateway, stub):
    stub.hold.clear()
    await gateway.route(stub, keys=[key()])
    reader, writer = await gateway.open()
    body = json.dumps({**ASK, "stream": True, "max_tokens": 20}).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\n{bearer()}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.readuntil(b"\r\n\r\n")
    await gateway.route(stub, keys=[])
    async with asyncio.timeout(5):
        rest = await reader.readuntil(b"0\r\n\r\n")
    assert b'"type":"authentication_error"' in rest and b"the key ci was revoked" in rest
    writer.close()


async def test_what_waited_only_when_its_key_ended_never_ran(gateway, stub):
    stub.hold.clear()
    await gateway.route(stub, keys=[key(), key("corral_other", id="k2")])
    _, running = await streaming(gateway, "corral_other")
    waiting = asyncio.create_task(gateway.post(ASK, bearer()))
    await gateway.told(lambda live: sum(live.queued.values()) == 1)
    await gateway.route(stub, keys=[key("corral_other", id="k2")])
    answer = await waiting
    assert b" 401 " in answer and b"the key ci was revoked" in answer
    line = await gateway.line(lambda line: line.key == "k1")
    assert (line.outcome, line.status) == ("refused", 401)
    running.close()


@pytest.mark.parametrize("of", ["key", "grant"])
async def test_a_key_or_a_grant_that_ends_takes_the_answer_along_while_the_daemon_is_away(gateway, stub, of):
    stub.hold.clear()
    until = time.time() + 1.5
    rule = wire.Rule(user=True, id=0, scope="deployment:chat", until=until)
    await gateway.route(stub, keys=[key(until=until) if of == "key" else key(rules=(rule,))])
    reader, writer = await streaming(gateway)
    gateway.hang_up()
    async with asyncio.timeout(5):
        rest = await reader.readuntil(b"0\r\n\r\n")
    assert (b"the key ci has expired" if of == "key" else b"was taken away") in rest
    assert until <= time.time() < until + 1
    writer.close()


async def test_what_was_used_today_is_known_after_kill_9(gateway, stub):
    ask = {**ASK, "max_tokens": 20}
    await gateway.route(stub, keys=[key(daily_tokens=45)])
    assert b" 200 " in await gateway.post(ask, bearer())
    assert b" 200 " in await gateway.post(ask, bearer())
    kept = gateway.folder / "counts.json"
    async with asyncio.timeout(5):
        while not kept.exists() or json.loads(kept.read_bytes())["uses"].get("key:k1", {}).get("tokens") != 14:
            await asyncio.sleep(0.02)
    gateway.stop(signal.SIGKILL)
    gateway.hang_up()
    gateway.start()
    await gateway.connect()
    refused = await gateway.post(ask, bearer())
    assert b" 429 " in refused and b"45 tokens a day" in refused


async def test_counts_and_port_go_on_at_the_gateway_that_follows(gateway, second, stub):
    stub.hold.clear()
    at = port()
    keys = [key(concurrency=1, daily_tokens=600)]
    await gateway.route(stub, keys=keys, slots=2, listen=f"127.0.0.1:{at}")
    reader, writer = await streaming(gateway)
    waiting = gateway.folder / "next-launch0002.sock"
    async with asyncio.timeout(10):
        while not waiting.exists():
            await asyncio.sleep(0.02)
    gateway.send(wire.HandOver(socket=str(waiting)))
    assert (await gateway.expect(wire.Report)).ok
    await second.connect()
    assert b'{"status":"ok"}' in await over_tcp(at, None, "", "/healthz")
    async with asyncio.timeout(5):
        while b"requests at once" not in (answer := await over_tcp(at, {**ASK, "max_tokens": 20}, bearer())):
            assert b" 200 " in answer
            await asyncio.sleep(0.05)
    stub.hold.set()
    assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    async with asyncio.timeout(5):
        while b" 200 " not in await over_tcp(at, {**ASK, "max_tokens": 20}, bearer()):
            await asyncio.sleep(0.05)


async def test_a_port_that_is_taken_gives_way_to_the_next_which_is_kept(gateway, stub):
    at = port()
    with socket.create_server(("127.0.0.1", at)):
        live = await gateway.route(stub, keys=[key()], listen=f"127.0.0.1:{at}")
    mine = int(live.listens.rpartition(":")[2])
    assert at < mine < at + 100
    gateway.stop(signal.SIGKILL)
    gateway.hang_up()
    gateway.start()
    await gateway.connect()
    assert b" 200 " in await over_tcp(mine, ASK, bearer()), "though the wanted one is free now"


@pytest.mark.parametrize(
    ("path", "how"), [("/v1/messages", "x-api-key: KEY"), ("/v1/messages?beta=true", "x-api-key: KEY"),
                      ("/v1/chat/completions", "Authorization: Bearer KEY")],
)  # fmt: skip
async def test_who_has_no_key_is_told_how_this_api_takes_one(gateway, stub, path, how):
    at = port()
    await gateway.route(stub, listen=f"127.0.0.1:{at}")
    answer = await over_tcp(at, ASK, path=path)
    assert b" 401 " in answer and f"an API key is needed: {how}".encode() in answer


async def test_what_is_refused_to_a_service_account_is_in_its_name(gateway, stub):
    await gateway.route(stub, keys=[key(owner="account:ci", uid=-1, behind=-1)])
    assert b" 404 " in await gateway.post({**ASK, "model": "other"}, bearer())
    line = await gateway.line()
    assert (line.uid, line.actor, line.key, line.status) == (-1, "account:ci", "k1", 404)
    assert b" 404 " in await gateway.post({**ASK, "model": "other"})  # who asks on the socket is known without a key
    await gateway.line(lambda line: (line.uid, line.key, line.status) == (os.getuid(), "", 404))


def test_the_use_of_a_key_that_ended_right_after_it_is_told_still():
    now = 100.0
    keys = Keys(Subjects(), lambda: now)
    keys.use([key(), key("corral_never", id="k2")])
    keys.find(SECRET.encode(), "10.0.0.7")
    for _ in range(2):
        keys.use([key("corral_never", id="k2")])
        assert keys.seen() == ({"k1": 100.0}, {"k1": "10.0.0.7"})
    now = 200.0
    keys.use([key(id="k1")])  # it is there again: enabled
    assert keys.seen()[0] == {"k1": 100.0}
    keys.find(SECRET.encode(), "unix")
    assert keys.seen() == ({"k1": 200.0}, {"k1": "unix"})


def test_of_two_secrets_of_a_key_the_later_use_is_told_also_after_the_next_snapshot():
    now = 100.0
    keys = Keys(Subjects(), lambda: now)
    both = [key("corral_old", replaced=True), key("corral_new")]
    keys.use(both)
    keys.find(b"corral_new", "unix")
    now = 200.0
    keys.find(b"corral_old", "10.0.0.7")
    for _ in range(2):
        assert keys.seen() == ({"k1": 200.0}, {"k1": "10.0.0.7"})
        keys.use(both)


def test_keys_that_have_ended_are_not_remembered_without_end():
    keys = Keys(Subjects(), lambda: 1.0)
    for n in range(LEFT + 10):
        keys.use([key(f"corral_{n}", id=f"k{n}")])
        keys.find(f"corral_{n}".encode(), "unix")
    keys.use([])
    assert len(keys.seen()[0]) == LEFT and f"k{LEFT + 9}" in keys.seen()[0]
