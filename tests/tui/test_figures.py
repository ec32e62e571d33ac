"""What is said of an answer's tokens, by the console and the command line."""

from typing import Any

import pytest

from core.nouns import Chat, ChatOptions, Turn
from tui.verbs import chat
from tui.widgets import turn
from tui.words import params


def answered(**fields: Any) -> Turn:
    return Turn(id="t", chat="c", n=1, question="q", answer="a b", asked_at=0.0, **fields)


def test_counts_of_the_engine_are_said_as_they_are() -> None:
    done = answered(state="done", prompt_tokens=12, answer_tokens=0)
    assert "12 tok in, 0 out" in turn.figures(done)
    assert chat.figures(done) == "(12 tokens in, 0 out)"


@pytest.mark.parametrize("state", ["stopped", "cut", "failed"])
def test_of_an_answer_that_was_not_finished_the_pieces_are_counted_and_the_question_is_not(state: str) -> None:
    part = answered(state=state, answer_tokens=31)
    assert "about 31 tok out" in turn.figures(part) and "tok in" not in turn.figures(part)
    assert chat.figures(part) == "(about 31 tokens out)"


def test_nothing_is_said_of_tokens_that_nobody_counted() -> None:
    none = answered(state="failed", reason="the engine went")
    assert "tok" not in turn.figures(none)
    assert chat.figures(none) == ""


@pytest.mark.parametrize("private", [False, True])
def test_a_private_chat_that_is_gone_is_not_said_to_go_on(private: bool) -> None:
    talk = Chat(
        id="c1", title="", deployment="d", options=ChatOptions(), owner="ann", created_at=0, updated_at=0,
        private=private,
    )  # fmt: skip
    said = chat._cut_off(answered(state="done", finish="length"), talk)
    assert ("go-on c1" in said) is not private and "--max-tokens" in said


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "?"), (999, "999"), (64_000, "64 K"), (999_499, "999 K"), (999_500, "1 M"), (135_000_000, "135 M"),
     (999_500_000, "1.0 B"), (8_030_000_000, "8.0 B")],
)  # fmt: skip
def test_no_count_of_parameters_is_said_to_be_none_of_its_unit(count: int, words: str) -> None:
    assert params(count) == words
