"""A console knows the pulls under way: those of the picture, and what becomes of them."""

import msgspec
import pytest
from click.testing import CliRunner

from core.nouns import Event, Pull, PullFile
from tui.cli import cli
from tui.state import State
from tui.verbs.pull import left, progress, remote


def pull(**fields: object) -> Pull:
    given = {
        "id": "p1", "name": "tiny", "source": "hf:acme/tiny", "state": "pulling", "owner": "ada", "started_at": 1.0,
        "files": (PullFile(name="t.gguf", bytes=1000),), "bytes_total": 1000, **fields,
    }  # fmt: skip
    return Pull(**given)  # type: ignore[arg-type]


def test_an_event_of_a_pull_is_kept_by_its_id() -> None:
    state = State()
    for done in (100, 900):
        data = msgspec.to_builtins(pull(bytes_done=done))
        assert state.apply(Event(id="1.1", type="pull", object="pull:p1", time=1.0, data=data)) == "pull"
    assert [each.bytes_done for each in state.pulls.values()] == [900]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bytes_done": 250, "rate": 50.0, "left_s": 15.0}, "tiny: 25 % of 1.0 KiB, 50 B/s, 15s left"),
        ({"bytes_done": 250, "rate": 1.0, "left_s": 75.0}, "tiny: 25 % of 1.0 KiB, 1 B/s, 1m15s left"),
        ({}, "tiny: 0 % of 1.0 KiB"), ({"state": "waiting"}, "tiny: waiting"),
    ],
)  # fmt: skip
def test_how_far_it_is_how_fast_and_how_long_yet(fields: dict[str, object], said: str) -> None:
    assert progress(pull(**fields)) == said


def test_hours_are_told_in_hours() -> None:
    assert left(pull(left_s=7500.0)) == "2h05m"


@pytest.mark.parametrize(
    ("source", "is_remote"), [("hf:a/b", True), ("https://h/x.gguf", True), ("file:///x", False), ("x.gguf", False)]
)
def test_a_file_here_is_imported(source: str, is_remote: bool) -> None:
    assert remote(source) is is_remote


def test_its_verbs_are_among_those_of_models() -> None:
    told = CliRunner().invoke(cli, ["models", "--help"]).output
    assert "pull " in told and "pulls " in told
