"""How full the context is, also while an answer grows and after one that was stopped."""

from core.nouns import Turn
from tui.widgets.turn import filled


def turn(n: int, question: str, answer: str, counted: int | None) -> Turn:
    return Turn(
        id=f"t{n}", chat="c", n=n, question=question, answer=answer, state="done", asked_at=0, context_tokens=counted
    )


def test_the_engines_count_is_taken_as_it_is() -> None:
    assert filled([turn(1, "q", "a" * 300, 90), turn(2, "q", "a" * 300, 190)], "") == (190, False)
    assert filled([], "") == (0, False)


def test_what_nobody_counted_is_guessed_and_said_to_be() -> None:
    stopped = turn(2, "q" * 30, "a" * 300, None)
    assert filled([turn(1, "q", "a", 90), stopped], "") == (90 + 110, True)
    assert filled([stopped], "") == (110, True)


def test_an_answer_counts_while_it_grows() -> None:
    asked = turn(2, "q" * 30, "", None)
    assert filled([turn(1, "q", "a", 90), asked], "a" * 600) == (90 + 210, True)
