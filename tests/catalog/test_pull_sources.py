"""What is named, what is chosen of it and why, and what is refused before a byte is stored."""

import re

import pytest
from hub_double import Fault, HubDouble
from pullworld import ME, World, model

from core.catalog.identity import label
from core.catalog.pull import choice
from core.catalog.pull.source import Hub, Web, parse, parts_of, remote
from core.errors import BadModel, CorralError, Invalid, NoRoom, NotFound
from core.nouns import PullFile, PullPlan

REPO = "acme/tiny-GGUF"
SOURCE = f"hf:{REPO}"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:acme/tiny-GGUF", Hub(REPO)),
        ("hf://acme/tiny-GGUF:Q4_K_M", Hub(REPO, "Q4_K_M")),
        ("hf:acme/tiny-GGUF:Q4_K_M@refs/pr/1", Hub(REPO, "Q4_K_M", "", "refs/pr/1")),
        ("hf:acme/tiny-GGUF@main", Hub(REPO)),
        ("hf:acme/tiny-GGUF/sub/x-Q8_0.gguf@v1", Hub(REPO, "", "sub/x-Q8_0.gguf", "v1")),
        ("hf:acme/tiny-GGUF:x-Q8_0.gguf", Hub(REPO, "", "x-Q8_0.gguf")),
        ("https://huggingface.co/acme/tiny-GGUF", Hub(REPO)),
        ("https://huggingface.co/acme/tiny-GGUF/tree/v1", Hub(REPO, "", "", "v1")),
        ("https://hf.co/acme/tiny-GGUF/resolve/main/x.gguf?download=true", Hub(REPO, "", "x.gguf")),
        ("https://huggingface.co/acme/tiny-GGUF/blob/v1/a/x.gguf", Hub(REPO, "", "a/x.gguf", "v1")),
        ("https://host:8443/a%20b/x.gguf", Web("https://host:8443/a%20b/x.gguf")),
    ],
)
def test_a_source_is_read_as_people_write_it(text: str, source: object) -> None:
    assert parse(text) == (source, "")
    assert remote(text)


@pytest.mark.parametrize("text", ["/a/b.gguf", "b.gguf", "../hf:x", "file:///a/b.gguf", "C:x"])
def test_a_file_here_is_no_source_of_a_pull(text: str) -> None:
    assert not remote(text)


@pytest.mark.parametrize(
    "text",
    [
        "hf:", "hf:acme", "hf:/x", "hf:acme/", "hf:../x", "hf:acme/..", "hf:acme/x/../y.gguf", "hf:a/b:c d",
        "hf:acme/x@../../y", "hf:acme/x//y.gguf", "hf:acme/x/a b\n.gguf", "ftp://h/x.gguf", "https:///x.gguf",
        "https://h:port/x.gguf", "https://huggingface.co/acme", "https://huggingface.co/acme/x/discussions/1",
        "https://user:secret@host/x.gguf", "https://h/" + "x" * 5000 + ".gguf", "javascript:alert(1)",
        "https://h/w-00001-of-99999.gguf", "https://h/x.zip", "https://h/", "https://h/.gguf",
    ],
)  # fmt: skip
def test_what_is_no_source_is_refused_without_its_secret(text: str) -> None:
    with pytest.raises(Invalid) as told:
        parse(text)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("end", [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".PICKLE"])
def test_a_pickle_is_refused_with_the_reason(end: str) -> None:
    for text in (f"https://h/model{end}", f"hf:acme/x/model{end}"):
        with pytest.raises(BadModel, match="runs whatever code it holds"):
            parse(text)


def test_safetensors_are_refused_with_what_can_be_done() -> None:
    with pytest.raises(BadModel, match="attach the server"):
        parse("https://h/model-00001-of-00002.safetensors")


def test_what_follows_the_question_mark_is_apart_from_the_address() -> None:
    source, query = parse("https://h/x.gguf?X-Amz-Signature=s3cr3t#here")
    assert (
        query == "X-Amz-Signature=s3cr3t" and "s3cr3t" not in str(source) and isinstance(source, Web) and source.query
    )


