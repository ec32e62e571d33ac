"""The `corral` command as journeys use it, and waiting for what it shows."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def corral(*args: str, code: int = 0, stdin: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui", *args], capture_output=True, text=True, timeout=120,
        **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
    )  # fmt: skip
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def ask(*args: str, stdin: str | None = None) -> Any:
    return json.loads(corral(*args, "--json", stdin=stdin))


def until(check: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.05)


def deployed(*options: str) -> dict[str, Any]:
    corral("models", "sample")
    corral("deploy", "smollm2-135m", "--name", "chat", *(options or ("--ctx", "2048")), "--wait")
    (replica,) = ask("ps")
    assert replica["state"] == "ready"
    return dict(replica)


def ready() -> dict[str, Any] | None:
    found = [r for r in ask("ps") if r["state"] == "ready"]
    return found[0] if found else None
