"""Tables fit the terminal that they are shown on; nothing that is named as needed is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui import columns
from tui.columns import LEAST_ENDS, cells, cut, cut_middle, fitted, whole

HEAD = ["REPLICA", "STATE", "MODEL", "ENGINE", "PID", "REASON"]
ROW = ["chat/0", "ready", "smollm2-135m", "xllamacpp", "4711", ""]
TEXT = st.text(st.characters(blacklist_categories=["C", "M", "Z"]), max_size=60)


@given(st.lists(st.lists(TEXT, min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 200))
def test_no_line_is_wider_than_the_terminal(rows: list[list[str]], width: int) -> None:
    lines = fitted([HEAD, *rows], width, ("ENGINE", "PID", "MODEL"))
    assert len(lines) == len(rows) + 1
    assert all(cells(each) <= width for each in lines)


@given(TEXT, st.integers(0, 80))
def test_a_cut_text_begins_as_the_whole_one(text: str, width: int) -> None:
    short = cut(text, width)
    assert cells(short) <= width and (short == text or text.startswith(short.removesuffix("…")))


def test_of_a_long_text_no_more_is_looked_at_than_may_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each draw of a reason of 10,000 letters, one of them no ASCII, held the console for seconds."""
    looked: list[str] = []
    monkeypatch.setattr(columns, "east_asian_width", lambda each: looked.append(each) or "W")
    assert cut("模" * 10_000, 20) == "模" * 9 + "…"
    assert len(looked) < 60


@given(TEXT.filter(lambda text: "…" not in text), st.integers(LEAST_ENDS, 80))
def test_a_name_that_is_cut_keeps_both_its_ends(text: str, width: int) -> None:
    short = cut_middle(text, width)
    head, _, tail = short.partition("…")
    assert cells(short) <= width and text.startswith(head) and text.endswith(tail)
    assert short == text or (head and tail)


def test_names_of_one_family_are_told_apart() -> None:
    names = ["deepseek-r1-distill-llama-8b", "deepseek-r1-distill-qwen-7b", "deepseek-r1-distill-qwen-14b"]
    assert [cut_middle(name, 23) for name in names] == [
        "deepseek-r1…ll-llama-8b", "deepseek-r1…ill-qwen-7b", "deepseek-r1…ll-qwen-14b",
    ]  # fmt: skip


def test_what_fits_is_whole() -> None:
    assert fitted([HEAD, ROW], 80, ("ENGINE",)) == whole([HEAD, ROW])
    assert whole([HEAD, ROW])[1] == "chat/0   ready  smollm2-135m  xllamacpp  4711"


def test_an_empty_reason_goes_first_and_then_what_is_spared_first() -> None:
    assert fitted([HEAD, ROW], 50, ("ENGINE", "PID"))[0].split() == HEAD[:-1]
    assert fitted([HEAD, ROW], 40, ("ENGINE", "PID"))[0].split() == ["REPLICA", "STATE", "MODEL", "PID"]
    told = [*ROW[:-1], "it was killed by somebody"]
    assert (
        fitted([HEAD, told], 50, ("ENGINE", "PID", "MODEL"))[1] == "chat/0   ready  smollm2-135m  it was killed by so…"
    )
    assert fitted([HEAD, told], 40, ("ENGINE", "PID", "MODEL"))[1] == "chat/0   ready  it was killed by somebo…"


def test_one_long_name_widens_no_other_row() -> None:
    long = ["7", "x" * 300, "refused", "no"]
    lines = fitted([["SEQ", "OBJECT", "OUTCOME", "REASON"], long, ["8", "m", "done", "yes"]], 80, ("REASON",))
    assert lines[1] == "7    " + "x" * 25 + "…  refused  no" and lines[2].split() == ["8", "m", "done", "yes"]


def test_letters_of_two_columns_count_as_two() -> None:
    assert cells("模型") == 4 and cut("模型模型", 5) == "模型…"
    assert whole([["A", "B"], ["模型", "x"]])[0] == "A     B"
