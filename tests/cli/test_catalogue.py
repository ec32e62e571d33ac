"""`corral models catalogue` over the real daemon: the list, one entry with its sources, own entries, bad ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from command import ask, corral

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

BAD = 'family = "bad"\n[[models]]\nname = "bad"\nuses = ["cooking"]\n'
OURS = 'family = "ours"\n[[models]]\nname = "ours-7b"\nuses = ["law"]\nparams = 7_000_000_000\n'


def test_the_list_its_filter_and_one_entry(home: Path) -> None:
    whole = ask("models", "catalogue")
    assert len(whole["entries"]) >= 30 and not whole["problems"]
    code = ask("models", "catalogue", "--for", "code")["entries"]
    assert 5 <= len(code) < len(whole["entries"]) and all("code" in each["uses"] for each in code)
    assert corral("models", "catalogue", "--for", "code", "-q").split() == [each["name"] for each in code]

    said = corral("models", "catalogue", "--for", "code")
    assert "plain advice for code: phi-4" in said and "figures may overrule it" in said and "HumanEval 82.6" in said
    assert "NAME" in corral("models", "catalogue").splitlines()[0]

    shown = corral("models", "catalogue", "show", "phi-4")
    assert "9053114816 bytes, [" in shown and "computed of the shape" in shown
    assert "github:samyfodil/jitllm convert/library/models.go @ " in shown
    entry = ask("models", "catalogue", "show", "phi-4")
    assert entry["family"] == "phi-4" and entry["cited"]["ctx"]["what"].startswith("pypi:")
    assert "not known" in corral("models", "catalogue", "show", "ministral-3-3b-instruct-2512")
    assert "it is empty" in corral("models", "catalogue", "show", "", code=2)


def test_own_entries_are_marked_and_a_bad_file_is_told_with_its_line(home: Path) -> None:
    folder = home / "catalogue"
    folder.mkdir(parents=True)
    (folder / "ours.toml").write_text(OURS)
    (folder / "bad.toml").write_text(BAD)
    said = corral("models", "catalogue", "--for", "law")
    assert "own, unsourced" in said and "bad.toml:4: bad: 'cooking' is no use" in said
    assert [each["name"] for each in ask("models", "catalogue", "--for", "law")["entries"]] == [
        "ours-7b", "saul-7b-instruct-v1",
    ]  # fmt: skip
    shown = corral("models", "catalogue", "show", "ours-7b")
    assert "7.0 B (unsourced)" in shown and "own, unsourced" in shown


def test_what_is_not_there_is_told_with_what_is_near(home: Path) -> None:
    said = json.loads(corral("models", "catalogue", "show", "phi4", "--json", code=3))
    assert said["code"] == "not_found" and "phi-4" in said["reason"]
    assert "there is no 'zzz'" in corral("models", "catalogue", "show", "zzz", code=3)
    assert "is not one of" in corral("models", "catalogue", "--for", "cooking", code=2)
    assert "goes with the list" in corral("models", "catalogue", "--for", "code", "show", "phi-4", code=2)


@pytest.mark.parametrize("more", [(), ("--for", "code"), ("--for", "law")])
def test_on_a_terminal_of_80_columns_it_fits(home: Path, more: tuple[str, ...]) -> None:
    ask("models", "catalogue", "-q")
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        done = subprocess.Popen(
            [sys.executable, "-P", "-m", "tui", "models", "catalogue", *more], stdout=theirs, stdin=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "80", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        os.close(theirs)
        said = b"".join(iter(lambda: _piece(screen), b"")).decode().splitlines()
        assert done.wait(60) == 0
    assert said[0].startswith("NAME") and "SMALLEST FILE" in said[0]
    rows = [each for each in said if not each.startswith(("~", "plain advice"))]
    assert len(rows) > 1 and max(map(len, rows)) <= 80


def _piece(screen: IO[bytes]) -> bytes:
    try:
        return screen.read(65536)
    except OSError:  # the other end is gone
        return b""
