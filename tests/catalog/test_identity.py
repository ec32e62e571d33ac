"""Which entry a stored model is: by its hash or its origin with what its header says, never by its name."""

import msgspec
import pytest
from hosts import SHAPE

from core.catalog import curated, sample
from core.catalog.identity import elsewise, entry_of, mistaken, requantized
from core.nouns import CatalogueEntry, Model, ModelFile

LIST = curated.load()


def known(name: str) -> CatalogueEntry:
    return next(each for each in LIST if each.name == name)


QWEN, SMALL, MIDDLE = known("qwen3-14b"), known("smollm2-135m-instruct"), known("smollm2-360m-instruct")


def model(name: str = "mine", origin: str = "/tmp/x.gguf", *, sha256: str = "a" * 64, bytes: int = 1000,
          like: CatalogueEntry = SMALL, **shape: object) -> Model:  # fmt: skip
    """With the header that an entry has."""
    of = {
        "arch": like.header["architecture"], "n_layer": like.header["block_count"], "n_params": like.params,
        "n_embd": like.header["embedding_length"], "quantization": "Q4_1",
    }  # fmt: skip
    return Model(
        name=name, version=1, sha256=sha256, files=(ModelFile(name="x.gguf", bytes=bytes, sha256=sha256),), bytes=bytes,
        shape=msgspec.structs.replace(SHAPE, **(of | shape)), licence="", origin=origin, imported_at=0.0,
        imported_by="ada",
    )  # fmt: skip


def test_the_sample_is_known_by_its_hash_whatever_it_is_called() -> None:
    assert entry_of(model("anything", sha256=sample.SHA256), LIST) == SMALL
    named = model("qwen3-14b", sha256=sample.SHA256)
    assert entry_of(named, LIST) == SMALL and mistaken(named, LIST) == ""


def test_a_name_that_somebody_typed_gives_no_scores_and_that_is_said() -> None:
    typed = model("qwen3-14b")
    assert entry_of(typed, LIST) is None
    told = mistaken(typed, LIST)
    assert "called as Qwen3 14B" in told and "its header says architecture llama" in told
    alike = model("Qwen3-14B.Q8_0", like=QWEN)
    assert entry_of(alike, LIST) is None and "a name says nothing of what is in a file" in mistaken(alike, LIST)
    assert mistaken(model("whatever"), LIST) == ""


@pytest.mark.parametrize("form", ["hf:{}:Q4_1@main", "hf:{}", "https://huggingface.co/{}/resolve/main/x.gguf"])
def test_where_it_was_pulled_from_counts_if_its_header_agrees(form: str) -> None:
    assert entry_of(model(origin=form.format(SMALL.repo)), LIST) == SMALL
    assert entry_of(model(origin="https://elsewhere.example/" + form.format(SMALL.repo)), LIST) is None


def test_another_model_in_a_known_repository_is_said_to_be_one() -> None:
    fake = model("smollm2-360m-instruct", f"hf:{MIDDLE.repo}:Q8_0@main")
    assert entry_of(fake, LIST) is None
    for told in (elsewise(fake, LIST), mistaken(fake, LIST)):
        assert told.startswith("it came from the repository of SmolLM2 360M Instruct, and is not that: its header")
    count = model(origin=f"hf:{MIDDLE.repo}:Q8_0", like=MIDDLE, n_params=SMALL.params)
    assert "135 million parameters, where 362 million are known" in elsewise(count, LIST)
    short = model(origin=f"hf:{MIDDLE.repo}:Q8_0", like=MIDDLE, quantization="Q8_0")
    assert "1000 bytes in Q8_0, where 386405280 are known" in elsewise(short, LIST)
    whole = model(origin=f"hf:{MIDDLE.repo}:Q8_0", like=MIDDLE, quantization="Q8_0", bytes=386_405_280)
    assert entry_of(whole, LIST) == MIDDLE


@pytest.mark.parametrize(
    ("asked", "said", "other"),
    [
        ("Q8_0", "Q4_1", True), ("Q4_0", "Q4_1", True), ("F16", "BF16", True), ("Q8_0", "Q8_0", False),
        ("UD-Q4_K_XL", "Q4_K_M", False), ("Q3_K_XL", "Q3_K_L", False), ("MXFP4", "MXFP4_MOE", False),
        ("IQ4_XS", "Q4_K_M", True), ("Q4_0_4_4", "Q4_0", False), ("", "Q4_1", False), ("Q8_0", "", False),
    ],
)  # fmt: skip
def test_another_quantisation_than_was_asked_for_is_said(asked: str, said: str, other: bool) -> None:
    assert bool(requantized(asked, model(quantization=said))) is other
