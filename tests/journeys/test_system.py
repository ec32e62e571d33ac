"""The shared daemon, as root in a mount namespace of its own: accounts, modes, and who is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from command import until
from sharedhost import ADMIN, SPEAK, STRANGER, Host

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare"),
]


@pytest.mark.timeout(180)
def test_one_shared_daemon_from_start_to_stop(host: Host, sample: Path) -> None:
    host.start()
    status = host.ask("status")
    assert status["daemon"]["mode"] == "system" and status["daemon"]["uid"] == 0

    # A tier, where new models land, must be one that the engines' account can read.
    host.python("import os; os.mkdir('/var/lib/fast', 0o700)", 0, 0)
    told = host.admin("tiers", "add", "fast", "/var/lib/fast", "--default", "--no-speed", code=2).stderr
    assert "engines may not pass through /var/lib/fast" in told and "chmod o+x /var/lib/fast" in told
    host.python("import os; os.chmod('/var/lib/fast', 0o711)", 0, 0)
    host.admin("tiers", "add", "fast", "/var/lib/fast", "--default", "--no-speed")

    # A member imports a file that only she can read: her own `corral` reads it and sends it.
    private = host.scratch / "mine.gguf"
    shutil.copy(sample, private)
    os.chown(private, ADMIN, ADMIN)
    private.chmod(0o400)
    host.admin("models", "import", str(private), "--name", "sent")
    host.admin("deploy", "sent", "--name", "chat", "--ctx", "1024", "--wait")
    (replica,) = host.ask("ps")
    assert replica["state"] == "ready"
    assert host.ask("models", "show", "sent")["tier"] == "fast" and not host.ask("tiers", "check", "fast")[0]["faults"]

    # Who runs as whom: nothing that reads a model file is root, or a member, or can become either.
    engine = psutil.Process(replica["pid"])
    keeper = engine.parent()
    gateway = psutil.Process(host.ask("status")["gateway_status"]["pid"])
    assert keeper is not None
    for process, uid in ((engine, 70002), (keeper, 70002), (gateway, 70001)):
        text = Path(f"/proc/{process.pid}/status").read_text()
        assert process.uids() == (uid, uid, uid) and process.gids() == (uid, uid, uid)
        assert "CapEff:\t0000000000000000" in text and "\nGroups:\t \n" in text
    assert "NoNewPrivs:\t1" in Path(f"/proc/{engine.pid}/status").read_text()

    # The engine's account may do nothing but run: both sockets refuse it, records and database are closed to it.
    base = f"/var/lib/corral/{Path(status['daemon']['database']).parent.name}"
    launch = Path(engine.cwd()).name
    get = b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
    ask = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    for uid in (70001, 70002):
        assert "403" in host.python(SPEAK.format(path="/run/corral/corral.sock", request=get), uid, uid)
    assert "403" in host.python(SPEAK.format(path=status["gateway_socket"], request=ask), 70002, 70002)
    for path in (f"{base}/corral.db", f"{base}/r/{launch}/exit.json", f"{base}/gateway/snapshot.json",
                 f"{base}/audit.head", f"/proc/{keeper.pid}/fd"):  # fmt: skip
        told = host.python(f"import os; os.stat({path!r}); os.listdir({path!r})", 70002, 70002)
        told = told if "NotADirectory" not in told else host.python(f"open({path!r}, 'rb')", 70002, 70002)
        assert "PermissionError" in told, (path, told)
    assert "PermissionError" in host.python(f"open('{base}/l/x', 'w')", 70002, 70002)
    # The gateway reaches the engine, which answers who knows the launch's secret alone.
    assert "401" in host.python(SPEAK.format(path=f"{base}/l/{launch}/e.sock", request=ask), 70001, 70001)
    for uid in (STRANGER, ADMIN):  # an engine is reached through the gateway alone
        told = host.python(SPEAK.format(path=f"{base}/l/{launch}/e.sock", request=ask), uid, uid)
        assert told == "PermissionError"

    # A member may use it, a stranger is refused, and the refusal is in the trail.
    assert host.admin("chat", "chat", "Say hello.", "--max-tokens", "8").stdout.strip()
    assert "no grant gives stranger" in host.run("ps", uid=STRANGER, gid=STRANGER, code=4).stderr
    refused = host.ask("audit", "ls", "--outcome", "refused")
    assert any(each["actor"] == f"{STRANGER}:stranger" or "stranger" in str(each["actor"]) for each in refused)

    # The daemon comes and goes; the model runs on, and is adopted with the same pid.
    assert host.daemon
    host.daemon.kill()
    host.daemon.wait()
    host.start()
    (again,) = until(lambda: [each for each in host.ask("ps") if each["state"] == "ready"])
    assert again["pid"] == replica["pid"]

    # How the engine ended is told by root's own record.
    engine.kill()
    until(lambda: any("SIGKILL" in each["reason"] for each in host.ask("audit", "ls", "--verb", "replica.died")))
    until(lambda: any(each["state"] == "ready" for each in host.ask("ps")))
    assert host.ask("audit", "verify")["ok"]
    assert host.admin("logs", "chat").stdout.strip()
    host.admin("shutdown", "--all")
    host.daemon.wait(10)
    until(lambda: not host.mine())


ASKING = """
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect({path!r})
body = json.dumps({{"model": "chat", "stream": True, "max_tokens": 900, "ignore_eos": True,
                    "messages": [{{"role": "user", "content": "Count."}}]}}).encode()
