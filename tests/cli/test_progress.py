"""What long verbs say on a standard error that is a pipe or a log, where a bar would be noise."""

import click
import pytest

from tui.command import Options
from tui.lines import Passing, Progress, Seldom


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def given(**fields: bool) -> click.Context:
    named = {"json": False, "quiet": False, "user": False, "yes": False, "wide": False} | fields
    return click.Context(click.Command("it"), obj=Options(**named))


def test_a_line_is_written_from_time_to_time_and_more_seldom_the_longer_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    with given():
        lines = Seldom(clock)
        lines.say("1 %")
        assert said(capsys) == "", "what is over in a moment says nothing"
        clock.now += Seldom.FIRST_S
        lines.say("2 %")
        assert said(capsys) == "corral: 2 %\n"
        lines.say("3 %")
        clock.now += Seldom.EVERY_S
        lines.say("2 %")
        assert said(capsys) == "", "and nothing twice"
        lines.say("4 %")
        assert said(capsys) == "corral: 4 %\n"
        clock.now += 3600
        lines.say("5 %")
        clock.now += 100
        lines.say("6 %")
        assert said(capsys) == "corral: 5 %\n"


@pytest.mark.parametrize("which", ["json", "quiet"])
def test_scripts_hear_nothing(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with given(**{which: True}):
        lines = Seldom(clock)
        clock.now += 60
        lines.say("1 %")
    assert said(capsys) == ""


def test_bars_and_words_are_such_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Seldom, "FIRST_S", 0.0)
    with given():
        bar = Progress("import m")
        bar.show(1, 4)
        bar.end()
        with Passing() as words:
            words.show("model:m: measuring, 1 of 9, \x1b[2Jstep")
    assert said(capsys) == "corral: import m: 25 %\ncorral: model:m: measuring, 1 of 9, step\n"
