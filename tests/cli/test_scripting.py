"""docs/scripting.md against the real program: every field it names is there, and every field that is there is named."""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from command import ask, corral, deployed

from core.errors import BY_CODE

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]
TEXT = (Path(__file__).parents[2] / "docs/scripting.md").read_text()
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "list": (list,), "object": (dict,),
    "null": (type(None),), "any": (object,),
}  # fmt: skip


def documented() -> dict[str, dict[str, str]]:
    """Verb to its fields and their types."""
    out = {}
    for title, body in re.findall(r"^### `([^`]+)`\n(.*?)(?=^##|\Z)", TEXT, re.M | re.S):
        rows = re.findall(r"^\| ([a-z0-9_.]+) \| ([a-z ]+) \|", body, re.M)
        out[title.removeprefix("corral ")] = {name: kind for name, kind in rows if name != "field"}
    return out


FIELDS = documented()


def flat(document: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """`a.b` for an object whose fields are named one by one."""
    out = {}
    for key, value in document.items():
        if isinstance(value, dict) and key not in fields:
            out.update({f"{key}.{inner}": each for inner, each in value.items()})
        else:
            out[key] = value
    return out


def check(verb: str, document: Any) -> None:
    fields = FIELDS[verb]
    assert fields, verb
    for each in document if isinstance(document, list) else [document]:
        found = flat(each, fields)
        assert set(found) == set(fields), verb
        for name, value in found.items():
            kinds = [kind for word in fields[name].split(" or ") for kind in TYPES[word]]
            right = isinstance(value, tuple(kinds)) and (
                bool in kinds or object in kinds or not isinstance(value, bool)
            )
            assert right, f"{verb}: {name} is {value!r} and should be {fields[name]}"


def test_the_documents_hold_what_is_promised_and_nothing_else(home: Path, sample: Path, tmp_path: Path) -> None:
    check("version", ask("version"))
    deployed()
    check("ps", ask("ps"))
    check("status", ask("status"))
    check("gateway show", ask("gateway"))
    check("gateway show", ask("gateway", "show"))
    check("gateway certificate", ask("gateway", "certificate"))
    plan = ask("fit", "smollm2-135m", "--ctx", "2048")
    check("fit", plan)
    check("speed", plan["speed"])
    advice = ask("models", "recommend", "--for", "code")
    check("models recommend", advice)
    check("choice", advice["choices"])
    check("models bench", ask("models", "bench", "smollm2-135m", "--threads", "1", "--parallel", "1", "--ctx", "256"))
    check("models bench", ask("models", "bench", "smollm2-135m", "--last"))
    check("deploy", ask("deploy", "smollm2-135m", "--name", "chat", "--ctx", "2048"))
    check("deploy", ask("deployments"))
    check("deploy", ask("deployments", "ls"))
    check("models corrections", ask("models", "corrections"))
    check("engines ls", ask("engines", "ls"))
    check("models show", ask("models", "ls"))
    check("models show", ask("models", "show", "smollm2-135m"))
    check("models fits", ask("models", "fits", "--all"))
    check("models catalogue", ask("models", "catalogue"))
    check("models catalogue show", ask("models", "catalogue")["entries"])
    check("models catalogue show", ask("models", "catalogue", "show", "phi-4"))
    tmp_path.chmod(0o700)
    check("tiers ls", ask("tiers", "add", "fast", str(tmp_path), "--capacity", "1G"))
    check("tiers ls", ask("tiers", "set", "fast", "--spill", "home"))
    check("tiers ls", ask("tiers", "ls"))
    check("tiers check", ask("tiers", "check"))
    check("models loads", ask("models", "loads", "smollm2-135m"))
    check("models move", ask("models", "move", "smollm2-135m", "--to", "fast"))
    check("models move", ask("models", "moves"))
    turn = ask("chat", "chat", "Hi", "--max-tokens", "4")
    check("chat", turn)
    check("chat", ask("chats", "show", turn["chat"])["messages"])
    check("logs", ask("logs", "chat"))
    check("logs", ask("logs", "chat", "--since", "1h"))
    check("audit ls", ask("audit", "ls"))
    check("audit verify", ask("audit", "verify"))
    check("audit key show", ask("audit", "key", "show"))
    check("audit report", ask("audit", "report"))
    check("audit export", ask("audit", "export", "--out", str(home / "trail")))
    check("audit archive --plan", ask("audit", "archive", "--before", "0s", "--recent", "--plan"))
    check("audit archive", ask("audit", "archive", "--before", "0s", "--recent", "--yes"))
    check("audit archives", ask("audit", "archives"))
    key = corral("audit", "key", "show", "-q").strip()
    check("audit verify FILE", ask("audit", "verify", str(home / "trail"), "--key", key))
    check("audit key show", ask("audit", "key", "rotate"))
    check("version", ask("version"))
    made = ask("keys", "create", "ci")
    assert made.pop("key").startswith(made["begins"])
    check("keys ls", made)
    check("keys ls", ask("keys", "ls"))
    check("keys ls", ask("keys", "limit", "ci", "--rpm", "9"))
    check("nodes ls", ask("nodes", "label", "local", "zone=secure"))
    check("nodes ls", ask("nodes", "ls"))
    check(
        "deployments marks", ask("deployments", "mark", "chat", "--label", "zone=secure", "--keys-of", "group:daemon")
    )
    check("deployments marks", ask("deployments", "marks"))
    check("deploy", ask("deployments", "ls"))
    ask("deployments", "unmark", "chat", "--yes")
    check("accounts ls", ask("accounts", "create", "nightly", "--for", "batch"))
    check("accounts ls", ask("accounts", "ls"))
    check("access grants", ask("access", "grant", "deployments.use", "account:nightly", "--scope", "deployment:chat"))
    ask("keys", "create", "batch", "--owner", "account:nightly")
    check("accounts show", ask("accounts", "show", "nightly"))
    check("accounts ls", ask("accounts", "disable", "nightly", "--reason", "moving", "--yes"))
    check("accounts ls", ask("accounts", "enable", "nightly"))
    ask("accounts", "rm", "nightly", "--yes")
    check("usage", ask("usage"))
    check("usage", ask("usage", "--by", "day", "--mine"))
    check("limits set", ask("limits", "set", "each:user", "--rpm", "900"))
    check("limits ls", ask("limits", "ls"))
    check("limits ls", ask("limits", "show", "each:user"))
    check("whoami", ask("whoami"))
    check("access grants", ask("access", "grant", "operator", "user:bin", "--scope", "deployment:chat"))
    check("access grants", ask("access", "grants"))
    check("access roles", ask("access", "roles"))
    check("access matrix", ask("access", "matrix"))
    check("access explain", ask("access", "explain", "bin", "deployments.stop", "deployment:chat"))
    (grant,) = ask("access", "grants")
    check("access simulate revoke", ask("access", "simulate", "revoke", grant["id"]))
    for verb in ("stop", "start", "restart"):
        check("deploy", ask(verb, "chat", "--wait"))
    check("deploy", ask("scale", "chat", "0"))
    check("error", json.loads(corral("models", "rm", "smollm2-135m", "--yes", "--json", code=1)))
    database = ask("status")["daemon"]["database"]
    assert Path(database).name == "corral.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        assert db.execute("SELECT typeof(seq), typeof(actor) FROM audit").fetchone() == ("integer", "text")
    db.close()


def test_5_is_given_by_the_verbs_that_are_named(home: Path, sample: Path) -> None:
    corral("models", "sample")
    corral("deploy", "smollm2-135m", "--name", "d", "--ctx", "512", "--wait")
    corral("stop", "d", "--wait")
    (home / "corral.toml").write_text(f"[capacity]\nreserve_bytes = {1 << 50}\n")
    corral("reload")
    named = re.findall(r"`([a-z ]+)`", TEXT.split("5 is given by")[1].split("`audit verify`")[0])
    assert (
        json.loads(corral("models", "recommend", "--for", "law", "--memory", "1M", "--json", code=5))["choices"] == []
    )
    for measure in (("models", "bench", "smollm2-135m"), ("nodes", "bench")):
        assert json.loads(corral(*measure, "--json", code=5))["code"] == "no_room"
    verbs = {
        "deploy": ("deploy", "smollm2-135m", "--name", "e"), "start": ("start", "d"), "restart": ("restart", "d"),
        "scale": ("scale", "d", "2"), "fit": ("fit", "smollm2-135m"),
    }  # fmt: skip
    others = {"models recommend", "models bench", "nodes bench"}
    others |= {"models import", "models sample", "models pull", "models move"}  # these: tests/catalog
    assert set(named) == {*verbs, *others}
    for verb in ("deploy", "start", "restart"):
        told = json.loads(corral(*verbs[verb], "--json", code=5))
        check("error", told)
        assert (told["exit_code"], told["code"]) == (5, "no_room")
    plan = json.loads(corral(*verbs["fit"], "--json", code=5))
    check("fit", plan)
    assert plan["fits"] is False and plan["reason"]
    (home / "corral.toml").write_text("")
    corral("reload")
    corral("start", "d", "--wait")
    (home / "corral.toml").write_text(f"[capacity]\nreserve_bytes = {1 << 50}\n")
    corral("reload")
    assert json.loads(corral(*verbs["scale"], "--json", code=5))["code"] == "no_room"


def test_every_code_of_an_error_is_named_and_every_exit_code() -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith("| code | text"))
    assert set(re.findall(r"`([a-z_]+)`", row)) == {*BY_CODE, "usage"}
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.M)}
    assert {error.exit for error in BY_CODE.values()} | {0, 130, 141} == codes
