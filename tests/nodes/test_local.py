"""Keepers and launches on this host, with small real programs in place of engines."""

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import Conflict, Failed
from core.nodes import proc
from core.nodes.base import LaunchOrder, LaunchState, Limits
from core.nodes.local import Local
from core.paths import Paths

SLEEP = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Local]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.launches.mkdir(parents=True)
    paths.records.mkdir()
    node = Local(paths)
    yield node
    for state in await node.launches():
        if state.alive and state.keeper_pid:
            os.kill(state.keeper_pid, signal.SIGKILL)
    await until(lambda: not any(_alive(node)))


def _alive(node: Local) -> list[bool]:
    return [bool((state := node._state(each.name)) and state.alive) for each in node._paths.records.iterdir()]


async def until(check: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.01)


def order(id: str, code: str, *, restart: bool = False, **limits: int) -> LaunchOrder:
    return LaunchOrder(
        id=id, kind="gateway" if restart else "replica", owner="test/0", argv=(sys.executable, "-I", "-c", code),
        env={"MARK": "only-this"}, limits=Limits(**limits), spec={"n": 1}, restart=restart,
    )  # fmt: skip


async def ended(node: Local, id: str) -> LaunchState:
    async with asyncio.timeout(10):
        async for state in node.watch():
            if state.id == id and not state.alive:
                return state
    raise AssertionError


async def test_a_launch_is_found_alive_and_its_end_is_explained(node: Local) -> None:
    state = await node.launch(order("aaaaaaaaaa", "import sys; print('bye'); sys.exit(3)"))
    assert state.pid and state.spec == {"n": 1}
    last = await ended(node, "aaaaaaaaaa")
    assert last.exit is not None and last.exit.code == 3 and last.exit.peak_rss_bytes > 1 << 20
    assert (await node.read_log("aaaaaaaaaa", 0, 100)).data == b"bye\n"


async def test_a_kill_is_told_as_its_signal(node: Local) -> None:
    await node.launch(order("aaaaaaaaaa", SLEEP))
    assert await node.signal("aaaaaaaaaa", signal.SIGKILL)
    last = await ended(node, "aaaaaaaaaa")
    assert last.exit is not None and (last.exit.code, last.exit.signal) == (None, signal.SIGKILL)


async def test_the_engine_dies_with_its_keeper(node: Local) -> None:
    state = await node.launch(order("aaaaaaaaaa", SLEEP))
    assert state.keeper_pid and state.pid
    os.kill(state.keeper_pid, signal.SIGKILL)
    await until(lambda: proc.start_time(state.pid or 0) is None)
    last = await ended(node, "aaaaaaaaaa")
    assert last.exit is not None and last.exit.reason == "keeper lost"


OFFLINE = """
import ctypes, errno, socket, subprocess, sys, threading
def refused(*kind):
    try:
        socket.socket(*kind).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "open"
kinds = (socket.AF_INET,), (socket.AF_INET6, socket.SOCK_DGRAM), (socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_VSOCK,)
print(*(refused(*kind) for kind in kinds), refused(socket.AF_UNIX), refused(socket.AF_NETLINK, socket.SOCK_RAW))
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(425, 1, None), errno.errorcode[ctypes.get_errno()])
socket.socketpair()
made = threading.Thread(target=lambda: print(refused(socket.AF_INET)))
made.start(); made.join()
sys.stdout.flush()
subprocess.run([sys.executable, "-c", "import socket; socket.socket()"], stderr=subprocess.STDOUT)
"""


async def test_what_is_launched_offline_reaches_local_sockets_alone(node: Local) -> None:
    await node.launch(order("aaaaaaaaaa", OFFLINE, offline=True))
    await ended(node, "aaaaaaaaaa")
    first, ring, thread, *child = (await node.read_log("aaaaaaaaaa", 0, 4000)).data.decode().splitlines()
    assert first.split() == ["EAFNOSUPPORT"] * 4 + ["open", "open"]
    assert ring == "-1 ENOSYS"
    assert thread == "EAFNOSUPPORT"
    assert "Address family not supported" in child[-1]


