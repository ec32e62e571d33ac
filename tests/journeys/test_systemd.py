"""The unit that `corral daemon --print-unit` prints, under a systemd that runs: installed as the README says, stopped,
killed, restarted and booted again.

The host is a copy of this one (an overlay in memory) in namespaces of its own; its systemd is process 1 in there.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import until

from core.catalog import sample_path

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(600),  # an installation compiles the gateway
    pytest.mark.skipif(
        os.getuid() != 0 or not Path("/lib/systemd/systemd").exists() or not shutil.which("unshare"),
        reason="needs root, unshare and systemd",
    ),
]

TREE = Path(__file__).parents[2]
ROOT = "/usr/sbin:/usr/bin:/sbin:/bin"
DISK = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=3G tmpfs {there}
mkdir {there}/up {there}/work {there}/root {there}/src
mount -t overlay overlay -o lowerdir=/,upperdir={there}/up,workdir={there}/work {there}/root
cp -r {tree}/core {tree}/tui {tree}/setup.py {tree}/pyproject.toml {tree}/README.md {tree}/LICENSE {there}/src
cp -r {there}/src {there}/root/opt/src
cp {sample} {there}/root/opt/sample.gguf
rm -rf {there}/root/etc/systemd/system/*.wants {there}/root/etc/corral {there}/root/var/lib/corral
touch {there}/disk
exec sleep 100000
"""
INSTALL = """
set -e
/usr/bin/python3 -m venv /opt/corral
/opt/corral/bin/pip install -q /opt/src
useradd --system --no-create-home --shell /usr/sbin/nologin corral-gw
useradd --system --no-create-home --shell /usr/sbin/nologin corral-run
groupadd --system corral
useradd alice; useradd bob; gpasswd -a alice corral
/opt/corral/bin/corral daemon --print-unit > /etc/systemd/system/corral.service
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -s ../corral.service /etc/systemd/system/multi-user.target.wants/
"""
# systemd's own mounts (credentials) must reach the units: it makes / shared on a real host, not in a container.
BOOT = """
set -e
cd {root}
umount -R proc sys run tmp dev 2>/dev/null || true
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --rbind /dev dev
mount -t tmpfs tmpfs sys/fs/cgroup
mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
cat /proc/sys/kernel/random/uuid > run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
mount --make-rshared .
ip link set lo up
exec env -i container=other PATH={path} chroot {root} /lib/systemd/systemd --system --unit=multi-user.target
"""


