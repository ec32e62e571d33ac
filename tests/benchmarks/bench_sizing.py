"""The memory plan beside the resident set of the real engine, over contexts, slots and cache types.

Prints one JSON object a point (MiB; `ready` when the model is loaded, `used` after a prompt of a whole batch) and the
largest error of all. Other models than the sample: give their files as arguments.
"""

import json
import os
import platform
import subprocess
import sys
import urllib.request
from itertools import product
from pathlib import Path

from core.catalog import sample_path, sizing
from core.catalog.files import header_of
from core.catalog.shape import shape_of

CHILD = """
import os, sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
p.hostnames, p.port, p.cache_ram_mib, p.sse_ping_interval, p.fit_params = ["127.0.0.1"], 0, 0, 1, False
p.kv_unified = False
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.cache_type_k = p.cache_type_v = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + kind.upper())
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""
POINTS = [(512, 1), (2048, 1), (8192, 1), (4096, 4), (8192, 4), (8192, 8)]
MIB = 1 << 20


def rss(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(model: Path, ctx: int, parallel: int, kind: str) -> tuple[int, int]:
    """Bytes when ready, and after a prompt of a whole batch."""
    argv = [sys.executable, "-I", "-c", CHILD, str(model), str(ctx), str(parallel), kind]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as engine:
        try:
            assert engine.stdout is not None
            base = engine.stdout.readline().decode().strip()
            ready = rss(engine.pid)
            words = min(600, ctx // parallel - 32)
            body = json.dumps({"prompt": "word " * words, "max_tokens": 4}).encode()
            ask = urllib.request.Request(f"{base}/v1/completions", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(ask, timeout=120) as answer:
                answer.read()
            return ready, rss(engine.pid)
        finally:
            engine.kill()


def main() -> None:
    files = [Path(each) for each in sys.argv[1:]] or [found for found in [sample_path()] if found]
    worst = 0.0
    for model in files:
        fd = os.open(model, os.O_RDONLY)
        try:
            shape = shape_of([header_of(fd, model.name)])
        finally:
            os.close(fd)
        for (ctx, parallel), kind in product(POINTS, ("f16", "q8_0", "q4_0")):
            ready, used = measured(model, ctx, parallel, kind)
            planned = sizing.resident(sizing.parts(shape, ctx, parallel, kind))  # type: ignore[arg-type]
            errors = [planned / ready - 1, planned / used - 1]
            worst = max(worst, *map(abs, errors))
            row = {"model": model.stem, "ctx": ctx, "parallel": parallel, "cache": kind, "plan": planned / MIB}
            row |= {"ready": ready / MIB, "used": used / MIB, "error_ready": errors[0], "error_used": errors[1]}
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}))
    print(json.dumps({"largest_error": round(worst, 4), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}))


main()
