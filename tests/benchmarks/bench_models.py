"""What keeping models costs: an import beside `cp` and `sha256sum` of the same file in the same run, and the lists with
1,000 versions beside ten.

Prints one JSON object a line. All state is in a folder of its own, which is removed. `--gib 4` is the issue's size;
the default is 1, since a small disk's cache decides less of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from bench_cli import CORRAL, medians  # beside this file
from bench_console import SIZE, machine, ms
from stores import maker
from terminal import Terminal

from core.catalog import tables
from core.nouns import Model

ROUNDS = 3
LIMIT = 1.3
LIST_MS = 300


def large(path: Path, size: int) -> None:
    """A model of one tensor of about `size` bytes that no disk can shorten."""
    columns = 4096
    rows = size // 4 // columns
    made = maker.make(tensors=[("token_embd.weight", [columns, rows], 0, None)])
    head = len(made) - columns * rows * 4
    with path.open("wb") as out:
        out.write(made[:head])
        left = columns * rows * 4
        while left:
            left -= out.write(os.urandom(min(left, 8 << 20)))
        os.fsync(out.fileno())


def timed(argv: list[str], env: Mapping[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(argv, env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def imports(env: Mapping[str, str], folder: Path, gib: float) -> dict[str, object]:
    """Seconds of each, in turns, with the file's pages cold for neither."""
    source = folder / "large.gguf"
    large(source, int(gib * (1 << 30)))
    ours, theirs = [], []
    for _ in range(ROUNDS):
        began = time.monotonic()
        copy = folder / "copy.gguf"
        timed(["cp", "--reflink=auto", str(source), str(copy)], env)
        timed(["sync", str(copy)], env)
        timed(["sha256sum", str(copy)], env)
        theirs.append(time.monotonic() - began)
        copy.unlink()
        ours.append(timed([*CORRAL, "models", "import", str(source), "--name", "large"], env))
        subprocess.run([*CORRAL, "models", "rm", "large", "--yes"], env=env, check=True, capture_output=True)
    source.unlink()
    ratio = statistics.median(ours) / statistics.median(theirs)
    return {
        "gib": gib, "import_s": [round(each, 2) for each in ours], "cp_sync_sha256sum_s": [round(e, 2) for e in theirs],
        "ratio": round(ratio, 2), "within": ratio <= LIMIT,
    }  # fmt: skip


def fill(env: Mapping[str, str], count: int) -> None:
    """Versions as imports write them, without their bytes: straight into the tables, with no daemon running."""
    source = Path(env["CORRAL_HOME"]) / "one.gguf"
    source.write_bytes(maker.make())
    subprocess.run([*CORRAL, "models", "import", str(source), "--name", "m0"], env=env, check=True, capture_output=True)
    found = subprocess.run([*CORRAL, "status", "--json"], env=env, check=True, capture_output=True, text=True).stdout
    subprocess.run([*CORRAL, "shutdown"], env=env, check=True, capture_output=True)
    db = sqlite3.connect(json.loads(found)["daemon"]["database"])
    model = msgspec.json.decode(db.execute("SELECT data FROM model_versions").fetchone()[0], type=Model)
    for n in range(1, count):
        file = msgspec.structs.replace(model.files[0], sha256=f"{n:064x}")
        other = msgspec.structs.replace(model, name=f"m{n // 2}", sha256=file.sha256, files=(file,))
        tables.add(db, other, {"n": n}, "", 0.0)
    db.commit()
    db.close()


def lists(env: Mapping[str, str], count: int) -> dict[str, float]:
    """Medians in ms."""
    fill(env, count)
    subprocess.run([*CORRAL, "ps"], env=env, check=True, capture_output=True)
    verbs = ("ls", "ls --versions", "show m0")
    programs = {f"models {verb}": [*CORRAL, "models", *verb.split(), "--json"] for verb in verbs}
    try:
        return {**medians(programs, env), **screen(env)}
    finally:
        subprocess.run([*CORRAL, "shutdown", "--all"], env=env, check=True, capture_output=True)


def screen(env: Mapping[str, str]) -> dict[str, float]:
    """From the key to the rows of the Models screen, ms: at its first opening, and the median of later ones."""
    first, later = [], []
    for _ in range(3):
        with Terminal(CORRAL, SIZE, env) as terminal:
            terminal.until(lambda text: "live" in text, 20)
            terminal.rest(2)
            for at in range(4):
                pressed = terminal.press("3")
                (later if at else first).append(terminal.until(lambda text: ">m0" in text, 10) - pressed)
                terminal.rest(1)
                terminal.press("1")
                terminal.until(lambda text: "[1 Overview]" in text, 10)
                terminal.rest(0.4)
    return {"screen 3, first": ms(statistics.median(first)), "screen 3": ms(statistics.median(later))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=1.0)
    gib = parser.parse_args().gib
    print(json.dumps(machine()))
    found = {}
    for count in (10, 1000):
        with tempfile.TemporaryDirectory(prefix="corral-") as folder:
            found[count] = lists(os.environ | {"CORRAL_HOME": folder, "HOME": folder}, count)
    print(json.dumps({"versions": found, "under_300_ms": found[1000]["models ls"] < LIST_MS}))
    with tempfile.TemporaryDirectory(prefix="corral-", dir=os.environ.get("TMPDIR")) as folder:
        env = os.environ | {"CORRAL_HOME": folder, "HOME": folder}
        room = shutil.disk_usage(folder).free
        if room < 3 * gib * (1 << 30):
            print(json.dumps({"skipped": f"import: {gib} GiB three times do not fit"}))
        else:
            print(json.dumps(imports(env, Path(folder), gib)))
        subprocess.run([*CORRAL, "shutdown", "--all"], env=env, check=True, capture_output=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "catalog"))
    main()
