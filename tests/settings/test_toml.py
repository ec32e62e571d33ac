"""What corral.toml may hold, and what is said of the rest: line, key, what was found, what is allowed, an example."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.amounts import as_typed, size_of
from core.errors import Invalid
from core.settings import Settings, parse

SIZES = (("daemon", "log_bytes"), ("capacity", "reserve_bytes"), ("replicas", "log_bytes"), ("gateway", "body_bytes"))


@pytest.mark.parametrize("place", SIZES)
@pytest.mark.parametrize(
    ("said", "amount"),
    [('"4G"', 4 << 30), ('"512MiB"', 512 << 20), ('"1.5g"', 3 << 29), ("1048576", 1 << 20), ('"1048576"', 1 << 20)],
)
def test_a_size_is_taken_as_the_command_line_takes_it(place: tuple[str, str], said: str, amount: int) -> None:
    table, key = place
    assert getattr(getattr(parse(f"[{table}]\n{key} = {said}\n"), table), key) == amount


@given(st.integers(0, 1 << 62))
def test_a_size_that_is_shown_reads_as_the_same_bytes(amount: int) -> None:
    assert size_of(as_typed(amount)) == amount


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[daemon]\nlog_level='loud'\n", 2, ['daemon.log_level is the text "loud"', 'it may be "debug"', '"info"']),
        ("[daemon]\nfoo=1", 2, ['unknown key "foo" in [daemon]', "log_level"]),
        ("\n\nbar=2", 3, ['unknown key "bar"', "there is audit, capacity, chats"]),
        ("[bar]\nx=2", 1, ['unknown key "bar"']),
        ("[gateway]\n\nqueue = -1", 3, ["gateway.queue is the whole number -1", "from 0 to 100000", "queue = 64"]),
        ("[gateway\n", 1, ["TOML"]),
        ("[replicas]\n# pauses\nbackoff_s=[1,'x']", 3, ['replicas.backoff_s is the text "x"', "a number from 0"]),
        ("[replicas]\nbackoff_s=[1,-2]", 2, ["-2", "from 0"]),
        ("[samples]\nevery_s = 0.1", 2, ["0.1", "from 0.2", "every_s = 1.0"]),
        ("[samples]\nevery_s = nan", 2, ["the number nan"]),
        ("[capacity]\nthreads = 'many'", 2, ["a whole number from 0", "threads = 4`; 0 takes the usable cores"]),
        ("[capacity]\nthreads = true", 2, ["`true`, yes or no"]),
        ("[capacity]\nreserve_bytes = 'plenty'", 2, ['the text "plenty"', '"512M"', 'reserve_bytes = "4G"']),
        ("[capacity]\nreserve_bytes = '-4G'", 2, ['"-4G"']),
        ("[capacity]\nreserve_bytes = 4.5", 2, ["the number 4.5", "a size"]),
        ("[daemon]\nlog_bytes = '1K'", 2, ["a size from 64K on", 'log_bytes = "4M"']),
        ("[engines]\nllama_server = \"a\\u0000b\"", 2, ["text on one line"]),
        ("[engines]\nllama_server = 2026-11-24", 2, ["the date 2026-11-24"]),
        ("daemon = 3", 1, ["daemon is the whole number 3", "it is a table", "[daemon]"]),
        ("[[daemon]]", 1, ["daemon is a list", "it is a table"]),
        ("capacity = {reserve_bytes = [1]}", 1, ["capacity.reserve_bytes is a list"]),
        ("gateway.queue = 'x'", 1, ["gateway.queue"]),
        ("[chats]\nkeep_days = 0.5", 2, ["a whole number from 0 to 36500", "keep_days = 90`; 0 keeps chats for ever"]),
        ('[engines]\nllama_server = "bin/llama-server"', 2, ["an absolute path"]),
        ('[engines]\nllama_cpp_python = "python3"', 2, ["an absolute path"]),
        (f"[capacity]\nthreads = 1{'0' * 5000}", None, ["thousands of digits"]),
        (f"[capacity]\nthreads = 1{'0' * 4000}", 2, ["more digits"]),
        (f"x = {'[' * 100000}", None, ["TOML"]),
    ],
)  # fmt: skip
def test_a_wrong_file_names_its_line_and_the_reason(text: str, line: int | None, words: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text, "corral.toml")
    if line:
        assert f"corral.toml:{line}:" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.datetimes(), st.dates(), st.times(),
    st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.sampled_from(["log_bytes", "a"]), st.integers(), max_size=2),
)  # fmt: skip


def keys_of(table: str, values: Any) -> list[tuple[str, str]]:
    """Each key below `table`, with the dotted name of the table that it stands in."""
    out = []
    for key in values.__struct_fields__:
        value = getattr(values, key)
        out += keys_of(f"{table}.{key}", value) if hasattr(value, "__struct_fields__") else [(table, key)]
    return out


KEYS = [each for table in Settings.__struct_fields__ for each in keys_of(table, getattr(Settings(), table))]
FOREIGN = re.compile(r"Expected|Object|`\$|\$\.|msgspec|Struct|<class|\bint\b|\bstr\b|\bfloat\b|\bbool\b")


def _as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_as_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_as_toml(each) for each in value) + "]"
    if isinstance(value, bool | str):
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


@given(st.sampled_from(KEYS), VALUES)
def test_no_value_of_any_key_is_told_in_another_program_s_words(place: tuple[str, str], value: Any) -> None:
    table, key = place
    text = f"# one\n[{table}]\n\n{key} = {_as_toml(value)}\n"
    try:
        parse(text)
    except Invalid as error:
        told = error.what.replace(str(value), "") + error.why + error.todo.split(";")[0]
        assert error.what.startswith("corral.toml:4:") and error.why and "corral reload" in error.todo
        if not isinstance(value, str):
            assert not FOREIGN.search(told), told
        shown = re.search(r"for example `(.+?)`;", error.todo)
        if shown:
            parse(f"[{table}]\n{shown[1]}\n")


@given(st.text(max_size=60))
def test_no_text_gives_anything_but_settings_or_a_reason(text: str) -> None:
    try:
        parse(text)
    except Invalid as error:
        assert error.what and error.why


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_the_example_of_each_key_is_right(table: str, key: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(f"[{table}]\n{key} = 1979-05-27\n")
    shown = re.search(r"(?:for example|write) `?(.+?)(?:`| on a line)", caught.value.todo)
    assert shown is not None
    parse(f"[{table}]\n{shown[1]}\n")


PRICED = """
[usage]
currency = "EUR"
[usage.prices."phi-3.5*"]
per_million_in = 0.5
per_million_out = 1
[usage.prices."*"]
per_core_hour = 0.02
"""


def test_prices_are_tables_by_patterns_of_models() -> None:
    usage = parse(PRICED).usage
    assert usage.currency == "EUR" and list(usage.prices) == ["phi-3.5*", "*"]
    assert (usage.prices["phi-3.5*"].per_million_in, usage.prices["*"].per_core_hour) == (0.5, 0.02)
    assert parse("").usage.prices == {}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (PRICED.replace("per_million_out = 1", "per_million_out = -1"), 6, "per_million_out"),
        (PRICED.replace("per_core_hour", "per_hour"), 8, "unknown key"),
        (PRICED.replace("per_core_hour = 0.02", 'per_core_hour = "2 cents"'), 8, "per_core_hour"),
        (PRICED.replace('."*"', ""), 8, "per_core_hour is the number"),
        ("[usage]\nprices = 5\n", 2, "prices is the whole number"),
        ('[usage.prices]\n"a*b" = 5\n', 2, "a*b is the whole number"),
        (PRICED.replace('"*"', '"a*b"'), 7, "a*b"),
    ],
)
def test_a_price_that_is_wrong_is_told_with_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert caught.value.what.startswith(f"corral.toml:{line}:") and what in caught.value.what
