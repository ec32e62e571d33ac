"""What llama-server takes of a real GPU, beside what sizing plans: for a machine with one NVIDIA GPU.

`--server PATH`: a build of it with CUDA. Files in the widths of real models (wide.toml) are written to `--data`, some
GB each; each setting is started once, asked a prompt of a whole batch, and one of a whole context where all lies on the
GPU. One JSON object a start, in MiB: the buffers as the engine's log names them, the process's memory as the driver
tells it, its resident set, and the plan. `--largest GB …` instead: fills the GPU until so much is free, starts the
split that sizing calls the largest there, and ever one layer more until the engine fails. Exits 1 when a plan is more
than 5 % and 24 MiB off, or its largest split does not start. `--seconds` ends it early.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import architectures  # lies beside this file

from core.catalog import sizing
from core.catalog.shape import shape_of
from core.catalog.sizing import CacheType, Gpus
from core.engines.llama_server import LlamaServer
from core.nouns import ModelShape, Split

MIB = 1 << 20
LIMIT, LEAST = 0.05, 24
ENGINE = LlamaServer.abilities
BUFFER = re.compile(r"(\S+) +(model|KV|RS|compute|output) buffer size = +([\d.]+) MiB")
START_S = 90
MORE = 4
"""Layers beyond the largest split that are tried."""


class Setting(NamedTuple):
    """One start."""

    model: str
    gpu_layers: int = 999
    cpu_moe: int = 0
    ctx: int = 8192
    slots: int = 4
    cache: CacheType = "f16"


class Took(NamedTuple):
    """MiB; `failed` is what the engine said last where it did not start or answer."""

    buffers: dict[str, float]
    ready: int = 0
    used: int = 0
    full: int = 0
    host_ready: int = 0
    host_used: int = 0
    free: int = 0
    failed: str = ""


def settings() -> Iterator[Setting]:
    """All layers, a third, none; experts in the host; contexts, slots and cache types."""
    for name, told in architectures.wide().items():
        layers, mixture = told["metadata"]["block_count"], "expert_count" in told["metadata"]
        for asked in (layers // 3, 0, 999):
            yield Setting(name, asked)
        yield Setting(name, ctx=12288, slots=3)
        yield Setting(name, layers * 2 // 3, ctx=24576, slots=6, cache="q8_0")
        yield Setting(name, ctx=32768, cache="q4_0")
        yield Setting(name, ctx=1536, slots=6)
        if mixture:
            yield Setting(name, cpu_moe=layers)
            yield Setting(name, cpu_moe=layers // 3, ctx=32768, slots=2, cache="q8_0")


def file_of(data: Path, name: str) -> Path:
    path = data / f"{name}.gguf"
    if not path.exists():
        architectures.write(path.with_suffix(".new"), name)
        path.with_suffix(".new").rename(path)
    return path


def known(name: str) -> ModelShape:
    return shape_of([architectures.header(name)])


def planned(shape: ModelShape, setting: Setting) -> Split:
    found = sizing.parts(shape, setting.ctx, setting.slots, setting.cache, engine=ENGINE)
    return sizing.split(
        shape, found, setting.ctx, setting.slots, setting.cache, 1 << 50, (1 << 50,), gpu_layers=setting.gpu_layers,
        cpu_moe=setting.cpu_moe, engine=ENGINE,
    )  # fmt: skip


def took(server: str, file: Path, setting: Setting, *, fill: bool) -> Took:
    """Start it, ask it, end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [
        server, "--model", str(file), "--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(setting.ctx),
        "--parallel", str(setting.slots), "--threads", "4", "--gpu-layers", str(setting.gpu_layers),
        "--n-cpu-moe", str(setting.cpu_moe), "--cache-type-k", setting.cache, "--cache-type-v", setting.cache,
        "--fit", "off", "--cache-ram", "0", "--ctx-checkpoints", "2", "--verbosity", "4",
    ]  # fmt: skip
    log = file.with_name(f"{port}.log")
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_S
        while time.monotonic() < end and process.poll() is None and not _ask(port, "/health"):
            time.sleep(0.05)
        ready, host = _of_gpu(process.pid), _resident(process.pid)
        each = setting.ctx // setting.slots
        good = _ask(port, "/completion", _prompt("word ", min(600, each - 64)))
        used, host_used, full = _of_gpu(process.pid), _resident(process.pid), 0
        if good and fill:
            words = [_prompt(f"{kind} ", each - 64) for kind in ("tree", "house", "river", "stone") * 16]
            with ThreadPoolExecutor(setting.slots) as pool:
                good = all(pool.map(partial(_ask, port, "/completion"), words[: setting.slots]))
            full = _of_gpu(process.pid)
        left = _smi("--query-gpu=memory.free")
        lines = log.read_text("utf-8", "replace").splitlines()
        buffers: dict[str, float] = {}
        for found in filter(None, map(BUFFER.search, lines)):
            key = f"{found[1]} {found[2]}"
            buffers[key] = buffers.get(key, 0) + float(found[3])
        return Took(
            buffers, ready, used, full, host, host_used, int(left[0]) if left else 0,
            "" if good else " | ".join(lines[-3:])[-300:],
        )  # fmt: skip
    finally:
        process.kill()
        process.wait(timeout=30)
        log.unlink()


