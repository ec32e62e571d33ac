"""An open console while daemons end: one that was shut down stays away, one that was killed comes back."""

import os
import signal
import sys
from pathlib import Path

import pytest
from command import ask, corral
from terminal import Terminal

from core.paths import user_paths

pytestmark = pytest.mark.journey
SHUT = "The daemon was shut down by"
CONSOLE = """
from tui import state
state.LONGEST_S = 0.25
from tui.__main__ import main
main()
"""
"""`corral`, which looks for a daemon that is away more often."""


def starts() -> int:
    return len(ask("audit", "ls", "--verb", "daemon.start"))


def shows(console: Terminal, words: str) -> None:
    console.until(lambda text: words in text, 60)


def test_a_console_brings_back_a_daemon_that_died_and_none_that_was_ended(home: Path) -> None:
    with Terminal([sys.executable, "-P", "-c", CONSOLE], env={"CORRAL_HOME": str(home)}) as console:
        shows(console, "live")
        os.kill(ask("status")["daemon"]["pid"], signal.SIGKILL)
        shows(console, "reconnecting")
        shows(console, "live")
        assert starts() == 2

        corral("shutdown", "--all")
        shows(console, SHUT)
        console.rest(1)  # longer than its longest pause between two tries
        assert SHUT in console.text
        corral("status", code=6)
        console.press("\x1b[15~")  # F5
        console.until(lambda text: SHUT not in text and "live" in text, 60)
        assert starts() == 3

        os.kill(ask("status")["daemon"]["pid"], signal.SIGTERM)
        shows(console, "The daemon was shut down: F5")
        corral("ps")  # any verb
        console.until(lambda text: "shut down" not in text and "live" in text, 60)
        assert starts() == 4

        console.press("ctrl+p")
        shows(console, "what to do")
        console.press("shut stop all")
        shows(console, "shut down the daemon and stop all models")
        console.press("enter")
        shows(console, "Shut the daemon down and stop all models (replicas: 0)?")
        console.press("y")
        shows(console, SHUT)
        corral("status", code=6)

        corral("uninstall", "--yes")
        shows(console, SHUT)
        console.rest(1)
        assert not user_paths().state.exists()
