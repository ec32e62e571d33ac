"""What the terminal sends: a paste is text, whatever is in it and however it is cut into reads."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual._xterm_parser import XTermParser

from tui.received import END, START, Received


def read(data: bytes, cuts: list[int]) -> list[Any]:
    """The events that Textual's parser makes of `data`, read in pieces."""
    decoder, parser, found = Received("utf-8"), XTermParser(), []
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in pairwise(marks):
        if text := decoder.decode(data[begin:end]):  # the driver gives nothing on too: empty is the end
            found += list(parser.feed(text))
    return [each for each in found if isinstance(each, events.Key | events.Paste)]


CUTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=8)
PASTED = st.text(st.sampled_from("ab \n\r\x1b[31m;0m]\x07~201Oé\u202e"), max_size=60).filter(lambda t: END not in t)


def test_a_coloured_log_is_pasted_whole_and_sends_nothing():
    data = f"x{START}AAA\rBBB \x1b[31mred\x1b[0m\r\nCCC\r{END}y".encode()
    for cut in range(len(data)):
        before, paste, after = read(data, [cut])
        assert (before.key, after.key) == ("x", "y")
        assert paste.text == "AAA\nBBB red\nCCC\n"


@given(PASTED, CUTS)
def test_a_paste_is_one_event_and_no_key(pasted, cuts):
    found = read(f"{START}{pasted}{END}q".encode(), cuts)
    assert [type(each) for each in found] in ([events.Paste, events.Key], [events.Key])
    assert found[-1].key == "q"
    assert "\x1b" not in "".join(each.text for each in found if isinstance(each, events.Paste))


@given(st.text(st.sampled_from("ab\x7f\t\x1b[A"), max_size=30), CUTS)
def test_keys_are_given_on_as_they_came(typed, cuts):
    decoder, out = Received("utf-8"), ""
    data = typed.encode()
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in pairwise(marks):
        out += decoder.decode(data[begin:end])
    assert out == typed


def test_a_byte_that_is_no_utf8_is_a_replaced_letter():
    assert Received("utf-8").decode(b"a\xe9b") == "a\ufffdb"
