"""Two versions of a model under the real daemon: which one a deployment got, and how it goes over and back."""

from __future__ import annotations

import re
from pathlib import Path

import fleet
import pytest
from command import ask, corral, until
from stores import file

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


def runs() -> int:
    """The version that the one replica runs."""
    (replica,) = until(lambda: [r for r in ask("ps") if r["state"] == "ready"])
    assert replica["model"] == "tiny"
    return int(replica["version"])


def test_a_deployment_goes_over_when_it_is_restarted_and_back(home: Path, tmp_path: Path) -> None:
    fleet.install(home)
    fleet.deployed(tmp_path)
    assert runs() == 1
    said = corral("models", "import", str(file(tmp_path, 7)), "--name", "tiny", "--label", "seven")
    assert "imported tiny@2" in said and "corral models alias tiny live 2" in said
    assert [m["version"] for m in ask("models", "ls")] == [1]
    assert "would mean version 2; it means 1; touched: one" in corral(
        "models", "alias", "tiny", "live", "2", "--dry-run"
    )
    assert "say --yes" in corral("models", "alias", "tiny", "live", "2", code=2)
    assert ask("models", "show", "tiny")["version"] == 1
    corral("models", "alias", "tiny", "live", "2", "--yes")
    (deployment,) = ask("deployments", "ls")
    assert (deployment["version"], deployment["newer"], runs()) == (1, 2, 1)
    assert "tiny means version 2 now: `corral restart one`" in corral("explain", "one")
    before = ask("ps")[0]["pid"]
    corral("restart", "one")
    until(lambda: ask("ps")[0]["pid"] not in (before, None))
    assert runs() == 2
    assert ask("deployments", "ls")[0]["newer"] == 0
    usage = corral("chat", "one", "hello")
    assert usage
    assert until(lambda: ask("usage", "--by", "model,version")["rows"])[0]["group"] == {"model": "tiny", "version": 2}
    # Back at once, and a version by its number keeps what it names.
    corral("models", "alias", "tiny", "live", "previous", "--restart", "--yes")
    until(lambda: runs() == 1)
    assert "version 1 -> 2" in corral("deploy", "tiny@2", "--name", "one", "--ctx", "256", "--engine", "llama-server",
                                      code=2)  # fmt: skip
    fleet_two = ("deploy", "tiny@2", "--name", "one", "--ctx", "256", "--engine", "llama-server", "--replace", "--wait")
    corral(*fleet_two)
    until(lambda: runs() == 2)
    for what, needs in (("tiny@1", "tiny:live means it"), ("tiny@2", "in use"), ("tiny", "by one")):
        assert re.search(needs, corral("models", "rm", what, "--yes", code=1))
    assert {each["what"] for each in ask("models", "history", "tiny")} == {"added", "alias"}


def test_what_rotted_is_named_and_comes_back(home: Path, tmp_path: Path) -> None:
    fleet.install(home)
    fleet.deployed(tmp_path)
    assert "done: 1 of 1 files" in corral("models", "verify")
    (stored,) = (path for path in home.rglob("objects/*/*") if path.is_file())
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"\x01")
    said = corral("models", "verify", code=1)
    assert "tiny@1 is not what it was and was set aside" in said and "used by one" in said
    assert "! tiny@1 is quarantined" in corral("models", "ls")
    said = corral("models", "verify", "tiny", code=1)
    assert "! tiny@1 was not read: its bytes were set aside: import it again" in said and "moved meanwhile" not in said
    before = ask("ps")[0]["pid"]
    rotten = "it serves bytes of tiny@1 that have rotted and were set aside: "
    warned = "a deployment serves bytes that have rotted or are gone"
    serves = (("explain", "one"), ("ps",), ("deployments",))
    assert all(f"{rotten}import tiny@1 again" in corral(*verb) for verb in serves)
    assert warned in corral("status")
    assert "import or pull it again as tiny" in corral("restart", "one", code=1)
    assert ask("ps")[0]["pid"] == before  # what runs has its file open
    told = corral("deploy", "tiny", "--name", "two", code=1)  # what is asked for is right, and another time it goes
    assert "its bytes are not what they were" in told and "import or pull it again as tiny" in told
    fleet.take(tmp_path)
    assert ask("models", "show", "tiny")["state"] == "stored"
    for verb in (*serves, ("start", "one")):  # the engine has the old bytes open
        assert f"{rotten}`corral restart one` has it serve whole bytes" in corral(*verb)
    corral("restart", "one")
    until(lambda: [r for r in ask("ps") if r["state"] == "ready" and r["pid"] != before])
    assert not any(rotten in corral(*verb) for verb in serves) and warned not in corral("status")


