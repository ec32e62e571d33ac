import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.plain import line, plain, visible


def test_sequences_go_with_their_payload():
    assert plain("a\x1b[31mb\x1b]52;c;aGk=\x07c\x1b[2Jd") == "abcd"
    assert plain("a\x9b31mb\x9d0;title\x9cc") == "abc"


def test_bidi_overrides_go():
    assert plain("file\u202egpj.exe\u2066") == "filegpj.exe"


def test_newline_and_tab_stay_readable():
    assert plain("a\r\nb\tc") == "a\nb    c"
    assert line("a\nb") == "a b"


def test_code_shows_what_it_would_do_to_a_terminal():
    assert visible("a\x1b[31mb\r\n\tc\u202ed\x9be") == "a\\x1b[31mb\\r\n    c\\u202ed\\x9be"
    assert visible("e" + "\u0301" * 5) == "e" + "\u0301" * 3 + "\\u0301" * 2
    assert visible("{{ x }}\ny") == "{{ x }}\ny"


@given(st.text())
def test_what_is_visible_steers_no_terminal_either_and_drops_nothing(text):
    shown = visible(text)
    assert plain(shown) == shown
    assert sum(c.isprintable() and not c.isspace() for c in text) <= len(shown)


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text):
    clean = plain(text)
    assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 for c in clean)
    assert plain(clean) == clean


@pytest.mark.parametrize("begin", ["\x90", "\x98", "\x9d", "\x9e", "\x9f", "\x1b]", "\x1bP", "\x1bX"])
def test_a_control_that_never_ends_takes_nothing_with_it(begin):
    assert plain(f"before {begin}and after\nthe next") == "before and after\nthe next"
    assert plain(f"a{begin}b{begin}c\x07d") == "abd"


def test_a_text_of_nothing_but_begins_takes_no_longer_than_its_length():
    for begin in ("\x90", "\x1b]"):
        started = time.process_time()
        assert plain(begin * 400_000) == ""
        assert time.process_time() - started < 2
