from hypothesis import given
from hypothesis import strategies as st

from tui.plain import line, plain


def test_sequences_go_with_their_payload():
    assert plain("a\x1b[31mb\x1b]52;c;aGk=\x07c\x1b[2Jd") == "abcd"
    assert plain("a\x9b31mb\x9d0;title\x9cc") == "abc"


def test_bidi_overrides_go():
    assert plain("file\u202egpj.exe\u2066") == "filegpj.exe"


def test_newline_and_tab_stay_readable():
    assert plain("a\r\nb\tc") == "a\nb    c"
    assert line("a\nb") == "a b"


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text):
    clean = plain(text)
    assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 for c in clean)
    assert plain(clean) == clean
