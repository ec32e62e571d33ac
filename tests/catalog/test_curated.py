"""The curated list itself: every figure has its source, every computed one its mark, and every shape can be sized."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.catalog.curated import advice, load, reading, shape_for, templates
from core.catalog.curated.entry import Bad
from core.catalog.curated.mixture import BASE
from core.catalog.curated.reading import FOLDER, entries_of
from core.catalog.curated.sizes import Sized
from core.catalog.sizing import parts
from core.keeper.gguf import read_header
from core.nouns import USES, CatalogueEntry

ENTRIES = load()
FAMILIES = {each.family for each in ENTRIES}
LIKE = (
    "llama", "phi-4", "qwen", "qwen-coder", "gemma", "mistral", "deepseek", "gpt-oss", "smollm", "granite", "embedding",
    "rerank", "qwen-vl",
)  # fmt: skip


def test_there_are_thirty_models_of_the_families_that_are_asked_for() -> None:
    assert len(ENTRIES) >= 30
    assert set(LIKE) <= FAMILIES
    assert {use for each in ENTRIES for use in each.uses} == set(USES)


def test_a_file_is_a_family() -> None:
    for path in FOLDER.glob("*.toml"):
        if path.name != reading.ADVICE:
            assert tomllib.loads(path.read_text())["family"] == path.stem


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda each: each.name)
def test_no_figure_stands_without_its_source(entry: CatalogueEntry) -> None:
    assert not entry.own and not entry.unsourced
    for figure in ("uses", "params", "active_params", "ctx", "licence", "repo", "shape"):
        value = getattr(entry, figure)
        if value and figure not in entry.computed:
            assert figure in entry.cited, figure
        assert bool(value) != (figure in entry.unknown) or figure == "uses", figure
    assert bool(entry.template_sha256) == ("template" in entry.cited)
    assert entry.licence_source == entry.cited.get("licence")
    for each in entry.files:
        assert each.computed == (each.source is None), each
    for score in entry.scores:
        assert score.source is not None and score.use in USES and 0 <= score.value <= score.of
    for source in entry.sources:
        what, path, state = source.what, source.path, source.commit_or_date
        assert what.startswith(("github:", "pypi:", "hf:", "https://")), what
        assert path or what.startswith("https://"), what
        assert len(state) == 40 if what.startswith("github:") else state, state
    assert set(entry.sources) >= {*entry.cited.values(), *(each.source for each in entry.scores)}


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each.shape], ids=lambda each: each.name)
def test_a_shape_can_be_sized_with_each_of_its_files(entry: CatalogueEntry) -> None:
    assert entry.shape is not None and entry.shape.n_layer == entry.header["block_count"]
    for each in entry.files:
        shape = shape_for(entry, each.quantization)
        assert shape is not None and shape.quantization == each.quantization
        assert each.bytes * 0.986 < shape.tensor_bytes < each.bytes * 1.002
        assert parts(shape, 4096, 1, "f16").weights == (shape.mapped_bytes or shape.tensor_bytes)


READ = [
    (entry, each) for entry in ENTRIES for each in entry.files if entry.header and not each.computed
    and each.quantization in BASE
]  # fmt: skip


def test_computed_bytes_are_those_of_the_files_that_were_read() -> None:
    """Within 1.4 % and never far above: what is left out is the vocabulary before the tensors."""
    assert len(READ) >= 30
    for entry, each in READ:
        lacking = (each.bytes - Sized(entry.header).bytes(each.quantization)) / each.bytes
        assert -0.002 < lacking < 0.014, (entry.name, each.quantization, lacking)


def test_parameters_that_were_read_are_those_of_the_shape() -> None:
    """But for models that see, whose other half is in no shape, encoders with a head, and rounded figures."""
    same = 0
    for entry in ENTRIES:
        if entry.header and "params" in entry.cited:
            counted = Sized(entry.header).counted()[0]
            rounded = entry.params % 1_000_000 == 0
            if "vision" in entry.uses or entry.header["architecture"] in ("bert", "nomic-bert") or rounded:
                assert 0.5 < counted / entry.params < 1.03, entry.name
            else:
                assert counted - entry.params in range(-64, 65), entry.name
                same += 1
    assert same >= 30


def test_the_advice_names_a_family_that_is_there_and_made_for_it() -> None:
    told = advice()
    assert set(told) == set(USES)
    for use, each in told.items():
        assert each.reason
        if each.family:
            assert any(use in entry.uses for entry in ENTRIES if entry.family == each.family), use
    assert {told[use].family for use in ("code", "mathematics")} == {"phi-4"}
    assert told["general"].family == "llama"


GOOD = """
family = "one"
[sources]
card = { what = "github:a/b", path = "README.md", commit_or_date = "2026-11-26" }
[[models]]
name = "one-1b"
uses = ["general"]
uses_source = "card"
params = { is = 1_000, source = "card" }
files = [
  { quantization = "Q4_K_M", bytes = 700, source = "card" },
]
scores = [
  { use = "general", benchmark = "MMLU", value = 50, source = "card" },
]
"""
SHAPE = """
[models.shape]
source = "card"
architecture = "llama"
block_count = 2
embedding_length = 256
feed_forward_length = 512
attention.head_count = 4
attention.head_count_kv = 2
vocab_size = 512
context_length = 128
tied_embeddings = true
"""


def test_what_stands_in_the_file_is_what_is_read() -> None:
    (entry,) = entries_of(GOOD + SHAPE)
    assert (entry.params, entry.files[0].bytes, entry.scores[0].value) == (1000, 700, 50)
    assert entry.shape is not None and entry.shape.n_head_kv == (2, 2)
    odd = entries_of(GOOD.replace("Q4_K_M", "UD-Q4_K_XL") + SHAPE)[0]  # whose tensors nobody here knows one by one
    shape = shape_for(odd, "UD-Q4_K_XL")
    assert shape is not None and (shape.tensor_bytes, shape.quantization) == (700, "UD-Q4_K_XL")
    assert entry.unknown == ("ctx", "licence", "repo", "template") and entry.computed == ("active_params",)


def drop(word: str) -> Callable[[str], str]:
    return lambda text: text.replace(word, "")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (drop('uses_source = "card"\n'), "uses has no source"),
        (lambda text: text.replace("1_000, source = \"card\"", "1_000"), "params has no source"),
        (lambda text: text.replace("700, source = \"card\"", "700"), "files Q4_K_M has no source"),
        (lambda text: text.replace("50, source = \"card\"", "50"), "score MMLU has no source"),
        (lambda text: text.replace('50, source = "card"', '50, source = "page"'), "names the source 'page'"),
        (lambda text: text.replace("bytes = 700, ", ""), "has no size"),
        (lambda text: text.replace("bytes = 700", "bytes = 700, computed = true"), "said to be computed and has bytes"),
        (lambda text: text.replace('bytes = 700, source = "card"', "computed = true"), "cannot be computed"),
        (lambda text: text.replace('Q4_K_M", bytes = 700, source = "card"', 'Q9", computed = true') + SHAPE,
         "cannot be computed"),
        (lambda text: text.replace('uses = ["general"]', 'uses = ["chatting"]'), "'chatting' is no use"),
        (lambda text: text.replace('use = "general"', 'use = "chatting"'), "'chatting' is no use"),
        (lambda text: text.replace("value = 50", "value = 101"), "lies from 0 to 100"),
        (lambda text: text + "[[models]]" + text.split("[[models]]")[1], "is here twice"),
        (lambda text: text.replace("is = 1_000", "is = 0"), "whole number above 0"),
        (lambda text: text.replace("1_000", "true"), "Expected `int"),
        (lambda text: text.replace("one-1b", "One 1B"), "is no name"),
        (lambda text: text.replace('commit_or_date = "2026-11-26"', 'commit_or_date = ""'), "says too little"),
        (lambda text: text + "colour = 1\n", "unknown field `colour`"),
        (lambda text: text + 'template = { is = "{{ messages }}", source = "card" }\n', "it is a SHA-256"),
        (lambda text: text + f'template = "{"a" * 64}"\n', "template has no source"),
        (lambda text: text + SHAPE.replace("llama", "perceiver"), "the shape cannot be sized"),
        (lambda text: text + SHAPE.replace("block_count = 2\n", ""), "the shape lacks block_count"),
        (lambda text: text + SHAPE.replace("= 512", "= 0"), "the shape cannot be sized"),
        (lambda text: text + SHAPE.replace('source = "card"\n', ""), "shape has no source"),
        (lambda text: text + SHAPE.replace("head_count = 4", "head_count = 0"), "the shape cannot be sized"),
        (lambda text: text + SHAPE.replace("= 256", '= "wide"'), "a whole number is meant"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_should_be_is_refused(spoil: Callable[[str], str], says: str) -> None:
    with pytest.raises(Bad) as refused:
        entries_of(spoil(GOOD))
    assert says in str(refused.value)


def test_a_name_stands_in_one_family_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD)
    (tmp_path / "b.toml").write_text(GOOD)
    monkeypatch.setattr(reading, "FOLDER", tmp_path)
    reading._curated.cache_clear()
    try:
        with pytest.raises(Bad, match="in the list twice"):
            reading._curated()
    finally:
        monkeypatch.undo()
        reading._curated.cache_clear()


def test_active_parameters_of_a_mixture_are_those_of_the_experts_that_are_used() -> None:
    header: dict[str, Any] = next(each.header for each in ENTRIES if each.name == "qwen3-30b-a3b")
    whole, few = Sized(header).counted()
    experts = 48 * 128 * 3 * 2048 * 768
    assert whole == 30_532_122_624 and few == whole - experts + experts * 8 // 128


def test_the_makers_template_is_found_by_name_and_by_repository() -> None:
    (sha256,) = templates("llama-3.1-8b-instruct", "/home/me/x.gguf").values()
    assert sha256 == next(each for each in ENTRIES if each.name == "llama-3.1-8b-instruct").template_sha256
    repo = "hf:bartowski/Meta-Llama-3.1-8B-Instruct-GGUF"
    for origin in (repo, f"{repo}:Q4_K_M", f"{repo}:Q4_K_M@0123456789abcdef"):
        assert templates("mine", origin) == {"llama-3.1-8b-instruct in the catalogue": sha256}
    assert templates("mine", f"{repo}-other") == templates("mine", "hf:") == templates("mine", "") == {}


def test_the_tensors_of_the_sample_are_those_that_its_layout_names(sample: Path) -> None:
    header = next(each.header for each in ENTRIES if each.name == "smollm2-135m-instruct")
    with sample.open("rb") as file:
        there = {name: tuple(dims) for name, _, dims, *_ in read_header(file.fileno())["tensors"]}
    assert dict(Sized(header).tensors) == there
