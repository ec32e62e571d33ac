"""The programs of living launches as the kernel knows them: a pidfd each, readable from the moment of its end."""

from __future__ import annotations

import asyncio
import os
import select
import signal as signals

from core.nodes import proc

ENDING_S = 1.0
"""For so long after a program's end the next look comes soon: its keeper writes down how it ended."""
SOON_S = 0.01


class Programs:
    """Belongs to one node. Without pidfds (a kernel before 5.3) every program counts as living, and the launches'
    locks alone say when one has ended."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        """Set when a program has ended."""
        self._fds: dict[str, tuple[int, int, int]] = {}
        """Of each launch the pidfd, the pid and its start in clock ticks since boot."""
        self._hasty_until = 0.0

    def attend(self, launch: str, pid: int, start: int) -> None:
        """Watch a launch's program, if it is not watched already; `start` in clock ticks since boot."""
        if launch in self._fds:
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return
        if proc.start_time(pid) != start:
            os.close(fd)
            return
        self._fds[launch] = (fd, pid, start)
        asyncio.get_running_loop().add_reader(fd, self._ended, fd)

    def _ended(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(fd)
        self._hasty_until = loop.time() + ENDING_S
        self.news.set()

    def forget(self, launch: str) -> None:
        """The launch is over, or runs another program."""
        found = self._fds.pop(launch, None)
        if found is not None:
            asyncio.get_running_loop().remove_reader(found[0])
            os.close(found[0])

    def close(self) -> None:
        for launch in list(self._fds):
            self.forget(launch)

    def lives(self, launch: str) -> bool | None:
        """False if its program has ended, None if it is not watched. A killed program of many threads is a zombie in
        /proc before its last thread has gone, and only then is its pidfd readable: both are asked (0.03 ms)."""
        found = self._fds.get(launch)
        if found is None:
            return None
        fd, pid, start = found
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return not poll.poll(0) and proc.start_time(pid) == start

    def send(self, launch: str, signal: int) -> bool:
        """Signal a program that is watched; False if it has ended, or is not watched."""
        found = self._fds.get(launch)
        if found is None:
            return False
        try:
            signals.pidfd_send_signal(found[0], signal)
        except OSError:
            return False
        return True

    async def wait(self, seconds: float) -> None:
        """Until something ends, or for so long; for a moment only while a keeper has its last words."""
        hasty = asyncio.get_running_loop().time() < self._hasty_until
        try:
            async with asyncio.timeout(SOON_S if hasty else seconds):
                await self.news.wait()
        except TimeoutError:
            pass
