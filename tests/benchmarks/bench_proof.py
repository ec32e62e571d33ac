"""How long an export of a million records takes, and its verification; what memory they need; what a checkpoint costs.

Prints one JSON object a line with the machine named. All state is in a folder of its own, which is removed.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_audit import rows  # beside this file
from bench_console import machine

from core.access import Gate, Rights
from core.audit import Archiver, Audit, Exporter, Reader, Signer, chain
from core.audit.log import Head, moment, write_head
from core.audit.search import wanted
from core.nouns import CORRAL
from core.paths import Paths
from core.proof.statements import Checkpoint, sign
from core.settings import AuditTable
from core.store import Store

RECORDS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
EACH = 1000
ROUNDS = 60
EXPORT_LIMIT_S, VERIFY_LIMIT_S = 60, 60
ROOT = Path(__file__).parents[2]


async def fill(store: Store, paths: Paths) -> None:
    """A chain as `bench_audit.py` makes it, with a checkpoint for each thousand records."""
    sql = f"INSERT INTO audit ({', '.join(chain.COLUMNS)}) VALUES ({', '.join('?' * 15)})"
    await store.transact(lambda db: db.executemany(sql, rows()))
    last = await store.read(lambda db: db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC").fetchone())
    write_head(paths, Head(1, last[0], last[1]))


async def sign_all(store: Store, signer: Signer) -> None:
    """The checkpoints that a daemon would have made meanwhile."""
    key = signer._key
    assert key is not None

    def work(db: Any) -> None:
        found = db.execute("SELECT seq, hash FROM audit WHERE seq % ? = 0 ORDER BY seq", (EACH,)).fetchall()
        for number, (seq, digest) in enumerate(found, 1):
            blank = Checkpoint(signer.installation, store.database_id, number, seq, digest, "2026", key.id, "")
            line = sign(blank, key).line().decode()
            db.execute("INSERT INTO audit_checkpoints (number, seq, line) VALUES (?, ?, ?)", (number, seq, line))

    await store.transact(work)


async def record_ms(gate: Gate) -> float:
    """The median of what one record takes, committed."""
    taken = []
    for n in range(ROUNDS):
        began = time.perf_counter()
        await gate.record(CORRAL, "bench.done", f"thing:{n}", "r", "done")
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


async def checkpoint_ms(gate: Gate, signer: Signer) -> float:
    """The median of what one checkpoint takes: signature, row and line."""
    taken = []
    for n in range(ROUNDS):
        await gate.record(CORRAL, "bench.done", f"thing:{n}", "r", "done")
        began = time.perf_counter()
        await signer.checkpoint()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


async def main() -> int:
    """0 if every limit is kept."""
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder), Path(folder) / "corral.toml", "0badcafe")
        paths.state.mkdir()
        store = await Store.open(paths, packages=("core.store", "core.audit"))
        audit = Audit(store, paths)
        await fill(store, paths)
        await audit.compare()
        signer = Signer(store, audit, paths, lambda: AuditTable(), environ={})
        await signer.start()
        await sign_all(store, signer)
        signer = Signer(store, audit, paths, lambda: AuditTable(), environ={})
        await signer.start()
        gate = Gate(store, audit, Rights(mode="user", owner_uid=1000))
        out = Path(folder) / "trail"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        with out.open("wb") as file:
            async for piece in Exporter(audit, signer, paths, store.database_id).pieces():
                file.write(piece)
        export_s = time.perf_counter() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        longest = await others_wait(audit, signer, paths, store)
        record, checkpoint = await record_ms(gate), await checkpoint_ms(gate, signer)
        key = signer.keys[0].key
        began = time.perf_counter()
        report = await audit.verify()
        chain_s = time.perf_counter() - began
        archived = await archive(audit, signer, paths, store)
        await store.close()
        argv = [sys.executable, "-P", "-m", "tui", "audit", "verify", str(out), "--key", key, "--json"]
        began = time.perf_counter()
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
        verify_s = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        found = json.loads(done.stdout)
        size = out.stat().st_size
    assert report.ok and found["ok"] and found["records"] >= RECORDS, (report, found)
    told = {
        "records": found["records"], "bytes": size, "export_seconds": round(export_s, 1),
        "export_grew_mib": round(grown / 1024, 1), "others_waited_ms_p99": round(longest, 1),
        "verify_seconds": round(verify_s, 1), "verify_peak_mib": round(peak / 1024, 1),
        "daemon_verify_seconds": round(chain_s, 1), "record_ms": round(record, 2),
        "checkpoint_ms": round(checkpoint, 2),
        **archived,
        "under_limits": export_s < EXPORT_LIMIT_S and verify_s < VERIFY_LIMIT_S,
    }  # fmt: skip
    print(json.dumps({"bench": "audit.proof", "machine": machine(), **told}))
    return 0 if told["under_limits"] else 1


async def archive(audit: Audit, signer: Signer, paths: Paths, store: Store) -> dict[str, float]:
    """All but the newest records go into a file: how long that takes, and how long a transaction of others waits."""
    size, waited = paths.database.stat().st_size, []
    exporter = Exporter(audit, signer, paths, store.database_id)
    archiver = Archiver(store, audit, signer, exporter, paths, AuditTable, lambda: None)

    async def write() -> None:
        while True:
            began = time.perf_counter()
            await store.transact(lambda db: None)
            waited.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(write())
    began = time.perf_counter()
    made = await archiver.archive(moment(str(time.time())), CORRAL, "bench", recent=True)
    seconds = time.perf_counter() - began
    task.cancel()
    report = await audit.verify()
    assert report.ok and made.last >= RECORDS and not await archiver.faults(), report
    return {
        **await read_back(store, paths),
        "archive_seconds": round(seconds, 1),
        "archive_others_waited_ms_p99": round(sorted(waited)[int(len(waited) * 0.99)], 1),
        "archive_others_waited_ms_max": round(max(waited), 1),
        "database_mib_before": size >> 20, "database_mib_after": paths.database.stat().st_size >> 20,
    }  # fmt: skip


async def read_back(store: Store, paths: Paths) -> dict[str, float]:
    """How long the newest page of the archive takes at first, when its file is compared with its seal, and later; how
    long a step of a search for nothing takes, and all of it."""
    reader, steps = Reader(store, paths), []

    async def page(text: str) -> float:
        began, at = time.perf_counter(), None
        while True:
            step = time.perf_counter()
            found = await reader.find(wanted(text, moment), before_seq=at, limit=100)
            steps.append((time.perf_counter() - step) * 1000)
            if not found.more or found.records:
                return time.perf_counter() - began
            at = found.searched

    first, again = await page("deployment:d5"), await page("deployment:d5")
    steps.clear()
    nothing = await page("nobody")
    return {
        "archived_first_page_s": round(first, 2), "archived_page_ms": round(again * 1000, 1),
        "archived_search_all_s": round(nothing, 1),
        "archived_step_ms_p95": round(sorted(steps)[int(len(steps) * 0.95)], 1),
    }  # fmt: skip


async def others_wait(audit: Audit, signer: Signer, paths: Paths, store: Store) -> float:
    """The 99th percentile of how late the event loop comes to others while an export runs, in milliseconds."""
    late = []

    async def look() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            late.append((time.perf_counter() - began - 0.005) * 1000)

    task = asyncio.create_task(look())
    async for _ in Exporter(audit, signer, paths, store.database_id).pieces():
        pass
    task.cancel()
    return sorted(late)[int(len(late) * 0.99)]


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
