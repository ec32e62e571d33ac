"""What is read out of a stream and cut out of it, however its bytes are split."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.gateway.counting import KEEP, Counts

PIECES = [b'data: {"choices":[{"delta":{"content":"%d"}}]}' % n for n in range(3)]
SAID = json.dumps({"choices": [{"delta": {"content": '"usage":{"prompt_tokens":9} "timings"'}}]}).encode()
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,'
    b'"prompt_tokens_details":{"cached_tokens":2}}}'
)
TIMED = b'data: {"choices":[{"finish_reason":"stop"}],"timings":{"prompt_n":4,"cache_n":5,"predicted_n":6}}'
DONE = b"data: [DONE]"


def stream(mark: bytes, *events: bytes) -> bytes:
    return b"".join(event + mark for event in events)


def parted(data: bytes, cuts: list[int], counts: Counts) -> bytes:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    parts = [data[start:end] for start, end in itertools.pairwise(edges)]
    return b"".join(counts.part(part, n == len(parts) - 1) for n, part in enumerate(parts))


@given(cuts=st.lists(st.integers(0, 10_000)), mark=st.sampled_from([b"\n\n", b"\r\n\r\n"]), cut=st.booleans())
def test_usage_is_read_and_only_its_own_event_cut_out(cuts, mark, cut):
    events = [*PIECES, b"data: " + SAID, TIMED]
    counts = Counts(stream=True, cut=cut)
    got = parted(stream(mark, *events, USAGE, DONE), cuts, counts)
    assert got == stream(mark, *events, *([] if cut else [USAGE]), DONE)
    assert (counts.prompt, counts.cached, counts.answer) == (7, 2, 3)


@given(cuts=st.lists(st.integers(0, 10_000)))
def test_timings_alone_count_cached_tokens_as_prompt(cuts):
    counts = Counts(stream=True, cut=True)
    data = stream(b"\n\n", *PIECES, TIMED, DONE)
    assert parted(data, cuts, counts) == data
    assert (counts.prompt, counts.cached, counts.answer) == (9, 5, 6)


@given(cuts=st.lists(st.integers(0, 10_000)))
def test_an_answer_that_is_not_streamed_passes_unchanged(cuts):
    data = json.dumps({"choices": [{}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}).encode()
    counts = Counts(stream=False, cut=False)
    assert parted(data, cuts, counts) == data
    assert (counts.prompt, counts.answer) == (5, 2)


@pytest.mark.parametrize("stream", [True, False])
def test_what_has_no_end_is_passed_on_and_not_kept(stream):
    counts = Counts(stream=stream, cut=True)
    got = 0
    for _ in range(64):
        got += len(counts.part(b"x" * 65_536, False))
        assert len(counts._held) <= KEEP and len(counts._kept or b"") <= KEEP + 65_536
    assert got + len(counts.part(b"", True)) == 64 * 65_536


@given(cuts=st.lists(st.integers(0, 400), max_size=6))
def test_only_events_are_counted_as_events(cuts):
    """Not the end mark, and not what an answer says about events."""
    said = json.dumps({"choices": [{"delta": {"content": 'data: {"a": 1}\n\ndata: {"b": 2}'}}]}).encode()
    counts = Counts(True, False)
    parted(stream(b"\n\n", *[b"data: " + said] * 3, b": ping", DONE), cuts, counts)
    assert counts.events == 3


def test_a_server_that_says_nonsense_is_billed_nothing_and_shrinks_no_bill():
    counts = Counts(False, False)
    counts.part(b'{"usage":{"prompt_tokens":-5,"completion_tokens":' + b"9" * 30 + b"}}", True)
    assert (counts.prompt, counts.answer, counts.cached) == (None, None, None)
    counts = Counts(False, False)
    told = b'{"usage":{"prompt_tokens":5,"completion_tokens":-2,"prompt_tokens_details":{"cached_tokens":-1}}}'
    counts.part(told, True)
    assert (counts.prompt, counts.answer, counts.cached) == (5, None, None)


@given(cuts=st.lists(st.integers(0, 900), max_size=8), mark=st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_how_much_of_the_prompt_was_read_is_taken_and_kept_from_the_client(cuts, mark):
    read = [b'data: {"choices":[{}],"prompt_progress":{"total":9,"cache":5,"processed":%d}}' % n for n in (5, 9)]
    counts = Counts(True, True, True)
    assert parted(stream(mark, *read, *PIECES), cuts, counts) == stream(mark, *PIECES)
    assert (counts.prompt, counts.cached, counts.answer, counts.events) == (9, 5, None, len(PIECES))
    counts = Counts(True, False, False)
    whole = stream(mark, *read, *PIECES)
    assert parted(whole, cuts, counts) == whole
    assert (counts.prompt, counts.cached, counts.events) == (9, 5, len(PIECES))
