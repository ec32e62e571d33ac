"""How long a chain of a million records takes to verify; prints one JSON object with the machine named."""

import asyncio
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from core.audit import GENESIS, Audit, chain
from core.audit.log import Head, verify_file, write_head
from core.paths import Paths
from core.store import Store

RECORDS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000


def rows() -> Any:
    prev = GENESIS
    for seq in range(1, RECORDS + 1):
        row = (
            seq, "2026-11-24T03:07:12.000153Z", "alice", 1000, "cli", "deployments.create", f"deployment:d{seq % 97}",
            f"{seq:016x}", "", "null", '{"name":"chat","ctx":4096,"parallel":2}', "done", "", prev,
        )  # fmt: skip
        row = (*row, chain.digest(row))  # type: ignore[assignment]
        prev = row[14]  # type: ignore[misc]
        yield row


async def keystrokes(store: Store, paths: Paths) -> dict[str, float]:
    """What the daemon takes to answer each letter that somebody types into the filter of screen 9, in milliseconds."""
    audit, taken = Audit(store, paths), []
    for text in (
        "deployment:d5",
        "actor:alice",
        "verb:deployments.create",
        "outcome:refused",
        "nobody",
        "since:2026-11-24",
    ):
        for end in range(1, len(text) + 1):
            if text[:end].startswith("since:") and end < len(text):
                continue
            began = time.perf_counter()
            await audit.find(text[:end])
            taken.append((time.perf_counter() - began) * 1000)
    taken.sort()
    p50, p95 = taken[len(taken) // 2], taken[int(len(taken) * 0.95)]
    return {"keystroke_ms_p50": round(p50, 1), "keystroke_ms_p95": round(p95, 1), "keystroke_ms_limit_p95": 50,
            "keystroke_ms_max": round(taken[-1], 1)}  # fmt: skip


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder), Path(folder) / "corral.toml", "0badcafe")
        paths.state.mkdir()
        store = await Store.open(paths, packages=("core.store", "core.audit"))
        sql = f"INSERT INTO audit ({', '.join(chain.COLUMNS)}) VALUES ({', '.join('?' * 15)})"
        await store.transact(lambda db: db.executemany(sql, rows()))
        last = await store.read(lambda db: db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC").fetchone())
        write_head(paths, Head(1, last[0], last[1]))
        started = time.perf_counter()
        report = verify_file(paths)
        seconds = time.perf_counter() - started
        typed = await keystrokes(store, paths)
        middle = RECORDS // 2
        await store.transact(lambda db: db.execute("DROP TRIGGER audit_keeps_content"))
        await store.transact(lambda db: db.execute("UPDATE audit SET reason = 'other' WHERE seq = ?", (middle,)))
        started = time.perf_counter()
        broken = verify_file(paths)
        broken_seconds = time.perf_counter() - started
        await store.close()
    assert (broken.wrong, broken.how) == (middle, "changed"), broken
    told = {"records": report.records, "ok": report.ok, "seconds": round(seconds, 2), "limit_seconds": 20,
            "broken_in_the_middle_seconds": round(broken_seconds, 2), **typed}  # fmt: skip
    print(json.dumps({"bench": "audit.verify", "machine": platform.processor() or platform.machine(), **told}))


if __name__ == "__main__":
    asyncio.run(main())