def _prompt(word: str, count: int) -> dict[str, Any]:
    return {"prompt": word * max(1, count), "n_predict": 8, "cache_prompt": False}


def _ask(port: int, path: str, body: object = None) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(link):
        data = None if body is None else json.dumps(body)
        link.request("POST" if data else "GET", path, data, {"Content-Type": "application/json"})
        return link.getresponse().status == 200
    return False


def _smi(query: str) -> list[str]:
    argv = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30).stdout.split("\n")[:-1]


def _of_gpu(pid: int) -> int:
    rows = (line.split(",") for line in _smi("--query-compute-apps=pid,used_memory"))
    return next((int(row[1]) for row in rows if int(row[0]) == pid), 0)


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 // MIB
    return 0


@contextlib.contextmanager
def filled(leave: int) -> Iterator[int]:
    """Hold all but so many bytes of the first GPU, by the driver alone; what is free then, bytes."""
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, block = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    free, whole = ctypes.c_size_t(), ctypes.c_size_t()
    done = [cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0)]
    done += [cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), cuda.cuCtxSetCurrent(context)]
    done += [cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(whole))]
    done += [cuda.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(free.value - leave))]
    if any(done):
        raise RuntimeError(f"the GPU was not filled: {done}")
    try:
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(whole))
        yield free.value
    finally:
        cuda.cuMemFree_v2(block)
        cuda.cuDevicePrimaryCtxRelease_v2(device)


def largest(server: str, data: Path, setting: Setting, leave: int) -> bool:
    """The largest split by the plan, and how many layers more the engine gets in; whether the plan's one started."""
    shape, file = known(setting.model), file_of(data, setting.model)
    with filled(leave) as free:
        plan = sizing.plan(
            shape, model="m", ctx=setting.ctx, parallel=setting.slots, cache_type=setting.cache, cache_ram_mib=0,
            free_bytes=1 << 50, reserve_bytes=0, reserved_bytes=0, engine=ENGINE, gpus=Gpus((free,)),
        )  # fmt: skip
        assert plan.split is not None
        best, row = plan.split, setting._asdict() | {"leave": free // MIB, "plan": plan.split.devices[1].total // MIB}
        row |= {"gpu_layers": best.gpu_layers, "cpu_moe": best.cpu_moe, "fits": best.fits}
        first = took(server, file, setting._replace(gpu_layers=best.gpu_layers, cpu_moe=best.cpu_moe), fill=True)
        row |= {"used": max(first.used, first.full), "left": first.free, "failed": first.failed}
        more = 0
        while not first.failed and more < MORE:
            if best.gpu_layers > shape.n_layer:
                asked = setting._replace(cpu_moe=best.cpu_moe - more - 1)
            else:
                asked = setting._replace(gpu_layers=best.gpu_layers + more + 1, cpu_moe=best.cpu_moe)
            if asked.cpu_moe < 0 or took(server, file, asked, fill=True).failed:
                break
            more += 1
        print(json.dumps(row | {"layers_more": more}), flush=True)
    return best.fits and not first.failed


def compare(server: str, data: Path, setting: Setting) -> bool:
    """One start beside its plan; whether that was right."""
    shape = known(setting.model)
    found = took(server, file_of(data, setting.model), setting, fill=setting.gpu_layers > shape.n_layer)
    host, there = planned(shape, setting).devices
    row = setting._asdict() | found._asdict()
    row |= {"plan": there.total // MIB, "plan_compute": there.compute // MIB, "plan_host": host.total // MIB}
    row["over"] = bool(found.failed) or abs(there.total / MIB - found.used) > max(LIMIT * found.used, LEAST)
    print(json.dumps(row), flush=True)
    return not row["over"]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--data", type=Path, default=Path("build/wide"))
    parser.add_argument("--model", default="")
    parser.add_argument("--largest", type=float, nargs="*", metavar="GB")
    parser.add_argument("--seconds", type=float, default=3600.0)
    asked = parser.parse_args()
    end = time.monotonic() + asked.seconds
    asked.data.mkdir(parents=True, exist_ok=True)
    kept, left = True, 0
    chosen = [each for each in settings() if each.model.startswith(asked.model)]
    if asked.largest is not None:
        names = dict.fromkeys(each.model for each in chosen)
        chosen = [
            Setting(name, ctx=ctx, cache=kind) for name in names for ctx, kind in ((8192, "f16"), (32768, "q8_0"))
        ]
    for setting in chosen:
        if time.monotonic() > end:
            left += 1
        elif asked.largest is None:
            kept = compare(asked.server, asked.data, setting) and kept
        else:
            for leave in asked.largest or (4.0,):
                kept = largest(asked.server, asked.data, setting, int(leave * 1e9)) and kept
    if left:
        print(f"{left} settings were left out: the time is over", file=sys.stderr)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
