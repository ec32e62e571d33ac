"""Only the same benchmark is compared, an easy one flatters nobody, and what cannot be compared is not known."""

from hypothesis import given
from hypothesis import strategies as st

from core.catalog.quality import qualities
from core.nouns import Score


def score(benchmark: str, value: float, use: str = "code", of: float = 100) -> Score:
    return Score(use=use, benchmark=benchmark, value=value, of=of, source=None)


def test_better_on_the_same_benchmark_is_better_and_scales_do_not_matter() -> None:
    found = qualities({"a": [score("HumanEval", 80)], "b": [score("HumanEval", 0.4, of=1)]}, "code")
    assert found["a"].value > found["b"].value and found["a"].others == 1


def test_an_easy_benchmark_flatters_nobody() -> None:
    """`c` has the easy one alone, on which it is worse than `a`."""
    found = qualities(
        {
            "a": [score("easy", 90), score("hard", 40)], "b": [score("hard", 30)], "c": [score("easy", 70)],
            "d": [score("easy", 85), score("hard", 35)],
        }, "code",
    )  # fmt: skip
    assert found["a"].value > found["d"].value > found["c"].value
    assert found["b"].value > found["c"].value


def test_what_nobody_else_was_measured_by_is_not_known() -> None:
    told = {
        "a": [score("X", 90)], "b": [score("Y", 50)], "c": [score("Y", 60)], "d": [], "e": [score("Y", 9, "law")],
    }  # fmt: skip
    assert set(qualities(told, "code")) == {"b", "c"}
    assert qualities({"a": [score("X", 90)]}, "code") == {} and qualities({}, "code") == {}


def test_two_sets_that_no_benchmark_links_are_not_compared() -> None:
    told = {
        "a": [score("X", 90)], "b": [score("X", 80)], "c": [score("X", 70)], "d": [score("Y", 99)],
        "e": [score("Y", 98)],
    }  # fmt: skip
    assert set(qualities(told, "code")) == {"a", "b", "c"}


@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"),
        st.dictionaries(st.sampled_from(["P", "Q", "R"]), st.floats(0, 100), max_size=3), max_size=8,
    )
)  # fmt: skip
def test_it_is_a_share_and_dominance_is_kept(table: dict[str, dict[str, float]]) -> None:
    found = qualities({name: [score(b, v) for b, v in row.items()] for name, row in table.items()}, "code")
    assert all(0 <= each.value <= 1 for each in found.values())
    for one in found:
        for other in found:
            if table[one].keys() == table[other].keys() and all(table[one][b] >= table[other][b] for b in table[one]):
                assert found[one].value >= found[other].value - 1e-9
