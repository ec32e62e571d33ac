"""What the command line says of a key's secrets."""

import pytest
from click.testing import CliRunner

from core.errors import Invalid
from core.nouns import FoundKey, Subject
from tui import command
from tui.cli import cli
from tui.verbs import keys
from tui.words import moment

NOW = 1_000_000.0
BASE = {"id": "k1", "name": "ci", "owner": Subject(kind="user", name="ann", id=7), "begins": "corral_a",
        "created_at": 1.0, "created_by": "ann"}  # fmt: skip


@pytest.mark.parametrize(
    ("old_until", "until", "says"),
    [
        (None, None, ""),
        (NOW + 60, None, f", the old secret works until {moment(NOW + 60)}"),
        (NOW - 60, None, f", the old secret worked until {moment(NOW - 60)}"),
        (NOW + 60, NOW - 30, f", the old secret worked until {moment(NOW - 30)}"),
    ],
)
def test_of_a_time_that_is_past_it_says_that_the_old_secret_worked_until_then(old_until, until, says):
    assert keys._old(FoundKey(**BASE, rotated_at=NOW - 90, old_until=old_until, until=until), NOW) == says


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"works_until": NOW + 60, "old_until": NOW + 60}, f"and works until {moment(NOW + 60)}"),
        ({"old_until": NOW - 60}, f"and worked until {moment(NOW - 60)}"),
        ({"old_until": NOW - 60, "rotated_at": NOW - 70}, "and works no more"),
        ({}, "and works no more"),
    ],
)
def test_whose_says_until_when_a_secret_that_was_rotated_away_worked(fields, says):
    found = FoundKey(**{**BASE, "rotated_at": NOW - 90, "away_at": NOW - 90, **fields})
    assert keys._away(found, NOW).endswith(f"when it was rotated away, {says}")


def test_a_key_in_the_command_line_is_said_to_be_there_and_not_said_again():
    done = CliRunner().invoke(cli, ["keys", "whose", "corral_secret", "more"])
    assert done.exit_code and "corral_secret" not in done.output + repr(done.exception)


def test_nothing_in_an_error_can_forge_another_line_of_ours(capsys):
    """What a file or a server named stands in it."""
    forged = "x\ncorral: imported fine\r\u2028y"
    command.show(command.Told(Invalid(forged, forged, forged)), False)
    assert [row[:10] for row in capsys.readouterr().err.splitlines()] == ["corral: x ", "  x corral", "  x corral"]
