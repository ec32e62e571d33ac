"""What is reckoned of a speed: by hand, in the right direction, corrected by what was seen, and unknown where it is."""

import msgspec
import pytest
from hosts import MIXED, SHAPE, host
from hypothesis import given
from hypothesis import strategies as st

from core.catalog.speed import FIRST_ERROR, NEAR_ERROR, OFTEN, SEEN_ERROR, SHAPE_ERROR, Seat, predict, reckon
from core.catalog.work import Work, of_headers, of_shape
from core.nouns import Seen, Speed

WORK = Work(
    layers={"Q8_0": 100e6}, output={"Q8_0": 20e6}, bytes_shared=120e6 * 34 / 32, n_layer=30, n_vocab=50_000,
    multiplications=((0, 30 * 9 * 128),), cell_weights=((0, 30 * 3 * 128),), exact=True,
)  # fmt: skip
ALONE = Seat(threads=1)


def told(work: Work = WORK, **more: object) -> Speed:
    given = {"users": 1, "ctx": 256, "prompt": 256, "seat": ALONE, "host": host()} | more
    return predict(work, given.pop("host"), given.pop("seat"), **given)  # type: ignore[arg-type]


def seen(what: str, ratio: float, *, threads: int = 1, users: int = 1, rate: float = 50.0) -> Seen:
    return Seen(
        sha256="a", engine="xllamacpp", version="1", threads=threads, users=users, what=what, rate=rate, ratio=ratio,
        spread=0.02, count=3, at=1.0,
    )  # fmt: skip


def test_a_step_by_hand() -> None:
    step = reckon(WORK, host(), ALONE, users=1, ctx=0, prompt=0).step_s
    weights, memory = 120e6 / 20e9, 120e6 * 34 / 32 / 20e9
    assert step == pytest.approx(30 * 5e-6 + 5e-5 + 5e-9 * 50_000 + max(weights, memory) + 0.5 * min(weights, memory))


def test_looking_back_costs_more_the_more_is_filled_and_a_window_bounds_it() -> None:
    slides = msgspec.structs.replace(WORK, multiplications=((512, 30 * 9 * 128),), cell_weights=((512, 30 * 3 * 128),))
    assert told(ctx=8192).decode < told(ctx=2048).decode < told(ctx=256).decode
    assert told(slides, ctx=8192).decode == told(slides, ctx=512).decode > told(ctx=8192).decode


def test_a_prompt_is_read_without_its_scores_and_grows_with_its_square() -> None:
    short, long = (reckon(WORK, host(), ALONE, users=1, ctx=0, prompt=n).prompt_s for n in (512, 4096))
    assert short == pytest.approx(100e6 * 512 / 40e9 + 512**2 / 2 * 30 * 9 * 128 / 1e10, rel=0.01)
    assert long > 8 * short


def test_more_users_touch_more_experts_but_no_more_than_there_are() -> None:
    narrow = host(bandwidth={1: 1e9, 4: 1e9})  # memory alone counts
    times = [reckon(MIXED, narrow, ALONE, users=n, ctx=1, prompt=0).step_s for n in (1, 4, 256)]
    assert times[0] == pytest.approx((1e9 + 14e9 / 16) / 1e9, rel=0.05)
    assert times[0] < times[1] < times[2]
    assert times[1] < 4 * times[0]


def test_without_a_measured_host_nothing_is_said_but_what_was_seen_just_so() -> None:
    nothing = told(host=None)
    assert not nothing.known and nothing.decode == 0 and "corral nodes bench" in nothing.basis[0]
    just = told(host=None, seen=[seen("decode", 1.0, rate=61.0), seen("prefill", 1.0, rate=300.0)])
    assert just.known and just.decode == 61.0 and just.prefill == 300.0
    assert not told(host=None, seat=Seat(threads=2), seen=[seen("decode", 1.0), seen("prefill", 1.0)]).known


def test_what_was_seen_corrects_within_bounds_and_narrows_the_error() -> None:
    before = told()
    assert before.error == FIRST_ERROR
    after = told(seen=[seen("decode", 1.5), seen("prefill", 0.5)])
    assert after.decode == pytest.approx(1.5 * before.decode, rel=0.01)
    assert after.prefill == pytest.approx(0.5 * before.prefill, rel=0.01)
    assert after.error == SEEN_ERROR
    assert told(seen=[seen("decode", 1000.0), seen("prefill", 1.0)]).decode <= 5.01 * before.decode
    other = told(seat=Seat(threads=2), seen=[seen("decode", 1.5), seen("prefill", 1.5)])
    assert SEEN_ERROR < other.error <= FIRST_ERROR