async def test_what_is_launched_otherwise_reaches_networks(node: Local) -> None:
    await node.launch(order("aaaaaaaaaa", "import socket; socket.socket(); print('open')"))
    await ended(node, "aaaaaaaaaa")
    assert (await node.read_log("aaaaaaaaaa", 0, 100)).data == b"open\n"


async def test_there_is_never_a_second_copy(node: Local) -> None:
    await node.launch(order("aaaaaaaaaa", SLEEP))
    with pytest.raises(Conflict, match="second copy"):
        await node.launch(order("aaaaaaaaaa", SLEEP))


async def test_another_daemon_adopts_and_sees_the_end(node: Local) -> None:
    first = await node.launch(order("aaaaaaaaaa", SLEEP))
    second = Local(node._paths)
    (found,) = await second.launches()
    assert (found.alive, found.pid, found.same_boot) == (True, first.pid, True)
    watching = asyncio.create_task(ended(second, "aaaaaaaaaa"))
    await second.signal("aaaaaaaaaa", signal.SIGTERM)
    assert (await watching).exit == (await second.launches())[0].exit


async def test_a_recycled_pid_is_never_hit(node: Local) -> None:
    state = await node.launch(order("aaaaaaaaaa", SLEEP))
    record = node._paths.records / "aaaaaaaaaa" / "launch.json"
    record.write_text(record.read_text().replace(f'"start": {proc.start_time(state.pid or 0)}', '"start": 1'))
    assert not await node.signal("aaaaaaaaaa", signal.SIGKILL)
    assert proc.start_time(state.pid or 0) is not None


async def test_a_launch_of_before_a_reboot_is_explained(node: Local) -> None:
    records = node._paths.records / "aaaaaaaaaa"
    records.mkdir()
    (records / "lock").touch()
    (records / "launch.json").write_text('{"boot_id": "other", "pid": 1, "start": 1, "kind": "replica"}')
    (state,) = await node.launches()
    assert state.exit is not None and state.exit.reason == "the host was restarted"
    assert not await node.signal("aaaaaaaaaa", signal.SIGKILL)


async def test_a_program_that_is_not_there_is_told(node: Local) -> None:
    wrong = LaunchOrder(id="aaaaaaaaaa", kind="replica", owner="t/0", argv=("/no/such",), env={}, limits=Limits())
    await node.launch(wrong)
    last = await ended(node, "aaaaaaaaaa")
    assert last.exit is not None and "exec failed" in last.exit.reason


