"""Who may use which deployment without a key, by the rules of the last snapshot."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re

from hypothesis import given
from hypothesis import strategies as st

from core.access.rights import Rights
from core.gateway import wire
from core.gateway.users import Users
from core.nouns import Actor, Grant, Subject

ME = os.getuid()
ASK = {"model": "chat", "messages": []}
HOST = b"Host: x\r\nConnection: close\r\n\r\n"


def without_id(answer: bytes) -> bytes:
    return re.sub(rb"x-request-id: [0-9a-f]+", b"", answer)


def rule(scope: str, *, deny: bool = False, until: float | None = None, id: int = ME) -> wire.Rule:
    return wire.Rule(user=True, id=id, scope=scope, deny=deny, until=until)


async def test_a_peer_sees_and_uses_what_a_rule_gives_it(gateway, stub):
    await gateway.route(stub, uids=(), rules=[rule("deployment:chat")])
    assert b" 200 " in await gateway.post(ASK)
    assert b'"id":"chat"' in await gateway.raw(b"GET /v1/models HTTP/1.1\r\n" + HOST)


async def test_what_no_rule_gives_is_as_if_it_were_not_there(gateway, stub):
    await gateway.route(stub, uids=(), rules=[rule("deployment:other*")])
    refused, unknown = await gateway.post(ASK), await gateway.post({**ASK, "model": "none"})
    assert b" 404 " in refused
    assert without_id(refused) == without_id(unknown).replace(b"none", b"chat")
    assert b'"data":[]' in await gateway.raw(b"GET /v1/models HTTP/1.1\r\n" + HOST)
    assert not stub.bodies


async def test_a_denial_wins_and_nobody_without_a_rule_gets_further_than_the_head(gateway, stub):
    await gateway.route(stub, uids=(), rules=[rule("*"), rule("deployment:ch*", deny=True)])
    assert b" 404 " in await gateway.post(ASK)
    await gateway.route(stub, uids=(), rules=[rule("*", id=ME + 1)])
    assert b" 403 " in await gateway.post(ASK)
    await gateway.route(stub, uids=(), rules=[rule("*", until=1.0)])
    assert b" 403 " in await gateway.post(ASK)


async def test_no_denial_holds_against_broken_glass_wherever_it_stands(gateway, stub):
    glass = wire.Rule(user=True, id=ME, scope="deployment:ch*", glass=True)
    denials = [rule("deployment:chat", deny=True), rule("*", deny=True)]
    await gateway.route(stub, uids=(), rules=[denials[0], glass, denials[1]])
    assert b" 200 " in await gateway.post(ASK)
    await gateway.route(stub, uids=(), rules=[*denials, wire.Rule(user=True, id=ME, scope="*", glass=True, until=1.0)])
    assert b" 403 " in await gateway.post(ASK)


async def test_a_stream_ends_when_the_right_is_taken_away(gateway, stub):
    stub.hold.clear()
    await gateway.route(stub, uids=(), rules=[rule("*")])
    reader, writer = await gateway.open()
    body = json.dumps({**ASK, "stream": True}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b'"content":"0"')
    await gateway.route(stub, uids=(), rules=[rule("deployment:other")])
    async with asyncio.timeout(5):
        rest = await reader.readuntil(b"0\r\n\r\n")
    assert b"was taken away" in rest and b"not_allowed" in rest
    assert (await gateway.line()).outcome == "revoked"
    async with asyncio.timeout(5):
        await stub.gone.wait()
    writer.close()


async def test_a_stream_goes_on_when_other_rights_change(gateway, stub):
    stub.hold.clear()
    await gateway.route(stub, uids=(), rules=[rule("*")])
    reader, writer = await gateway.open()
    body = json.dumps({**ASK, "stream": True}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b'"content":"0"')
    await gateway.route(stub, uids=(), rules=[rule("deployment:chat"), rule("*", deny=True, id=ME + 1)])
    stub.hold.set()
    async with asyncio.timeout(5):
        assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
    writer.close()


NOW = 100.0
SUBJECTS = [Subject(kind="user", name="ada", id=1), Subject(kind="user", name="bob", id=2)]
SUBJECTS += [Subject(kind="group", name="g", id=10), Subject(kind="group", name="h", id=11)]
SCOPES = ["*", "deployment:*", "deployment:a*", "deployment:ab", "model:*"]
GRANTS = st.lists(
    st.builds(
        lambda subject, scope, deny, until: Grant(
            id="g", effect="deny" if deny else "allow", what="deployments.use", subject=subject, scope=scope, by="root",
            at=0.0, until=until,
        ),
        st.sampled_from(SUBJECTS), st.sampled_from(SCOPES), st.booleans(), st.sampled_from([None, NOW, NOW + 1]),
    ),
    max_size=6,
)  # fmt: skip


@given(GRANTS, st.sampled_from(["a", "ab", "b"]), st.sampled_from([(10,), (11,), (10, 11), ()]))
def test_the_gateway_decides_as_the_daemon_does(grants: list[Grant], name: str, groups: tuple[int, ...]) -> None:
    rights = Rights(mode="system", owner_uid=0, grants=grants)
    rules = [
        wire.Rule(user=u.kind == "user", id=u.id, scope=u.scope, deny=u.deny, until=u.until)
        for u in rights.uses("deployments.use", {1: "ada", 2: "bob"})
    ]
    random.Random(0).shuffle(rules)
    users = Users(wire.Allowed(uids=(0,), rules=tuple(rules)), clock=lambda: NOW)
    actor = Actor(uid=1, name="ada", groups=groups)
    ours = rights.decide(actor, "deployments.use", f"deployment:{name}", NOW).allowed
    assert users.may(1, frozenset(groups), name) == ours
    assert users.some(1, frozenset(groups)) or not ours
