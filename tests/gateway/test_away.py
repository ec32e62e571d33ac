"""A gateway without a daemon decides alone for a stated time, and then as the setting says."""

import os
import time

import pytest

from core.gateway.alone import TOUCH_S, Alone

WHOLE = {"model": "chat"}


async def asked_until(gateway, wanted: bytes) -> bytes:
    """Ask until the answer begins so; it comes within seconds, or the test's time-out does."""
    while True:
        answer = await gateway.post(WHOLE)
        if answer.startswith(wanted):
            return answer


async def test_after_its_time_requests_are_refused_until_a_daemon_is_back(gateway, stub):
    await gateway.route(stub, alone_s=0.5)
    gateway.hang_up()
    refused = await asked_until(gateway, b"HTTP/1.1 503")
    assert b'"daemon_away"' in refused and b"systemctl start corral" in refused
    await gateway.connect()
    assert (await gateway.post(WHOLE)).startswith(b"HTTP/1.1 200")


async def test_they_are_served_on_by_setting(gateway, stub):
    await gateway.route(stub, alone_s=0.5, serve_alone=True)
    gateway.hang_up()
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert (await gateway.post(WHOLE)).startswith(b"HTTP/1.1 200")


class Clock:
    """Monotonic seconds that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_restart_of_the_gateway_gives_no_new_time(tmp_path):
    file, clock = tmp_path / "daemon.seen", Clock(1000.0)
    first = Alone(file, clock)
    assert first.look(False) == 0 and not file.exists(), "never a daemon: from the start on"
    assert first.look(True) == 0 and file.stat().st_mode & 0o777 == 0o600
    clock.now += 5
    assert first.look(False) == 5
    os.utime(file, (time.time() - 7200, time.time() - 7200))
    assert Alone(file, clock).look(False) == pytest.approx(7200, abs=5)
    os.utime(file, (time.time() + 7200, time.time() + 7200))
    assert Alone(file, clock).look(False) == 0, "a clock that was set back frees no more than one that was not"


def test_the_file_is_touched_seldom(tmp_path):
    file, clock = tmp_path / "daemon.seen", Clock(0.0)
    alone = Alone(file, clock)
    alone.look(True)
    os.utime(file, (0, 0))
    clock.now += TOUCH_S - 1
    alone.look(True)
    assert file.stat().st_mtime == 0
    clock.now += 1
    alone.look(True)
    assert file.stat().st_mtime > 0
