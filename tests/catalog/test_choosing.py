"""Which model to take: a stronger wish never adds a candidate, each rank says why, and figures may overrule advice."""

import shlex

import msgspec
from hosts import SHAPE, host
from hypothesis import given, settings
from hypothesis import strategies as st

from core.catalog import choosing
from core.catalog.choosing import Candidate, Host, recommend
from core.catalog.work import of_shape
from core.nouns import Advice, Recommendation, Score, Wishes

GIB = 1 << 30
ADVICE = {
    "code": Advice(use="code", family="phi-4", reason="Phi-4 is the plain choice for programs"),
    "law": Advice(use="law", family="", reason="there is none"),
}
LICENCES = ("apache-2.0", "mit", "gemma", "llama3.1", "")


def candidate(name: str = "m", *, billions: float = 1.0, stored: bool = False, **more: object) -> Candidate:
    """A dense model of so many parameters in four and a half bits each."""
    scale = (billions * 1e9 / SHAPE.n_params) ** 0.5
    shape = msgspec.structs.replace(
        SHAPE, n_embd=round(SHAPE.n_embd * scale), n_params=round(billions * 1e9), quantization="Q4_K_M",
        tensor_bytes=round(billions * 1e9 * 4.5 / 8), ctx_train=32768,
    )  # fmt: skip
    given = {
        "title": name.title(), "quantization": "Q4_K_M", "bytes": shape.tensor_bytes, "params": shape.n_params,
        "uses": ("general", "code"), "ctx": 32768, "licence": "apache-2.0", "shape": shape, "work": of_shape(shape),
        "repo": f"org/{name}-GGUF", "entry": name, "family": "qwen",
    } | more  # fmt: skip
    return Candidate(name=name, stored=stored, **given)  # type: ignore[arg-type]


def code(value: float, benchmark: str = "HumanEval pass@1") -> Score:
    return Score(use="code", benchmark=benchmark, value=value, of=100, source=None)


HOST = Host(room_bytes=8 * GIB, threads=4, bench=host())


def names(found: Recommendation) -> list[str]:
    return [each.name for each in found.choices]


def test_the_better_one_is_first_and_every_rank_says_why() -> None:
    found = recommend(
        Wishes(use="code"),
        [candidate("low", scores=(code(40),)), candidate("high", scores=(code(80),)), candidate("none", billions=2)],
        HOST, ADVICE,
    )  # fmt: skip
    assert names(found) == ["high", "low", "none"] and [each.rank for each in found.choices] == [1, 2, 3]
    first = " | ".join(found.choices[0].reasons)
    for words in ("HumanEval pass@1 80 of 100", "tokens/s", "licence apache-2.0", "is left", "load time is not known"):
        assert words in first
    assert found.choices[2].quality is None and "no score for code is known" in found.choices[2].reasons
    assert found.choices[0].commands == (
        "corral models pull hf:org/high-GGUF:Q4_K_M --name high --deploy high --ctx 4096 --parallel 1",
    )


def test_plain_advice_is_the_start_and_figures_overrule_it_and_say_so() -> None:
    phi = candidate("phi", family="phi-4", scores=(code(60),))
    found = recommend(Wishes(use="code"), [phi, candidate("other", billions=3)], HOST, ADVICE)
    assert names(found)[0] == "phi" and found.overruled == "" and "Phi-4" in found.plain
    better = recommend(Wishes(use="code"), [phi, candidate("qwen", scores=(code(90),))], HOST, ADVICE)
    assert names(better)[0] == "qwen" and "Qwen rather than phi-4" in better.overruled and "against" in better.overruled
    large = candidate("phi", family="phi-4", billions=60, scores=(code(95),))
    unfit = recommend(Wishes(use="code"), [large, candidate("qwen", scores=(code(90),))], HOST, ADVICE)
    assert names(unfit) == ["qwen"] and "more memory" in unfit.overruled
    assert "nothing of phi-4" in recommend(Wishes(use="code"), [candidate("qwen")], HOST, ADVICE).overruled
    unscored = recommend(Wishes(use="code"), [candidate("big", billions=3), candidate("phi", family="phi-4")], HOST,
                         ADVICE)  # fmt: skip
    assert names(unscored) == ["phi", "big"] and "plain advice goes first" in " ".join(unscored.notes)


