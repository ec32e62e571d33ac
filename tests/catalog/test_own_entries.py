"""Entries of the user's own: they override, may lack sources, and a bad file is told with its line and left out."""

import os
from pathlib import Path

import pytest

from core.catalog.curated import load, read, reading
from core.catalog.curated.lines import line_of

MINE = """family = "mine"

[[models]]
name = "llama-3.2-1b-instruct"
uses = ["general", "law"]
params = 12
scores = [ { use = "law", benchmark = "ours", value = 7, of = 10 } ]

[[models]]
name = "our-7b"
uses = ["medicine"]
files = [
  { quantization = "Q4_K_M", bytes = 4_000 },
]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    return folder


def test_without_a_folder_there_is_the_list(tmp_path: Path) -> None:
    found = read(tmp_path / "none")
    assert list(found.entries) == load() and not found.problems


def test_own_entries_override_by_name_and_are_marked(own: Path) -> None:
    (own / "mine.toml").write_text(MINE)
    found = read(own)
    there = {each.name: each for each in found.entries}
    assert not found.problems and len(there) == len(load()) + 1
    assert there["our-7b"].own and there["our-7b"].unsourced == ("uses", "files Q4_K_M")
    mine = there["llama-3.2-1b-instruct"]
    assert mine.own and mine.family == "mine" and mine.params == 12 and mine.scores[0].source is None
    assert mine.unsourced == ("uses", "params", "score ours")
    assert not there["llama-3.2-3b-instruct"].own


def test_a_change_of_a_file_is_seen(own: Path) -> None:
    file = own / "mine.toml"
    file.write_text(MINE)
    assert read(own).entries[0].name
    file.write_text(MINE.replace("our-7b", "our-70b"))
    assert "our-70b" in {each.name for each in read(own).entries}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (MINE.replace('["medicine"]', '["surgery"]'), 11, "'surgery' is no use"),
        (MINE.replace("params = 12", "params = -12"), 6, "whole number above 0"),
        (MINE.replace("params = 12", 'params = "many"'), 6, "Expected `int"),
        (MINE.replace("bytes = 4_000", "bytes = 0"), 12, "has no size"),
        (MINE.replace("value = 7", "value = 70"), 7, "lies from 0 to 10"),
        (MINE.replace('name = "our-7b"', 'name = "our-7b"\nnmae = 1'), 9, "unknown field `nmae`"),
        (MINE + "files = [", 15, "not valid TOML"),
        (MINE + "x = " + "[" * 5000, 1, "nested too deeply"),
        ("family = \"mine\"\nmodels = 3\n", 2, "Expected `array`"),
        ("", 1, "required field `family`"),
        (MINE.replace('name = "our-7b"', 'name = "llama-3.2-1b-instruct"'), 10, "is here twice"),
        (MINE + 'repo = "https://huggingface.co/a/b"\n', 15, "without a host"),
        (MINE + "licence = \"\"\n", 15, "leave it out"),
        (MINE + '[models.shape]\narchitecture = "perceiver"\n', 15, "the shape cannot be sized"),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_with_its_line_and_left_out(own: Path, text: str, line: int, says: str) -> None:
    (own / "bad.toml").write_text(text)
    (own / "good.toml").write_text(MINE.replace("our-7b", "ours").replace("llama-3.2-1b-instruct", "ours-too"))
    found = read(own)
    (problem,) = found.problems
    assert (problem.file, problem.line) == ("bad.toml", line)
    assert says in f"{problem.what}: {problem.why}"
    assert {each.name for each in found.entries if each.own} == {"ours", "ours-too"}


def test_what_cannot_be_read_is_told(own: Path) -> None:
    (own / "latin.toml").write_bytes(b'family = "x"\nmodels = []\ntitle = "\xe4"\n')
    (own / "folder.toml").mkdir()
    (own / "long.toml").write_text("#" * (reading.LARGEST + 1))
    os.mkfifo(own / "pipe.toml")
    (own / "gone.toml").symlink_to(own / "nowhere")
    problems = {each.file: each for each in read(own).problems}
    assert set(problems) == {"latin.toml", "folder.toml", "long.toml", "pipe.toml", "gone.toml"}
    assert problems["latin.toml"].line == 3 and "UTF-8" in problems["latin.toml"].what
    assert "too long" in problems["long.toml"].what


def test_the_same_name_in_two_files_is_told_and_the_first_stays(own: Path) -> None:
    (own / "a.toml").write_text(MINE)
    (own / "b.toml").write_text('family = "b"\n' + MINE.split("\n", 1)[1].replace('["medicine"]', '["code"]'))
    found = read(own)
    (problem,) = found.problems
    assert problem.file == "b.toml" and "also in a.toml" in problem.why
    assert next(each for each in found.entries if each.name == "our-7b").uses == ("medicine",)


def test_a_line_is_found_by_its_place() -> None:
    text = (
        "family = 'x'\n[sources]\na = 1\n[[models]]\nname = 'x'\n[models.shape]\nsource = 'b'\n[[models]]\nctx.is = 3\n"
    )
    assert line_of(text, ("family",)) == 1
    assert line_of(text, ("sources", "a")) == 3
    assert line_of(text, ("models", 0, "name")) == 5
    assert line_of(text, ("models", 0, "shape", "source")) == 7
    assert line_of(text, ("models", 1, "ctx", "is")) == 9
    assert line_of(text, ("models", 7)) == 1
