"""The queue of a deployment: a line for each caller, even shares of the slots, and nobody who fills it for others."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import json
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.gateway import wire
from core.gateway.queue import STALE, Queue, Waiter

ASK = {"model": "chat", "stream": True}
CALLERS = "abcde"


def waiter(caller: str, slots: int = 1) -> Waiter[int]:
    return Waiter(caller, lambda seat: None, lambda refusal: None, slots=slots)


class Slots:
    """Callers that ask again as soon as they are answered, on a clock of their own."""

    def __init__(self, slots: int, limit: int = 64, wide: dict[str, int] | None = None) -> None:
        """`wide`: callers whose requests take several slots at once."""
        self._wide = wide or {}
        self.now = 0.0
        self.queue: Queue[int] = Queue(lambda: self.now)
        self.had: dict[str, float] = {}
        self.refused: dict[str, int] = {}
        self._free, self._limit, self._n = slots, limit, 0
        self._next: list[tuple[float, int, str, float, float | None]] = []

    def run(self, seconds: float, clients: dict[str, int], takes: Callable[[str], float]) -> None:
        """`takes`: seconds that a request of a caller is in its slot."""
        self._takes = takes
        for caller, count in clients.items():
            self.had[caller] = self.refused[caller] = 0
            for _ in range(count):
                self._ask(caller)
        while self.now < seconds:
            self.now, _, caller, took, charged = heapq.heappop(self._next)
            if charged is not None:
                slots = self._wide.get(caller, 1)
                self._free += slots
                self.had[caller] += took * slots
                self.queue.note(took)
                if self.queue:
                    self.queue.ended(caller, took, charged, slots)
            while self.queue and self._free >= (following := self.queue.next()).slots:
                self.queue.take(following)
                self._start(following.caller, following.charged)
            self._ask(caller)

    def _ask(self, caller: str) -> None:
        if self._free >= self._wide.get(caller, 1) and not self.queue:
            self._start(caller, 0.0)
            return
        if len(self.queue) >= self._limit:
            out = self.queue.last_of_longest(caller)
            if out is None:
                self._again(caller)
                return
            self.queue.remove(out)
            self._again(out.caller)
        self.queue.add(waiter(caller, self._wide.get(caller, 1)))

    def _start(self, caller: str, charged: float) -> None:
        self._free -= self._wide.get(caller, 1)
        self._then(self._takes(caller), caller, charged)

    def _again(self, caller: str) -> None:
        self.refused[caller] += 1
        self._then(1.0, caller, None)

    def _then(self, seconds: float, caller: str, charged: float | None) -> None:
        self._n += 1
        heapq.heappush(self._next, (self.now + seconds, self._n, caller, seconds, charged))


def test_the_order_that_is_told_is_the_one_in_which_they_are_served() -> None:
    """By what each caller's requests took of late: a place that changes for no reason is worse than none."""
    random, now = Random(4), [0.0]
    for _ in range(50):
        queue: Queue[int] = Queue(lambda: now[0])
        for _ in range(random.randrange(1, 40)):
            caller = random.choice(CALLERS)
            queue.add(waiter(caller, random.choice((1, 1, 3))))
            queue.note(random.uniform(0.1, 3))
            if random.random() < 0.4 and len(queue) > 1:
                queue.take(queue.next())
                now[0] += 0.5
                queue.ended(random.choice(CALLERS), random.uniform(0.1, 3), 0.0)
        told, served = queue.order(), []
        assert len(told) == len(queue)
        while queue:
            following = queue.next()
            queue.take(following)
            served.append(following)
        assert [each.caller for each in served] == [each.caller for each in told]


@given(
    st.lists(st.tuples(st.integers(4, 60), st.floats(0.2, 5)), min_size=2, max_size=8),
    st.integers(1, 4),
    st.integers(0, 1 << 30),
)
@example([(4, 2.0), (4, 0.25)], 4, 0)  # it was 55 to 45 while all were charged with one mean
@settings(deadline=None, max_examples=30)
def test_callers_have_even_shares_of_the_slots_however_many_and_long_their_requests_are(callers, slots, seed):
    random = Random(seed)
    means = {f"k{n}": mean for n, (_, mean) in enumerate(callers)}
    house = Slots(slots)
    seconds = 400 * max(means.values())
    house.run(
        seconds, {f"k{n}": count for n, (count, _) in enumerate(callers)},
        lambda caller: means[caller] * random.uniform(0.5, 1.5),
    )  # fmt: skip
    even = sum(house.had.values()) / len(house.had)
    assert sum(house.had.values()) > 0.95 * slots * seconds
    assert all(abs(had - even) < 0.1 * even for had in house.had.values()), house.had


