"""The shared daemon's host for tests: a mount namespace of its own, with accounts, an admin and a stranger.

The namespace has its own /run, /var/lib, /etc and /root, so that nothing of this host is touched; the program is bound
to where the accounts can read it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import until

TREE = Path(__file__).parents[2]
ADMIN, STRANGER = 71001, 71002
SETUP = """
set -e
mkdir -p {scratch}/etc {scratch}/opt
cp -a /etc/. {scratch}/etc/
rm -rf {scratch}/etc/corral
printf 'corral-gw:x:70001:70001::/:/bin/false\\ncorral-run:x:70002:70002::/:/bin/false\\n' >> {scratch}/etc/passwd
printf 'admin:x:{admin}:{admin}::/:/bin/sh\\nstranger:x:{stranger}:{stranger}::/:/bin/sh\\n' >> {scratch}/etc/passwd
printf 'corral-gw:x:70001:\\ncorral-run:x:70002:\\ncorral:x:70000:admin\\n' >> {scratch}/etc/group
mount --bind {scratch}/etc /etc
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /run
{binds}
touch {scratch}/up
exec sleep 100000
"""


def _binds(scratch: Path) -> str:
    """The source tree, the interpreter and its packages under /opt and /usr alone: open folders, read only."""
    lines = []
    for n, path in enumerate(dict.fromkeys((TREE, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()))):
        lines.append(f"mkdir -p {scratch}/opt/{n}; mount --bind {path} {scratch}/opt/{n}")
    # The paths stay as they are (a venv knows its own), so each closed folder above them is replaced by an open one.
    for n, path in enumerate(dict.fromkeys((TREE, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()))):
        closed = next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o1), None)
        if closed is not None:
            lines.append(f"[ $(stat -c %a {closed}) = 755 ] || mount -t tmpfs -o mode=755 tmpfs {closed}")
            lines.append(f"mkdir -p {path}; mount --bind {scratch}/opt/{n} {path}")
    return "\n".join(lines)


class Host:
    """A mount namespace in which /run/corral and /var/lib/corral are empty; commands run in it as one likes."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        script = SETUP.format(scratch=scratch, admin=ADMIN, stranger=STRANGER, binds=_binds(scratch))
        with (scratch / "holder.log").open("wb") as said:
            self.holder = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", script], stderr=said
            )
        until(lambda: (scratch / "up").exists() or self.holder.poll() is not None)
        if self.holder.poll() is not None:
            pytest.skip(f"no mount namespace here: {(scratch / 'holder.log').read_text().strip()}")
        self.daemon: subprocess.Popen[bytes] | None = None

    def enter(self, uid: int, gid: int, groups: str = "") -> list[str]:
        become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", f"--groups={groups}" if groups else "--clear-groups"]
        return ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--wd=/", *become]

    def start(self) -> None:
        """The daemon with no more of root's rights than the unit leaves it."""
        from tui.verbs.program import CAPABILITIES

        kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in CAPABILITIES)
        with (self.scratch / "daemon.log").open("ab") as said:
            self.daemon = subprocess.Popen(
                ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--wd=/", "setpriv", "--no-new-privs",
                 f"--bounding-set=-all,{kept}", sys.executable, "-P", "-m", "core", "--foreground", "--system"],
                env=self.env(), stderr=said,
            )  # fmt: skip
        until(lambda: self.run("status", code=None).returncode == 0 or (self.daemon and self.daemon.poll() is not None))
        assert self.daemon.poll() is None, (self.scratch / "daemon.log").read_text()

    def env(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(TREE), "HOME": "/", "LC_ALL": "C.UTF-8"}

    def run(
        self, *args: str, uid: int = 0, gid: int = 0, groups: str = "", code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.enter(uid, gid, groups), sys.executable, "-P", "-m", "tui", *args],
            env=self.env(), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{args}: {done.returncode} {done.stdout} {done.stderr}"
        return done

    def admin(self, *args: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.run(*args, uid=ADMIN, gid=ADMIN, groups="70000", code=code)

    def ask(self, *args: str) -> Any:
        return json.loads(self.admin(*args, "--json").stdout)

    def python(self, code: str, uid: int, gid: int) -> str:
        done = subprocess.run(
            [*self.enter(uid, gid), sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30
        )
        return (done.stdout.strip() or done.stderr.strip()).rpartition("\n")[2]

    def mine(self) -> list[psutil.Process]:
        """Every process of this namespace but the one that holds it."""
        there = os.readlink(f"/proc/{self.holder.pid}/ns/mnt")
        found = []
        for process in psutil.process_iter():
            try:
                if os.readlink(f"/proc/{process.pid}/ns/mnt") == there and process.pid != self.holder.pid:
                    found.append(process)
            except OSError:
                continue
        return found

    def end(self) -> None:
        for _ in range(3):
            for process in self.mine():
                process.kill()
        if self.daemon is not None:
            self.daemon.wait()
        self.holder.kill()
        self.holder.wait()


SPEAK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
try:
    s.connect({path!r})
    s.sendall({request!r})
    print(s.recv(300).split(b"\\r\\n")[0].decode())
except OSError as error:
    print(type(error).__name__)
"""