def test_a_split_models_parts_are_beside_the_one_that_is_named() -> None:
    source, _ = parse("https://h/a/w-00002-of-00003.gguf")
    assert isinstance(source, Web)
    assert [each.name for each in parts_of(source)] == [f"w-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


# -------------------------------------------------------------------------------------------- choosing


def listed(*names: str) -> list[PullFile]:
    return [PullFile(name=name, bytes=100 + n) for n, name in enumerate(names)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M", "Q4_K_M"), ("x.q8_0", "Q8_0"), ("x-UD-Q4_K_XL", "UD-Q4_K_XL"),
        ("gpt-oss-20b-mxfp4", "MXFP4"), ("x-fp16", "F16"), ("x-IQ2_XXS", "IQ2_XXS"), ("x-Q6_K", "Q6_K"),
        ("x-TQ1_0", "TQ1_0"), ("x-Q4_0_4_4", "Q4_0_4_4"), ("F16-club-7b", "F16"), ("x", ""), ("Q4all", ""),
    ],
)  # fmt: skip
def test_a_files_name_says_its_quantisation(name: str, said: str) -> None:
    assert label(name) == said


def test_files_are_grouped_by_quantisation_and_what_is_no_model_is_told() -> None:
    groups, notes = choice.group(
        listed(
            "README.md", "x-Q4_0.gguf", "Q8_0/x-Q8_0-00001-of-00002.gguf", "Q8_0/x-Q8_0-00002-of-00002.gguf",
            "x-F16-00001-of-00003.gguf", "mmproj-x-F16.gguf", "x.imatrix.gguf", "other-Q4_0.gguf",
        )
    )  # fmt: skip
    assert {(each.quantization, len(each.files)) for each in groups} == {("Q8_0", 2), ("x-Q4_0", 1), ("other-Q4_0", 1)}
    assert any("mmproj" in note for note in notes) and any("1 of its 3 parts" in note for note in notes)


def repo(hub: HubDouble, **sizes: int) -> None:
    hub.repos[REPO] = {f"tiny-{quant}.gguf": model(size) for quant, size in sizes.items()}


async def planned(world: World, source: str = SOURCE, ctx: int = 0) -> PullPlan:
    return await world.pulls.plan(ME, "request1", source, secret="", endpoint="", ctx=ctx)


def taken(plan: PullPlan) -> str:
    return next((each.quantization for each in plan.choices if each.chosen), "")


async def test_the_best_that_fits_in_memory_is_chosen_and_why_is_said(world: World, hub: HubDouble) -> None:
    repo(hub, Q8_0=3_000_000, Q5_0=2_000_000, F16=6_000_000)
    plan = await planned(world)
    assert [each.quantization for each in plan.choices] == ["F16", "Q8_0", "Q5_0"]
    assert taken(plan) == "Q8_0" and plan.ctx == 2048 and plan.architecture == "llama"
    needs = {each.quantization: each.need_bytes for each in plan.choices}
    world.free = needs["Q8_0"] - 1
    plan = await planned(world)
    assert taken(plan) == "Q5_0" and "Q8_0 would be better and does not" in plan.why
    world.free = needs["Q5_0"] - 1
    plan = await planned(world)
    assert taken(plan) == "" and plan.why == "none fits"
    with pytest.raises(NoRoom, match="no quantisation of hf:acme/tiny-GGUF fits") as told:
        await world.pull(SOURCE)
    assert [each["quantization"] for each in told.value.details["nearest"]] == ["Q5_0", "Q8_0", "F16"]
    done = await world.pulled(f"{SOURCE}:Q5_0")  # by its name it is pulled all the same
    assert done.state == "done"


async def test_a_longer_context_takes_a_smaller_quantisation(world: World, hub: HubDouble) -> None:
    repo(hub, Q8_0=3_000_000, Q4_0=2_000_000)
    world.free = (await planned(world, ctx=256)).choices[0].need_bytes
    assert taken(await planned(world, ctx=256)) == "Q8_0"
    assert taken(await planned(world, ctx=2048)) != "Q8_0"


