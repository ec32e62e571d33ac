"""`make demo`: the whole road without a terminal, in a home of its own: import, plan, deploy, ask, take all down.

It calls the `corral` command as a person would, against a real daemon, engine and model. Ctrl+c, SIGTERM, a terminal
that goes and a reader that goes (`make demo | head -1`) end it early, and everything is taken down all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

QUESTION = "Name three animals that live on a farm."
TIMEOUT_S = 240
GONE_S = 60.0
"""How long taking down may last: a daemon that was just being started answers a moment later."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLOSED_PIPE = 141
"""Exit code when nobody reads: 128 and SIGPIPE, as shells count."""
MIB = 1 << 20


class Broken(Exception):
    """A step that did not do what it should, with its own words."""


class Interrupted(Exception):
    """Somebody wants it to end. `code`: the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Demo:
    """The steps, each of which prints what it did; `home` is removed at the end whatever happens."""

    def __init__(self, home: Path) -> None:
        self.home = home
        beside = Path(sys.executable).with_name("corral")
        self._corral = [str(beside)] if beside.exists() else [sys.executable, "-P", "-m", "tui"]
        self._env = {**os.environ, "CORRAL_HOME": str(home), "NO_COLOR": "1"}

    def corral(self, *args: str, allowed: tuple[int, ...] = (0,)) -> str:
        """Run a verb and give what it printed. Raises `Broken` on any other exit code than the `allowed` ones.

        In a session of its own: a second ctrl+c must not end the verb that takes everything down.
        """
        command = [*self._corral, *args]
        try:
            done = subprocess.run(
                command, env=self._env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
                start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Broken(f"corral {' '.join(args)} did not end within {TIMEOUT_S} s") from error
        if done.returncode not in allowed:
            raise Broken(f"corral {' '.join(args)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *args: str) -> Any:
        """The one JSON document of a verb."""
        return json.loads(self.corral(*args, "--json"))

    def run(self) -> None:
        began = time.monotonic()
        model = self.json("models", "sample")
        name = model["name"]
        say("import", f"{name}, {mib(model['bytes'])}, licence {model['licence']}, {since(began)}")

        plan = self.json("fit", name, "--ctx", "2048", "--parallel", "1")
        say("plan", f"{mib(plan['rss_bytes'])} in use, {mib(plan['plan_bytes'])} reserved, of which weights "
                    f"{mib(plan['parts']['weights'])} and KV cache {mib(plan['parts']['kv_cache'])}")  # fmt: skip

        began = time.monotonic()
        found = self.json("deploy", name, "--name", "demo", "--ctx", "2048", "--parallel", "1", "--wait")
        say("deploy", f"{found['spec']['name']} is {found['state']}, {since(began)}")

        turn = self.json("chat", "demo", QUESTION, "--max-tokens", "64", "--temperature", "0", "--seed", "1")
        if turn["state"] != "done" or not turn["answer"].strip():
            raise Broken(f"the answer is {turn['state']}: {turn['reason']}")
        say("question", QUESTION)
        say("answer", " ".join(turn["answer"].split()))
        say("speed", f"{turn['tokens_per_second']:.1f} tokens/s, first token after {turn['ttft_ms']:.0f} ms, "
                     f"{turn['prompt_tokens']} tokens in, {turn['answer_tokens']} out")  # fmt: skip

        replica = self._measured()
        off = (replica["rss_bytes"] - plan["ready_bytes"]) * 100 / plan["ready_bytes"]
        say("memory", f"planned {mib(plan['ready_bytes'])} just ready, {mib(plan['rss_bytes'])} after a long prompt,"
                      f" measured {mib(replica['rss_bytes'])} after this one ({off:+.1f} % to just ready)")  # fmt: skip

        report = self.json("audit", "verify")
        say("audit", f"{report['records']} records, {report['message']}")

    def _measured(self) -> Any:
        """The replica once its memory has been sampled."""
        deadline = time.monotonic() + 15
        while True:
            replica = self.json("ps")[0]
            if replica["rss_bytes"]:
                return replica
            if time.monotonic() > deadline:
                raise Broken("the replica's memory was not sampled within 15 s")
            time.sleep(0.25)

    def take_down(self) -> None:
        """Stop models, gateway and daemon (6: none ran), then look that nothing is left running."""
        deadline = time.monotonic() + GONE_S
        self.corral("shutdown", "--all", allowed=(0, 6))
        while left := still_running(self.home):
            if time.monotonic() > deadline:
                raise Broken(f"processes are left: {left}")
            time.sleep(0.05)
            self.corral("shutdown", "--all", allowed=(0, 6))
        say("taken down", "daemon, gateway, keeper and engine are gone")


def still_running(home: Path) -> list[int]:
    """Pids whose environment or working folder names `home`, zombies and ourselves aside."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            environ = (entry / "environ").read_bytes()
            cwd = os.readlink(entry / "cwd")
        except OSError:
            continue
        if f"CORRAL_HOME={home}\0".encode() in environ or cwd.startswith(str(home)):
            found.append(int(entry.name))
    return found


def say(what: str, text: str) -> None:
    """A line on standard output. Raises `Interrupted` when nobody reads any more; from then on nothing is said."""
    try:
        print(f"{what:<11} {text}", flush=True)
    except OSError:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
        raise Interrupted(CLOSED_PIPE) from None


def complain(text: str) -> None:
    """A line on standard error, which may be gone too."""
    with contextlib.suppress(OSError):
        print(f"corral demo: {text}", file=sys.stderr, flush=True)


def mib(count: int) -> str:
    return f"{count / MIB:.0f} MiB"


def since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


def heed(number: int, frame: FrameType | None) -> None:
    """The first signal ends the steps; later ones change nothing."""
    deafen()
    raise Interrupted(128 + number)


def deafen() -> None:
    """Let no signal cut short what takes everything down."""
    for each in ENDING:
        if signal.getsignal(each) is heed:
            signal.signal(each, lambda number, frame: complain("everything is being taken down"))


def main() -> int:
    """0 if every step did what it should and nothing is left."""
    for each in ENDING:
        if signal.getsignal(each) is not signal.SIG_IGN:  # nohup's stays
            signal.signal(each, heed)
    home = Path(tempfile.mkdtemp(prefix=f"corral-demo-{os.getpid()}-", dir="/tmp"))
    demo = Demo(home)
    code = 0
    try:
        try:
            demo.run()
        except (Broken, KeyError, IndexError, TypeError, ValueError) as error:
            complain(f"{type(error).__name__}: {error}")
            code = 1
        finally:
            deafen()
    except Interrupted as told:
        code = told.code
    try:
        demo.take_down()
    except Interrupted as told:
        code = code or told.code
    except Broken as error:
        complain(f"{error}\ncorral demo: its home is kept: {home}")
        return 1
    shutil.rmtree(home, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