def test_gc_asks_and_frees(home: Path, tmp_path: Path) -> None:
    for n in (1, 2, 3):
        corral("models", "import", str(file(tmp_path, n)), "--name", "m")
        told = {1: "m has one version\n  there is nothing to compare it with", 2: "it has @1, @2"}
        if n in told:
            assert told[n] in corral("models", "diff", "m", code=3)
    corral("models", "alias", "m", "live", "3")
    corral("models", "alias", "m", "canary", "3")
    assert "m:live and m:canary mean it" in corral("models", "rm", "m@3", "--yes", code=1)
    corral("models", "alias", "m", "canary", "--rm")
    assert "taken for the number of a version" in corral("models", "alias", "m", "3", "1", code=2)
    assert "taken for the number of a version" in corral("models", "note", "m@1", "--label", "2", code=2)
    assert "no model 'nosuch'" in corral("models", "diff", "m", "nosuch", code=3)
    would = corral("models", "gc", "--dry-run")
    assert "m@2" in would and "would free" in would and len(ask("models", "versions", "m")) == 3
    assert "say --yes" in corral("models", "gc", code=2)
    said = corral("models", "gc", "--yes")
    assert "m@2" in said and "removed 1, freed" in said and "would free" not in said
    assert [m["version"] for m in ask("models", "versions", "m")] == [3, 1]
    diff = corral("models", "diff", "m")
    assert "file of the model: file-1.gguf" in diff and "file-3.gguf" in diff
    assert "names no version" in corral("models", "show", "m@x", code=2)
    assert "m has @1, :previous, @3, :live" in corral("models", "show", "m@9", code=3)


def test_what_spills_says_where_it_went_and_why(home: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir(mode=0o700)
    corral("tiers", "add", "small", str(small), "--capacity", "1000", "--spill", "home", "--default", "--no-speed")
    said = corral("models", "import", str(file(tmp_path, 1)), "--name", "m")
    assert re.search(r"it came to lie in home: it takes .*; of 1000 B of small 0 B are stored", said)
    full = corral("models", "move", "m", "--to", "small", code=5)
    assert re.search(r"of 1000 B of small 0 B are stored.*; home, to which it spills, is where m@1 lies", full)
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    corral("tiers", "add", "other", str(other), "--no-speed")
    corral("tiers", "set", "small", "--spill", "other")
    (small / ".corral-tier").unlink()
    said = corral("models", "move", "m", "--to", "small")
    assert re.search(r"moved m@1 from home to other \(the tier small is not there", said)


def test_what_is_no_chat_template_is_refused_before_it_is_read_whole(home: Path, tmp_path: Path) -> None:
    given = ("models", "import", str(file(tmp_path, 1)), "--template")
    (tmp_path / "pickle").write_bytes(b"\x80\x04")
    for template, words, code in (
        ("/dev/zero", "is no chat template\n  it is longer than 1 MiB", 2),
        (str(tmp_path / "pickle"), "is no chat template\n  it is not UTF-8", 2),
        (str(tmp_path / "none"), "none is not there", 3),
        (str(tmp_path), "cannot be read\n  Is a directory", 2),
    ):
        assert words in corral(*given, template, code=code)