def test_threads_on_all_cores_are_as_uncertain_as_one_busy_program_makes_them_until_they_were_seen_often() -> None:
    """The host of these tests has four cores, and a fifth of its speed was left beside another program."""
    all_cores, fewer = told(seat=Seat(threads=4)), told(seat=Seat(threads=3))
    assert all_cores.error == 0.8 and "all 4 cores" in all_cores.basis[-1] and "20%" in all_cores.basis[-1]
    assert fewer.error == FIRST_ERROR and not any("cores" in words for words in fewer.basis)
    assert told(seat=Seat(threads=4), host=msgspec.structs.replace(host(), crowded=0.9)).error == 0.5
    once = [seen("decode", 1.0, threads=4), seen("prefill", 1.0, threads=4)]
    assert told(seat=Seat(threads=4), seen=once).error == 0.8
    often = [msgspec.structs.replace(each, count=OFTEN, spread=0.3) for each in once]
    assert told(seat=Seat(threads=4), seen=often).error == 0.3
    assert told(seat=Seat(threads=1), host=msgspec.structs.replace(host(), cores=1)).error == FIRST_ERROR


def test_a_correction_holds_for_other_users_and_half_of_it_for_other_threads() -> None:
    once = [seen("decode", 0.64), seen("prefill", 0.64)]
    for seat, users, part in ((ALONE, 1, 0.64), (Seat(threads=1, parallel=2), 2, 0.64), (Seat(threads=2), 1, 0.8)):
        before, after = (told(seat=seat, users=users, seen=each) for each in ((), once))
        assert after.each == pytest.approx(part * before.each, rel=0.01)


def test_a_batch_of_two_may_take_longer_than_two_steps_and_is_told_so() -> None:
    """As llama.cpp's kernels for several rows are on some hosts; and as reading weights for two hinders them."""
    slow = told(host=host(two=8e9), users=2, seat=Seat(threads=1, parallel=2))
    assert slow.each < 0.45 * slow.decode
    hindered = told(host=host(hidden=(0.5, -1.0, 0.5)), users=2, seat=Seat(threads=1, parallel=2))
    assert hindered.each < told(users=2, seat=Seat(threads=1, parallel=2)).each


def test_a_short_look_back_goes_at_its_own_speed() -> None:
    rows = tuple(msgspec.structs.replace(row, attention_short=1e9) for row in host().beside)
    slow = msgspec.structs.replace(host(), beside=rows)
    assert told(host=slow, ctx=192).decode < 0.9 * told(ctx=192).decode
    assert told(host=slow, ctx=4096).decode == told(ctx=4096).decode
    times = [1 / told(host=slow, ctx=n).decode for n in (64, 192, 400, 800, 1536, 4000)]
    assert times == sorted(times)


def test_a_shape_alone_and_a_busy_host_have_wider_errors_and_say_why() -> None:
    coarse = told(of_shape(SHAPE))
    assert coarse.error == SHAPE_ERROR and any("shape alone" in words for words in coarse.basis)
    busy = told(host=host(load=2.0))
    assert busy.error > FIRST_ERROR and any("busy" in words for words in busy.basis)
    odd = told(msgspec.structs.replace(WORK, layers={"IQ2_XXS": 100e6}))
    assert odd.error == SHAPE_ERROR and any("IQ2_XXS" in words for words in odd.basis)


def test_how_far_rounds_lay_apart_is_in_the_error_until_the_model_was_seen_often() -> None:
    rough = msgspec.structs.replace(
        host(load=2.2), beside=tuple(msgspec.structs.replace(row, spread=1.06) for row in host().beside)
    )  # fmt: skip
    assert told(host=rough).error == told(host=rough).error_each == 1.06
    once = [seen("decode", 1.0), seen("prefill", 1.0)]
    assert told(host=rough, seen=once).error == 1.06 and any("busy" in words for words in told(host=rough).basis)
    often = [msgspec.structs.replace(each, count=OFTEN) for each in once]
    assert told(host=rough, seen=often).error == SEEN_ERROR


