"""A program in a pseudo-terminal and the screen that it draws there, with the time of every change.

What a benchmark of the console needs and no more: bytes written, when words came to stand on the screen, and what the
process costs. The screen is kept by pyte; times are taken when bytes are read, before pyte has worked on them.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import psutil
import pyte

KEYS = {"enter": "\r", "escape": "\x1b", "ctrl+q": "\x11", "ctrl+p": "\x10", "tab": "\t", "f10": "\x1b[21~"}
"""Names to what a terminal sends; any other key is sent as it is."""

ANSWERS = {b"\x1b[c": b"\x1b[?62;22c", b"\x1b[?2026$p": b"\x1b[?2026;2$y", b"\x1b[6n": b"\x1b[1;1R"}
"""What a program asks a terminal at its start, and what is answered: a VT220 with synchronised output."""

_CHUNK = 1 << 16


class Terminal:
    """Runs `argv` on a screen of `size` (columns, rows) from the moment it is made. Use it as a context manager."""

    def __init__(self, argv: Sequence[str], size: tuple[int, int] = (120, 36), env: Mapping[str, str] = {}) -> None:
        columns, rows = size
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.bytes = 0
        """Written by the program so far."""
        self.output: bytearray | None = None
        """Every byte that the program writes, from when a test puts a bytearray here."""
        self.read_at = 0.0
        """When the last bytes came (monotonic seconds)."""
        self.alive = True
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        whole = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **env}
        self.started_at = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.login_tty(theirs)
            os.execvpe(argv[0], list(argv), whole)
        os.close(theirs)
        self._fd = ours

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)

    # ------------------------------------------------------------------ reading

    @property
    def text(self) -> str:
        """The screen, line by line."""
        return "\n".join(self._screen.display)

    def read(self, timeout: float) -> bool:
        """Take all that is written within `timeout` seconds of silence; False when nothing came."""
        got = bytearray()
        while self.alive and select.select([self._fd], [], [], 0.001 if got else timeout)[0]:
            try:
                piece = os.read(self._fd, _CHUNK)
            except OSError:  # EIO: the last one that had the terminal open has closed it
                piece = b""
            self.alive = bool(piece)
            self.read_at = time.monotonic()
            got += piece
        self.bytes += len(got)
        if self.output is not None:
            self.output += got
        for question, answer in ANSWERS.items():
            if question in got:
                os.write(self._fd, answer)
        self._stream.feed(self._decoder.decode(bytes(got)))
        return bool(got)

    def until(self, seen: Callable[[str], bool], timeout: float) -> float:
        """Read until `seen(text)`; the time at which the bytes came that made it so. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not seen(self.text):
            if not self.alive or time.monotonic() > deadline:
                raise TimeoutError(f"after {timeout} s the screen shows:\n{self.text}")
            self.read(0.02)
        return self.read_at

    def rest(self, seconds: float) -> None:
        """Read for so long, whatever comes."""
        deadline = time.monotonic() + seconds
        while self.alive and (left := deadline - time.monotonic()) > 0:
            self.read(min(left, 0.1))

    def settle(self, quiet: float, timeout: float) -> None:
        """Read until nothing came for `quiet` seconds, or for `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        while self.alive and time.monotonic() < deadline and self.read(quiet):
            pass

    def press(self, key: str) -> float:
        """Send a key; the time at which it was sent."""
        os.write(self._fd, KEYS.get(key, key).encode())
        return time.monotonic()

    def resize(self, columns: int, rows: int) -> None:
        """Give the screen another size, as a terminal does whose window is pulled."""
        self._screen.resize(rows, columns)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    # ------------------------------------------------------------------ cost

    def cpu_seconds(self) -> float:
        """Processor time of the program itself."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def pss_bytes(self) -> int:
        """Memory of the program, its share of what it shares with others."""
        return int(psutil.Process(self.pid).memory_full_info().pss)