def test_where_nothing_fits_the_nearest_three_say_what_each_would_need() -> None:
    many = [candidate(f"m{n}", billions=n) for n in (20, 30, 40, 50)]
    found = recommend(Wishes(use="code", min_speed=1000.0, licences=("mit",)), many, HOST, ADVICE)
    assert found.choices == () and [each.name for each in found.nearest] == ["m20", "m30", "m40"]
    needs = " | ".join(found.nearest[0].needs)
    for words in ("more memory", "--min-speed", "--licence apache-2.0"):
        assert words in needs
    longer = recommend(Wishes(use="code", ctx=65536), [candidate("m", billions=0.1)], HOST, ADVICE)
    assert longer.nearest[0].needs == ("--context 32768: it was made for no more",)


def test_what_cannot_be_started_now_is_no_choice_and_says_what_it_would_need() -> None:
    away = candidate("away", stored=True, scores=(code(90),), lacks="its tier fast, which is away")
    found = recommend(Wishes(use="code"), [away, candidate("here", stored=True)], HOST, ADVICE)
    assert names(found) == ["here"]
    assert recommend(Wishes(use="code"), [away], HOST, ADVICE).nearest[0].needs == ("its tier fast, which is away",)


def test_what_the_cpu_gets_a_copy_of_is_said_with_what_it_takes() -> None:
    plain = candidate("plain")
    assert plain.shape is not None
    copied = msgspec.structs.replace(plain, shape=msgspec.structs.replace(plain.shape, repack_bytes=GIB), name="copied",
                                     entry="copied")  # fmt: skip
    found = recommend(Wishes(use="code"), [plain, copied], HOST, ADVICE)
    told = {each.name: " | ".join(each.reasons) for each in found.choices}
    assert "(of it 1.0 GiB a copy of the weights for the CPU)" in told["copied"] and "copy" not in told["plain"]


def test_at_least_five_when_there_are_five() -> None:
    found = recommend(Wishes(use="code"), [candidate(f"m{n}", billions=0.5 + n / 10) for n in range(7)], HOST, ADVICE)
    assert len(found.choices) == 7
    assert len(recommend(Wishes(use="code", limit=5), [candidate(f"m{n}") for n in range(7)], HOST).choices) == 5


def test_one_choice_a_model_in_the_best_quantisation_that_meets_the_wishes() -> None:
    kinds = {"Q2_K": 2.6, "Q4_K_M": 4.8, "Q8_0": 8.5, "F16": 16.0}

    def of(kind: str, bits: float, *, stored: bool = False, name: str = "m") -> Candidate:
        made = candidate(name, billions=4, quantization=kind, bytes=round(4e9 * bits / 8), entry="m", stored=stored)
        assert made.shape is not None
        shape = msgspec.structs.replace(made.shape, tensor_bytes=made.bytes, quantization=kind)
        return msgspec.structs.replace(made, shape=shape, work=of_shape(shape))

    all_of = [of(kind, bits) for kind, bits in kinds.items()]
    picks = {
        gib: recommend(Wishes(use="code", memory=round(gib * GIB)), all_of, HOST).choices for gib in (2.5, 4, 8, 32)
    }
    assert [[each.quantization for each in found] for found in picks.values()] == [
        ["Q2_K"], ["Q4_K_M"], ["Q8_0"], ["Q8_0"]
    ]  # fmt: skip
    assert any("fewer than four bits" in words for words in picks[2.5][0].reasons)
    mine = recommend(Wishes(use="code"), [*all_of, of("Q4_K_M", 4.8, stored=True, name="mine")], HOST)
    assert names(mine) == ["mine"] and mine.choices[0].commands == ("corral deploy mine --ctx 4096 --parallel 1",)
    (near,) = recommend(Wishes(use="code", memory=8 * GIB, licences=("nosuch",)), all_of, HOST).nearest
    assert near.quantization == "Q8_0" and near.fits


def test_models_of_their_own_kind_are_for_nothing_else() -> None:
    embeds = candidate("e", uses=("embedding",), stored=True)
    assert names(recommend(Wishes(use="embedding"), [embeds, candidate("m")], HOST)) == ["e"]
    assert names(recommend(Wishes(use="code"), [embeds, candidate("m")], HOST)) == ["m"]
    found = recommend(Wishes(use="embedding"), [embeds], HOST)
    assert found.choices[0].commands[-1].endswith("--embedding")


