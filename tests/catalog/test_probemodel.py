"""The models of nothing that a host is measured with: whole GGUF files of each type, of the dimensions they say."""

import os
import struct
from pathlib import Path

import pytest

from core.catalog.files import header_of
from core.catalog.hostbench import KINDS, THIN
from core.catalog.probemodel import BLOCKS, Probe, write
from core.catalog.shape import shape_of
from core.keeper.gguf import TYPES


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_reader_finds_what_was_meant(tmp_path: Path, kind: str) -> None:
    probe = Probe(kind=kind, n_layer=2)
    write(probe, tmp_path / "p.gguf")
    fd = os.open(tmp_path / "p.gguf", os.O_RDONLY)
    try:
        header = header_of(fd, "p.gguf")
    finally:
        os.close(fd)
    shape, said = shape_of([header]), probe.shape()
    assert (shape.n_layer, shape.n_embd, shape.n_ff, shape.n_head_kv, shape.n_vocab, shape.ctx_train) == (
        said.n_layer, said.n_embd, said.n_ff, said.n_head_kv, said.n_vocab, said.ctx_train
    )  # fmt: skip
    weights = sum(t[2][0] * t[2][1] for t in header["tensors"] if t[0].startswith("blk") and len(t[2]) == 2)
    assert weights == probe.layer_weights
    assert {t[1] for t in header["tensors"] if t[0].startswith("blk") and len(t[2]) == 2} == {kind}
    assert abs(shape.tensor_bytes - probe.bytes) < 64 << 10
    with pytest.raises(FileExistsError):  # it replaces nothing
        write(probe, tmp_path / "p.gguf")


def test_blocks_are_those_of_the_format() -> None:
    table = {name: (per, size) for name, per, size in TYPES.values()}
    assert {kind: table[kind] for kind in BLOCKS} == BLOCKS


def test_half_precision_factors_are_finite_and_small(tmp_path: Path) -> None:
    write(Probe(kind="Q8_0", n_layer=1), tmp_path / "p.gguf")
    data = (tmp_path / "p.gguf").read_bytes()
    blocks = data[-3 * 34 * 1000 : -(34 * 600)]
    assert struct.pack("<e", 0.0004) in blocks
    assert THIN.layer_weights < 1_000_000
