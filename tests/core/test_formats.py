"""What is no GGUF is refused with what it is, and what is none that is known with what is wrong with it."""

import pytest

from core.formats import no_gguf, others

PICKLE, SAFE = "reading one runs whatever code it holds", "no engine that Corral starts reads"


@pytest.mark.parametrize(
    ("name", "head", "why"),
    [
        ("pytorch_model.bin", b"\x80\x02}q\x00.", PICKLE), ("model.PT", b"PK\x03\x04abc", PICKLE),
        ("model", b"\x80\x04\x95", PICKLE), ("weights.bin", b"\x00\x00\x00\x00", PICKLE), ("a.bin", b"", PICKLE),
        ("a.safetensors", b"\x10\x00", SAFE), ("a.gguf", b"\x10\0\0\0\0\0\0\0{\"", SAFE),
        ("a.gguf", b"version https://git-lfs.github.com/spec/v1", "pointer"),
        ("a.gguf", b"\n<!DOCTYPE html>", "web page"),
    ],
)  # fmt: skip
def test_what_is_known_is_refused_with_what_it_is(name: str, head: bytes, why: str) -> None:
    found = no_gguf(name, head)
    assert found is not None and why in found.why and found.todo


@pytest.mark.parametrize(
    ("name", "head"), [("a.bin", b"GGUF\x03\0\0\0"), ("a.gguf", b""), ("a.gguf", b"\x80"), ("a", b"x")]
)
def test_a_gguf_of_any_name_and_what_is_not_known_are_left_to_the_reader(name: str, head: bytes) -> None:
    assert no_gguf(name, head) is None


def test_what_of_a_folder_may_be_weights_is_counted() -> None:
    assert others(["a.safetensors", "b.SAFETENSORS", "c.bin", "config.json"]) == "1 .bin, 2 .safetensors"
    assert others(["README.md"]) == ""
