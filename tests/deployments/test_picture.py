"""What is shown of a replica at work."""

from core.deployments.picture import Picture
from core.nouns import Counters, Replica

VIEW = Replica(
    id="d/0", deployment="d", model="m", version=1, engine="x", node="local", state="ready", since=0, reason=""
)


def test_tokens_a_second_are_those_that_pass_while_an_answer_is_made() -> None:
    changes: list[float] = []
    picture = Picture(VIEW, lambda: 0.0, lambda: changes.append(1))
    for second in range(6):
        picture.live(100 + 25 * second, None, float(second))
    assert picture.view.tokens_per_second == 25.0
    for second in range(6, 10):
        picture.live(225, 40.0, float(second))
    assert picture.view.tokens_per_second == 0.0 and picture.view.ttft_ms == 40.0
    assert changes


def test_another_gateway_begins_to_count_anew() -> None:
    picture = Picture(VIEW, lambda: 0.0, lambda: None)
    picture.live(1000, None, 1.0)
    picture.live(1050, None, 2.0)
    picture.live(10, None, 3.0)
    picture.live(30, None, 4.0)
    assert picture.view.tokens_per_second == 20.0


def test_an_answer_that_ends_books_nothing_on_one_second() -> None:
    """The engine counts at the end of a request: its counters are not shown as speed."""
    picture = Picture(VIEW, lambda: 0.0, lambda: None)
    picture.live(10, None, 1.0)
    picture.live(35, None, 2.0)
    picture.count(Counters(time=1.0, generated_tokens=0, prompt_tokens=0, slots_busy=1))
    picture.count(Counters(time=2.0, generated_tokens=300, prompt_tokens=12, slots_busy=1))
    assert (picture.view.tokens_per_second, picture.view.prompt_tokens_per_second) == (25.0, 12.0)
    picture.quiet()
    assert picture.view.tokens_per_second == 0.0
