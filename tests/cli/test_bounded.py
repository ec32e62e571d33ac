"""What a file says of itself is shown bounded in lists and lines, and does nothing to the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from core.nouns import Model, ModelFile, ModelShape
from tui.cli import cli
from tui.columns import cells
from tui.plain import harmless
from tui.verbs import models, versions
from tui.verbs.arrived import arrived

SANE = 200
"""Cells of a row at most."""
HOSTILE = st.one_of(
    st.text(max_size=80),
    st.text(st.sampled_from("MIT licence\x1b[31m\n\u202e\x9b2J\u4e2d\u0301\t"), max_size=300),
    st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=4), st.integers(1000, 20_000)),
)
MODEL = Model(
    name="chat", version=2, versions=3, sha256="ab" * 32, bytes=1 << 30, licence="mit", origin="/tmp/chat.gguf",
    files=(ModelFile(name="chat.gguf", bytes=1 << 30, sha256="ab" * 32),), imported_at=0.0, imported_by="me",
    shape=ModelShape(
        arch="llama", n_layer=2, n_embd=64, n_ff=128, n_head=4, n_head_kv=(2, 2), key_length=16, value_length=16,
        n_vocab=4, ctx_train=2048, quantization="Q4_1",
    ),
)  # fmt: skip


def named(licence: str, arch: str) -> Model:
    shape = msgspec.structs.replace(MODEL.shape, arch=arch)
    return msgspec.structs.replace(MODEL, licence=licence, shape=shape)


def shown(found: Model, *words: str) -> list[str]:
    """Lines of a verb that gets this model."""
    answer: Any = {"ls": ([found], ""), "versions": [found], "show": (found, [])}[words[1]]
    with pytest.MonkeyPatch.context() as patch:
        for module in (models, versions):
            patch.setattr(module, "run", lambda work: answer)
        told = CliRunner().invoke(cli, words)
    assert told.exit_code == 0, told.output
    return told.output.split("\n")


def answered(found: Model) -> list[str]:
    """What an import answers."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tui.verbs.arrived.say", said.append)
        patch.setattr("tui.lines.options", lambda: SimpleNamespace(wide=False))
        arrived("imported", found)
    return said


def everywhere(found: Model) -> Iterator[list[str]]:
    for words in (("models", "ls"), ("models", "versions", "chat"), ("models", "show", "chat")):
        yield shown(found, *words)
    yield answered(found)


@settings(max_examples=60, deadline=None)
@given(HOSTILE, HOSTILE)
def test_no_word_of_a_header_widens_a_row_or_reaches_the_terminal(licence: str, arch: str) -> None:
    usual = [len(lines) for lines in everywhere(MODEL)]
    for lines, many in zip(everywhere(named(licence, arch)), usual, strict=True):
        assert len(lines) == many  # no line is forged
        assert all(cells(each) <= SANE for each in lines)
        assert all(harmless(each) for each in lines)


def test_what_is_cut_is_whole_where_it_is_asked_for() -> None:
    long = "a licence of many words " * 30
    found = named(long.strip(), "llama")
    for lines in everywhere(found):
        assert any("a licence of" in each and "…" in each for each in lines)
    assert any(long.strip() in each for each in shown(found, "models", "show", "chat", "--wide"))
    assert any(long.strip() in each for each in shown(found, "models", "ls", "--wide"))
    assert any(long.strip() in each for each in shown(found, "models", "show", "chat", "--json"))
