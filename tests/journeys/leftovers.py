"""What a run of the tests may not leave behind: processes, and files where temporary ones and the state lie.

The run gets a folder of its own for both, so that only its own are looked at, whoever else works on the host.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

import psutil

GRACE_S = 5.0
MOST = 20
"""Lines that are told of each kind."""


def begin() -> Path:
    """Make the run's folder and put it into the environment that workers, daemons and engines inherit."""
    # pytest keeps its own folder (the last three runs) where it was.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    folder.chmod(0o711)  # the shared daemon's accounts pass through
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    return folder


def end(folder: Path, *folders: Path) -> list[str]:
    """Take the run's folder away; a line for each process that is still in it (or in one of `folders`) and each file.

    Processes are killed, after a moment for those that are about to end."""
    names = [str(each) for each in (folder, *folders)]
    deadline = time.monotonic() + GRACE_S
    while (found := _processes(names)) and time.monotonic() < deadline:
        time.sleep(0.05)
    told = [f"process {pid}: {words}" for pid, words in found.items()]
    for pid in found:
        try:
            psutil.Process(pid).kill()
        except psutil.Error:
            continue
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() or not any(path.iterdir()))
    shutil.rmtree(folder, ignore_errors=True)
    return told + [f"file {path}" for path in files[:MOST]]


def _processes(folders: list[str]) -> dict[int, str]:
    """By pid the command line of each that has one of these folders in its environment, its arguments or as its own."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            told = [*process.environ().values(), *process.cmdline(), process.cwd()]
        except (psutil.Error, OSError):
            continue
        if any(folder in each for folder in folders for each in told):
            found[process.pid] = " ".join(process.cmdline())[:200]
        if len(found) == MOST:
            break
    return found