def test_one_that_only_reads_is_judged_by_what_it_reads() -> None:
    """A step for each token of an answer says nothing of it: it makes none."""
    weak = Host(room_bytes=64 * GIB, threads=4, bench=host(one=1e9, four=1e9, prompt=40e9))
    scored = Score(use="embedding", benchmark="MTEB", value=60, of=100, source=None)
    embeds = candidate("e", uses=("embedding",), scores=(scored,))
    found = recommend(Wishes(use="embedding", users=4, min_speed=10), [embeds], weak)
    (only,) = found.choices
    assert not only.speed.writes and only.speed.decode == only.speed.prefill > 40
    assert only.speed.each == round(only.speed.prefill / 4, 2)
    words = " | ".join(only.reasons)
    assert "texts of 512 tokens a second" in words and "than one reads" not in words and "first token" not in words
    assert recommend(Wishes(use="code"), [candidate("m")], weak).choices[0].speed.each < 5


def test_a_host_that_was_busy_as_it_was_measured_is_noted() -> None:
    busy = Host(room_bytes=8 * GIB, threads=4, bench=host(load=2.2))
    assert any("busy when it was measured (load 2.2" in note for note in recommend(Wishes(), [candidate()], busy).notes)
    assert not any("busy" in note for note in recommend(Wishes(), [candidate()], HOST).notes)


def test_what_is_not_known_is_said_and_meets_no_wish_for_it() -> None:
    blank = candidate("m", work=None, licence="", uses=())
    found = recommend(Wishes(use="code"), [blank], Host(room_bytes=8 * GIB, threads=4))
    (only,) = found.choices
    assert not only.speed.known and only.quality is None
    words = " | ".join(only.reasons)
    assert "its licence is not known" in words and "speed is not known" in words
    assert "not in the catalogue" in words and "corral nodes bench" in " ".join(found.notes)
    for wishes in (Wishes(use="code", min_speed=1), Wishes(use="code", licences=("*",))):
        assert recommend(wishes, [blank], Host(room_bytes=8 * GIB, threads=4)).choices == ()


