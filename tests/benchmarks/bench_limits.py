"""What limits cost a request in the gateway: none set, and one to eight subjects with three kinds each that apply.

Prints one JSON object a line, in microseconds of CPU time, the least of several rounds: a busy machine adds nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from bench_console import machine

from core.gateway import wire
from core.gateway.admission import admit
from core.gateway.apis import CHAT
from core.gateway.asked import Asked
from core.gateway.limits import headers
from core.gateway.subjects import Subjects

TIMES = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
ROUNDS = 7
BODY = b'{"model":"chat","messages":[{"role":"user","content":"What is a llama?"}],"max_tokens":64}'
WIDE = wire.Limits(rpm=10**9, tpm=10**12, daily_tokens=10**12)
ORDER = ("key:k1", "user:1000", "group:100", "deployment:chat", "model:tiny", "team:a", "team:b", "team:c")


def subjects(count: int) -> tuple[Subjects, wire.Key]:
    """So many subjects with limits that are never reached, all of which apply to one key."""
    made = Subjects()
    key = wire.Key(id="k1", name="ci", hash="", owner="ann", uid=1000, behind=1000, groups=(100,))
    limited = [
        wire.Limited(subject=each, name="x", limits=WIDE, uids=(1000,) if each != "group:100" else (), gids=(100,))
        for each in ORDER[:count]
    ]
    made.use(limited, [key])
    return made, key


def least(work: Callable[[], None]) -> float:
    """Microseconds of CPU time a call."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(TIMES):
            work()
        best = min(best, time.process_time() - began)
    return best / TIMES * 1e6


def cost(count: int, asked: Asked) -> dict[str, float]:
    """Of a request to which so many subjects with three limits each apply."""
    there, key = subjects(count)
    meters = there.of_key(key) + there.of_target("chat", "tiny")
    assert len(meters) == count, [each.id for each in meters]

    def request() -> None:
        hold, _ = admit(there, meters, CHAT, BODY, asked, 4096, lambda: (0, 0), len(BODY) // 4 + 1)
        there.settle(hold, 20, 40)

    told, taken = least(lambda: headers(meters, there.clock) and None), least(request)
    return {
        "subjects": count, "limits": 3 * count, "us": round(taken + told, 1), "admit_and_settle_us": round(taken, 1),
        "headers_us": round(told, 1),
    }  # fmt: skip


def main() -> int:
    print(json.dumps({"machine": machine(), "requests": TIMES, "rounds": ROUNDS}))
    bare, asked = Subjects(), Asked(model="chat", max_tokens=64)

    def nothing() -> None:
        if bare.any:
            raise AssertionError

    empty = least(lambda: None)
    print(json.dumps({"subjects": 0, "us": round(max(0.0, least(nothing) - empty), 3)}))
    for count in (1, 2, 4, 8):
        print(json.dumps(cost(count, asked)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
