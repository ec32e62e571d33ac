"""How long each read verb takes with a daemon running, beside an empty Python and a bare click program in the same run;
and what `make run` adds to the program when there is nothing to install.

Prints one JSON object a line: the machine, medians in milliseconds, and whether the limits are kept. All state is in a
folder of its own, which is removed.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench_console import machine  # beside this file

ROOT = Path(__file__).parents[2]
ROUNDS = 9
LIMIT_MS = 300
SETUP_LIMIT_MS = 500
CORRAL = [sys.executable, "-P", "-m", "tui"]
CLICK = """
import click
@click.command()
@click.option("--json", is_flag=True)
def bare(json):
    click.echo("done")
bare()
"""
VERBS = (
    "version", "status", "ps", "deployments", "models ls", "models pulls", "models show smollm2-135m",
    "fit smollm2-135m", "engines", "explain chat", "logs chat", "events", "chats ls", "chats search llama",
    "chats show CHAT", "chats export CHAT", "audit ls", "audit verify", "audit key show",
)  # fmt: skip


def once(argv: Sequence[str], env: Mapping[str, str], cwd: Path = ROOT) -> float:
    """Milliseconds from the start of a program to its end. Raises `CalledProcessError`."""
    began = time.monotonic()
    subprocess.run(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return (time.monotonic() - began) * 1000


def medians(programs: Mapping[str, Sequence[str]], env: Mapping[str, str], cwd: Path = ROOT) -> dict[str, float]:
    """Of each program, in turns: a slow moment of the machine meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(ROUNDS + 1):
        for name, argv in programs.items():
            spent = once(argv, env, cwd)
            if turn:  # the first one fills caches
                taken[name].append(spent)
    return {name: round(statistics.median(each), 1) for name, each in taken.items()}


def verbs(env: Mapping[str, str]) -> dict[str, object]:
    """The medians of all read verbs, with `--json`, beside the bare programs."""

    def corral(*args: str) -> str:
        return subprocess.run([*CORRAL, *args], env=env, capture_output=True, text=True, check=True).stdout

    corral("models", "sample")
    corral("deploy", "smollm2-135m", "--name", "chat", "--ctx", "2048", "--wait")
    chat = json.loads(corral("chat", "chat", "What is a llama?", "--max-tokens", "16", "--json"))["chat"]
    programs = {
        "python -c pass": [sys.executable, "-P", "-c", "pass"],
        "a bare click program": [sys.executable, "-P", "-c", CLICK],
        **{verb: [*CORRAL, *verb.replace("CHAT", chat).split(), "--json"] for verb in VERBS},
    }
    found = medians(programs, env)
    slowest = max(VERBS, key=lambda verb: found[verb])
    return {"median_ms": found, "slowest": slowest, "under_300_ms": found[slowest] < LIMIT_MS}


def setup(env: Mapping[str, str]) -> dict[str, object]:
    """What `make run` takes with a program that does nothing, in a clone that is set up already."""
    clone = Path(tempfile.mkdtemp(prefix="corral-clone-"))
    try:
        (clone / "core").mkdir()
        for name in ("Makefile", "pyproject.toml", "core/bootstrap.py"):
            shutil.copy(ROOT / name, clone / name)
        (clone / ".venv/bin").mkdir(parents=True)
        (clone / ".venv/bin/python").symlink_to(sys.executable)
        (clone / ".venv/bin/corral").symlink_to("/bin/true")
        tell = "import sys; sys.path.insert(0, 'core'); import bootstrap; print(bootstrap.stamp(False))"
        stamp = subprocess.run(
            [sys.executable, "-c", tell], cwd=clone, capture_output=True, text=True, check=True
        ).stdout
        (clone / ".venv/corral-stamp").write_text(stamp)
        programs = {
            "/bin/true": ["/bin/true"],
            "python -c pass": [sys.executable, "-c", "pass"],
            "make run": ["make", "run", f"PYTHON={sys.executable}"],
        }
        found = medians(programs, env, clone)
    finally:
        shutil.rmtree(clone, ignore_errors=True)
    added = round(found["make run"] - found["/bin/true"], 1)
    return {"median_ms": found, "make_run_adds_ms": added, "under_500_ms": added < SETUP_LIMIT_MS}


def main() -> int:
    """0 if every limit is kept."""
    home = Path(tempfile.mkdtemp(prefix="c-", dir="/tmp"))
    env = {**os.environ, "CORRAL_HOME": str(home), "PYTHONPATH": str(ROOT)}
    try:
        read = verbs(env)
    finally:
        subprocess.run([*CORRAL, "shutdown", "--all"], env=env, stdout=subprocess.DEVNULL, check=False)
        shutil.rmtree(home, ignore_errors=True)
    made = setup(env)
    print(json.dumps({"machine": machine(), "python": sys.version.split()[0]}))
    print(json.dumps({"what": "read verbs", "rounds": ROUNDS, **read}))
    print(json.dumps({"what": "make run with nothing to do", "rounds": ROUNDS, **made}))
    return 0 if read["under_300_ms"] and made["under_500_ms"] else 1


if __name__ == "__main__":
    sys.exit(main())
