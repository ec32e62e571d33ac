"""Limits of subjects at the gateway: whose apply to whom, lengths and hours, what is told, and what outlives it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

import pytest
from test_keyed import ASK, SECRET, bearer, key, streaming

from core.gateway import wire

UID = os.getuid()


def limited(subject: str, *, name: str = "x", uids: tuple[int, ...] = (), gids: tuple[int, ...] = (), **limits):
    return wire.Limited(subject=subject, name=name, limits=wire.Limits(**limits), uids=uids, gids=gids)


async def spent(gateway, **asked) -> dict[tuple[str, str], wire.Spent]:
    gateway.send(wire.Ask(what="spent", request="r1", **asked))
    report = await gateway.expect(wire.Report)
    assert report.ok and report.request == "r1"
    return {(each.subject, each.kind): each for each in report.spent}


async def test_a_person_at_the_socket_is_limited_without_a_key_and_each_by_himself(gateway, stub):
    await gateway.route(stub, limited=[limited("each:user", rpm=2)])
    assert b"x-ratelimit-remaining-requests: 1\r\n" in await gateway.post(ASK)
    assert b" 200 " in await gateway.post(ASK)
    refused = await gateway.post(ASK)
    assert b" 429 " in refused and f"uid {UID} has reached its limit of 2 requests a minute".encode() in refused
    for _ in range(2):  # somebody else in the console
        assert b" 200 " in await gateway.post(ASK, "X-Corral-Actor: 4242:ann\r\n")
    assert b"uid 4242 has reached" in await gateway.post(ASK, "X-Corral-Actor: 4242:ann\r\n")


async def test_what_is_said_by_name_comes_before_what_is_said_for_each(gateway, stub):
    own = limited("user:4242", name="ann", uids=(4242,), rpm=-1, concurrency=1)
    of_group = limited("each:group:100", gids=(100,), rpm=1)
    await gateway.route(stub, slots=4, limited=[limited("each:user", rpm=2), own, of_group])
    for _ in range(4):
        assert b" 200 " in await gateway.post(ASK, "X-Corral-Actor: 4242:ann\r\n")
    member = "X-Corral-Actor: 4243:bob\r\nX-Corral-Groups: 7,100\r\n"
    assert b" 200 " in await gateway.post(ASK, member)
    assert b" 429 " in await gateway.post(ASK, member), "the group's default comes before that for each user"
    for _ in range(2):
        assert b" 200 " in await gateway.post(ASK, "X-Corral-Actor: 4244:eve\r\nX-Corral-Groups: 7\r\n")


async def test_members_share_what_their_group_has_with_keys_and_without(gateway, stub):
    group = limited("group:100", name="staff", gids=(100,), rpm=3)
    await gateway.route(stub, keys=[key(groups=(100,))], limited=[group])
    assert b" 200 " in await gateway.post(ASK, bearer())
    for uid in (1, 2):
        assert b" 200 " in await gateway.post(ASK, f"X-Corral-Actor: {uid}:u\r\nX-Corral-Groups: 100\r\n")
    refused = await gateway.post(ASK, bearer())
    assert b"group staff has reached its limit of 3 requests a minute" in refused
    assert b"u1" not in refused and b"uid" not in refused
    assert b" 200 " in await gateway.post(ASK, "X-Corral-Actor: 3:u\r\nX-Corral-Groups: 101\r\n")


async def test_a_service_account_is_limited_by_itself_and_with_who_owns_it(gateway, stub):
    keys = [key(uid=-1, owner="account:nightly"), key("corral_team", id="k2", uid=-1, behind=-1, team="ml")]
    each, team = limited("each:user", rpm=1), limited("team:ml", name="ml", rpm=1)
    await gateway.route(stub, keys=keys, limited=[each, team])
    assert b" 200 " in await gateway.post(ASK, "X-Corral-Actor: 4242:ann\r\n")
    assert b"uid 4242 has reached" in await gateway.post(ASK, bearer())
    assert b" 200 " in await gateway.post(ASK, bearer("corral_team"))
    assert b"team ml has reached" in await gateway.post(ASK, bearer("corral_team"))


async def test_who_says_which_groups_he_has_is_refused(gateway, stub):
    await gateway.route(stub, keys=[key()], limited=[limited("group:100", gids=(100,), rpm=1)])
    assert b" 403 " in await gateway.post(ASK, bearer() + "X-Corral-Groups: 7\r\n")


async def test_all_that_apply_are_taken_or_none(gateway, stub):
    """What the key is refused for does not count against the deployment."""
    await gateway.route(stub, keys=[key(rpm=1)], limited=[limited("deployment:chat", rpm=3)])
    assert b" 200 " in await gateway.post(ASK, bearer())
    for _ in range(5):
        assert b"the key ci of ann has reached" in await gateway.post(ASK, bearer())
    told = await spent(gateway, subjects=("deployment:chat", "key:k1"))
    assert told["deployment:chat", "rpm"].used == 1 and told["key:k1", "rpm"].used == 1
    for _ in range(2):
        assert b" 200 " in await gateway.post(ASK)
    assert b"deployment chat has reached its limit of 3" in await gateway.post(ASK)


async def test_a_model_is_limited_over_its_deployments_and_not_named(gateway, stub):
    await gateway.route(stub, limited=[limited("model:m", rpm=1)])
    assert b" 200 " in await gateway.post(ASK)
    refused = await gateway.post(ASK)
    assert b'"the model of this deployment has reached' in refused
    assert (await spent(gateway, subjects=("model:m",)))["model:m", "rpm"].used == 1
    assert b'"the model of this deployment has reached' in await gateway.post(ASK)


async def test_the_longest_answer_is_set_where_none_is_said_and_more_is_refused(gateway, stub):
    await gateway.route(stub, limited=[limited("deployment:chat", longest_answer=9)])
    for fields, most in (
        ({}, 9), ({"max_tokens": None}, 9), ({"max_tokens": 4}, 4), ({"max_completion_tokens": 3}, None),
        ({"n_predict": -1}, 9), ({"max_tokens": -1}, 9), ({"max_tokens": 5, "n_predict": -1}, 5),
    ):  # fmt: skip
        assert b" 200 " in await gateway.post({**ASK, **fields}), fields
        sent = json.loads(stub.bodies[-1])
        assert sent.get("max_tokens") == most and sent.get("n_predict", 1) != -1, (fields, sent)
    for fields in (
        {"max_tokens": 10},
        {"max_completion_tokens": 10},
        {"n_predict": 10},
        {"max_tokens": 4, "n_predict": 99},
    ):
        refused = await gateway.post({**ASK, **fields})
        assert b" 400 " in refused and b"max_tokens is too large" in refused, fields
    # A name that is written with an escape is that name to the engine too.
    body = b'{"model":"chat","messages":[],"n\\u005fpredict":-1}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    assert b" 200 " in await gateway.raw(head % len(body) + body)
    assert json.loads(stub.bodies[-1]) == {"model": "chat", "messages": [], "max_tokens": 9}


async def test_a_prompt_that_is_too_long_is_refused_by_its_estimate(gateway, stub):
    await gateway.route(stub, limited=[limited("each:user", longest_prompt=50)])
    assert b" 200 " in await gateway.post(ASK)
    refused = await gateway.post({"model": "chat", "messages": [{"role": "user", "content": "x" * 400}]})
    assert b" 400 " in refused and b"context_length_exceeded" in refused and b"may ask 50" in refused
    assert len(stub.bodies) == 1


async def test_outside_its_hours_nobody_is_served_and_told_when_again(gateway, stub):
    now = time.gmtime(time.time() + 7200)
    day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[now.tm_wday]
    later = f"{day} {now.tm_hour:02}:{now.tm_min:02}-24:00 UTC"
    await gateway.route(stub, limited=[limited("deployment:chat", hours=later)])
    refused = await gateway.post(ASK)
    assert b" 429 " in refused and b"outside_hours" in refused and later.encode() in refused
    seconds = int(refused.split(b"Retry-After: ")[1].split(b"\r\n")[0])
    assert 7000 < seconds <= 7202
    await gateway.route(stub, limited=[limited("deployment:chat", hours="00:00-24:00")])
    assert b" 200 " in await gateway.post(ASK)
    await gateway.route(stub, limited=[limited("deployment:chat", hours="00:00-24:00 Nowhere/Land")])
    assert b"cannot be read on this host" in await gateway.post(ASK), "it never fails open"


async def test_an_answer_that_has_begun_goes_on_when_the_hours_end(gateway, stub):
    stub.hold.clear()
    await gateway.route(stub, keys=[key()], limited=[limited("deployment:chat", hours="00:00-24:00")])
    reader, writer = await streaming(gateway)
    closed = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(time.localtime().tm_wday + 3) % 7]
    await gateway.route(stub, keys=[key()], limited=[limited("deployment:chat", hours=f"{closed} 08:00-09:00")])
    assert b"outside_hours" in await gateway.post(ASK)
    stub.hold.set()
    async with asyncio.timeout(5):
        assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
    writer.close()


async def test_tokens_in_and_out_are_limited_apart(gateway, stub):
    """The stub counts 5 tokens in and 2 out."""
    ask = {**ASK, "max_tokens": 20}
    await gateway.route(
        stub, limited=[limited("group:100", gids=(100,), monthly_out=5), limited("each:user", daily_in=17)]
    )
    mine = "X-Corral-Actor: 1:u\r\n"
    assert b" 200 " in await gateway.post(ask, mine)
    assert b"17 tokens in a day" in await gateway.post(ask, mine), "5 and some 13 are over 17"
    theirs = "X-Corral-Actor: 2:u\r\nX-Corral-Groups: 100\r\n"
    assert b" 200 " in await gateway.post(ask, theirs)
    refused = await gateway.post({**ASK, "max_tokens": 4}, "X-Corral-Actor: 3:u\r\nX-Corral-Groups: 100\r\n")
    assert b"5 tokens out a month" in refused and b"x-ratelimit-remaining-tokens: 3\r\n" in refused
    told = await spent(gateway, subjects=("group:100",), uid=1)
    assert told["group:100", "monthly_out"].used == 2 and told["user:1", "daily_in"].used == 5


async def kept(gateway, true) -> dict:
    """What stands in the file, as soon as `true` holds for it."""
    file = gateway.folder / "counts.json"
    async with asyncio.timeout(10):
        while not file.exists() or not true(found := json.loads(file.read_bytes())["uses"]):
            await asyncio.sleep(0.02)
    return found


async def test_after_kill_9_all_that_was_used_counts_and_no_reservation(gateway, stub):
    """A stream in flight has made one token of the 400 that are reserved for it, and read a prompt."""
    stub.hold.clear()
    limits = [limited("each:user", rpm=3, daily_tokens=450), limited("deployment:chat", monthly_out=1000, tpm=10_000)]
    await gateway.route(stub, keys=[key(uid=4242)], slots=2, limited=limits)
    stub.hold.set()
    assert b" 200 " in await gateway.post({**ASK, "max_tokens": 20}, bearer())
    stub.hold.clear()
    reader, writer = await gateway.open()
    body = json.dumps({**ASK, "stream": True, "max_tokens": 400}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{bearer()}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.readuntil(b'"content":"0"')
    assert b"450 tokens a day" in await gateway.post({**ASK, "max_tokens": 20}, bearer()), "it is reserved"
    found = await kept(gateway, lambda uses: uses.get("deployment:chat", {}).get("monthly_out") == 3)
    assert found["user:4242"]["tokens"] == sum(found["deployment:chat"]["minutes"]["tpm"].values())
    gateway.stop(signal.SIGKILL)
    gateway.hang_up()
    writer.close()
    gateway.start()
    await gateway.connect()
    stub.hold.set()
    told = await spent(gateway, subjects=("deployment:chat", "key:k1"))
    assert told["deployment:chat", "monthly_out"].used == 3
    assert told["user:4242", "rpm"].used == 2, "requests of the last minute are known"
    assert 8 <= told["user:4242", "daily_tokens"].used < 50
    assert b" 200 " in await gateway.post({**ASK, "max_tokens": 20}, bearer())
    assert b"3 requests a minute" in await gateway.post({**ASK, "max_tokens": 20}, bearer())


async def test_counts_of_a_gateway_of_one_release_back_are_taken_over(gateway, stub):
    gateway.stop()
    gateway.hang_up()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    (gateway.folder / "counts.json").unlink(missing_ok=True)
    (gateway.folder / "keys.json").write_text(json.dumps({"k1": {"day": today, "tokens": 44}}))
    gateway.start()
    await gateway.connect()
    await gateway.route(stub, keys=[key(daily_tokens=45)])
    assert b"45 tokens a day" in await gateway.post({**ASK, "max_tokens": 20}, bearer())


async def test_a_file_that_cannot_be_read_is_as_none(gateway, stub):
    gateway.stop()
    gateway.hang_up()
    (gateway.folder / "counts.json").write_text("{")
    gateway.start()
    await gateway.connect()
    await gateway.route(stub, keys=[key(daily_tokens=4500)])
    assert b" 200 " in await gateway.post(ASK, bearer())


async def test_shared_counts_go_on_at_the_gateway_that_follows(gateway, second, stub):
    stub.hold.clear()
    fields = {"keys": [key(groups=(100,))], "slots": 3}
    limits = [limited("group:100", name="staff", gids=(100,), rpm=3, monthly_tokens=2000, concurrency=2)]
    await gateway.route(stub, limited=limits, **fields)
    reader, writer = await streaming(gateway)
    waiting = gateway.folder / "next-launch0002.sock"
    async with asyncio.timeout(10):
        while not waiting.exists():
            await asyncio.sleep(0.02)
    gateway.send(wire.HandOver(socket=str(waiting)))
    assert (await gateway.expect(wire.Report)).ok
    await second.connect()
    second.snapshot, second.n = gateway.snapshot, gateway.n
    async with asyncio.timeout(5):
        while (await spent(second, subjects=("group:100",)))["group:100", "concurrency"].used != 1:
            await asyncio.sleep(0.02)
    before = (await spent(second, subjects=("group:100",)))["group:100", "monthly_tokens"].used
    assert before >= 20, "what the stream has reserved counts"
    theirs = "X-Corral-Actor: 9:u\r\nX-Corral-Groups: 100\r\n"
    stub.hold.set()
    assert b" 200 " in await second.post({**ASK, "max_tokens": 20}, theirs)
    assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    async with asyncio.timeout(10):
        while True:
            told = await spent(second, subjects=("group:100",))
            if told["group:100", "concurrency"].used == 0 and gateway.process.poll() is not None:
                break
            await asyncio.sleep(0.05)
    # 7 + 3 of the stream that the old one ended, 5 + 2 of the request that the new one served.
    assert told["group:100", "monthly_tokens"].used == 17
    assert told["group:100", "rpm"].used == 2


async def test_a_gateway_that_knows_no_limits_refuses_what_needs_them(gateway, stub):
    await gateway.route(stub)
    gateway.snapshot = wire.Snapshot(
        **{name: getattr(gateway.snapshot, name) for name in wire.Snapshot.__struct_fields__ if name != "needs"},
        needs=("limits", "something-newer"),
    )
    gateway.n += 1
    gateway.send(wire.Snapshot(
        **{name: getattr(gateway.snapshot, name) for name in wire.Snapshot.__struct_fields__ if name != "n"},
        n=gateway.n,
    ))  # fmt: skip
    refused = await gateway.expect(wire.Refused)
    assert "something-newer" in refused.reason and "limits," not in refused.reason
    assert b" 503 " in await gateway.post(ASK)


@pytest.mark.parametrize("limits", [(), ("each:user",)])
async def test_without_limits_there_are_no_headers_of_limits(gateway, stub, limits):
    await gateway.route(stub, keys=[key(SECRET)], limited=[limited(each, rpm=9) for each in limits])
    assert (b"x-ratelimit" in await gateway.post(ASK, bearer())) == bool(limits)
