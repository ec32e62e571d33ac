"""An open log view while the daemon is killed: a new daemon comes, and the log goes on."""

import os
import signal
import sys
from pathlib import Path

import pytest
from command import ask, corral
from terminal import Terminal

pytestmark = pytest.mark.journey


def test_a_log_goes_on_with_the_daemon_that_follows(home: Path, sample: Path) -> None:
    corral("models", "sample")
    corral("deploy", "smollm2-135m", "--name", "chat", "--ctx", "2048", "--wait")
    (replica,) = ask("ps")

    def writes(words: str) -> None:
        """A line into the log that the keeper keeps for this replica."""
        log = Path(replica["socket"]).parent / "engine.log"
        with log.open("a") as file:
            file.write(f"{words}\n")

    with Terminal([sys.executable, "-P", "-m", "tui"], env={"CORRAL_HOME": str(home)}) as console:
        console.until(lambda text: "live" in text, 60)
        console.press("2")
        console.until(lambda text: "chat/0" in text, 60)
        console.press("l")
        console.until(lambda text: "Log of chat/0" in text, 60)
        writes("LINE-BEFORE")
        console.until(lambda text: "LINE-BEFORE" in text, 60)
        os.kill(ask("status")["daemon"]["pid"], signal.SIGKILL)
        console.until(lambda text: "reconnecting" in text, 60)
        writes("LINE-BETWEEN")
        console.until(lambda text: "LINE-BETWEEN" in text and "live" in text, 60)
        writes("LINE-AFTER")
        console.until(lambda text: "LINE-AFTER" in text, 60)
        assert console.text.count("LINE-BETWEEN") == 1
    assert ask("ps")[0]["pid"] == replica["pid"]
