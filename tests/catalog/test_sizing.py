"""The memory plan: the formula's figures, the yes or no, and the nearest that fits."""

import msgspec
import pytest

from core.catalog import sizing
from core.engines.llama_cpp_python import LlamaCppPython
from core.engines.xllamacpp import XLlamaCpp
from core.nouns import ModelShape, Plan

SMOLLM2 = ModelShape(
    arch="llama", n_layer=30, n_embd=576, n_ff=1536, n_head=9, n_head_kv=(3,) * 30, key_length=64, value_length=64,
    n_vocab=49152, ctx_train=8192, tensor_bytes=96_000_000,
)  # fmt: skip
MIB = 1 << 20


def plan(free: int, ctx: int = 8192, parallel: int = 4, cache_type: sizing.CacheType = "f16") -> Plan:
    return sizing.plan(
        SMOLLM2, model="m", ctx=ctx, parallel=parallel, cache_type=cache_type, cache_ram_mib=256,
        free_bytes=free, reserve_bytes=512 * MIB, reserved_bytes=0,
    )  # fmt: skip


def test_the_cache_by_hand() -> None:
    assert sizing.parts(SMOLLM2, 8192, 4, "f16").kv_cache == 8192 * 30 * 3 * 128 * 2
    assert sizing.parts(SMOLLM2, 8192, 4, "q8_0").kv_cache == 8192 * 30 * 3 * 128 * 34 // 32
    assert sizing.parts(SMOLLM2, 1000, 4, "f16").kv_cache == 4 * 256 * 30 * 3 * 128 * 2


def test_the_cache_of_layers_that_see_a_window() -> None:
    """llama-cpp-python keeps all of the context for them too: its plan for gemma was 22 % low at 8192."""
    slides = msgspec.structs.replace(SMOLLM2, n_swa=512, swa_layers=(True,) * 29 + (False,))
    row = 3 * 128 * 2
    assert sizing.parts(slides, 16384, 2, "f16").kv_cache == (29 * 1024 + 8192) * 2 * row
    assert sizing.parts(slides, 1024, 2, "f16").kv_cache == 30 * 512 * 2 * row
    whole = LlamaCppPython.abilities
    assert sizing.parts(slides, 8192, 1, "f16", engine=whole).kv_cache == 30 * 8192 * row


def test_the_compute_buffer_by_hand() -> None:
    """A batch is no longer than a slot, and gemma3's queries are wider than its embedding."""
    assert sizing.parts(SMOLLM2, 8192, 4, "f16").compute == 512 * 4 * (2 * 1536 + 8 * 576) + 512 * 512 * 2
    assert sizing.parts(SMOLLM2, 1000, 4, "f16").compute == 256 * 4 * (2 * 1536 + 8 * 576) + 256 * 256 * 2
    wide = msgspec.structs.replace(SMOLLM2, n_head=4, key_length=256, n_embd=640)
    assert sizing.parts(wide, 8192, 4, "f16").compute == 512 * 4 * (2 * 1536 + 4 * 640 + 4 * 1024) + 512 * 512 * 2


def test_what_a_replica_takes_grows_from_ready_to_use_to_full_and_admission_reserves_for_the_last() -> None:
    found = plan(8 << 30)
    assert found.rss_bytes - found.ready_bytes == found.parts.compute
    masks = 2 * 512 * (2048 - 512)
    assert found.full_bytes - found.rss_bytes == masks + 4 * 12 * 49152
    assert found.plan_bytes == round(1.05 * found.full_bytes) + (32 + 256) * MIB


def test_conversations_keep_states_of_layers_that_see_a_window() -> None:
    """As many a slot as the engine is told to keep, each of a whole window."""
    slides = msgspec.structs.replace(SMOLLM2, n_swa=512, swa_layers=(True,) * 29 + (False,))
    engine = XLlamaCpp.abilities
    one = 512 * 29 * 3 * 128 * 2
    parts = sizing.parts(slides, 8192, 4, "f16", engine=engine)
    assert parts.checkpoints == one
    most = sizing.full(parts, slides, 8192, 4, engine=engine)
    assert most - sizing.resident(parts) >= (4 * engine.checkpoints - 1) * one
    assert sizing.parts(slides, 8192, 1, "f16", engine=LlamaCppPython.abilities).checkpoints == 0
    assert sizing.parts(SMOLLM2, 8192, 4, "f16", engine=engine).checkpoints == 0


def test_embeddings_have_scores_for_every_token_of_a_batch() -> None:
    """It was not planned for: with gemma-3-270m and llama-cpp-python 1421 MiB were in use beside 534."""
    scores = 4 * 49152 * 512
    asked = sizing.parts(SMOLLM2, 8192, 4, "f16")
    embeds = sizing.parts(SMOLLM2, 8192, 4, "f16", embedding=True)
    assert sizing.resident(embeds) - sizing.resident(asked) == 2 * scores
    assert sizing.ready(embeds) == sizing.ready(asked)
    early = sizing.parts(SMOLLM2, 8192, 1, "f16", engine=LlamaCppPython.abilities, embedding=True)
    plain = sizing.parts(SMOLLM2, 8192, 1, "f16", engine=LlamaCppPython.abilities)
    assert sizing.ready(early) - sizing.ready(plain) == scores // 2
    assert sizing.resident(early) - sizing.resident(plain) == 2 * scores


def test_yes_says_the_numbers() -> None:
    found = plan(8 << 30)
    assert found.fits and found.nearest is None
    assert "8.0 GiB free" in found.reason and "512 MiB kept" in found.reason
    assert found.ready_bytes < found.rss_bytes == sizing.resident(found.parts) < found.full_bytes < found.plan_bytes


@pytest.mark.parametrize("free", range(1024, 1500, 25))
def test_the_nearest_really_fits(free: int) -> None:
    found = plan(free * MIB)
    if found.fits:
        return
    if found.nearest is None:
        assert not plan(free * MIB, 512, 1, "q4_0").fits
        return
    near = found.nearest
    assert plan(free * MIB, near.ctx, near.parallel, near.cache_type).fits
    assert (near.ctx, near.parallel, near.cache_type) != (8192, 4, "f16")


def test_default_context() -> None:
    assert sizing.default_ctx(SMOLLM2, 4) == 16384
