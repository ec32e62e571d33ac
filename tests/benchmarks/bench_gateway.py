"""What the gateway passes on, beside HAProxy in the same run: requests/s, streams, events/s, latency, memory.

The gateway does all that it does for a program: it looks up the key (one of 200), its owner's rights and its four
limits, settles tokens and writes usage. It is measured as it is installed, and compiled where there is a C compiler
(`corral compiled`, made by tests/compiled.py).

All listen on loopback, as programs reach them and as the sketch in engines.md was measured, with TLS too, and on a
Unix socket (`over`); all stand before the same stub engines on Unix sockets and are pinned to one core; the stubs and
the load have the other cores. They are measured in turns, and the median of the rounds is told. A second HAProxy does
what it can of the gateway's work (`DOES`). `ratio` compares what came through; where the load's core was full before
the server's, that flatters the slower one, so `ratio_per_core` beside it compares the rates per CPU second that the
server itself used (`user_us` and `kernel_us` a request, or an event of a stream). Prints one JSON object a
measurement. Without haproxy it says so and measures the gateway alone; wrk is not used, for it speaks no Unix sockets.
`--quick` takes short looks. `--realtime` (as root) puts servers, stubs and load above all other work, of which the
figures then say little; Linux stops each of them for 50 ms a second where they take all of a core. `--litellm` installs
LiteLLM's proxy from PyPI into a temporary folder (some 300 MB) and measures it too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from core.deployments.certificates import make, parted
from core.gateway import wire
from core.listen import Listen

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import compiled  # noqa: E402

LAUNCH = "benchmark1"
AIMS = {"requests": 0.5, "streams": 0.8}
"""Of HAProxy's rate."""
P50_MS, P99_TIMES, STREAMS, STREAMS_MIB = 0.3, 2.0, 2000, 200
"""At most so much more than HAProxy at one client, so many times its p99 at 32, so much memory for so many streams."""
SECRET = "sk-corral-benchmark"
MANY = 1_000_000
"""All connections are of one key and one user, or address."""
PACED = (250, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000)
"""Streams at once that are tried, each 20 events/s."""
FORMS = ("corral", "corral compiled")
NOTHING = dict.fromkeys(
    ("requests_s", "events_s", "wrong", "p50_ms", "p99_ms", "lag_p50_ms", "lag_p99_ms", "core", "user_us", "kernel_us",
     "load_core"), 0.0,
)  # fmt: skip
"""Of a load that did not come to begin."""
LAG_MS = 50
"""A server keeps up with its streams while 99 % of the events take less than this, and all of them come."""
TRIES = 3
"""Looks at a server that does not seem to keep up: other work on the machine holds up either of them at times."""
HAPROXY = """
global
    nbthread 1
    maxconn {maxconn}
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    http-reuse always
frontend clients
    bind unix@{listen}
    bind 127.0.0.1:{port}
    bind 127.0.0.1:{tls} ssl crt {certificate}
    default_backend engines
{does}
backend engines
    balance leastconn
"""
DOES = """
    acl known hdr(authorization),word(2,\' \'),map_str({folder}/keys.map) -m found
    http-request deny deny_status 401 unless known
    stick-table type string len 80 size 100k expire 1m store http_req_rate(60s),bytes_in_rate(60s),conn_cur
    http-request track-sc0 hdr(authorization)
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000000 }}
    http-request deny deny_status 429 if {{ sc_bytes_in_rate(0) gt 4000000000 }}
    unique-id-format %{{+X}}o%pid%rt%Ts
    http-response set-header x-request-id %[unique-id]
    http-response set-header x-ratelimit-remaining-requests %[sc_http_req_rate(0)]
    log stdout format raw daemon
    log-format '%[unique-id] %Ts %b %s %ST %B %U %TR %Tw %Tr %Ta'
"""
"""What it can do of the gateway's work: a key looked up, two rates counted and bounded, an id, a line of log."""


class Server(NamedTuple):
    """One that is measured: where it listens, by `tcp`, `tls` and `unix`."""

    pid: int
    listens: dict[str, str]


class Head(msgspec.Struct):
    """What is read of a batch of usage."""

    launch: str
    n: int


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else os.uname().machine}, {os.cpu_count()} cores"


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and kernel time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / ticks, int(fields[12]) / ticks


