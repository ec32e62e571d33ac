"""What daemon, gateway and keepers take while 20 replicas are idle: CPU over a minute, beside one core; memory.

Four replicas are the real engine with the sample model, sixteen are doubles that speak as llama-server does and do
nothing (an honest host has no memory for twenty). Prints one JSON object with the machine named.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1] / "journeys"), str(HERE.parents[1] / "catalog")]

from gguf_maker import make  # type: ignore[import-not-found]  # noqa: E402

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
REAL, DOUBLES = 4, 16
CONFIG = """
[capacity]
reserve_bytes = 1
[engines]
llama_server = "{engine}"
"""


def corral(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui", *args], capture_output=True, text=True, timeout=180, check=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


def ask(*args: str) -> Any:
    return json.loads(corral(*args, "--json"))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        os.environ["CORRAL_HOME"] = folder
        os.environ["PYTHONPATH"] = str(HERE.parents[2])
        engine = Path(folder) / "llama-server"
        double = HERE.parents[1] / "journeys/engine_double.py"
        engine.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{double}" "$@"\n')
        engine.chmod(0o755)
        (Path(folder) / "corral.toml").write_text(CONFIG.format(engine=engine))
        (Path(folder) / "tiny.gguf").write_bytes(make())
        try:
            corral("models", "sample")
            corral("models", "import", f"{folder}/tiny.gguf", "--name", "tiny")
            corral("deploy", "smollm2-135m", "--name", "real", "--ctx", "512", "--replicas", str(REAL), "--wait")
            corral(
                "deploy", "tiny", "--name", "double", "--engine", "llama-server", "--replicas", str(DOUBLES), "--wait"
            )
            measure()
        finally:
            corral("shutdown", "--all")


def measure() -> None:
    status, replicas = ask("status"), ask("ps")
    ready = [each for each in replicas if each["state"] == "ready"]
    assert len(ready) == REAL + DOUBLES, [each["reason"] for each in replicas]
    daemon = psutil.Process(status["daemon"]["pid"])
    gateway = psutil.Process(status["gateway_status"]["pid"])
    keepers = [parent for each in ready if (parent := psutil.Process(each["pid"]).parent())]
    engines = [psutil.Process(each["pid"]) for each in ready]
    groups = {"daemon": [daemon], "gateway": [gateway], "keepers": keepers, "engines": engines}
    before = {name: used(group) for name, group in groups.items()}
    woken = switches(keepers)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < SECONDS:
        time.sleep(max(0.0, SECONDS - passed))
    percent = {name: round(100 * (used(group) - before[name]) / passed, 2) for name, group in groups.items()}
    print(
        json.dumps(
            {
                "what": f"{len(ready)} idle replicas ({DOUBLES} of them doubles), CPU in percent of one core",
                "seconds": round(passed),
                "cpu_percent": percent,
                "keeper_wakeups_per_minute": round(60 * (switches(keepers) - woken) / passed / len(keepers), 2),
                "daemon_pss_mib": daemon.memory_full_info().pss >> 20,
                "keeper_anon_kib": max(anon(each.pid) for each in keepers),
                "aim": {"daemon": 2.0},
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            },
            indent=2,
        )
    )


def used(group: list[psutil.Process]) -> float:
    """User and system seconds of all of them."""
    return sum(sum(each.cpu_times()[:2]) for each in group)


def switches(group: list[psutil.Process]) -> int:
    return sum(each.num_ctx_switches().voluntary for each in group)


def anon(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()[0])


main()
