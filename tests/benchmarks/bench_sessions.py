"""First-token time of conversations at two replicas: sent back to the replica that has read them, and not.

The real engine with the sample model. So many people chat, five turns each, and think between them; with each turn they
send again what was said, as clients do. Without: each request is said to be a conversation of its own, by
`prompt_cache_key`. Pinned: also each person has a slot of the engine for her own (`id_slot`). Turns from the second on
count. Prints a JSON object a round, the medians, and which share of the prompts the engine had in its cache, which no
busy machine changes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1] / "journeys")]

from bench_gateway import machine  # noqa: E402
from command import ask, corral  # type: ignore[import-not-found]  # noqa: E402

PEOPLE, TURNS, ROUNDS, SLOTS = int(sys.argv[1]) if len(sys.argv) > 1 else 4, 5, 2, 2
THINK_S = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
"""That a person thinks, on average."""
SAID = "The llama walks over the hill and looks at the clouds above the village. " * 30
_unique = itertools.count()


async def chat(client: openai.AsyncOpenAI, name: str, sent: str, slot: int) -> list[float]:
    """Milliseconds to the first token of each turn."""
    messages: list[Any] = [{"role": "user", "content": f"{name}: {SAID}"}]
    found, pauses = [], random.Random(name.split()[-1])
    for turn in range(TURNS):
        await asyncio.sleep(pauses.uniform(0, 2) * THINK_S)
        began = time.monotonic()
        more: dict[str, Any] = {"prompt_cache_key": f"alone-{next(_unique)}"} if sent == "anywhere" else {}
        if sent == "pinned":
            more["id_slot"] = slot
        stream = await client.chat.completions.create(
            model="chat", messages=messages, max_tokens=24, stream=True, temperature=0, extra_body=more
        )
        first, answer = 0.0, ""
        async for each in stream:
            if each.choices and each.choices[0].delta.content:
                first = first or time.monotonic()
                answer += each.choices[0].delta.content
        found.append(1000 * (first - began))
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": f"{turn}: {SAID[:200]}"}]
    return found


async def people(address: str, key: str, sent: str, number: int) -> dict[str, float]:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=120) as client:
        told = await asyncio.gather(*(
            chat(client, f"{sent} {number} person {n}", sent, n // 2 % SLOTS) for n in range(PEOPLE)
        ))  # fmt: skip
    later = sorted(itertools.chain.from_iterable(each[1:] for each in told))
    return {"p50_ms": statistics.median(later), "p90_ms": later[int(0.9 * (len(later) - 1))]}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        os.environ["CORRAL_HOME"] = folder
        os.environ["PYTHONPATH"] = str(HERE.parents[2])
        try:
            corral("models", "sample")
            corral(
                "deploy", "smollm2-135m", "--name", "chat", "--ctx", str(2048 * SLOTS), "--parallel", str(SLOTS),
                "--replicas", "2", "--threads", "1", "--wait",
            )  # fmt: skip
            found: dict[str, list[dict[str, float]]] = {"back": [], "anywhere": [], "pinned": []}
            keys, address = {name: ask("keys", "create", name)["key"] for name in found}, ask("status")["gateway"]
            for number in range(ROUNDS):
                for name, rounds in found.items():
                    rounds.append(asyncio.run(people(address, keys[name], name, number)))
                    print(json.dumps({"bench": "sessions", "people": PEOPLE, "sent": name, **rounded(rounds[-1])}))
            middles = {
                name: rounded({each: statistics.median(one[each] for one in rounds) for each in rounds[0]})
                for name, rounds in found.items()
            }
            time.sleep(2)  # the gateway's usage is on its way
            names = {row["id"]: row["name"] for row in ask("keys", "ls")}
            sums = {names[row["group"]["key"]]: row["sums"] for row in ask("usage", "--by", "key")["rows"]}
            cached = {name: round(n["cached_tokens"] / n["prompt_tokens"], 2) for name, n in sums.items()}
            report = {
                "bench": "sessions",
                "machine": machine(),
                "people": PEOPLE,
                "think_s": THINK_S,
                **middles,
                "cached": cached,
            }
            print(json.dumps(report))
        finally:
            corral("shutdown", "--all")


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in figures.items()}


if __name__ == "__main__":
    main()
