"""How long `corral usage` takes over a million requests, and what it costs to commit them and to sum them up.

The million: 30 days, 50 users, 10 deployments of 5 models, a tenth of them errors. Prints one JSON object a line. All
state is in a folder of its own, which is removed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench_cli import CORRAL, ROOT, once  # beside this file
from bench_console import machine

from core.gateway.wire import UsageLine
from core.paths import user_paths
from core.store import Store
from core.telemetry.rollups import DAY, PIECE, roll
from core.telemetry.usage import UsageRow, commit_batch, row_of

LINES = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
BATCH = 5000
ROUNDS = 7
LIMIT_MS = 1000
ASKED = {
    "by user, model, 7 days": "",
    "by user, model, 30 days": "--since 30d",
    "by deployment, 30 days from a second on": "--by deployment --since 29d12h7m",
    "by day, outcome, 30 days": "--by day,outcome --since 40d",
    "by hour, 7 days": "--by hour",
    "by hour, 30 days": "--by hour --since 30d",
    "one user by day and model, 30 days": "--user user7 --by day,model --since 30d",
}


def batches(now: float) -> Iterator[list[UsageRow]]:
    dice = random.Random(7)
    people = {uid: (f"user{uid}", f"group{uid % 5}") for uid in range(50)}
    for first in range(0, LINES, BATCH):
        rows = []
        for n in range(first, min(first + BATCH, LINES)):
            uid, deployment = int(dice.paretovariate(1.2)) % 50, dice.randrange(10)
            ok = dice.random() < 0.9
            seconds = dice.lognormvariate(0.5, 1)
            line = UsageLine(
                id=f"{n:016x}", time=now - 30 * DAY * (1 - n / LINES), uid=uid, deployment=f"chat{deployment}",
                model=f"model{deployment % 5}", replica=f"chat{deployment}/0", launch="launch0000",
                path="/v1/chat/completions", status=200 if ok else 503, outcome="ok" if ok else "refused",
                prompt_tokens=dice.randrange(2000) if ok else None, cached_tokens=100 if ok else None,
                answer_tokens=dice.randrange(500) if ok else None, queue_s=0.001, first_byte_s=seconds / 4,
                total_s=seconds, first_token_s=seconds / 4 if ok else None, version=1, node="local", core_s=seconds * 2,
            )  # fmt: skip
            rows.append(row_of(line, people))
        yield rows


async def fill() -> dict[str, object]:
    """Commit and sum up as the daemon does; what each takes."""
    paths = user_paths()
    paths.state.mkdir(parents=True)
    store = await Store.open(paths)
    commits = 0.0
    for n, rows in enumerate(batches(time.time()), 1):
        began = time.perf_counter()
        await store.transact(lambda db, n=n, rows=rows: commit_batch(db, "gateway000", n, rows))
        commits += time.perf_counter() - began
    pieces = []
    while True:
        began = time.perf_counter()
        if not await store.transact(roll):
            break
        pieces.append((time.perf_counter() - began) * 1000)
    told = {}
    for span, name in ((3600, "hours"), (86400, "days")):
        sql = "SELECT count(*) FROM usage_rollups WHERE span = ?"
        told[f"rows_by_{name}"] = await store.read(
            lambda db, sql=sql, span=span: db.execute(sql, (span,)).fetchone()[0]
        )
    await store.close()
    return {
        "lines": LINES, "commit_us_a_line": round(commits / LINES * 1e6, 1),
        "sum_up_us_a_line": round(sum(pieces) / LINES * 1000, 1), f"piece_of_{PIECE}_ms":
        round(statistics.median(pieces), 1),
        "slowest_piece_ms": round(max(pieces), 1), **told, "database_mib": paths.database.stat().st_size >> 20,
    }  # fmt: skip


def main() -> int:
    """0 if every question is answered in time."""
    home = Path(tempfile.mkdtemp(prefix="c-", dir="/tmp"))
    os.environ["CORRAL_HOME"] = str(home)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        filled = asyncio.run(fill())
        subprocess.run([*CORRAL, "models", "ls"], env=env, stdout=subprocess.DEVNULL, check=True)
        whole = json.loads(subprocess.run(
            [*CORRAL, "usage", "--by", "", "--since", "99d", "--json"], env=env, capture_output=True, check=True
        ).stdout)  # fmt: skip
        assert whole["total"]["requests"] == LINES, whole
        found = {}
        for name, options in ASKED.items():
            argv = [*CORRAL, "usage", *options.split(), "--json"]
            found[name] = round(statistics.median(once(argv, env) for _ in range(ROUNDS)), 1)
    finally:
        subprocess.run([*CORRAL, "shutdown", "--all"], env=env, stdout=subprocess.DEVNULL, check=False)
        shutil.rmtree(home, ignore_errors=True)
    kept = max(found.values()) < LIMIT_MS
    print(json.dumps({"machine": machine(), "python": sys.version.split()[0]}))
    print(json.dumps({"what": "commit and sum up", **filled}))
    print(json.dumps({"what": "corral usage", "rounds": ROUNDS, "median_ms": found, "under_1000_ms": kept}))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
