"""Attempts to get more than one was given, each made by a real process of another user through the public face: the
command line, the daemon's socket and the gateway's. Each is refused, and each refusal is in the trail.
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
from command import until
from sharedhost import ADMIN, STRANGER, Host

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare"),
]

ASK = """
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect({path!r})
body = json.dumps({body!r}).encode() if {body!r} is not None else b""
head = "{method} {target} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n{headers}"
head += "Content-Length: %d\\r\\n\\r\\n" % len(body)
s.sendall(head.encode("latin-1") + body)
whole = b""
while piece := s.recv(65536):
    whole += piece
print(json.dumps([int(whole.split(b" ", 2)[1]), whole.partition(b"\\r\\n\\r\\n")[2].decode("utf-8", "replace")]))
"""
DAEMON = "/run/corral/corral.sock"


class Asker:
    """One user of the host with a socket and no program of ours."""

    def __init__(self, host: Host, uid: int) -> None:
        self.host, self.uid = host, uid

    def __call__(
        self, method: str, target: str, body: Any = None, headers: str = "", path: str = DAEMON
    ) -> tuple[int, str]:  # fmt: skip
        code = ASK.format(path=path, method=method, target=target, body=body, headers=headers.replace("\r\n", "\\r\\n"))
        status, text = json.loads(self.host.python(code, self.uid, self.uid))
        return status, text


def refusals(host: Host, **asked: str) -> list[dict[str, Any]]:
    filters = [word for name, value in asked.items() for word in (f"--{name}", value)]
    found = host.ask("audit", "ls", "--outcome", "refused", "--limit", "1000", *filters)
    assert isinstance(found, list)
    return found


def passwd(host: Host, old: str, new: str) -> None:
    file = host.scratch / "etc/passwd"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def again(host: Host) -> None:
    """The daemon forgets the names that it knew: they are believed for a minute."""
    assert host.daemon
    host.daemon.kill()
    host.daemon.wait()
    host.start()


def test_nobody_grants_himself_more(host: Host) -> None:
    host.start()
    stranger = Asker(host, STRANGER)
    asks = (
        ("POST", "/access/grants", {"what": "admin", "subject": "user:stranger"}),
        ("PUT", "/access/roles/mine", {"allows": ["*"]}),
        ("PUT", "/access/roles", [{"name": "mine", "allows": ["*"]}]),
        ("PUT", "/access/teams/mine", {"members": ["user:stranger"]}),
        ("DELETE", "/access/grants/g1", None),
        ("POST", "/access/break-glass", {"reason": "let me in"}),
        ("POST", "/keys", {"name": "k", "owner": "user:admin"}),
        ("POST", "/accounts", {"name": "ci", "owner": "user:admin"}),
        ("PUT", "/deployments/chat/mark", {"labels": ["a=b"]}),
        ("PATCH", "/nodes/local/labels", {"labels": {"a": "b"}}),
        ("POST", "/audit/accept", {"reason": "x", "faults": []}),
    )
    for method, path, body in asks:
        status, text = stranger(method, f"/api/v1{path}", body)
        assert status in (403, 404), (path, status, text)
    assert len(refusals(host, actor="stranger")) >= len(asks)
    # With the right to grant, and to define, he still gives himself nothing that he does not hold.
    for what in ("access.grant", "access.roles", "access.teams", "access.read", "keys.own", "accounts.own"):
        host.admin("access", "grant", what, "user:stranger")
    before = len(refusals(host, actor="stranger"))
    host.admin("access", "teams", "set", "ops", "--member", "user:admin")
    host.admin("access", "grant", "operator", "team:ops")
    host.admin("access", "roles", "set", "mine", "--allow", "daemon.read")
    host.admin("access", "grant", "mine", "user:stranger")
    for method, path, body in (
        ("POST", "/access/grants", {"what": "admin", "subject": "user:stranger"}),
        ("POST", "/access/grants", {"what": "access.break-glass", "subject": "user:stranger"}),
        ("PUT", "/access/roles/mine", {"allows": ["models.rm"]}),
        ("PUT", "/access/teams/ops", {"members": ["user:admin", "user:stranger"]}),
        ("POST", "/keys", {"name": "k", "owner": "user:admin"}),
        ("POST", "/keys", {"name": "k", "owner": "team:ops"}),
        ("POST", "/accounts", {"name": "ci", "owner": "team:ops"}),
    ):
        status, text = stranger(method, f"/api/v1{path}", body)
        assert status in (403, 404), (path, status, text)
    verbs = [each["verb"] for each in refusals(host, actor="stranger")[before:]]
    wanted = {"access.grant": 2, "access.roles": 1, "access.teams": 1, "keys.create": 2, "accounts.create": 1}
    assert {verb: verbs.count(verb) for verb in wanted} == wanted
    assert "deployments.use" not in host.run("whoami", uid=STRANGER, gid=STRANGER).stdout
    host.admin("shutdown", "--all")


def test_a_renamed_user_and_a_recycled_uid_have_nothing_and_their_keys_and_accounts_neither(host: Host) -> None:
    host.start()
    host.admin("access", "grant", "user", "user:stranger")
    mine = {"uid": STRANGER, "gid": STRANGER}
    host.run("accounts", "create", "bot", **mine)
    host.run("access", "grant", "deployments.use", "account:bot", **mine)
    secrets = [
        host.run("keys", "create", name, *owner, "-q", **mine).stdout.strip()
        for name, owner in (("own", ()), ("bots", ("--owner", "account:bot")))
    ]
    gateway = host.ask("status")["gateway_socket"]
    admin = Asker(host, ADMIN)

    def asked(secret: str) -> int:
        return admin("GET", "/v1/models", headers=f"Authorization: Bearer {secret}\r\n", path=gateway)[0]

    until(lambda: [asked(each) for each in secrets] == [200, 200])

    # The user is renamed: the uid is the same, the name another.
    passwd(host, "stranger:x:71002", "mallory:x:71002")
    again(host)
    assert "may do nothing" in host.run("whoami", **mine).stdout
    host.run("ps", code=4, **mine)
    why = host.admin("access", "explain", "mallory", "deployments.use", "deployment:x", code=4).stdout
    assert "is for the user stranger with uid 71002, and this is mallory with uid 71002" in why
    assert "this host knows no 'stranger'" in host.admin("access", "explain", "stranger", "daemon.read", "daemon:local",
                                                         code=3).stderr  # fmt: skip
    until(lambda: [asked(each) for each in secrets] == [401, 401])

    # Somebody else gets the name, with another uid.
    passwd(host, "mallory:x:71002", "mallory:x:71002:71002::/:/bin/sh\nstranger:x:71003")
    again(host)
    host.run("ps", uid=71003, gid=71003, code=4)
    assert [asked(each) for each in secrets] == [401, 401]
    assert {key["state"] for key in host.ask("keys", "ls")} == {"owner gone"}
    assert {account["state"] for account in host.ask("accounts", "ls")} == {"owner gone"}

    # And one whom the host knows no more.
    passwd(host, "mallory:x:71002:71002::/:/bin/sh\n", "")
    again(host)
    host.run("ps", code=4, **mine)
    actors = {each["actor"] for each in refusals(host)}
    assert {"mallory", "stranger", "uid:71002"} <= actors
    host.admin("shutdown", "--all")


def test_who_one_is_is_not_what_one_says(host: Host) -> None:
    host.start()
    stranger = Asker(host, STRANGER)
    forged = (
        "X-Corral-Actor: 0:root\r\n", "Corral-Through: daemon\r\n", "X-Forwarded-User: root\r\n",
        "X-Remote-User: admin\r\nAuthorization: Basic cm9vdDo=\r\n",
    )  # fmt: skip
    for headers in forged:
        status, text = stranger("GET", "/api/v1/whoami", headers=headers)
        me = json.loads(text)
        assert status == 200 and (me["uid"], me["name"], me["holds"]) == (STRANGER, "stranger", [])
        assert me["through"] == "api"
        assert stranger("GET", "/api/v1/picture", headers=headers)[0] == 403
    assert len(refusals(host, actor="stranger")) >= 1  # alike ones are folded
    # At the gateway somebody who may use it is not believed to be another either.
    host.admin("access", "grant", "user", "user:stranger")
    gateway = host.ask("status")["gateway_socket"]
    until(lambda: stranger("GET", "/v1/models", path=gateway)[0] == 200)
    for headers in ("X-Corral-Actor: 71001:admin\r\n", "X-Corral-Turn: abc\r\n", "x-corral-actor: \r\n"):
        assert stranger("GET", "/v1/models", headers=headers, path=gateway)[0] == 403
    assert stranger("GET", "/corral/turns/abc", path=gateway)[0] in (403, 404)
    until(lambda: any("the daemon's" in each["reason"] for each in refusals(host, verb="gateway.refused")))
    host.admin("shutdown", "--all")


def test_another_s_chat_and_turn_are_not_reached_by_their_ids(host: Host) -> None:
    host.start()
    host.admin("models", "sample")
    host.admin("deploy", "smollm2-135m", "--name", "chat", "--ctx", "4096", "--wait")
    host.admin("access", "grant", "user", "user:stranger")
    stranger = Asker(host, STRANGER)
    chats = {}
    for who, name in ((host.admin, "admin"), (host.run, "stranger")):
        more = {} if name == "admin" else {"uid": STRANGER, "gid": STRANGER}
        who("chat", "chat", "Say hello.", "--max-tokens", "8", **more)
        (chats[name],) = json.loads(who("chats", "ls", "--json", **more).stdout)
    theirs, own = chats["admin"]["id"], chats["stranger"]["id"]
    detail = json.loads(host.admin("chats", "show", theirs, "--json").stdout)
    turn = detail["messages"][0]["id"]
    asks = [
        ("GET", f"/chats/{theirs}", None), ("PATCH", f"/chats/{theirs}", {"title": "mine"}),
        ("DELETE", f"/chats/{theirs}", None), ("POST", f"/chats/{theirs}/turns", {"question": "and?"}),
        ("POST", f"/chats/{theirs}/turns/{turn}/stop", None), ("GET", f"/chats/{theirs}/turns/{turn}/stream", None),
        ("GET", f"/chats/{theirs}/export", None),
    ]  # fmt: skip
    for method, path, body in asks:
        status, text = stranger(method, f"/api/v1{path}", body)
        assert status == 404 and "hello" not in text, (path, status, text)
    found = [each for each in refusals(host, actor="stranger") if "a chat of admin" in each["reason"]]
    assert len({each["object"] for each in found}) >= 5, found
    # A turn of another chat through one's own: neither read nor stopped, though it is being answered.
    assert stranger("GET", f"/api/v1/chats/{own}/turns/{turn}/stream")[0] == 404
    assert detail["messages"][0]["answer"] not in stranger("GET", f"/api/v1/chats/{own}")[1]
    assert json.loads(stranger("GET", "/api/v1/chats/search?q=hello")[1])[0]["id"] == own
    host.admin("shutdown", "--all")


def test_tricks_with_paths_in_names_reach_nothing(host: Host) -> None:
    host.start()
    admin = Asker(host, ADMIN)  # who may do it all: names must be wrong for him too
    names = (
        "..", "%2e%2e", "..%2f..%2fshutdown", "%2fetc%2fpasswd", "a%00b", "a%0d%0aX:y", "%c0%ae%c0%ae", "a%2f..%2fb",
        "%F0%9F%90%B4", "con%3A", "%25%32%65", "-rf", ".hidden", "a" * 200,
    )  # fmt: skip
    for name in names:
        for method, path, body in (
            ("GET", f"/models/{name}", None), ("DELETE", f"/models/{name}", None),
            ("GET", f"/deployments/{name}", None), ("GET", f"/deployments/{name}/logs", None),
            ("PUT", f"/access/roles/{name}", {"allows": ["daemon.read"]}),
            ("PUT", f"/access/teams/{name}", {"members": []}),
            ("PUT", f"/deployments/{name}/mark", {"labels": ["a=b"]}),
            ("PATCH", f"/nodes/{name}/labels", {"labels": {"a": "b"}}), ("GET", f"/imports/{name}", None),
        ):  # fmt: skip
            status, text = admin(method, f"/api/v1{path}", body)
            assert 400 <= status < 500, (method, path, status, text)
    for field in ("../../x", "/etc/x", "a/b", "a\x00b", "a\nb", "", "."):
        for method, path, body in (
            ("POST", "/accounts", {"name": field}),
            ("POST", "/keys", {"name": field}),
            ("POST", "/models/sample", {"name": field or "/"}),
            ("POST", "/models/upload", {"name": "ok", "files": [{"name": field, "bytes": 5}]}),
            ("POST", "/deployments", {"spec": {"name": field, "model": "x"}}),
        ):
            status, text = admin(method, f"/api/v1{path}", body)
            assert 400 <= status < 500, (path, field, status, text)
    tried = {each["object"] for each in refusals(host, verb="delete.refused")}
    assert "route:/api/v1/models/../../shutdown" in tried
    assert host.ask("models", "ls") == [] and host.ask("deployments", "ls") == [] and host.ask("keys", "ls") == []
    assert {role["name"] for role in host.ask("access", "roles")} == {
        "viewer", "user", "operator", "librarian", "auditor", "admin",
    }  # fmt: skip
    host.admin("shutdown", "--all")


def test_a_link_where_the_socket_should_be_is_not_followed(host: Host) -> None:
    """Somebody who could put a link there would be taken for the daemon, or have the daemon open a socket elsewhere."""
    run = ["nsenter", f"--mount=/proc/{host.holder.pid}/ns/mnt", "sh", "-c"]
    trap = "mkdir -p /run/corral && mkdir -m 777 /run/trap && ln -s /run/trap/s.sock /run/corral/corral.sock"
    subprocess.run([*run, trap], check=True)
    done = subprocess.run(
        [*host.enter(0, 0), sys.executable, "-P", "-m", "core", "--foreground", "--system"],
        env=host.env(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0 and "corral.sock" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_an_operator_has_nobody_ask_an_address_that_is_not_the_internets(host: Host) -> None:
    host.start()
    host.admin("access", "grant", "operator", "user:stranger", "--scope", "deployment:ml-*")
    host.admin("access", "grant", "models.read", "user:stranger")
    mine = {"uid": STRANGER, "gid": STRANGER}
    url = "http://127.0.0.1:9"
    for each in (url, "http://169.254.169.254/latest", "http://localhost:22"):
        said = host.run("deploy", "m", "--name", "ml-a", "--url", each, code=4, **mine).stderr
        assert "no address of the internet" in said and "deployments.attach-private" in said
    assert [each["verb"] for each in refusals(host, actor="stranger")] == ["deployments.create"] * 3
    host.admin("deploy", "m", "--name", "ml-a", "--url", url)  # the admin may, and then it is there
    host.run("deploy", "m", "--name", "ml-a", "--url", url, **mine)
    host.run("deploy", "m", "--name", "ml-a", "--url", "http://127.0.0.1:22", "--replace", code=4, **mine)
    host.admin("access", "grant", "deployments.attach-private", "user:stranger", "--scope", "deployment:ml-*")
    host.run("deploy", "m", "--name", "ml-b", "--url", url, **mine)
    host.admin("shutdown", "--all")