async def test_without_a_header_memory_is_estimated_and_said_to_be(world: World, hub: HubDouble) -> None:
    hub.repos[REPO] = {"tiny-Q4_0.gguf": model(2_000_000), "tiny-Q2_K.gguf": b"GGUF" + b"\xff" * 1000}
    plan = await planned(world)
    assert plan.ctx == 0 and any("estimated" in note for note in plan.notes)
    assert "by its size alone" in plan.choices[0].why


async def test_a_quantisation_that_is_not_there_names_those_that_are(world: World, hub: HubDouble) -> None:
    repo(hub, Q8_0=3000, Q4_0=2000)
    with pytest.raises(NotFound, match="Q8_0, Q4_0"):
        await planned(world, f"{SOURCE}:Q5_K_M")
    assert taken(await planned(world, f"{SOURCE}:q4_0")) == "Q4_0"
    assert taken(await planned(world, f"{SOURCE}/tiny-Q8_0.gguf")) == "Q8_0"


async def test_a_file_that_says_an_absurd_length_is_none(world: World, hub: HubDouble) -> None:
    hub.files["x.gguf"] = model(2000)
    hub.peeked = "bytes 0-99/999999999999999999"
    with pytest.raises(BadModel, match="absurdly large"):
        await world.pull(f"{hub.url}/files/x.gguf")


async def test_a_hash_is_given_with_an_address_alone(world: World, hub: HubDouble) -> None:
    repo(hub, Q4_0=2000)
    with pytest.raises(Invalid, match="for an address"):
        await world.pull(SOURCE, sha256="0" * 64)


async def test_a_repository_without_a_gguf_is_told_what_it_has(world: World, hub: HubDouble) -> None:
    hub.repos["acme/a"] = {"pytorch_model.bin": b"\x80\x04", "config.json": b"{}"}
    hub.repos["acme/b"] = {"model.safetensors": b"x"}
    with pytest.raises(Invalid, match="runs whatever code"):
        await world.pull("hf:acme/a")
    hub.extra = {
        "safetensors": {"parameters": {"BF16": 8_000_000_000}, "total": 8_000_000_000},
        "config": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
    }
    with pytest.raises(Invalid) as told:
        await world.pull("hf:acme/b")
    assert "LlamaForCausalLM, 8.0 billion parameters as BF16" in told.value.why and "attached" in told.value.why
    plan = await planned(world, "hf:acme/b")
    assert plan.why == "it has no GGUF model" and "LlamaForCausalLM" in plan.notes[0]


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("hf:acme/none", NotFound, "or it is private"), ("hf:acme/tiny-GGUF@v9", NotFound, "no revision 'v9'"),
        ("URL/files/none.gguf", NotFound, "404"), ("URL/files/x.pt", BadModel, "pickle"),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_said_at_once(
    world: World, hub: HubDouble, source: str, error: type[CorralError], said: str
) -> None:
    repo(hub, Q4_0=2000)
    with pytest.raises(error, match=re.escape(said)):
        await world.pull(source.replace("URL", hub.url))
    assert world.left_over() == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [(Fault(status=429, retry_after="12"), "12 s"), (Fault(status=500), "answers 500"), (Fault(status=418), "418")],
)
async def test_a_hub_that_does_not_answer_is_told_with_its_reason(
    world: World, hub: HubDouble, fault: Fault, said: str
) -> None:
    repo(hub, Q4_0=2000)
    hub.api_faults.append(fault)
    with pytest.raises(CorralError, match=said):
        await world.pull(SOURCE)


async def test_without_a_network_it_says_so_at_once_and_what_works(world: World, hub: HubDouble) -> None:
    repo(hub, Q4_0=2000)
    await hub.end()
    for source in (SOURCE, f"{hub.url}/files/tiny.gguf"):
        with pytest.raises(CorralError, match=r"cannot be reached.*without a network these work"):
            await world.pull(source)
    assert world.waits == [], "it was not tried again and again"


async def test_hostile_names_of_files_are_no_files(world: World, hub: HubDouble) -> None:
    hub.repos[REPO] = {
        "tiny-Q4_0.gguf": model(2000), "../../up-Q8_0.gguf": model(3000), "a\nb-Q8_0.gguf": model(3000),
        "/abs-Q6_K.gguf": model(3000),
    }  # fmt: skip
    assert [each.quantization for each in (await planned(world)).choices] == ["Q4_0"]