@contextmanager
def process(argv: list[str], cores: set[int], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process on these cores; killed at the end."""
    started = subprocess.Popen(argv, preexec_fn=lambda: os.sched_setaffinity(0, cores), **more)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def until_listening(path: Path | str, seconds: float = 10) -> None:
    """`path`: of a Unix socket, or tcp:PORT."""
    deadline = time.monotonic() + seconds
    tcp = isinstance(path, str)
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as probe:
            try:
                probe.connect(("127.0.0.1", int(str(path)[4:])) if tcp else str(path))
                return
            except OSError:
                time.sleep(0.02)
    raise TimeoutError(f"nothing listens at {path}")


def secret_of(n: int) -> str:
    return SECRET if n == 0 else f"other{n}"


def key(n: int) -> wire.Key:
    """The first one is asked with; all have limits that nothing reaches."""
    rules = tuple(wire.Rule(user=True, id=4242, scope=f"deployment:{name}") for name in ("team-a-*", "mail", "chat"))
    return wire.Key(
        id=f"key{n:05}", name=f"program{n}", hash=hashlib.sha256(secret_of(n).encode()).hexdigest(),
        owner="ann", uid=4242,
        rules=rules, deployments=("mail", "cha*"), endpoints=("chat/completions", "completions"),
        limits=wire.Limits(rpm=10**12, tpm=10**15, concurrency=10**6, daily_tokens=10**15),
    )  # fmt: skip


class Daemon(threading.Thread):
    """The daemon's end of the control socket: one snapshot, then it acknowledges usage."""

    def __init__(self, control: Path, stubs: list[Path], port: int, tls: int, files: wire.Files) -> None:
        super().__init__(name="daemon", daemon=True)
        until_listening(control)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(control))
        self._lines = sock.makefile("rb")
        self._sock = sock
        self._say(
            wire.Hello(version=wire.WIRE_VERSION, daemon_uid=os.getuid(), daemon_pid=os.getpid(), program="bench")
        )
        replicas = tuple(
            wire.ReplicaRoute(id=f"chat/{n}", launch=f"launch{n}", endpoint=f"unix:{path}", slots=10_000)
            for n, path in enumerate(stubs)
        )
        route = wire.Route(name="chat", model="m", state="ready", replicas=replicas)
        self._say(
            wire.Snapshot(
                database="d", epoch=1, n=1, routes=(route,), allowed=wire.Allowed(),
                limits=wire.GatewayLimits(
                    connections_per_key=MANY, connections_per_address=MANY,
                    doors=(Listen(f"127.0.0.1:{port}"), Listen(f"127.0.0.1:{tls}", True)), files=files,
                ),
                keys=tuple(key(n) for n in range(200)),
            )
        )  # fmt: skip
        while b'"snapshotack"' not in self._lines.readline():
            pass

    def _say(self, message: wire.FromDaemon) -> None:
        self._sock.sendall(msgspec.json.encode(message) + b"\n")

    def run(self) -> None:
        for line in self._lines:
            if line.startswith(b'{"type":"usagebatch"'):
                head = msgspec.json.decode(line, type=Head)
                self._say(wire.UsageAck(launch=head.launch, n=head.n))


def certificate(folder: Path) -> wire.Files:
    """One that signs itself."""
    made, files = make(*parted(("localhost",)), 7), wire.Files(str(folder / "c.crt"), str(folder / "c.key"))
    for path, text in ((files.certificate, made.certificate), (files.key, made.key)):
        Path(path).touch(0o600)
        Path(path).write_bytes(text)
    return files