@pytest.mark.parametrize("wide", [{"a": 4}, {"a": 2}, {"a": 3, "b": 2}])
def test_who_takes_several_slots_at_once_has_no_more_of_them_than_others(wide):
    random, house = Random(7), Slots(4, wide=wide)
    house.run(4000, {"a": 20, "b": 8, "c": 8}, lambda caller: random.uniform(0.5, 1.5))
    even = sum(house.had.values()) / 3
    assert all(abs(had - even) < 0.1 * even for had in house.had.values()), house.had


def test_a_caller_with_one_request_at_a_time_has_its_share_beside_one_with_many():
    house = Slots(1)
    house.run(1000, {"one": 1, "many": 40}, lambda caller: 1.0)
    assert abs(house.had["one"] - house.had["many"]) < 3


def test_who_floods_a_full_queue_is_refused_and_the_others_are_not():
    house = Slots(4, limit=16)
    house.run(500, {"flood": 200, "b": 4, "c": 4, "d": 3}, lambda caller: 1.0)
    assert house.refused.pop("flood") > 1000 and not any(house.refused.values())


def served(queue: Queue[int], count: int) -> list[str]:
    """Whose turn it was, so many times."""
    found = []
    for _ in range(count):
        found.append(str(queue.next().caller))
        queue.take(queue.next())
    return found


def test_nobody_saves_up_by_staying_away():
    queue: Queue[int] = Queue(lambda: 0.0)
    queue.mean_s = 1.0
    for caller in ("a",) * 100 + ("away",):
        queue.add(waiter(caller))
    assert served(queue, 60).count("away") == 1
    for caller in ("away", "new") * 30:
        queue.add(waiter(caller))
    told = served(queue, 30)
    assert all(9 <= told.count(caller) <= 11 for caller in ("a", "away", "new"))


def test_what_ran_before_the_queue_began_counts_from_its_beginning():
    clock = [100.0]
    queue: Queue[int] = Queue(lambda: clock[0])
    queue.mean_s = 1.0
    for _ in range(40):
        queue.add(waiter("b"))
    served(queue, 20)
    clock[0] = 110.0
    queue.ended("a", 60.0, 0.0)  # 50 of them before anybody waited
    for _ in range(5):
        queue.add(waiter("a"))
    told = served(queue, 12)
    assert 9 <= told.index("a") <= 11


def test_requests_of_one_caller_are_served_in_their_order():
    queue: Queue[int] = Queue(lambda: 0.0)
    asked = [waiter("a") for _ in range(5)]
    for each in asked:
        queue.add(each)
    assert [each.place for each in asked] == [1, 2, 3, 4, 5]
    back = waiter("a")
    queue.add(back, first=True)
    assert back.place == 1
    for each in [back, *asked]:
        assert queue.next() is each
        queue.take(each)
    assert not queue and not list(queue)


def test_places_count_what_is_served_before_at_even_shares():
    queue: Queue[int] = Queue(lambda: 0.0)
    for _ in range(10):
        queue.add(waiter("a"))
    for caller, place in (("b", 2), ("b", 4), ("c", 3), ("c", 6), ("c", 8)):
        queue.add(each := waiter(caller))
        assert each.place == place


def test_memory_does_not_grow_with_what_is_settled_while_others_wait():
    queue: Queue[int] = Queue(lambda: 0.0)
    for caller in "ab":
        queue.add(waiter(caller))
    for _ in range(1000):
        queue.ended("b", 0.0, -1.0)
    assert len(queue._heap) < 2 * STALE