def test_one_without_a_shape_fits_nowhere_since_its_cache_is_not_known() -> None:
    """Its files and some more were said to be a bound, whatever the context and however many the users."""
    small = candidate("small", shape=None, work=None, bytes=GIB // 4, scores=(code(99),))
    for wishes in (Wishes(use="code", users=256, ctx=1 << 20), Wishes(use="code", memory=64 * GIB)):
        found = recommend(wishes, [small], HOST)
        (near,) = found.nearest
        assert found.choices == () and not near.fits and near.plan_bytes == 0 and not near.bound
        assert any("its memory, which is not known: its files alone are 256 MiB" in need for need in near.needs)
    found = recommend(Wishes(use="code"), [small, candidate("m")], HOST)
    assert names(found) == ["m"] and any("of Small nobody knows what it takes" in note for note in found.notes)


def test_an_unknown_context_meets_no_wish_for_one() -> None:
    unsaid = candidate("unsaid", ctx=0)
    assert unsaid.shape is not None and names(recommend(Wishes(use="code", ctx=32768), [unsaid], HOST)) == ["unsaid"]
    unsaid = msgspec.structs.replace(unsaid, shape=msgspec.structs.replace(unsaid.shape, ctx_train=0))
    found = recommend(Wishes(use="code", ctx=8192), [unsaid], HOST)
    assert found.nearest[0].needs == ("--context 4096: for how much it was made is not known",)
    (only,) = recommend(Wishes(use="code"), [unsaid], HOST).choices
    assert "for how much context it was made is not known" in only.reasons


def test_one_of_unknown_speed_comes_after_those_whose_speed_is_known_and_says_so() -> None:
    unknown = candidate("unknown", work=None, scores=(code(90),), stored=True)
    found = recommend(Wishes(use="code"), [unknown, candidate("known", scores=(code(30),))], HOST)
    assert names(found) == ["known", "unknown"]
    assert any("it comes after those of which it is" in words for words in found.choices[1].reasons)
    assert found.notes[0].startswith("1 of the 2 ") and "their speed is not known" in found.notes[0]


def test_one_slower_than_reading_comes_after_those_that_are_not() -> None:
    slow = candidate("slow", billions=14, scores=(code(90),))
    weak = Host(room_bytes=64 * GIB, threads=4, bench=host(one=2e9, four=2e9, prompt=4e9))
    found = recommend(Wishes(use="code"), [slow, candidate("quick", scores=(code(50),))], weak, ADVICE)
    assert names(found) == ["quick", "slow"]
    assert any("slower than one reads" in words for words in found.choices[1].reasons)


def test_how_many_are_behind_for_their_speed_alone_is_the_first_note() -> None:
    weak = Host(room_bytes=64 * GIB, threads=4, bench=host(one=2e9, four=2e9, prompt=4e9))
    slow = [candidate(f"slow{n}", billions=14 + n, scores=(code(90),)) for n in range(2)]
    found = recommend(Wishes(use="code"), [*slow, candidate("quick", scores=(code(50),))], weak, ADVICE)
    assert found.notes[0].startswith("2 of the 3 ") and "fewer than 5 tokens/s" in found.notes[0]
    for alike in (slow, [candidate("quick")]):
        assert not any("tokens/s" in note for note in recommend(Wishes(use="code"), alike, weak, ADVICE).notes)


def test_one_of_unknown_use_comes_after_all_that_are_for_it_and_its_flags_are_said_first() -> None:
    weak = Host(room_bytes=64 * GIB, threads=4, bench=host(one=2e9, four=2e9, prompt=4e9))
    toy = candidate(
        "toy", billions=0.01, uses=(), stored=True, entry="", family="", flags=("its template reaches out",)
    )
    slow = candidate("slow", billions=14, family="phi-4")
    found = recommend(Wishes(use="code"), [toy, slow], weak, ADVICE)
    assert names(found) == ["slow", "toy"] and found.overruled == ""
    assert found.choices[1].reasons[0] == "its template reaches out: look at it before you serve it"


def test_figures_say_something_only_where_both_have_one() -> None:
    scored = [candidate("one", scores=(code(40),)), candidate("two", scores=(code(80),))]
    found = recommend(Wishes(use="code"), [*scored, candidate("phi", family="phi-4")], HOST, ADVICE)
    assert names(found)[0] == "two" and "the plain choice, Phi, cannot be compared" in found.overruled
    assert "figures" not in found.overruled


def test_what_is_shown_and_what_is_said_of_quality_are_one_figure() -> None:
    many = [candidate(f"m{n}", scores=(code(40 + n * 1.37), code(30 + n * n / 9, "B"))) for n in range(12)]
    for each in recommend(Wishes(use="code", limit=100), many, HOST).choices:
        assert any(words.startswith(f"quality {each.quality:.2f} for") for words in each.reasons)


# ---------------------------------------------------------------------------------------- directions

candidates = st.lists(
    st.builds(
        candidate,
        st.sampled_from([f"m{n}" for n in range(8)]),
        billions=st.floats(0.1, 40),
        licence=st.sampled_from(LICENCES),
        uses=st.sampled_from([("code",), ("general",), ("general", "code"), (), ("embedding",)]),
        ctx=st.sampled_from([0, 2048, 8192, 131072]),
        scores=st.lists(st.builds(code, st.floats(1, 99), st.sampled_from(["A", "B"])), max_size=2).map(tuple),
        stored=st.booleans(),
    ),
    max_size=8, unique_by=lambda each: each.name,
)  # fmt: skip
wished = st.builds(
    Wishes, use=st.sampled_from(["code", "general", "embedding"]), users=st.integers(1, 32),
    ctx=st.sampled_from([256, 4096, 32768]), min_speed=st.sampled_from([0.0, 2.0, 20.0]),
    memory=st.integers(GIB // 2, 40 * GIB), licences=st.sampled_from([(), ("apache-2.0",), ("mit", "gemma"), ("l*",)]),
    limit=st.just(100),
)  # fmt: skip
quick = settings(max_examples=60, deadline=None)


def answer(wishes: Wishes, found: list[Candidate]) -> Recommendation:
    return recommend(wishes, found, HOST, ADVICE)


def changed(wishes: Wishes, **more: object) -> Wishes:
    return msgspec.structs.replace(wishes, **more)


@quick
@given(candidates, wished, st.integers(1, 20 * GIB))
def test_less_memory_never_adds_one(found: list[Candidate], wishes: Wishes, less: int) -> None:
    smaller = changed(wishes, memory=max(1, wishes.memory - less))
    assert set(names(answer(smaller, found))) <= set(names(answer(wishes, found)))


@quick
@given(candidates, wished, st.floats(0.1, 100))
def test_a_higher_least_speed_never_adds_one(found: list[Candidate], wishes: Wishes, more: float) -> None:
    faster = answer(changed(wishes, min_speed=wishes.min_speed + more), found)
    assert set(names(faster)) <= set(names(answer(wishes, found)))
    assert all(each.speed.each >= wishes.min_speed + more for each in faster.choices)


@quick
@given(candidates, wished, st.integers(1, 32))
def test_more_users_never_add_one_nor_make_one_of_them_faster(
    found: list[Candidate], wishes: Wishes, more: int
) -> None:
    few, many = answer(wishes, found), answer(changed(wishes, users=wishes.users + more), found)
    assert set(names(many)) <= set(names(few))
    speeds = {(each.name, each.quantization): each.speed.each for each in few.choices}
    for each in many.choices:
        assert each.speed.each <= speeds[each.name, each.quantization]


@quick
@given(candidates, wished, st.sampled_from([2, 4]))
def test_more_context_never_adds_one(found: list[Candidate], wishes: Wishes, times: int) -> None:
    longer = answer(changed(wishes, ctx=wishes.ctx * times), found)
    assert set(names(longer)) <= set(names(answer(wishes, found)))


@quick
@given(candidates, wished, st.sampled_from([("apache-2.0",), ("mit",), ("gemma", "mit"), ("a*",)]))
def test_a_wanted_licence_never_adds_others(found: list[Candidate], wishes: Wishes, wanted: tuple[str, ...]) -> None:
    free, bound = answer(changed(wishes, licences=()), found), answer(changed(wishes, licences=wanted), found)
    assert set(names(bound)) <= set(names(free))
    assert all(any(each.licence == w or (w == "a*" and each.licence.startswith("a")) for w in wanted)
               for each in bound.choices)  # fmt: skip


@quick
@given(candidates, wished)
def test_every_choice_meets_every_wish_and_every_nearest_one_misses_some(
    found: list[Candidate], wishes: Wishes
) -> None:
    told = answer(wishes, found)
    for each in told.choices:
        assert each.fits and not each.needs and each.reasons and each.plan_bytes <= wishes.memory
    assert not (told.choices and told.nearest) and len(told.nearest) <= 3
    assert all(each.needs for each in told.nearest)


def test_a_licence_of_a_whole_page_is_no_sentence() -> None:
    """It stood in the reasons, and in what one was to type."""
    long = "you may copy this " * 50
    assert len(choosing._said(long)) == choosing.LICENCE and choosing._said("mit") == "mit"
    wish = shlex.split(f"--licence {choosing._wished(long)}")[1]
    assert choosing._licensed(long, [wish]) and len(wish) <= choosing.LICENCE + 1


def test_what_nobody_has_tied_to_a_use_is_said_to_be_that() -> None:
    """A model of no known use `came before medicine`, and stood first as if it were for that."""
    advice = {"medicine": Advice(use="medicine", family="medicine", reason="a model made for it")}
    found = recommend(Wishes(use="medicine"), [candidate("m7", uses=(), family="", entry="")], HOST, advice)
    assert found.overruled.startswith("M7 comes before the models made for medicine: ")
    assert "none of these is known to be for medicine" in " ".join(found.notes)
    tied = recommend(Wishes(use="medicine"), [candidate("m7", uses=("medicine",))], HOST, advice)
    assert "nobody has said what" not in " ".join(tied.notes)


def test_less_memory_than_a_mebibyte_is_not_said_to_be_none() -> None:
    (near,) = recommend(Wishes(use="code", memory=1024), [candidate()], HOST).nearest
    assert "1 KiB is wished" in near.needs[0]
