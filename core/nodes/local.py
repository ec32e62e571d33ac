"""This host as a node: launches are folders, keepers are their processes, nothing else is remembered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import platform
import shutil
import signal as signals
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import psutil

from core.access.accounts import Account, Accounts
from core.errors import Conflict, Failed
from core.nodes import cgroups, foreign, logs, offline, proc
from core.nodes import records as files
from core.nodes.base import ExitRecord, LaunchOrder, LaunchState, LogPiece, Node
from core.nodes.programs import Programs
from core.nodes.spawn import spawn
from core.nouns import NodeFacts, NodeSample, ProcessSample
from core.paths import Paths

log = logging.getLogger(__name__)

LAUNCH_TIMEOUT_S = 10.0
SHARE_S = 0.1
WATCH_EVERY_S = 0.25
"""The locks of living launches are tried so often; 20 of them cost 0.1 % of a core."""


class Local(Node):
    """The host that the daemon runs on. With `accounts` (system mode) keepers, engines and gateway run as those."""

    def __init__(
        self,
        paths: Paths,
        *,
        accounts: Accounts | None = None,
        name: str = "local",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._paths = paths
        self._accounts = accounts
        self._clock = clock
        self._cpu: dict[str, tuple[float, float, float]] = {}
        self._host_cpu = psutil.cpu_times()
        self._keepers: set[int] = set()
        self._programs = Programs()

    # ---------------------------------------------------------------------------------------- the host

    async def facts(self) -> NodeFacts:
        model, flags = _cpu_model()
        memory = psutil.virtual_memory()
        return NodeFacts(
            name=self.name,
            boot_id=proc.boot_id(),
            machine=platform.machine(),
            system=platform.system(),
            cores=cgroups.cores(),
            memory_bytes=memory.total,
            cpus=len(os.sched_getaffinity(0)),
            python=platform.python_version(),
            cpu_model=model,
            avx2="avx2" in flags or platform.machine() != "x86_64",
        )

    async def sample(self) -> NodeSample:
        memory = psutil.virtual_memory()
        disk = shutil.disk_usage(self._paths.root if self._paths.root.exists() else "/")
        now = psutil.cpu_times()
        was, self._host_cpu = self._host_cpu, now
        total = sum(now[:8]) - sum(was[:8])
        idle = (now.idle - was.idle) + (now.iowait - was.iowait)
        return NodeSample(
            time=self._clock(),
            node=self.name,
            cpu_percent=round(max(0.0, 100 * (1 - idle / total)), 1) if total > 0 else 0.0,
            load1=round(os.getloadavg()[0], 2),
            memory_bytes=memory.total,
            free_bytes=min(memory.available, cgroups.memory_left()),
            pressure=_pressure(),
            disk_free_bytes=disk.free,
            disk_bytes=disk.used + disk.free,
        )

    # ---------------------------------------------------------------------------------------- launches

    async def launch(self, order: LaunchOrder) -> LaunchState:
        folder, records = self._paths.launches / order.id, self._paths.records / order.id
        try:
            records.mkdir(mode=0o700)
            try:
                account = self._make(folder, order)
            except OSError:
                records.rmdir()
                raise
        except FileExistsError as error:
            raise Conflict(f"launch {order.id} was started before", "there is never a second copy") from error
        except OSError as error:
            raise Failed(f"{order.owner} was not started", f"{error.filename}: {error.strerror}") from error
        told = {
            **msgspec.to_builtins(order), "folder": str(folder), "records": str(records),
            "account": account and msgspec.to_builtins(account),
        }  # fmt: skip
        if order.limits.offline:
            told["limits"]["calls"] = offline.program()
        try:
            pid, errors = spawn(records / "lock", json.dumps(told).encode())
        except OSError as error:
            raise Failed(f"{order.owner} was not started", f"its keeper: {error.strerror}") from error
        self._keepers.add(pid)
        try:
            return await self._started(order, pid, errors)
        finally:
            os.close(errors)
            self._programs.news.set()

    def _make(self, folder: Path, order: LaunchOrder) -> Account | None:
        """Make the launch's folder; the account that it runs as. The gateway may enter an engine's folder, no more."""
        folder.mkdir(mode=0o700)
        if self._accounts is None:
            return None
        gateway = self._accounts.gateway
        account = gateway if order.kind == "gateway" else self._accounts.engine
        try:
            os.chown(folder, account.uid, gateway.gid)
            folder.chmod(0o710)
        except OSError:
            folder.rmdir()
            raise
        return account

    def socket(self, launch: LaunchState) -> str:
        path = self._paths.launches / launch.id / "e.sock"
        return str(path) if foreign.is_socket(path) else ""

    def port(self, launch: LaunchState, file: str = "port") -> int | None:
        try:
            return int(foreign.read(self._paths.launches / launch.id, file, 16))
        except (OSError, ValueError):
            return None

    async def _started(self, order: LaunchOrder, keeper: int, errors: int) -> LaunchState:
        """Wait for launch.json. `errors` is the file that the keeper's first words go to."""
        deadline = asyncio.get_running_loop().time() + LAUNCH_TIMEOUT_S
        while True:
            try:
                state = self._state(order.id)
            except Failed:  # it may run: until the deadline nobody knows, and then it is ended
                state = None
            if state is not None and state.pid is not None:
                return state
            if state is not None and not state.alive:
                said = os.pread(errors, 4096, 0).decode("utf-8", "replace").strip().splitlines()
                reason = state.exit.reason if state.exit else ""
                why = said[-1] if said else reason or "the keeper ended at once"
                raise Failed(f"{order.owner} was not started", why)
            if asyncio.get_running_loop().time() > deadline:
                self._reap()
                if keeper in self._keepers:  # not reaped, so the pid is still its own
                    os.kill(keeper, signals.SIGKILL)
                raise Failed(f"{order.owner} was not started", f"no launch.json after {LAUNCH_TIMEOUT_S:.0f} s")
            await asyncio.sleep(0.01)

    def _reap(self) -> None:
        """Take the exit status of ended keepers, so that no zombie stays."""
        for pid in list(self._keepers):
            try:
                gone = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                gone = True
            if gone:
                self._keepers.discard(pid)

    async def launches(self) -> list[LaunchState]:
        return [state for name in sorted(self._names()) if (state := self._state(name)) is not None]

    def _names(self) -> set[str]:
        """The launches of which there are records. Raises `Failed` if that cannot be seen."""
        try:
            return {each.name for each in self._paths.records.iterdir()}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise Failed("launches cannot be looked at", f"{error.filename}: {error.strerror}") from error

    def _state(self, launch: str) -> LaunchState | None:
        """A launch as its folder tells it; None if there is no such folder. Raises `Failed` if that cannot be seen."""
        records = self._paths.records / launch
        alive = files.held(records / "lock")
        if alive is None:
            return None
        told = files.told(records / "launch.json")
        ended = {} if alive else files.read(records / "exit.json")
        same_boot = told.get("boot_id", proc.boot_id()) == proc.boot_id()
        exit: ExitRecord | None = None
        if not alive:
            if ended:
                exit = files.exit_of(ended)
            elif told and not same_boot:
                exit = ExitRecord(reason="the host was restarted")
            else:
                exit = ExitRecord(reason="keeper lost" if told else "the keeper ended before it started anything")
        return LaunchState(
            id=launch,
            kind=str(told.get("kind", "")),
            owner=str(told.get("owner", "")),
            alive=alive,
            keeper_pid=told.get("keeper_pid"),
            pid=told.get("pid"),
            started_at=float(told.get("started_at", 0)),
            boot_id=str(told.get("boot_id", "")),
            same_boot=same_boot,
            spec=told.get("spec", {}),
            folder=str(self._paths.launches / launch),
            exit=exit,
            runs=int(told.get("runs", 1)),
            before=files.exit_of(told["before"]) if told.get("before") else None,
        )

    async def watch(self) -> AsyncIterator[LaunchState]:
        living: dict[str, LaunchState] = {}
        refused = False
        ended: set[str] = set()  # those of before are told once too, so that none falls between two looks
        try:
            while True:
                self._programs.news.clear()
                try:
                    names = self._names()
                    states = [(name, self._state(name)) for name in names - ended]
                    refused = False
                except Failed as error:  # nothing is known then, and nobody is told that anything has ended
                    if not refused:
                        log.error("%s", error)
                    refused = True
                    await self._programs.wait(WATCH_EVERY_S)
                    continue
                for name, state in states:
                    if state is None or (state.alive and state.pid is None):
                        continue
                    again = living.get(name, state).runs != state.runs
                    if not state.alive or again:
                        self._programs.forget(name)
                    if not state.alive:
                        ended.add(name)
                        living.pop(name, None)
                    else:
                        living[name] = state
                        self._attend(name)
                    if not state.alive or again:
                        yield state
                for name in [each for each in living if each not in names and self._programs.lives(each) is False]:
                    self._programs.forget(name)
                    exit = ExitRecord(reason="its records were removed while it ran", time=self._clock())
                    yield msgspec.structs.replace(living.pop(name), alive=False, exit=exit)
                ended &= names
                self._reap()
                await self._programs.wait(WATCH_EVERY_S)
        finally:
            self._programs.close()

    def _attend(self, launch: str) -> None:
        told = files.told(self._paths.records / launch / "launch.json")
        if told.get("boot_id") == proc.boot_id():
            self._programs.attend(launch, int(told["pid"]), int(told["start"]))

    def lives(self, launch: str) -> bool:
        lives = self._programs.lives(launch)
        if lives is None:  # the watch has not come to it yet
            told = files.told(self._paths.records / launch / "launch.json")
            lives = told.get("start") is None or proc.start_time(int(told.get("pid", 0))) == told["start"]
        return lives

    async def signal(self, launch: str, signal: int) -> bool:
        told = files.told(self._paths.records / launch / "launch.json")
        if not told and self._programs.send(launch, signal):
            return True  # somebody removed its records
        if not told or told.get("boot_id") != proc.boot_id():
            return False
        with contextlib.suppress(Failed):  # then pid and start time decide
            if not files.held(self._paths.records / launch / "lock"):
                return False
        if told.get("kind") == "gateway" and signal == signals.SIGTERM:
            # A keeper that restarts must know that the end was asked for; it passes TERM on.
            return _send(int(told["keeper_pid"]), int(told["keeper_start"]), signal)
        return _send(int(told["pid"]), int(told["start"]), signal)

    async def samples(self, launches: Sequence[str], *, pss: bool = False) -> list[ProcessSample]:
        out = []
        for launch in launches:
            told = files.told(self._paths.records / launch / "launch.json")
            pid, start = int(told.get("pid", 0)), told.get("start")
            if not pid or start is None or proc.start_time(pid) != start:
                continue
            rss, anon = proc.resident(pid)
            share = self._share(launch, proc.cpu_seconds(pid))
            out.append(
                ProcessSample(
                    time=self._clock(),
                    launch=launch,
                    cpu_percent=share,
                    rss_bytes=rss,
                    anon_bytes=anon,
                    stopped=proc.stopped(pid),
                    pss_bytes=await asyncio.to_thread(proc.proportional, pid) if pss else 0,
                )
            )
        for gone in set(self._cpu) - set(launches):
            del self._cpu[gone]
        return out

    def _share(self, launch: str, used: float) -> float:
        """Percent of a core since the look before; soon after that one its figure stands: the kernel counts in ticks of
        10 ms."""
        now = time.monotonic()
        had, then, share = self._cpu.setdefault(launch, (used, now, 0.0))
        if now - then >= SHARE_S:
            share = round(max(0.0, 100 * (used - had) / (now - then)), 1)
            self._cpu[launch] = (used, now, share)
        return share

    # ---------------------------------------------------------------------------------------- logs

    async def read_log(self, launch: str, start: int, limit: int) -> LogPiece:
        return await asyncio.to_thread(logs.read, self._paths.launches / launch, start, limit)

    async def log_since(self, launch: str, moment: float) -> int:
        return await asyncio.to_thread(logs.since, self._paths.launches / launch, moment)

    async def remove(self, launch: str) -> None:
        state = self._state(launch)
        if state is not None and state.alive:
            raise Conflict(f"launch {launch} lives")
        # In this order: what cannot be removed is still found by its records.
        for folder in (self._paths.launches / launch, self._paths.records / launch):
            await asyncio.to_thread(_remove, folder)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        if folder.exists():
            raise Failed(f"{folder} was not removed", f"{error.filename}: {error.strerror}") from error


def _send(pid: int, start: int, signal: int) -> bool:
    """Signal a process through a pidfd, so that a recycled pid is never hit."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if proc.start_time(pid) != start:
            return False
        signals.pidfd_send_signal(fd, signal)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _cpu_model() -> tuple[str, set[str]]:
    name, flags = "", set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and not name:
                name = value.strip()
            if key.strip() == "flags":
                return name, set(value.split())
    except OSError:
        pass
    return name, flags


def _pressure() -> float:
    try:
        text = Path("/proc/pressure/memory").read_text()
        return float(text.split("avg10=")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return -1.0