class Host:
    """A host that boots. Its disk is the mount namespace of `disk`; `boot` is the process 1 of this boot."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        script = DISK.format(there=folder, tree=TREE, sample=sample_path())
        self.disk = subprocess.Popen(["unshare", "-m", "bash", "-c", script])
        until(lambda: self.disk.poll() is not None or Path(f"/proc/{self.disk.pid}/root{folder}/disk").exists())
        self.boot: subprocess.Popen[bytes] | None = None
        self.init = 0

    def install(self) -> None:
        """As root, with the network of this machine."""
        inside = f"chroot {self.root} bash -c {shlex.quote(INSTALL)}"
        done = self._at("-m", "bash", "-c", inside, path=f"/opt/corral/bin:{ROOT}")
        if done.returncode:
            pytest.skip(f"it cannot be installed here: {done.stderr[-400:]}")

    def _at(self, *args: str, path: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", "-t", str(self.disk.pid), *args],
            env={"PATH": path}, cwd="/", capture_output=True, text=True, timeout=400,
        )  # fmt: skip

    def on(self) -> None:
        """Switch it on."""
        script = BOOT.format(root=self.root, path=ROOT)
        self.boot = subprocess.Popen(
            ["nsenter", "-t", str(self.disk.pid), "-m", "unshare", "-p", "-f", "-C", "-i", "-u", "-n", "-m",
             "--kill-child", "bash", "-c", script],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        children = Path(f"/proc/{self.boot.pid}/task/{self.boot.pid}/children")
        self.init = int(until(lambda: children.read_text().split())[0])
        until(lambda: Path(f"/proc/{self.init}/comm").read_text() == "systemd\n")
        until(lambda: self.run("systemctl", "is-active", "corral").stdout.strip() == "active")

    def off(self) -> None:
        """Pull the plug."""
        if self.boot is not None:
            self.boot.kill()
            self.boot.wait(30)
            with contextlib.suppress(ProcessLookupError):
                until(lambda: not Path(f"/proc/{self.init}").exists())

    def run(self, *args: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        """A command there."""
        as_whom = ["runuser", "-u", user, "--"] if user != "root" else []
        return subprocess.run(
            ["nsenter", "-t", str(self.init), "-a", "-r", "--wdns=/", *as_whom, *args],
            env={"PATH": f"/opt/corral/bin:{ROOT}", "HOME": "/", "LANG": "C.UTF-8"},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def sh(self, script: str) -> None:
        """A script there, as root, that must succeed."""
        done = self.run("sh", "-ec", script)
        assert done.returncode == 0, done.stdout + done.stderr

    def anew(self, settings: str = "") -> None:
        """A daemon that knows nothing, with these settings."""
        self.sh("corral shutdown --all --yes || true; systemctl stop corral; rm -rf /var/lib/corral/*")
        self.sh(f"mkdir -p /etc/corral && printf %s {shlex.quote(settings)} > /etc/corral/corral.toml")
        self.sh("systemctl daemon-reload")
        self.sh("systemctl start corral || { journalctl -u corral; exit 1; }")

    def corral(self, *args: str, user: str = "root", code: int = 0) -> Any:
        done = self.run("corral", *args, "--json", user=user)
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout or done.stderr)

    def replica(self) -> dict[str, Any]:
        """The one replica, when it is ready."""
        return dict(until(lambda: [r for r in self.corral("ps") if r["state"] == "ready"], 90)[0])

    def unit(self, name: str) -> str:
        return self.run("systemctl", "show", "-p", name, "--value", "corral").stdout.strip()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """One for all tests of a run: an installation takes a minute."""
    folder = Path(tempfile.mkdtemp(prefix="c-", dir="/tmp"))
    host = Host(folder)
    try:
        if host.disk.poll() is not None:
            pytest.skip("no overlay can be mounted here")
        host.install()
        host.on()
        yield host
    finally:
        host.off()
        host.disk.kill()
        host.disk.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_unit_that_is_stopped_killed_and_booted_again_keeps_its_promises(host: Host) -> None:
    assert host.run("id", "-u").stdout == "0\n" and host.run("cat", "/proc/1/comm").stdout == "systemd\n"
    host.corral("models", "import", "/opt/sample.gguf", "--name", "smol", user="alice")
    host.corral("deploy", "smol", "--name", "chat", "--ctx", "2048", "--wait", user="alice")
    engine = host.replica()["pid"]
    assert host.run("corral", "chat", "chat", "Say hi", user="alice").stdout.strip(), "a member of the group may ask"
    assert host.corral("ps", user="bob", code=4)["code"] == "not_allowed"

    def same_engine() -> bool:
        return bool(host.replica()["pid"] == engine)

    assert host.run("systemctl", "restart", "corral").returncode == 0 and same_engine()
    assert host.run("systemctl", "stop", "corral").returncode == 0
    assert host.unit("ActiveState") == "inactive" and host.run("kill", "-0", str(engine)).returncode == 0
    assert host.run("systemctl", "start", "corral").returncode == 0 and same_engine()

    daemon = host.unit("MainPID")
    host.run("kill", "-9", daemon)
    until(lambda: host.unit("ActiveState") == "active" and host.unit("MainPID") not in ("0", daemon))
    assert same_engine(), "systemd has started another one, which adopts"
    assert host.run("systemctl", "reload", "corral").returncode == 0
    until(lambda: host.corral("audit", "ls", "--verb", "daemon.reload"))

    host.off()
    host.on()
    assert host.replica()["state"] == "ready", "what should run comes back after a reboot"
    assert host.run("corral", "chat", "chat", "Say hi", user="alice").stdout.strip()
    assert host.run("corral", "audit", "verify").returncode == 0

    host.corral("shutdown", "--all", "--yes")
    assert host.unit("ActiveState") == "inactive" and host.unit("Result") == "success"
    assert host.run("ps", "-u", "corral-run,corral-gw", "-o", "pid=").stdout.strip() == ""


def test_the_signing_key_may_be_an_encrypted_credential_and_the_journal_gets_every_record(host: Host) -> None:
    host.sh(
        "openssl genpkey -algorithm ed25519 -out /run/audit.pem && mkdir -p /etc/credstore.encrypted /etc/corral"
        " && systemd-creds encrypt --name=audit.key /run/audit.pem /etc/credstore.encrypted/audit.key"
        " && rm /run/audit.pem && mkdir -p /etc/systemd/system/corral.service.d"
        " && printf '[Service]\nLoadCredentialEncrypted=audit.key\n' > /etc/systemd/system/corral.service.d/key.conf"
    )
    host.anew('[audit]\nsigning_key = "$CREDENTIALS_DIRECTORY/audit.key"\n[audit.sinks]\njournald = true\n')
    assert host.run("sh", "-c", "find /var/lib/corral -name 'audit.key*'").stdout == "", "no copy of it on the disk"
    shown = host.run("corral", "audit", "key", "show", "-q")
    key = shown.stdout.strip()
    assert key.startswith("ed25519:"), host.run("corral", "status").stdout
    host.corral("models", "import", "/opt/sample.gguf", "--name", "smol", user="alice")
    out = host.run("corral", "audit", "export", "--out", "/tmp/trail.corral")
    assert out.returncode == 0, out.stderr
    proved = host.run("corral", "audit", "verify", "/tmp/trail.corral", "--key", key)
    assert proved.returncode == 0, proved.stdout + proved.stderr
    host.run("corral", "ps", user="bob")

    def journal(verb: str) -> list[dict[str, str]]:
        found = host.run("journalctl", "-t", "corral-audit", "-o", "json", "--no-pager", f"CORRAL_VERB={verb}").stdout
        return [json.loads(line) for line in found.splitlines()]

    assert until(lambda: journal("models.add"))[-1]["CORRAL_OBJECT"] == "model:smol"
    assert until(lambda: journal("get.refused"))[-1]["PRIORITY"] == "4"
    host.corral("access", "break-glass", "--reason", "a drill", "--yes")
    assert until(lambda: journal("access.break-glass"))[-1]["PRIORITY"] == "1", "it rings"


def units_of(page: str) -> Iterator[tuple[str, str]]:
    """The units that a page of the docs shows: path and text."""
    text = (TREE / "docs" / page).read_text()
    for path, unit in re.findall(r"(?m)^    # (/etc/systemd/system/.+)\n((?:    .*\n)+)", text):
        yield path, re.sub(r"(?m)^    ", "", unit)


def test_an_agent_of_another_user_signs_with_the_units_that_the_docs_show(host: Host) -> None:
    host.sh(
        "useradd --system --no-create-home corral-sign && mkdir -p /etc/corral-sign /etc/corral"
        " && ssh-keygen -q -t ed25519 -N '' -C corral -f /etc/corral-sign/key && chown -R corral-sign /etc/corral-sign"
    )
    units = dict(units_of("audit.md"))
    assert len(units) == 3
    for path, text in units.items():
        host.sh(f"printf %s {shlex.quote(text)} > {path}")
    assert host.run("systemd-analyze", "verify", *units).stderr == ""
    host.sh("systemctl daemon-reload && systemctl start corral-sign.service corral-sign-proxy.socket")

    signed_by = '[audit]\nsigning_key = "agent:%s"\n'
    host.anew(signed_by % "/run/corral-sign/own.sock")
    assert host.run("sh", "-c", "find /var/lib/corral -name 'audit.key*'").stdout == "", "it makes no key of its own"
    key = host.run("corral", "audit", "key", "show", "-q").stdout.strip()
    assert host.run("corral", "audit", "export", "--out", "/tmp/signed.corral").returncode == 0
    assert host.run("corral", "audit", "verify", "/tmp/signed.corral", "--key", key).returncode == 0

    settings = shlex.quote(signed_by % "/run/corral-sign-alice.sock")
    host.sh(f"mkdir -m 700 /tmp/own && printf %s {settings} > /tmp/own/corral.toml && chown -R alice /tmp/own")
    own = ("env", "CORRAL_HOME=/tmp/own", "corral")
    shown = host.run(*own, "audit", "key", "show", "-q", user="alice")
    assert shown.stdout.strip() == key, f"a daemon of her own is signed for through the proxy: {shown.stderr}"
    assert host.run(*own, "audit", "export", "--out", "/tmp/own/trail.corral", user="alice").returncode == 0
    proved = host.run(*own, "audit", "verify", "/tmp/own/trail.corral", "--key", key, user="alice")
    assert proved.returncode == 0, proved.stdout + proved.stderr
    assert "Permission denied" in host.run("cat", "/etc/corral-sign/key", user="alice").stderr

    host.sh("systemctl stop corral-sign.service corral-sign-proxy.socket corral-sign-proxy.service")
    late = host.run("corral", "audit", "export", "--out", "/tmp/late.corral")
    assert "NOT SIGNED" in late.stdout, "an agent that is gone is said"
    assert until(lambda: "sign" in host.run("corral", "status").stdout.lower())
    host.sh("systemctl start corral-sign.service")
    assert host.run(*own, "shutdown", "--all", "--yes", user="alice").returncode == 0
