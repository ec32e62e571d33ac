"""Raw events become text and figures wherever the bytes are cut, and nonsense from an engine is no crash."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chats.answer import EVENT_LIMIT, Answer
from core.nouns import Turn


def turn() -> Turn:
    return Turn(id="t", chat="c", n=1, question="q", answer="", state="waiting", asked_at=0)


def event(text: str, end: bytes) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + end


@given(
    st.lists(st.text(), max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=30),
    st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)  # fmt: skip
def test_any_cut_of_the_bytes_gives_the_same_text_and_offset(texts, cuts, end) -> None:
    data = b": ping" + end + b"".join(event(text, end) for text in texts) + b"data: [DONE]" + end
    answer, at, n = Answer(turn(), 0, clock_ms=0), 0, 0
    while at < len(data):
        size = cuts[n % len(cuts)]
        answer.feed(data[at : at + size], 1.0)
        at, n = at + size, n + 1
        # whoever goes on from `raw` with what was stored gets the same
        other = Answer(answer.turn, answer.raw, clock_ms=0)
        other.feed(data[answer.raw :], 2.0)
        assert other.turn.answer == "".join(texts)
    assert answer.turn.answer == "".join(texts)
    assert answer.raw == len(data)
    assert answer.ended


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "delta", "content", "error", "timings", "usage", "message", "finish_reason",
                         "prompt_tokens", "predicted_per_second", "cache_n"]), inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
def test_nonsense_in_an_event_is_passed_over(value) -> None:
    answer = Answer(turn(), 0, clock_ms=0)
    answer.feed(b"data: " + json.dumps(value).encode() + b"\n\ndata: no json\n\ndata: [DONE]\n\n", 1.0)
    assert answer.ended


def test_tokens_are_counted_by_events_where_the_engine_does_not_say() -> None:
    answer = Answer(turn(), 0, clock_ms=0)
    answer.feed(event("a", b"\n\n"), 100.0)
    answer.feed(event("b", b"\n\n") + b"data: [DONE]\n\n", 600.0)
    last = answer.finish("done", "", 1100.0)
    assert (last.answer_tokens, last.tokens_per_second, last.ttft_ms, last.total_ms) == (2, 2.0, 100.0, 1100.0)


def test_an_event_without_an_end_is_not_kept_forever() -> None:
    answer = Answer(turn(), 0, clock_ms=0)
    with pytest.raises(ValueError, match="too large"):
        for _ in range(6):
            answer.feed(b"x" * (EVENT_LIMIT // 4), 1.0)