def test_memory_is_that_of_callers_who_wait_or_are_ahead_of_those():
    clock = [0.0]
    queue: Queue[int] = Queue(lambda: clock[0])
    queue.mean_s = 1.0

    def serve() -> None:
        gone = queue.next()
        queue.take(gone)
        clock[0] += 1
        if queue:
            queue.ended(gone.caller, 1.0, gone.charged)

    queue.add(waiter("stays"))
    queue.add(waiter("stays"))
    for n in range(5000):  # none of them has had more than its first
        queue.add(waiter(f"k{n}"))
        queue.add(waiter(f"k{n % 100}"))
        serve()
        serve()
    assert len(queue._heap) < 2 * len(queue._lines) + 2 * STALE
    while len(queue) > 1:
        serve()
        queue.add(waiter("stays"))
        serve()
    for n in range(queue._many):
        queue.add(each := waiter(f"n{n}"))
        queue.remove(each)
    assert len(queue._lines) < 3000
    while queue:
        serve()
    assert not queue._lines and not queue._heap and not queue._levels


class Lines(RuleBasedStateMachine):
    """Beside a plain list in the order of coming."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue: Queue[int] = Queue(lambda: self.now)
        self.there: list[Waiter[int]] = []
        self.running: list[tuple[str, float, float]] = []

    def length(self, caller: str) -> int:
        return sum(each.caller == caller for each in self.there)

    @rule(caller=st.sampled_from(CALLERS))
    def come(self, caller: str) -> None:
        each = waiter(caller)
        self.queue.add(each)
        self.there.append(each)
        mine = self.length(caller)
        assert each.place == sum(min(mine, self.length(other)) for other in CALLERS)

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from(self.there))
        self.there.remove(each)
        self.queue.remove(each)
        self.queue.remove(each)

    @precondition(lambda self: self.there)
    @rule()
    def serve(self) -> None:
        each = self.queue.next()
        assert each is next(other for other in self.there if other.caller == each.caller)
        self.queue.take(each)
        self.there.remove(each)
        self.running.append((each.caller, self.now, each.charged))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), seconds=st.floats(0, 30))
    def end(self, data: st.DataObject, seconds: float) -> None:
        self.now += seconds
        caller, began, charged = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.queue.note(self.now - began)
        if self.queue:
            self.queue.ended(caller, self.now - began, charged)

    @rule(caller=st.sampled_from(CALLERS))
    def full(self, caller: str) -> None:
        """Whoever has the fewest is never refused where another one has more than one more."""
        out = self.queue.last_of_longest(caller)
        longest = max((self.length(each) for each in CALLERS), default=0)
        if longest < self.length(caller) + 2:
            assert out is None
        else:
            assert self.length(out.caller) == longest
            assert out is [each for each in self.there if each.caller == out.caller][-1]

    @invariant()
    def same(self) -> None:
        assert len(self.queue) == len(self.there) and set(self.queue) == set(self.there)


TestLines = Lines.TestCase


# ------------------------------------------------------------------------------------------------ through a gateway


def key(name: str) -> wire.Key:
    return wire.Key(id=f"k{name}", name=name, owner="ann", uid=4242, hash=hashlib.sha256(name.encode()).hexdigest())


def bearer(name: str) -> str:
    return f"Authorization: Bearer {name}\r\n"


@contextlib.asynccontextmanager
async def taken(gateway, stub, **limits):
    """The only slot is taken until the end."""
    await gateway.route(stub, keys=[key("a"), key("b")], **limits)
    stub.hold.clear()
    holds = asyncio.create_task(gateway.post(ASK))
    async with asyncio.timeout(10):
        while not stub.bodies:
            await asyncio.sleep(0.01)
    yield
    stub.hold.set()
    await holds


async def queued(gateway, count: int, *posts) -> list[asyncio.Task[bytes]]:
    """Ask one after the other, so that `count` wait in the end."""
    tasks, before = [], count - len(posts)
    for n, (fields, headers) in enumerate(posts, 1):
        tasks.append(asyncio.create_task(gateway.post(fields, headers)))
        await gateway.told(lambda live, n=n: live.queued == {"chat": before + n})
    return tasks


async def test_place_and_wait_are_told_in_headers_of_a_stream_and_a_whole_answer(gateway, stub):
    async with taken(gateway, stub):
        whole = {"model": "chat"}
        tasks = await queued(gateway, 3, (ASK, bearer("a")), (whole, bearer("a")), (ASK, bearer("b")))
    answers = [await task for task in tasks]
    for answer, place in zip(answers, (1, 2, 2), strict=True):
        head = answer.partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 200") and b"x-corral-queue-position: %d\r\n" % place in head
        assert b"x-corral-queue-ms: " in head
    assert b"x-corral-queue" not in await gateway.post(ASK)


async def test_people_who_chat_through_the_daemon_have_a_line_each(gateway, stub):
    async with taken(gateway, stub):
        who = ("77:ann", "77:ann", "78:bob")
        tasks = await queued(
            gateway, 3, *[({**ASK, "seed": n}, f"X-Corral-Actor: {each}\r\n") for n, each in enumerate(who, 1)]
        )
    for task in tasks:
        assert b"[DONE]" in await task
    assert [json.loads(body).get("seed") for body in stub.bodies[1:]] == [1, 3, 2]


async def test_when_the_queue_is_full_the_longest_line_gives_up_its_newest(gateway, stub):
    async with taken(gateway, stub, queue=3):
        first, second, third = await queued(gateway, 3, *[({**ASK, "seed": n}, bearer("a")) for n in (1, 2, 3)])
        other = asyncio.create_task(gateway.post({**ASK, "seed": 4}, bearer("b")))
        refused = await third
        assert refused.startswith(b"HTTP/1.1 429") and b"queue_full" in refused and b"\r\nRetry-After: " in refused
        assert b"x-corral-queue-position: 3\r\n" in refused
        own = await gateway.post(ASK, bearer("a"))
        assert own.startswith(b"HTTP/1.1 429") and b"no caller has more of them than you" in own
    for each in (first, second, other):
        assert b"[DONE]" in await each
    assert [json.loads(body).get("seed") for body in stub.bodies[1:]] == [1, 4, 2]


async def test_where_nothing_may_wait_it_is_told_at_once(gateway, stub):
    async with taken(gateway, stub, queue=0):
        answer = await gateway.post(ASK)
        assert answer.startswith(b"HTTP/1.1 429") and b"nothing may wait for one" in answer


async def test_a_client_that_goes_frees_its_place(gateway, stub):
    async with taken(gateway, stub, queue=1):
        _, writer = await gateway.open()
        body = json.dumps(ASK).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await gateway.told(lambda live: live.queued == {"chat": 1})
        writer.close()
        await gateway.told(lambda live: not live.queued)
        (waits,) = await queued(gateway, 1, (ASK, ""))
    assert b"[DONE]" in await waits
    assert (await gateway.line(lambda line: line.outcome == "client-gone")).replica == ""


async def test_a_request_waits_no_longer_than_its_client_says(gateway, stub):
    async with taken(gateway, stub):
        answer = await gateway.post(ASK, "X-Corral-Deadline: 0.2\r\n")
        assert answer.startswith(b"HTTP/1.1 503") and b"queue_timeout" in answer
        assert b"x-corral-queue-position: 1\r\n" in answer


async def test_a_deadline_ends_what_a_replica_has_not_begun_to_answer_and_nothing_else(gateway, stub):
    await gateway.route(stub)
    stub.silent = True
    answer = await gateway.post(ASK, "X-Corral-Deadline: 0.3\r\n")
    assert answer.startswith(b"HTTP/1.1 504") and b"for 0.3 s" in answer
    async with asyncio.timeout(10):
        await stub.gone.wait()
    stub.silent = False
    stub.hold.clear()
    begun = asyncio.create_task(gateway.post(ASK, "X-Corral-Deadline: 0.3\r\n"))
    await gateway.told(lambda live: bool(live.in_flight))
    later = await gateway.post({"model": "other"}, "X-Corral-Deadline: 0.3\r\n")
    assert later.startswith(b"HTTP/1.1 404")
    await gateway.told(lambda live: bool(live.in_flight))
    stub.hold.set()
    assert b"[DONE]" in await begun


async def test_a_deadline_that_is_none_is_refused(gateway, stub):
    await gateway.route(stub)
    for wrong in ("soon", "0", "-1", "nan", "inf", "1e9", ""):
        answer = await gateway.post(ASK, f"X-Corral-Deadline: {wrong}\r\n")
        assert answer.startswith(b"HTTP/1.1 400") and b"X-Corral-Deadline is a number of seconds" in answer