@contextmanager
def gateway(folder: Path, stubs: list[Path], cores: set[int], python: str = sys.executable) -> Iterator[Server]:
    """A gateway, as the environment of `python` has it."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    listen, port, tls = folder / "g.sock", free_port(), free_port()
    env = {
        **os.environ, "CORRAL_GATEWAY_DIR": str(folder), "CORRAL_GATEWAY_SOCKET": str(listen),
        "CORRAL_GATEWAY_LAUNCH": LAUNCH, "CORRAL_GATEWAY_OWNER": str(os.getuid()),
    }  # fmt: skip
    with (folder / "gateway.log").open("wb") as log:
        argv = [python, "-P", "-m", "core.gateway"]
        with process(argv, cores, env=env, stderr=log, cwd=HERE.parent.parent) as started:
            Daemon(folder / "control.sock", stubs, port, tls, certificate(folder)).start()
            until_listening(listen)
            for each in (port, tls):
                until_listening(f"tcp:{each}")
            yield Server(started.pid, {"tcp": f"tcp:{port}", "tls": f"tls:{tls}", "unix": str(listen)})


@contextmanager
def haproxy(folder: Path, stubs: list[Path], cores: set[int], *, does: bool = False) -> Iterator[Server]:
    """An HAProxy that passes on, or one that `does` what it can of the gateway's work."""
    folder = folder / ("does" if does else "passes")
    folder.mkdir()
    listen, port, tls, files = folder / "h.sock", free_port(), free_port(), certificate(folder)
    pem = folder / "c.pem"
    pem.touch(0o600)
    pem.write_bytes(Path(files.certificate).read_bytes() + Path(files.key).read_bytes())
    (folder / "keys.map").write_text("".join(f"{secret_of(n)} 1\n" for n in range(200)))
    rules = DOES.format(folder=folder) if does else ""
    maxconn = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 100)
    servers = "".join(f"    server s{n} unix@{path}\n" for n, path in enumerate(stubs))
    said = HAPROXY.format(listen=listen, port=port, tls=tls, certificate=pem, maxconn=maxconn, does=rules)
    (folder / "haproxy.cfg").write_text(said + servers)
    argv = ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]
    with (folder / "log").open("wb") as log, process(argv, cores, stdout=log, stderr=log) as started:
        until_listening(listen)
        yield Server(started.pid, {"tcp": f"tcp:{port}", "tls": f"tls:{tls}", "unix": str(listen)})


@contextmanager
def litellm(folder: Path, stub_cores: set[int], cores: set[int]) -> Iterator[Server]:
    """LiteLLM's proxy, one worker, before a stub of its own."""
    home, ports = folder / "litellm", [free_port(), free_port()]
    for argv in (["-m", "venv", str(home)], ["-m", "pip", "install", "-q", "litellm[proxy]"]):
        python = sys.executable if argv[1] == "venv" else str(home / "bin/python")
        subprocess.run([python, *argv], check=True, timeout=900, stdout=subprocess.DEVNULL)
    config = {"model_list": [{"model_name": "chat", "litellm_params": {
        "model": "openai/chat", "api_base": f"http://127.0.0.1:{ports[0]}/v1", "api_key": "none",
    }}]}  # fmt: skip
    (folder / "litellm.yaml").write_text(json.dumps(config))
    env = {**os.environ, "HOME": str(folder), "LITELLM_MASTER_KEY": SECRET, "LITELLM_LOG": "ERROR"}
    argv = [str(home / "bin/litellm"), "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1",
            "--port", str(ports[1]), "--num_workers", "1", "--telemetry", "False"]  # fmt: skip
    stub = [sys.executable, str(HERE / "relayload.py"), "stub", f"tcp:{ports[0]}"]
    with (
        process(stub, stub_cores), (folder / "litellm.log").open("wb") as log,
        process(argv, cores, env=env, stdout=log, stderr=log) as started,
    ):  # fmt: skip
        until_listening(f"tcp:{ports[1]}", seconds=120)
        yield Server(started.pid, {"tcp": f"tcp:{ports[1]}"})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def memory_mib(pid: int) -> float:
    """PSS of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(
    server: Server, over: str, kind: str, clients: int, seconds: float, cores: list[set[int]]
) -> dict[str, Any]:
    """Put a load on a server; its figures are summed over the generators, times and lags are the worst one's. Where a
    generator does not get its connections in time, all of them are `lost`."""
    pid, listen = server.pid, server.listens[over]
    order = json.dumps({"kind": kind, "clients": max(1, clients // len(cores)), "seconds": seconds, "key": SECRET})
    argv = [sys.executable, str(HERE / "relayload.py"), "load", str(listen), order]
    with ExitStack() as stack:
        loads = [stack.enter_context(process(argv, each, stdout=subprocess.PIPE)) for each in cores]
        if not all([json.loads(each.stdout.readline())["begun"] for each in loads]):  # type: ignore[union-attr]
            return {**NOTHING, "lost": clients, "pss_mib": memory_mib(pid)}
        started, before = time.monotonic(), cpu_seconds(pid)
        time.sleep(seconds / 2)
        memory = memory_mib(pid)
        told = [json.loads(each.stdout.readline()) for each in loads]  # type: ignore[union-attr]
        user, kernel = (now - then for now, then in zip(cpu_seconds(pid), before, strict=True))
        took = time.monotonic() - started
    summed = {key: sum(each[key] for each in told) for key in ("requests_s", "events_s", "wrong", "lost")}
    worst = {key: max((each[key] or 0) for each in told) for key in told[0] if key.endswith("_ms")}
    done = max(1, summed["requests_s" if kind == "small" else "events_s"] * took)
    return {
        **summed, **worst, "pss_mib": memory, "core": (user + kernel) / took, "user_us": user / done * 1e6,
        "kernel_us": kernel / done * 1e6, "load_core": max(each["load_core"] for each in told),
    }  # fmt: skip


def middle(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure."""
    return {key: statistics.median(each[key] for each in found) for key in found[0]}


