"""What the console costs and how fast it answers, beside a bare Textual app and htop in the same run.

Prints one JSON object a program: first paint (ms, median), idle bytes a minute, idle CPU (per cent of a core), PSS
(MiB), and for the console the time from a key to its screen (ms, p50 and p95): when the screens are first opened,
later, and later while the sample model answers; and from a letter to where it stands in Chat's field. `--quick` takes
short looks. It needs nothing but a clone set up for development: a daemon, the sample model and all state are in a
folder of its own, which is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terminal import Terminal  # beside this file

SIZE = (120, 36)
PAINTED_CELLS = 40
"""A screen counts as painted when so many cells are not blank."""
LIMITS = {"first_paint_of_bare": 1.25, "idle_bytes_min": 60_000, "pss_mib": 60, "idle_cpu_percent": 2, "key_p95_ms": 50}
ROOMS = {"2": "[2 Deployments]", "3": "[3 Models]", "5": "[5 Chat]", "9": "[9 Audit]", "1": "[1 Overview]"}
"""Key to what then stands on the screen."""
QUESTION = "Tell a very long story about a llama that crosses the Andes, day by day."
BARE = """
from textual.app import App
from textual.widgets import DataTable
class Bare(App):
    BINDINGS = [("ctrl+q", "quit", "quit")]
    def compose(self):
        yield DataTable()
    def on_mount(self):
        table = self.query_one(DataTable)
        table.add_columns("name", "state", "memory")
        for n in range(12):
            table.add_row(f"deployment-{n}", "ready", "300 MiB")
Bare().run()
"""
MIB = 1 << 20


def machine() -> str:
    """The processor's name, its cores and the memory."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{names[0] if names else os.uname().machine}, {os.cpu_count()} cores, {memory:.0f} GiB"


def painted(text: str) -> bool:
    return sum(not cell.isspace() for cell in text) >= PAINTED_CELLS


def percentiles(name: str, seconds: Iterable[float]) -> dict[str, float]:
    """p50 and p95 (the nearest rank) in milliseconds."""
    ordered = sorted(seconds)
    rank = max(0, -(-len(ordered) * 95 // 100) - 1)
    return {f"{name}_p50_ms": ms(statistics.median(ordered)), f"{name}_p95_ms": ms(ordered[rank])}


def ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def first_paint(argv: list[str], env: Mapping[str, str]) -> float:
    """Seconds from the launch to the first painted screen."""
    with Terminal(argv, SIZE, env) as terminal:
        return terminal.until(painted, 20) - terminal.started_at


def idle(argv: list[str], env: Mapping[str, str], seconds: float) -> dict[str, float]:
    """What the program writes and uses while nobody touches it."""
    with Terminal(argv, SIZE, env) as terminal:
        terminal.until(painted, 20)
        terminal.rest(6)
        written, used = terminal.bytes, terminal.cpu_seconds()
        terminal.rest(seconds)
        return {
            "idle_bytes_min": round((terminal.bytes - written) * 60 / seconds),
            "idle_cpu_percent": round((terminal.cpu_seconds() - used) * 100 / seconds, 2),
            "pss_mib": round(terminal.pss_bytes() / MIB, 1),
        }


def keys(terminal: Terminal, rounds: int) -> Iterator[float]:
    """Seconds from each digit to the screen that it names."""
    for _ in range(rounds):
        for key, words in ROOMS.items():
            terminal.rest(0.4)
            pressed = terminal.press(key)
            yield terminal.until(lambda text, words=words: words in text, 10) - pressed  # type: ignore[misc]


def typed(terminal: Terminal, letters: int = 60) -> Iterator[float]:
    """Seconds from each letter to where it stands in the question field of a new chat; `letters` fit on one line."""
    for key, words in (("5", ROOMS["5"]), ("n", "a new chat")):
        terminal.press(key)
        terminal.until(lambda text, words=words: words in text, 10)  # type: ignore[misc]
    question = ""
    for letter in ("woolandhay" * letters)[:letters]:
        terminal.rest(0.1)
        question += letter
        pressed = terminal.press(letter)
        yield terminal.until(lambda text, end=question: end in text, 10) - pressed  # type: ignore[misc]


def latency(argv: list[str], env: Mapping[str, str], rounds: int, home: Home) -> dict[str, float]:
    """Key to screen: at the first opening, afterwards, and while the model answers."""
    first: list[float] = []
    for _ in range(3):
        with Terminal(argv, SIZE, env) as terminal:
            terminal.until(lambda text: "live" in text, 20)
            terminal.rest(2)
            first += list(keys(terminal, 1))
    with Terminal(argv, SIZE, env) as terminal:
        terminal.until(lambda text: "live" in text, 20)
        terminal.rest(2)
        list(keys(terminal, 1))
        told = {**percentiles("first_open", first), **percentiles("key", keys(terminal, rounds))}
        told |= percentiles("field", typed(terminal))
        terminal.press("escape")
        terminal.rest(0.3)
        with home.answering():
            told |= percentiles("key_answering", keys(terminal, rounds))
    return told


class Home:
    """A daemon with the sample model deployed as `chat`, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.env = {**os.environ, "CORRAL_HOME": str(folder)}
        beside = Path(sys.executable).with_name("corral")
        self.argv = [str(beside)] if beside.exists() else [sys.executable, "-P", "-m", "tui"]

    def corral(self, *args: str, timeout: float = 240) -> None:
        """Run a verb. Raises CalledProcessError with its words."""
        subprocess.run(
            [*self.argv, *args],
            env=self.env,
            check=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )

    @contextmanager
    def answering(self) -> Iterator[None]:
        """The model answers one question after another meanwhile."""
        over = threading.Event()

        def talk() -> None:
            while not over.is_set():
                self.corral("chat", "chat", QUESTION, "--max-tokens", "400", "--temperature", "0", "-q")

        talker = threading.Thread(target=talk, name="talker")
        talker.start()
        try:
            yield
        finally:
            over.set()
            talker.join()


@contextmanager
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="c-"))
    made = Home(folder)
    try:
        made.corral("models", "sample", "-q")
        made.corral("deploy", "smollm2-135m", "--name", "chat", "--ctx", "4096", "--parallel", "2", "--wait", "-q")
        yield made
    finally:
        subprocess.run([*made.argv, "shutdown", "--all", "-q"], env=made.env, timeout=120, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def report(what: str, figures: Mapping[str, Any]) -> None:
    print(json.dumps({"bench": "console", "what": what, **figures}), flush=True)


def alternate(programs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each, measured in turns, so that a busy moment of the machine meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, measure in programs.items():
            taken[name].append(measure())
    return {name: statistics.median(figures) for name, figures in taken.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short looks, for a first impression")
    quick = parser.parse_args().quick
    paints, seconds, rounds = (3, 10.0, 4) if quick else (9, 60.0, 20)
    with home() as made:
        programs = {"corral": made.argv, "bare textual": [sys.executable, "-c", BARE]}
        if shutil.which("htop"):
            programs["htop"] = ["htop", "-d", "10"]
        paint = alternate(
            {name: lambda argv=argv: first_paint(argv, made.env) for name, argv in programs.items()},  # type: ignore[misc]
            paints,
        )
        report("machine", {"machine": machine(), "size": "120x36", "limits": LIMITS})
        for name, argv in programs.items():
            figures: dict[str, Any] = {"first_paint_ms": ms(paint[name]), **idle(argv, made.env, seconds)}
            if name == "corral":
                figures["first_paint_of_bare"] = round(paint[name] / paint["bare textual"], 2)
                figures |= latency(argv, made.env, rounds, made)
            report(name, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
