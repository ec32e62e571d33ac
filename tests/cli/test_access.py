"""`corral access` and `corral whoami`, with the real daemon of the one who runs the tests."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from command import ask, corral, free_port, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


def test_grants_roles_and_teams_from_the_command_line(home: Path) -> None:
    assert "may do everything" in corral("whoami")
    assert "there is no grant" in corral("access", "grants") and "there is no team" in corral("access", "teams")
    for role in ("viewer", "user", "operator", "librarian", "auditor", "admin"):
        assert role in corral("access", "roles", "-q").split()
    assert "deployments.use" in corral("access", "permissions")
    assert "no grant gives anybody anything" in corral("access", "matrix")

    corral("access", "roles", "set", "starter", "--allow", "deployments.st*", "--words", "starts and stops")
    corral("access", "teams", "set", "ml", "--member", "user:bin", "--member", "group:daemon")
    made = ask("access", "grant", "starter", "team:ml", "--scope", "deployment:a-*", "--until", "8h", "--reason", "x")
    assert made["until"] - made["at"] == pytest.approx(8 * 3600, abs=60)
    yes = corral("access", "explain", "bin", "deployments.stop", "deployment:a-chat")
    assert yes.startswith("yes: ") and made["id"] in yes
    assert corral("access", "explain", "bin", "deployments.rm", "deployment:a-chat", code=4).startswith("no: ")
    lost = ask("access", "simulate", "revoke", made["id"])
    assert {(each["subject"], each["after"]) for each in lost} == {("user:bin", False), ("group:daemon", False)}
    corral("access", "deny", "deployments.stop", "user:bin")
    assert "denies it" in corral("access", "explain", "bin", "deployments.stop", "deployment:a-chat", code=4)
    assert "not deployments.stop" in corral("access", "matrix", "--subject", "user:bin")

    assert "revoke these first" in corral("access", "teams", "rm", "ml", code=1)  # said before anything is asked
    corral("access", "revoke", made["id"], "--reason", "over")
    corral("accounts", "create", "nightly", "--owner", "team:ml")
    assert "remove these first" in corral("access", "teams", "rm", "ml", code=1)
    corral("accounts", "rm", "nightly", "--yes")
    assert "there is no team" in corral("access", "teams", "rm", "nobodys", code=3)
    assert "--yes" in corral("access", "teams", "rm", "ml", code=2)
    corral("access", "teams", "rm", "ml", "--yes")
    assert "--yes" in corral("access", "roles", "rm", "starter", code=2)
    corral("access", "roles", "rm", "starter", "--yes")
    corral("shutdown")
    assert [each["what"] for each in ask("access", "grants")] == ["deployments.stop"]
    verbs = [each["verb"] for each in ask("audit", "ls", "--verb", "access.*", "--outcome", "done")]
    assert verbs == [
        "access.roles", "access.teams", "access.grant", "access.deny", "access.revoke", "access.teams", "access.roles",
    ]  # fmt: skip


def test_a_personal_grant_beside_a_teams_is_told_before_and_when_somebody_leaves_the_team(home: Path) -> None:
    corral("access", "teams", "set", "ml", "--member", "user:bin", "--member", "user:daemon")
    corral("access", "teams", "set", "ops", "--member", "user:bin")
    team = ask("access", "grant", "operator", "team:ml", "--scope", "deployment:a-*")["id"]
    own = ask("access", "grant", "deployments.st*", "user:bin", "--scope", "deployment:*")["id"]
    ops = ask("access", "grant", "viewer", "team:ops")["id"]
    for scope in ("deployment:b-*", "model:a-*"):  # nothing of the team's
        corral("access", "grant", "operator", "user:daemon", "--scope", scope)
    told = corral("access", "grants")
    assert f"{own} is user:bin's own, beside {team} of team:ml" in told and told.count("beside") == 1
    assert "beside" not in corral("access", "grants", "--subject", "user:daemon")
    assert "beside" not in corral("access", "grants", "-q")

    why = corral("access", "explain", "bin", "deployments.stop", "deployment:a-chat")
    assert f"{team} (operator on deployment:a-*) gives it to team:ml" in why
    assert f"so does {own} (deployments.st* on deployment:*) of user:bin" in why
    assert [
        each["id"] for each in ask("access", "explain", "bin", "deployments.stop", "deployment:a-chat")["also"]
    ] == [own]
    assert ask("access", "explain", "bin", "deployments.stop", "deployment:b-chat")["also"] == []

    told = corral("access", "teams", "set", "ml", "--member", "user:daemon")
    assert f"user:bin keeps deployments.st* on deployment:*: corral access revoke {own}" in told
    assert f"user:bin keeps viewer on * through team:ops: corral access revoke {ops}" in told
    assert "keeps" not in corral("access", "teams", "set", "ml", "--member", "user:daemon")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("grant", "operater", "user:bin"), 3, "there are: "),
        (("grant", "operator", "bin"), 2, "say user:NAME"),
        (("grant", "user:bin", "viewer"), 2, "corral access grant viewer user:bin"),
        (("deny", "group:bin", "viewer"), 2, "corral access deny viewer group:bin"),
        (("grant", "operator", "user:no-such-user-here"), 3, "this host knows no"),
        (("grant", "operator", "user:bin", "--scope", "chat"), 2, "kind:name"),
        (("grant", "operator", "user:bin", "--until", "yesterday"), 2, "say 8h"),
        (("revoke", "g0000"), 3, "there is no grant"),
        (("explain", "bin", "deployments.fly", "deployment:x"), 2, "no permission"),
        (("explain", "bin", "deployments.use", "model:x"), 2, "for example deployment:chat"),
        (("explain", "bin", "deployments.use", "deployment:../../x"), 2, "no deployment can be called"),
        (("roles", "set", "admin", "--allow", "*"), 1, "built in"),
        (("roles", "set", "Bad Name", "--allow", "models.*"), 2, "no name of a role"),
        (("rolls",), 2, "did you mean"),
        (("break-glass", "--reason", "x", "--yes"), 1, "no glass to break"),
        (("break-glass", "--reason", "x"), 1, "no glass to break"),
        (("roles", "rm", "viewer"), 1, "viewer is built in"),
        (("roles", "rm", "starter"), 3, "there is no role"),
        (("break-glass", "--yes"), 2, "--reason"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(home: Path, args: tuple[str, ...], code: int, words: str) -> None:
    assert words in corral("access", *args, code=code)


def test_what_cannot_be_is_said_before_anything_is_asked(home: Path) -> None:
    corral("access", "roles", "set", "starter", "--allow", "deployments.st*")
    id = ask("access", "grant", "starter", "user:bin")["id"]
    assert id in corral("access", "roles", "rm", "starter", code=1)
    corral("access", "revoke", id)
    assert "there is no terminal to ask on" in corral("access", "roles", "rm", "starter", code=2)


@pytest.mark.parametrize("noun", [("access",), ("access", "simulate")])
def test_a_noun_alone_says_its_usage_once(home: Path, noun: tuple[str, ...]) -> None:
    said = corral(*noun, code=2)
    assert said.startswith("Usage: corral access") and said.count("Usage:") == 1 and "--help" in said
    told = json.loads(corral("--json", *noun, code=2))
    assert (told["error"], told["code"]) == ("no verb was said", "usage")


def test_roles_come_from_a_file_whole_or_not_at_all(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "roles.toml"
    file.write_text('[starter]\nallows = ["deployments.st*"]\nwords = "starts"\n[reader]\nallows = ["*.read"]\n')
    assert "there is no permission '*.read'" in corral("access", "roles", "import", str(file), code=2)
    assert "starter" not in corral("access", "roles", "-q")
    file.write_text('[starter]\nallows = ["deployments.st*"]\n[reader]\nallow = ["models.read"]\n')
    assert "unknown: allow" in corral("access", "roles", "import", str(file), code=2)
    file.write_text('[first]\nallows = ["deployments.st*"]\nwords = "starts"\n[second]\nallows = ["models.*"]\n')
    corral("access", "roles", "import", str(file))
    assert {"first", "second"} < {each["name"] for each in ask("access", "roles")}


def test_what_a_key_was_held_to_is_lifted_by_none(home: Path) -> None:
    corral("keys", "create", "ci", "--from", "10.0.0.0/8", "--endpoints", "messages", "--expires", "8h")
    key = ask("keys", "show", "ci")
    assert key["sources"] and key["endpoints"] and key["until"]
    corral("keys", "limit", "ci", "--from", "none")
    key = ask("keys", "show", "ci")
    assert key["sources"] == [] and key["endpoints"] == ["messages"] and key["until"]
    corral("keys", "limit", "ci", "--endpoints", "none", "--expires", "none")
    key = ask("keys", "show", "ci")
    assert key["endpoints"] == [] and key["until"] is None
    assert ask("keys", "create", "two", "--expires", "none")["until"] is None


def test_where_programs_find_the_gateway_is_told_from_the_first_moment_and_when_it_moves(home: Path) -> None:
    taken, other = free_port(), free_port()
    config = home / "corral.toml"
    config.write_text(f'[gateway]\nlisten = "127.0.0.1:{taken}"\n')
    with socket.create_server(("127.0.0.1", taken)):
        corral("ps")
        first = ask("status")["gateway"]
    assert first.startswith("http://127.0.0.1:") and not first.endswith(f":{taken}")
    assert ask("whoami")["gateway"] == first and f"programs: {first}/v1" in corral("whoami")
    shown = corral("status")
    assert f"programs  {first}/v1, with an API key (127.0.0.1:{taken} was taken when it was looked for)" in shown
    assert "no more at" not in shown
    config.write_text(f'[gateway]\nlisten = "127.0.0.1:{other}"\n')
    corral("reload")
    assert ask("status")["gateway"] == f"http://127.0.0.1:{other}"
    words = f"programs find the gateway at http://127.0.0.1:{other} since "
    (said,) = until(lambda: [each for each in ask("status")["daemon"]["warnings"] if each.startswith(words)])
    assert said.endswith(f", and no more at {first}: tell those who use it")
    until(lambda: said in corral("events"))