def report(what: str, figures: dict[str, Any]) -> None:
    told = {key: round(value, 2) if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps({"bench": "gateway", "what": what, **told}), flush=True)


class Bench:
    """The servers side by side. Those whose names begin with `corral` are forms of the gateway."""

    def __init__(self, servers: dict[str, Server], cores: list[set[int]], rounds: int, seconds: float) -> None:
        self._servers = servers
        self._cores = cores
        self._rounds = rounds
        self._seconds = seconds

    def rate(self, what: str, over: str, kind: str, clients: int, figure: str, aim: float) -> None:
        """Measure in turns and tell how the gateway compares; `figure` is what is compared."""
        what = f"{what}, {over}"
        servers = {name: server for name, server in self._servers.items() if over in server.listens}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
        for _ in range(self._rounds):
            for name, server in servers.items():
                took = measure(server, over, kind, clients, self._seconds, self._cores)
                found[name].append({**took, "per_core": took[figure] / max(took["core"], 0.01)})
        medians = {name: middle(each) for name, each in found.items()}
        for name, median in medians.items():
            report(what, {"server": name, "clients": clients, **median})
        for form in (name for name in medians if name.startswith("corral") and "haproxy" in medians):
            ours, theirs = medians[form], medians["haproxy"]
            can = medians["haproxy that does what it can"]
            report(what, {
                "server": form, "ratio": ours[figure] / theirs[figure],
                "ratio_per_core": ours["per_core"] / theirs["per_core"],
                "aim": aim, "met": ours[figure] >= aim * theirs[figure],
                "ratio_to_one_that_does": ours[figure] / can[figure],
                "ratio_to_one_that_does_per_core": ours["per_core"] / can["per_core"],
            })  # fmt: skip
            if kind == "small" and clients == 1:
                more = ours["p50_ms"] - theirs["p50_ms"]
                told = {"server": form, "more_ms": round(more, 3), "aim": P50_MS, "met": more <= P50_MS}
                report(f"p50, 1 client, {over}", told)
            elif kind == "small":
                times = ours["p99_ms"] / max(theirs["p99_ms"], 0.001)
                told = {"server": form, "times": times, "aim": P99_TIMES, "met": times <= P99_TIMES}
                report(f"p99, {clients} clients, {over}", told)
        if "litellm" in medians:
            report(what, {"times_litellm": medians["corral"]["requests_s"] / max(1, medians["litellm"]["requests_s"])})

    def streams(self, steps: tuple[int, ...], aim: float) -> None:
        """Paced streams at once, more and more, until a server does not keep up."""
        servers = {name: self._servers[name] for name in (*FORMS, "haproxy") if name in self._servers}
        kept = dict.fromkeys(servers, 0)
        costs: dict[str, dict[int, float]] = {name: {} for name in servers}
        for clients in steps:
            for name, server in servers.items():
                if kept[name] < max((each for each in steps if each < clients), default=0):
                    continue  # it did not keep up with fewer
                for _ in range(TRIES):
                    took = measure(server, "tcp", "paced", clients, self._seconds, self._cores)
                    if took["events_s"] >= 0.98 * clients * 20 and took["lag_p99_ms"] < LAG_MS and not took["lost"]:
                        kept[name] = clients
                        costs[name][clients] = took["core"] / clients
                        break
                report("paced streams", {"server": name, "clients": clients, **took, "kept_up": kept[name] == clients})
        report("paced streams", {"kept_up": kept})
        for form in (name for name in kept if name != "haproxy" and "haproxy" in kept):
            common, ratio = min(kept[form], kept["haproxy"]), kept[form] / max(1, kept["haproxy"])
            per_core = costs["haproxy"].get(common, 0) / costs[form].get(common, 1)
            told = {"ratio": ratio, "ratio_per_core": per_core, "aim": aim, "met": ratio >= aim}
            report("paced streams", {"server": form, **told})

    def memory(self) -> None:
        """So many open streams, and what they take of the gateway's memory."""
        for form in (name for name in FORMS if name in self._servers):
            took = measure(self._servers[form], "tcp", "paced", STREAMS, self._seconds, self._cores)
            met = took["pss_mib"] < STREAMS_MIB and not took["lost"] and not took["wrong"]
            told = {"streams": STREAMS, "pss_mib": took["pss_mib"], "aim": STREAMS_MIB, "met": met}
            report("memory", {"server": form, **told})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short looks, for a first impression")
    parser.add_argument("--only", choices=("small", "burst", "paced", "memory"), help="one kind of load")
    parser.add_argument("--litellm", action="store_true", help="install LiteLLM's proxy and measure it too")
    parser.add_argument("--realtime", action="store_true", help="with real-time priority (root): on a busy machine")
    given = parser.parse_args()
    rounds, seconds = (1, 2.0) if given.quick else (3, 4.0)
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        report("nothing", {"reason": "one core for the server and one for the load are needed"})
        return 0
    mine, others = {usable[0]}, usable[1:]
    lanes = min(4, max(1, len(others) // 2))
    load_cores = [{others[n % len(others)]} for n in range(lanes)]
    stub_cores = [{others[(lanes + n) % len(others)]} for n in range(lanes)]
    folder = Path(tempfile.mkdtemp(prefix="c-"))
    try:
        python = str(compiled.python())
    except (compiled.Without, subprocess.SubprocessError) as error:
        python = ""
        report("corral compiled", {"reason": f"it is not measured: {error}"})
    if given.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # and all that it starts
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stubs = [folder / f"e{n}.sock" for n in range(lanes)]
        for path, each in zip(stubs, stub_cores, strict=True):
            stack.enter_context(process([sys.executable, str(HERE / "relayload.py"), "stub", str(path)], each))
            until_listening(path)
        servers: dict[str, Server] = {"corral": stack.enter_context(gateway(folder, stubs, mine))}
        if python:
            servers["corral compiled"] = stack.enter_context(gateway(folder, stubs, mine, python))
        if shutil.which("haproxy"):
            servers["haproxy"] = stack.enter_context(haproxy(folder, stubs, mine))
            servers["haproxy that does what it can"] = stack.enter_context(haproxy(folder, stubs, mine, does=True))
        else:
            report("haproxy", {"reason": "it is not installed: the gateway is measured alone"})
        if given.litellm:
            try:
                servers["litellm"] = stack.enter_context(litellm(folder, stub_cores[0], mine))
            except (OSError, subprocess.SubprocessError) as error:
                report("litellm", {"reason": f"it is not measured: {error}"})
        else:
            report("litellm", {"reason": "not asked for: --litellm"})
        os.sched_setaffinity(0, others)
        report("machine", {
            "machine": machine(), "aims": AIMS, "server_core": usable[0], "load_cores": others,
            "pinned": "each server alone on server_core in its turn; stubs and load on load_cores",
            "nice": os.getpriority(os.PRIO_PROCESS, 0), "realtime": given.realtime,
            "load_before": round(os.getloadavg()[0], 1),
        })  # fmt: skip
        bench = Bench(servers, load_cores, rounds, seconds)
        if given.only in (None, "small"):
            for over in ("tcp", "unix"):
                bench.rate("requests, 1 client", over, "small", 1, "requests_s", AIMS["requests"])
                bench.rate("requests, 32 clients", over, "small", 32, "requests_s", AIMS["requests"])
            bench.rate("requests, 32 clients", "tls", "small", 32, "requests_s", AIMS["requests"])
        if given.only in (None, "burst"):
            bench.rate("streams of 64 events", "tcp", "burst", 32, "events_s", AIMS["streams"])
        if given.only in (None, "paced"):
            bench.streams(PACED[1::2] if given.quick else PACED, AIMS["streams"])
        if given.only in (None, "memory"):
            bench.memory()
    return 0


if __name__ == "__main__":
    sys.exit(main())