async def test_without_launch_json_nothing_runs(node: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def blocked(self: Path, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        if self == node._paths.records / "aaaaaaaaaa":
            (self / "launch.json").mkdir()  # opening it for writing fails, also for root

    mark = tmp_path / "ran"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", blocked)
        with pytest.raises(Failed, match=r"launch\.json: Is a directory"):
            await node.launch(order("aaaaaaaaaa", f"open({str(mark)!r}, 'w')"))
    assert not mark.exists()
    (state,) = await node.launches()
    assert not state.alive and state.exit is not None and "before it started anything" in state.exit.reason


async def test_a_lock_that_is_held_means_that_something_lives_whatever_is_written(node: Local) -> None:
    records = node._paths.records / "aaaaaaaaaa"
    records.mkdir()
    with (records / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (state,) = await node.launches()
        assert state.alive and state.pid is None and state.exit is None
        with pytest.raises(Conflict, match="lives"):
            await node.remove("aaaaaaaaaa")
        with pytest.raises(Conflict, match="second copy"):
            await node.launch(order("aaaaaaaaaa", SLEEP))
    (state,) = await node.launches()
    assert state.exit is not None and state.exit.reason == "the keeper ended before it started anything"
    await node.remove("aaaaaaaaaa")


async def test_a_look_that_the_host_refuses_is_told_once_and_ends_no_watch(
    node: Local, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await node.launch(order("aaaaaaaaaa", "pass"))
    real, refusals = Path.iterdir, iter([True, True])

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder == node._paths.records and next(refusals, False):
            raise OSError(5, "Input/output error", str(folder))
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    last = await ended(node, "aaaaaaaaaa")
    assert last.exit is not None and last.exit.code == 0
    assert caplog.text.count("Input/output error") == 1


async def test_a_launch_that_cannot_be_looked_at_is_not_taken_for_one_that_never_was(
    node: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of file descriptors the daemon would start a second copy, or remove the folders of what runs."""
    await node.launch(order("aaaaaaaaaa", SLEEP))
    real = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("/lock"):
            raise OSError(24, "Too many open files", str(path))
        return real(path, *rest, **more)

    with monkeypatch.context() as full:
        full.setattr(os, "open", refuse)
        with pytest.raises(Failed, match="Too many open files"):
            await node.launches()
        with pytest.raises(Failed, match="Too many open files"):
            await node.remove("aaaaaaaaaa")
        assert await node.signal("aaaaaaaaaa", signal.SIGCONT), "its pid and its start are enough"
    (state,) = await node.launches()
    assert state.alive


async def test_what_cannot_be_removed_is_said_and_still_found(node: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    await node.launch(order("aaaaaaaaaa", "pass"))
    await ended(node, "aaaaaaaaaa")

    def refuse(folder: Path) -> None:
        raise OSError(30, "Read-only file system", str(folder))

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", refuse)
        with pytest.raises(Failed, match="Read-only file system"):
            await node.remove("aaaaaaaaaa")
    assert [each.id for each in await node.launches()] == ["aaaaaaaaaa"]
    await node.remove("aaaaaaaaaa")
    await node.remove("aaaaaaaaaa")  # what is not there needs no removing
    assert await node.launches() == []


async def test_a_start_without_folders_leaves_nothing_behind(node: Local) -> None:
    node._paths.launches.rmdir()
    with pytest.raises(Failed, match="No such file"):
        await node.launch(order("aaaaaaaaaa", SLEEP))
    node._paths.launches.mkdir()
    assert (await node.launch(order("aaaaaaaaaa", SLEEP))).alive


async def test_keepers_outlive_a_daemon_that_ends_in_order(node: Local) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from core.nodes.base import LaunchOrder, Limits
from core.nodes.local import Local
from core.paths import Paths
root = Path({str(node._paths.root)!r})
async def main():
    node = Local(Paths(root, root / "corral.toml", "0badcafe"))
    await node.launch(LaunchOrder(id="aaaaaaaaaa", kind="replica", owner="t/0", env={{}}, limits=Limits(),
        argv=(sys.executable, "-I", "-c", {SLEEP!r})))
asyncio.run(main())
"""
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=Path(__file__).parents[2])
    async with asyncio.timeout(20):
        assert await daemon.wait() == 0
    (state,) = await node.launches()
    assert state.alive and proc.start_time(state.pid or 0) is not None


async def test_limits_and_environment_are_what_was_ordered(node: Local) -> None:
    code = (
        "import os, resource as r; print(sorted(k for k in os.environ if k != 'LC_CTYPE'),"
        " r.getrlimit(r.RLIMIT_DATA)[0], r.getrlimit(r.RLIMIT_STACK)[0], r.getrlimit(r.RLIMIT_CORE)[0],"
        " os.nice(0) >= 5, open('/proc/self/oom_score_adj').read().strip(), os.getcwd())"
    )
    await node.launch(order("aaaaaaaaaa", code, data_bytes=1 << 30))
    await ended(node, "aaaaaaaaaa")
    text = (await node.read_log("aaaaaaaaaa", 0, 1000)).data.decode()
    assert text.startswith("['MARK'] 1073741824 8388608 1 True 500")
    assert text.strip().endswith("/l/aaaaaaaaaa")


async def test_a_log_is_read_by_range_over_rotations(node: Local) -> None:
    code = "import sys\nfor n in range(2000): sys.stdout.write(f'{n:09d}\\n'); sys.stdout.flush()"
    await node.launch(order("aaaaaaaaaa", code, log_bytes=65536 // 16, log_files=2))
    await ended(node, "aaaaaaaaaa")
    last = await node.read_log("aaaaaaaaaa", -20, 100)
    assert last.data == b"000001998\n000001999\n" and last.end == 20000
    early = await node.read_log("aaaaaaaaaa", 0, 100)
    whole = b"".join(b"%09d\n" % n for n in range(2000))
    assert early.lost > 0 and early.data == whole[early.lost : early.lost + 100]
    assert (await node.read_log("aaaaaaaaaa", 15000, 10)).data == b"000001500\n"


async def test_a_restarting_keeper_starts_the_program_again_until_asked_to_stop(node: Local) -> None:
    first = await node.launch(order("aaaaaaaaaa", SLEEP, restart=True))
    os.kill(first.pid or 0, signal.SIGKILL)
    await until(lambda: bool((s := node._state("aaaaaaaaaa")) and s.runs == 2))
    second = node._state("aaaaaaaaaa")
    assert second is not None and second.alive and second.pid != first.pid
    await node.signal("aaaaaaaaaa", signal.SIGTERM)
    await until(lambda: not any(_alive(node)))


async def test_a_restarting_keeper_gives_up_without_its_folder_and_says_how_the_program_ended(node: Local) -> None:
    first = await node.launch(order("aaaaaaaaaa", SLEEP, restart=True))
    shutil.rmtree(first.folder)
    os.kill(first.pid or 0, signal.SIGKILL)
    last = await ended(node, "aaaaaaaaaa")
    assert last.exit is not None and last.exit.signal == signal.SIGKILL and last.runs == 1
    await until(lambda: proc.start_time(first.keeper_pid or 0) is None)


async def test_a_program_outlives_its_folder_and_not_its_keeper(node: Local) -> None:
    """The keeper writes to what it has open, so that the end is told wherever the folder is."""
    first = await node.launch(order("aaaaaaaaaa", SLEEP))
    async with asyncio.timeout(10):
        while not (await node.read_log("aaaaaaaaaa", 0, 10)).data:  # else nothing is there to execute it in
            await asyncio.sleep(0.01)
    shutil.rmtree(first.folder)
    assert await node.signal("aaaaaaaaaa", signal.SIGTERM)
    last = await ended(node, "aaaaaaaaaa")
    assert last.exit is not None and last.exit.signal == signal.SIGTERM
    second = await node.launch(order("bbbbbbbbbb", SLEEP))
    async with asyncio.timeout(10):
        while not (await node.read_log("bbbbbbbbbb", 0, 10)).data:
            await asyncio.sleep(0.01)
    shutil.rmtree(second.folder)
    os.kill(second.keeper_pid or 0, signal.SIGKILL)
    last = await ended(node, "bbbbbbbbbb")
    assert last.exit is not None and last.exit.reason == "keeper lost"
    await until(lambda: proc.start_time(second.pid or 0) is None)


async def test_a_launch_whose_records_were_removed_can_be_ended_and_its_end_is_told(node: Local) -> None:
    told: list[LaunchState] = []

    async def watch() -> None:
        async for state in node.watch():
            told.append(state)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        first = await node.launch(order("aaaaaaaaaa", SLEEP))
        await until(lambda: bool(node._programs._fds))
        shutil.rmtree(node._paths.records / "aaaaaaaaaa")
        assert node.lives("aaaaaaaaaa") and await node.signal("aaaaaaaaaa", signal.SIGKILL)
        await until(lambda: bool(told))
        watching.cancel()
    assert proc.start_time(first.pid or 0) is None and not told[0].alive
    assert told[0].exit is not None and told[0].exit.reason == "its records were removed while it ran"


async def test_a_program_that_nobody_watches_yet_is_dead_as_soon_as_it_is(node: Local) -> None:
    launch = await node.launch(order("aaaaaaaaaa", SLEEP))
    assert launch.pid is not None and node.lives("aaaaaaaaaa") and node.lives("none")
    os.kill(launch.pid, signal.SIGKILL)
    await until(lambda: proc.start_time(launch.pid or 0) is None)
    assert not node.lives("aaaaaaaaaa")


HEADLESS = """
import ctypes, os, threading, time
while not os.path.exists("go"):
    time.sleep(0.01)
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).syscall(60 if __import__("platform").machine() == "x86_64" else 93, 0)
"""
"""When it may go its first thread ends, another one sleeps: a zombie in /proc whose pidfd says nothing."""


async def test_a_program_whose_threads_have_not_all_ended_yet_is_dead_as_soon_as_its_first_is(node: Local) -> None:
    async def watch() -> None:
        async for _ in node.watch():
            pass

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await node.launch(order("aaaaaaaaaa", SLEEP))
        second = await node.launch(order("bbbbbbbbbb", HEADLESS))
        await until(lambda: len(node._programs._fds) == 2)
        (Path(second.folder) / "go").touch()
        await until(lambda: proc.start_time(second.pid or 0) is None)
        assert node.lives("aaaaaaaaaa") and not node.lives("bbbbbbbbbb")
        watching.cancel()


async def test_a_keeper_is_small(node: Local) -> None:
    state = await node.launch(order("aaaaaaaaaa", SLEEP))
    assert state.keeper_pid
    status = Path(f"/proc/{state.keeper_pid}/status").read_text()
    anon = int(status.split("RssAnon:")[1].split()[0])
    assert anon < 6 * 1024


@pytest.mark.xdist_group("measures")
async def test_a_keeper_sleeps_while_its_engine_says_nothing(node: Local) -> None:
    state = await node.launch(order("aaaaaaaaaa", SLEEP))
    async with asyncio.timeout(10):
        while not (await node.read_log("aaaaaaaaaa", 0, 10)).data:
            await asyncio.sleep(0.01)
    status = Path(f"/proc/{state.keeper_pid}/status")

    def switches() -> list[str]:
        return [line for line in status.read_text().splitlines() if "ctxt_switches" in line]

    # It may still be on its way to sleep; then not one wake-up is allowed.
    await until(lambda: "State:\tS" in status.read_text())
    before = switches()
    await asyncio.sleep(1.5)
    assert switches() == before


async def test_a_look_soon_after_another_does_not_disturb_the_cpu_figure(node: Local) -> None:
    await node.launch(order("aaaaaaaaaa", "print('up', flush=True)\nwhile True: pass"))
    async with asyncio.timeout(20):
        while not (await node.read_log("aaaaaaaaaa", 0, 10)).data:
            await asyncio.sleep(0.01)
        await node.samples(["aaaaaaaaaa"])
        while not (share := (await node.samples(["aaaaaaaaaa"]))[0].cpu_percent):
            await asyncio.sleep(0.01)
    assert [(await node.samples(["aaaaaaaaaa"]))[0].cpu_percent for _ in range(3)] == [share] * 3


async def test_samples_show_private_memory(node: Local) -> None:
    await node.launch(
        order("aaaaaaaaaa", "x = bytearray(64 << 20); print('up', flush=True); import time; time.sleep(600)")
    )
    async with asyncio.timeout(10):
        while not (await node.read_log("aaaaaaaaaa", 0, 10)).data:
            await asyncio.sleep(0.01)
    (one,) = await node.samples(["aaaaaaaaaa"], pss=True)
    assert one.anon_bytes > 60 << 20 and one.pss_bytes > 60 << 20 and not one.stopped
    assert await node.signal("aaaaaaaaaa", signal.SIGSTOP)
    async with asyncio.timeout(10):
        while not (await node.samples(["aaaaaaaaaa"]))[0].stopped:
            await asyncio.sleep(0.01)
    assert (await node.sample()).free_bytes > 0
    assert (await node.facts()).cores >= 1


async def test_the_disk_is_as_full_as_df_says(node: Local) -> None:
    """A file system keeps some for root, which is neither used nor to be had."""
    told = subprocess.run(["df", "-P", "-k", node._paths.root], capture_output=True, text=True, check=True).stdout
    used, free = map(int, told.splitlines()[1].split()[2:4])
    seen = await node.sample()
    assert seen.disk_bytes == pytest.approx((used + free) << 10, rel=1e-3)
    assert seen.disk_bytes - seen.disk_free_bytes == pytest.approx(used << 10, rel=0.01)