head = b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
s.sendall(head + b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
s.settimeout(60)
whole, told = b"", False
while piece := s.recv(65536):
    whole += piece
    if b"data: " in whole and not told:
        told = print("it streams", flush=True) is None
print("taken away" if b"was taken away" in whole else whole[-300:])
"""


@pytest.mark.timeout(240)
def test_a_user_with_one_narrow_grant_does_and_sees_that_and_nothing_else(host: Host) -> None:
    host.start()
    host.admin("models", "sample")
    for name in ("chat", "secret"):
        host.admin("deploy", "smollm2-135m", "--name", name, "--ctx", "2048", "--wait")

    def stranger(*args: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return host.run(*args, uid=STRANGER, gid=STRANGER, code=code)

    assert "may do nothing yet" in stranger("whoami").stdout
    made = host.ask("access", "grant", "user", "user:stranger", "--scope", "deployment:chat", "--reason", "a pilot")
    assert [each["deployment"] for each in json.loads(stranger("ps", "--json").stdout)] == ["chat"]
    assert json.loads(stranger("models", "ls", "--json").stdout) == []
    assert stranger("chat", "chat", "Say hello.", "--max-tokens", "8").stdout.strip()

    # What he may not see is not there for him; what he sees and may not touch is refused; both are in the trail.
    for verb in (("stop", "secret"), ("logs", "secret"), ("explain", "secret"), ("chat", "secret", "Hi")):
        told = stranger(*verb, code=3).stderr
        assert "no deployment 'secret'" in told and "grant" not in told
    for verb in (("stop", "chat"), ("rm", "chat", "--yes"), ("scale", "chat", "3"), ("logs", "chat")):
        assert "no grant gives stranger" in stranger(*verb, code=4).stderr
    for verb in (("audit", "ls"), ("access", "grants"), ("shutdown",), ("models", "sample"), ("reload",)):
        stranger(*verb, code=4)
    stranger("access", "grant", "admin", "user:stranger", code=4)
    refused = host.ask("audit", "ls", "--actor", "stranger", "--outcome", "refused", "--limit", "1000")
    assert len(refused) >= 14 and any("deployments.stop on deployment:secret" in each["reason"] for each in refused)
    why = host.admin("access", "explain", "stranger", "deployments.use", "deployment:secret", code=4).stdout
    assert why.startswith("no: no grant gives stranger deployments.use on deployment:secret")

    # Events of what he does not see do not reach him.
    seen = host.scratch / "seen.jsonl"
    with seen.open("wb") as out:
        following = subprocess.Popen(
            [*host.enter(STRANGER, STRANGER), sys.executable, "-P", "-m", "tui", "events", "-f", "--json"],
            env=host.env(), stdout=out, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        host.admin("restart", "secret", "--wait")
        host.admin("restart", "chat", "--wait")
        until(lambda: b'"replica:chat/0"' in seen.read_bytes())
    finally:
        following.kill()
        following.wait()
    assert b"secret" not in seen.read_bytes() and b'"audit"' not in seen.read_bytes()

    # Whoever loses the right loses the answer that is being made for him, within a second or so.
    asks = ASKING.format(path=host.ask("status")["gateway_socket"])
    with subprocess.Popen(
        [*host.enter(STRANGER, STRANGER), sys.executable, "-I", "-c", asks], stdout=subprocess.PIPE, text=True
    ) as asking:
        assert asking.stdout is not None and asking.stdout.readline() == "it streams\n"
        host.admin("access", "revoke", made["id"], "--reason", "the pilot is over")
        assert asking.communicate(timeout=20)[0].strip() == "taken away"
    assert "no grant gives stranger" in stranger("ps", code=4).stderr

    # Who may deploy under some names is told what he needs to see a model, and the words of the docs are enough.
    host.admin("access", "grant", "operator", "user:stranger", "--scope", "deployment:ml-*")
    assert "You may not see models (models.read)" in stranger("models", "ls").stdout
    deploy = ("deploy", "smollm2-135m", "--name", "ml-chat", "--ctx", "2048")
    told = stranger(*deploy, code=3).stderr
    assert "stranger lacks models.read on model:smollm2-135m" in told
    assert "access grant models.read user:stranger --scope model:smollm2-135m" in told
    host.admin("access", "grant", "models.read", "user:stranger", "--scope", "model:*")
    stranger(*deploy)
    host.admin("shutdown", "--all")


def test_root_reads_and_breaks_the_glass_for_more_and_it_rings(host: Host) -> None:
    host.start()
    assert "As root on this host" in host.run("whoami").stdout and host.run("audit", "verify").returncode == 0
    for verb in (("models", "sample"), ("access", "grant", "admin", "user:root"), ("keys", "create", "x")):
        assert "break-glass" in host.run(*verb, code=4).stderr, verb
    host.admin("models", "sample")
    host.admin("deploy", "smollm2-135m", "--name", "chat", "--ctx", "1024", "--wait")
    ask = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    speak = SPEAK.format(path=host.ask("status")["gateway_socket"], request=ask)
    assert "403" in host.python(speak, 0, 0)
    # The daemon asks on her behalf, being root itself.
    assert host.admin("chat", "chat", "Say hello.", "--max-tokens", "8").stdout.strip()

    host.admin("access", "break-glass", "--reason", "me too", "--yes", code=4)
    taken = json.loads(host.run("access", "break-glass", "--reason", "no admin here", "--yes", "--json").stdout)
    assert taken["glass"] and taken["what"] == "admin"
    (warning,) = [each for each in host.ask("status")["daemon"]["warnings"] if "glass" in each]
    assert warning.endswith("no admin here") and "the glass is broken" in (host.scratch / "daemon.log").read_text()
    until(lambda: "200" in host.python(speak, 0, 0))
    host.run("access", "grant", "viewer", "user:stranger")
    host.run("access", "revoke", taken["id"])
    assert not [each for each in host.ask("status")["daemon"]["warnings"] if "glass" in each]
    until(lambda: "403" in host.python(speak, 0, 0))
    host.run("access", "grant", "admin", "user:root", code=4)
    verbs = [(each["verb"], each["actor"], each["outcome"]) for each in host.ask("audit", "ls", "--verb", "access.*")]
    assert ("access.break-glass", "root", "done") in verbs and ("access.glass-whole", "root", "done") in verbs
    report = host.run("audit", "report").stdout
    assert "access.break-glass" in report and "no admin here" in report
    host.run("shutdown", "--all")


def test_what_a_hostile_engine_leaves_in_its_folder_is_not_followed(host: Host, sample: Path) -> None:
    """Its log made a link to a file of root's: the log is empty, not the file."""
    host.start()
    host.admin("models", "sample")
    host.admin("deploy", "smollm2-135m", "--name", "chat", "--ctx", "512", "--wait")
    (replica,) = host.ask("ps")
    folder = Path(psutil.Process(replica["pid"]).cwd())
    secret = host.scratch / "etc/root-only"
    secret.write_text("root's alone")
    secret.chmod(0o600)
    swap = f"import os; os.unlink('{folder}/engine.log'); os.symlink('/etc/root-only', '{folder}/engine.log')"
    assert host.python(swap, 70002, 70002) == ""
    assert Path(f"/proc/{replica['pid']}/cwd/engine.log").is_symlink()
    assert "root's alone" not in host.admin("logs", "chat", code=None).stdout
    host.admin("shutdown", "--all")


def test_what_is_missing_is_said_before_anything_is_made(host: Host) -> None:
    passwd = host.scratch / "etc/passwd"
    passwd.write_text("".join(line for line in passwd.read_text().splitlines(True) if "corral-run" not in line))
    done = subprocess.run(
        [*host.enter(0, 0), sys.executable, "-P", "-m", "core", "--foreground", "--system"],
        env=host.env(), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1 and "no account corral-run" in done.stderr and "useradd" in done.stderr
    done = subprocess.run(
        [*host.enter(STRANGER, STRANGER), sys.executable, "-P", "-m", "core", "--foreground", "--system"],
        env=host.env(), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert "only root runs the shared daemon" in done.stderr
    assert "absent" in host.python("import os; print('absent' if not os.path.exists('/var/lib/corral') else '')", 0, 0)


def test_a_group_of_admins_that_the_host_emptied_is_told(host: Host) -> None:
    host.start()

    def told() -> list[str]:
        return [each for each in host.ask("status")["daemon"]["warnings"] if "nobody is an admin" in each]

    assert told() == []
    groups = host.scratch / "etc/group"
    before = groups.read_text()
    assert "corral:x:70000:admin" in before
    groups.write_text(before.replace("corral:x:70000:admin", "corral:x:70000:"))
    until(told)
    groups.write_text(before)
    until(lambda: not told())
    host.admin("shutdown", "--all")
