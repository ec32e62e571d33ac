"""What each part of a small request costs the gateway: microseconds of its own Python, each part apart.

What is left of a request in `bench_gateway.py` are the event loop and the kernel: reads, writes, wake-ups. Prints
one JSON object a part; the best of 9 rounds, since others may use the machine.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import msgspec
from bench_gateway import SECRET, key, machine

from core.gateway import asked, wire
from core.gateway.admission import admit
from core.gateway.apis import CHAT
from core.gateway.counting import Counts
from core.gateway.framing import Framer
from core.gateway.limits import headers
from core.gateway.queue import Queue, Waiter
from core.gateway.routes import Seat, Table
from core.gateway.sessions import session
from core.gateway.usage import Spool

ROUNDS, TIMES = 9, 2000
PATH = "/v1/chat/completions"
BODY = b'{"model":"chat","messages":[{"role":"user","content":"What is a llama?"}],"max_tokens":64}'
HEAD = b"POST %b HTTP/1.1\r\nHost: corral\r\nContent-Type: application/json\r\nAuthorization: Bearer %b\r\n" % (
    PATH.encode(), SECRET.encode(),
)  # fmt: skip
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1767225600,"model":"chat","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"A llama is a domesticated camelid."}}],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}'
)
EVENT = (
    b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" llama"}}],"created":1767225600,'
    b'"id":"chatcmpl-Y5hVnTTDjUd4e8OV0A0r4Yxg","model":"chat","object":"chat.completion.chunk"}\n\n'
)
LINE = wire.UsageLine(
    "0123456789abcdef", 1.0, 4242, "chat", "m", "chat/0", "launch0", PATH, 200, "ok", 12, 0, 9, False, 0.0, 0.1, 0.2,
    "ann", "", 0.1, 1, "local", 0.1, 1, "key00000",
)  # fmt: skip


def table(folder: Path, replicas: int) -> Table:
    found = Table(folder / "snapshot.json")
    routes = tuple(
        wire.ReplicaRoute(id=f"chat/{n}", launch=f"l{n}", endpoint=f"unix:{folder}/e{n}.sock", slots=8)
        for n in range(replicas)
    )
    route = wire.Route(name="chat", model="m", state="ready", replicas=routes)
    found._use(
        wire.Snapshot(
            database="d", epoch=1, n=1, routes=(route,), allowed=wire.Allowed(), limits=wire.GatewayLimits(),
            keys=tuple(key(n) for n in range(200)),
        )
    )  # fmt: skip
    return found


def parts(folder: Path) -> dict[str, Callable[[], object]]:
    """By what is told."""
    one, four = table(folder, 1), table(folder, 4)
    keys, subjects, secret = one.keys, one.subjects, SECRET.encode()
    holder, question = keys.find(secret, "unix"), asked.read(CHAT, BODY)
    meters = holder.meters
    framer, known = Framer(one, lambda request: None), Framer(one, lambda request: None)
    known.feed(REQUEST)
    known.ready.clear()
    spool = Spool(folder / "spool", "bench")
    target, targets = one.target("chat"), four.target("chat")
    queue: Queue[Seat] = Queue(time.monotonic)
    queue.mean_s = 1.0
    for n in range(64):
        queue.add(Waiter(f"key{n % 8}", lambda seat: None, lambda refusal: None))
    events = Counts(True, True, False)

    def frame() -> None:
        framer.feed(REQUEST)
        framer.ready.clear()

    def limits() -> None:
        hold, _ = admit(subjects, meters, CHAT, BODY, question, 512, lambda: (0, 0), len(BODY) // 4 + 1)
        subjects.settle(hold, 12, 9)

    def seat(table: Table, target: object, session: int = 0) -> Callable[[], None]:
        def take() -> None:
            found = table.take(target, session)  # type: ignore[arg-type]
            assert found is not None
            table.give_back(target, found, "key", 0.1, 0.0)  # type: ignore[arg-type]

        return take

    def wait() -> None:
        queue.add(Waiter("key3", lambda seat: None, lambda refusal: None))
        gone = queue.next()
        queue.take(gone)
        queue.ended(gone.caller, 1.0, gone.charged)

    def usage() -> None:
        spool.add(LINE)
        if len(spool._lines) >= 500:
            spool._lines.clear()
            spool.left += 500
            msgspec.json.encode(wire.UsageBatch(launch="bench", n=1, lines=(LINE,) * 500))

    return {
        "head and body framed, new head": frame,
        "head and body framed, the head of before": lambda: known.again(REQUEST),
        "key found (SHA-256), its source": lambda: keys.find(secret, "unix"),
        "route and deployment allowed": lambda: (holder.may_ask(CHAT.scope), holder.may_use("chat", 1.0)),
        "body read, its numbers bounded": lambda: asked.read(CHAT, BODY),
        "four limits reserved and settled": limits,
        "headers of what the limits leave": lambda: headers(meters, subjects.clock),
        "slot taken and freed, 1 replica": seat(one, target),
        "slot taken and freed, 4 replicas": seat(four, targets),
        "conversation known, 4 replicas (beside the slot)": lambda: session("key", BODY),
        "slot of a known conversation, 4 replicas": seat(four, targets, 7),
        "queue of 64: added, served, settled": wait,
        "answer's usage read": lambda: Counts(False, False, False).part(ANSWER, True),
        "one event of a stream counted": lambda: events.part(EVENT, False),
        "line of usage, written by 500": usage,
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        found = parts(Path(folder))
        times: dict[str, list[float]] = {what: [] for what in found}
        for _ in range(ROUNDS):
            for what, part in found.items():
                times[what].append(timeit.timeit(part, number=TIMES) / TIMES * 1e6)
    print(json.dumps({"bench": "gateway parts", "machine": machine()}))
    for what, each in times.items():
        print(json.dumps({"bench": "gateway parts", "what": what, "us": round(min(each), 2)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
