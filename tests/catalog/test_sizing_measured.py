"""The plan against the resident set of the real engine with the sample model."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from core.catalog import sample_path, sizing
from core.catalog.files import header_of
from core.catalog.shape import shape_of

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.xdist_group("measures")

LAUNCH = """
import os, sys
import xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
p.hostnames, p.port, p.cache_ram_mib, p.sse_ping_interval, p.fit_params = ["127.0.0.1"], 0, 0, 1, False
p.kv_unified = False
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
types = {"f16": "GGML_TYPE_F16", "q8_0": "GGML_TYPE_Q8_0", "q4_0": "GGML_TYPE_Q4_0"}
p.cache_type_k = p.cache_type_v = getattr(xllamacpp.ggml_type, types[kind])
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.journey
@pytest.mark.parametrize(
    ("ctx", "parallel", "kind"),
    [
        (512, 1, "f16"),
        (2048, 1, "f16"),
        (4096, 8, "q8_0"),
        (8192, 4, "f16"),
        (8192, 2, "q8_0"),
        (8192, 1, "q4_0"),
    ],
)
def test_the_plan_is_within_5_percent_of_the_engine(ctx: int, parallel: int, kind: sizing.CacheType) -> None:
    sample = sample_path()
    if sample is None:
        pytest.skip("the sample model is not installed")
    fd = os.open(sample, os.O_RDONLY)
    try:
        shape = shape_of([header_of(fd, sample.name)])
    finally:
        os.close(fd)
    planned = sizing.resident(sizing.parts(shape, ctx, parallel, kind))
    argv = [sys.executable, "-I", "-c", LAUNCH, str(sample), str(ctx), str(parallel), kind]
    engine = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with engine:
        try:
            assert engine.stdout is not None
            base = engine.stdout.readline().strip()
            body = json.dumps({"prompt": "word " * min(600, ctx // parallel - 32), "max_tokens": 4}).encode()
            ask = urllib.request.Request(f"{base}/v1/completions", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(ask, timeout=60) as answer:
                answer.read()
            lines = Path(f"/proc/{engine.pid}/status").read_text().splitlines()
        finally:
            engine.kill()
    measured = int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024
    assert planned == pytest.approx(measured, rel=0.05), f"{planned / measured - 1:+.1%}"