def test_the_error_for_several_users_is_their_own() -> None:
    once = [seen("decode", 1.0), seen("prefill", 1.0)]
    for users, error in ((1, SEEN_ERROR), (2, NEAR_ERROR), (8, FIRST_ERROR)):
        found = told(users=users, seat=Seat(threads=1, parallel=8), seen=once)
        assert (found.error, found.error_each) == (SEEN_ERROR, error)
    varied = msgspec.structs.replace(seen("decode", 1.0, users=8), spread=0.4)
    found = told(users=8, seat=Seat(threads=1, parallel=8), seen=[*once, varied])
    assert (found.error, found.error_each) == (SEEN_ERROR, 0.4)


def test_who_has_no_slot_waits() -> None:
    found = told(users=6, seat=Seat(threads=4, parallel=4))
    assert found.waits == 2 and found.each == told(users=4, seat=Seat(threads=4, parallel=4)).each


@given(
    users=st.integers(1, 64), more=st.integers(1, 64), threads=st.integers(1, 8), ctx=st.integers(1, 8192),
    two=st.floats(1e9, 1e12), four=st.floats(1e9, 1e12), prompt=st.floats(1e9, 1e13),
    hidden=st.tuples(*[st.floats(-2, 1)] * 3),
    ratios=st.lists(st.tuples(st.sampled_from([1, 2, 4, 8, 16, 32]), st.floats(0.2, 5.0)), max_size=4),
)  # fmt: skip
def test_more_users_never_make_one_of_them_faster(
    users: int, more: int, threads: int, ctx: int, two: float, four: float, prompt: float,
    hidden: tuple[float, float, float], ratios: list[tuple[int, float]],
) -> None:  # fmt: skip
    """Whatever a noisy measurement of the host or of the model says."""
    noisy = host(two=two, four=four, prompt=prompt, hidden=hidden)
    corrected = [seen("decode", ratio, users=at) for at, ratio in ratios]
    few, many = (
        told(MIXED, host=noisy, users=n, ctx=ctx, seat=Seat(threads=threads, parallel=n), seen=corrected)
        for n in (users, users + more)
    )  # fmt: skip
    assert many.each <= few.each <= few.decode


@given(threads=st.integers(1, 4), more=st.integers(1, 8), users=st.integers(1, 16))
def test_more_threads_on_such_a_host_are_no_slower(threads: int, more: int, users: int) -> None:
    few, many = (told(users=users, seat=Seat(threads=n, parallel=users)) for n in (threads, threads + more))
    assert many.each >= few.each * 0.999


def test_work_by_the_tensors_of_a_file() -> None:
    """Of experts what a token uses; of a table of words nothing, but where it is the table of scores too."""
    tensors = [
        ["token_embd.weight", "Q8_0", [64, 1000], 68_000], ["blk.0.attn_norm.weight", "F32", [64], 256],
        ["blk.0.attn_q.weight", "Q4_K", [64, 64], 2304], ["blk.0.ffn_up_exps.weight", "Q4_K", [64, 64, 8], 18_432],
    ]  # fmt: skip
    meta = {"llama.expert_count": 8, "llama.expert_used_count": 2}
    tied = of_headers([{"metadata": meta, "tensors": tensors}], SHAPE)
    assert tied.layers == {"Q4_K": 64 * 64 + 64 * 64 * 2} and tied.output == {"Q8_0": 64_000}
    assert tied.bytes_shared == 68_000 + 2304 and tied.bytes_experts == 18_432 and tied.expert_share == 0.25
    apart = of_headers(
        [{"metadata": meta, "tensors": [*tensors, ["output.weight", "Q6_K", [64, 1000], 52_500]]}], SHAPE
    )
    assert apart.output == {"Q6_K": 64_000} and apart.bytes_shared == 52_500 + 2304


def test_work_of_a_shape_is_near_that_of_its_file() -> None:
    found = of_shape(SHAPE)
    assert found.layers["Q4_1"] == pytest.approx(106.2e6, rel=0.02)
    assert found.output["Q4_1"] == pytest.approx(28.3e6, rel=0.02)
    assert not found.exact and found.bytes_experts == 0
