"""A name has versions: which one it means, what depends on that, and what stays although somebody would remove it."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import projectors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from stores import ME, STRANGER, file, maker, opened, stored, take

from core.catalog import Catalog, Use, references, tables, template
from core.catalog.references import Reference
from core.catalog.sizing.projector import graph_bytes
from core.errors import Changed, Conflict, CorralError, Invalid, NotAllowed, NotFound
from core.nouns import ImportOptions, Model
from core.store.migrate import find


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with opened(tmp_path) as made:
        yield made


def used(catalog: Catalog, *uses: Use) -> None:
    catalog._uses.all = lambda db: list(uses)


# ------------------------------------------------------------------------------------------------ how it is named


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("chat", Reference("chat", "live")), ("chat:canary", Reference("chat", "canary")),
        ("chat@3", Reference("chat", version=3)), ("chat@sha256:0123abcd", Reference("chat", sha256="0123abcd")),
    ],
)  # fmt: skip
def test_a_version_is_named_in_four_ways(text: str, meant: Reference) -> None:
    assert references.split(text) == meant
    assert references.base(text) == "chat"


@pytest.mark.parametrize(
    "text", ["chat@", "chat@0", "chat@x", "chat@sha256:12", "chat:", "chat:A", "chat@-1", "chat@1x"]
)
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        references.split(text)


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_a_sentence(text: str) -> None:
    try:
        found = references.split(text)
    except Invalid as error:
        assert error.what
    else:
        assert found.name == references.base(text) and bool(found.alias) + bool(found.version) + bool(found.sha256) == 1


# ------------------------------------------------------------------------------------------------ versions


async def test_another_file_under_a_name_is_its_next_version_and_live_stays(catalog: Catalog, tmp_path: Path) -> None:
    first = await take(catalog, file(tmp_path, 1))
    second = await take(catalog, file(tmp_path, 2), options=ImportOptions(label="new", notes="try it"))
    assert (first.version, first.aliases) == (1, ("live",))
    assert (second.version, second.aliases, second.label, second.notes, second.versions) == (2, (), "new", "try it", 2)
    assert (await catalog.get("m")).version == 1
    for text in ("m@2", f"m@sha256:{second.sha256[:10]}"):
        assert (await catalog.get(text)).version == 2
    assert [each.what for each in await catalog.history("m")] == ["added", "alias", "added"]


async def test_the_same_bytes_are_stored_once_and_refused_twice_under_one_name(
    catalog: Catalog, tmp_path: Path
) -> None:
    one = await take(catalog, file(tmp_path, 1))
    with pytest.raises(AssertionError, match="is the same already"):
        await take(catalog, file(tmp_path, 1))
    await take(catalog, file(tmp_path, 1), "other")
    assert stored(catalog) == [catalog.path(one)]
    await catalog.rm(ME, "r", "m")
    assert stored(catalog) == [catalog.path(one)]
    await catalog.rm(ME, "r", "other")
    assert stored(catalog) == []


async def test_a_number_is_never_given_again(catalog: Catalog, tmp_path: Path) -> None:
    for n in (1, 2):
        await take(catalog, file(tmp_path, n))
    await catalog.rm(ME, "r", "m@2")
    assert (await take(catalog, file(tmp_path, 3))).version == 3
    await catalog.rm(ME, "r", "m")
    with pytest.raises(NotFound):
        await catalog.get("m")
    assert (await take(catalog, file(tmp_path, 4))).version == 4


async def test_live_moves_and_previous_is_the_way_back(catalog: Catalog, tmp_path: Path) -> None:
    for n in (1, 2, 3):
        await take(catalog, file(tmp_path, n))
    used(catalog, Use("a", "m", 1), Use("b", "m:live", 1), Use("pinned", "m@1", 1), Use("c", "other", 1))
    told = await catalog.alias(ME, "r", "m", "live", "2", move=False)
    assert (told.version, told.before, told.touches, told.moved) == (2, 1, ("a", "b"), False)
    assert (await catalog.get("m")).version == 1
    assert (await catalog.alias(ME, "r", "m", "live", "2")).moved
    assert ((await catalog.get("m")).version, (await catalog.get("m:previous")).version) == (2, 1)
    await catalog.alias(ME, "r", "m", "live", "previous")
    assert ((await catalog.get("m")).version, (await catalog.get("m:previous")).version) == (1, 2)
    record = (await catalog.audit.ls(verb="models.alias"))[-1]  # type: ignore[attr-defined]
    assert (record.before, record.after) == ({"alias": "live", "version": 2}, {"alias": "live", "version": 1})


async def test_an_import_may_be_live_at_once(catalog: Catalog, tmp_path: Path) -> None:
    await take(catalog, file(tmp_path, 1))
    assert (await take(catalog, file(tmp_path, 2), options=ImportOptions(live=True))).aliases == ("live",)
    assert (await catalog.get("m:previous")).version == 1


@pytest.mark.parametrize("alias", ["previous", "", "A", "a b", "x" * 64, "../x"])
async def test_aliases_that_cannot_be_set_are_refused(catalog: Catalog, tmp_path: Path, alias: str) -> None:
    await take(catalog, file(tmp_path, 1))
    with pytest.raises(Invalid):
        await catalog.alias(ME, "r", "m", alias, "1")


async def test_who_may_not_is_refused_and_recorded(catalog: Catalog, tmp_path: Path) -> None:
    await take(catalog, file(tmp_path, 1))
    for call in (
        catalog.alias(STRANGER, "r", "m", "x", "1"), catalog.rm(STRANGER, "r", "m"),
        catalog.note(STRANGER, "r", "m", label="x"), catalog.drop_alias(STRANGER, "r", "m", "live"),
    ):  # fmt: skip
        with pytest.raises((NotAllowed, NotFound)):
            await call
    assert len(await catalog.audit.ls(outcome="refused")) == 4  # type: ignore[attr-defined]
    assert (await catalog.get("m")).aliases == ("live",)


# ------------------------------------------------------------------------------------------------ what is needed stays


async def test_what_a_deployment_or_an_alias_needs_is_named_and_stays(catalog: Catalog, tmp_path: Path) -> None:
    for n in (1, 2, 3):
        await take(catalog, file(tmp_path, n))
    await catalog.alias(ME, "r", "m", "canary", "3")
    await catalog.alias(ME, "r", "m", "live", "2")
    for text, needs in (("m@1", "m:previous"), ("m@2", "m:live"), ("m@3", "m:canary")):
        with pytest.raises(Conflict, match=needs):
            await catalog.rm(ME, "r", text)
    used(catalog, Use("chat", "m:canary", 1))
    with pytest.raises(Conflict, match="chat"):
        await catalog.drop_alias(ME, "r", "m", "canary")
    with pytest.raises(Conflict, match="chat"):
        await catalog.rm(ME, "r", "m")
    with pytest.raises(Conflict, match="it is what m means"):
        await catalog.drop_alias(ME, "r", "m", "live")
    with pytest.raises(Conflict, match="is an alias"):
        await catalog.rm(ME, "r", "m:canary")
    assert len(await catalog.versions("m")) == len(stored(catalog)) == 3


async def test_gc_takes_what_nothing_needs_and_says_what_that_frees(catalog: Catalog, tmp_path: Path) -> None:
    made = [await take(catalog, file(tmp_path, n)) for n in (1, 2, 3, 4)]
    await take(catalog, file(tmp_path, 3), "twin")
    await catalog.alias(ME, "r", "m", "live", "2")
    used(catalog, Use("chat", "m@4", 4))
    told = await catalog.collecting.gc(ME, "r", dry_run=True)
    assert [(each.name, each.bytes) for each in told.gone] == [("m@3", 0)]  # its bytes are twin's too
    assert {each.name for each in told.kept} == {"m@1", "m@2", "twin@1"}
    assert len(stored(catalog)) == 4
    used(catalog)
    assert not (await catalog.collecting.gc(ME, "r", dry_run=False, older_than_s=3600)).gone
    done = await catalog.collecting.gc(ME, "r", dry_run=False)
    assert {each.name for each in done.gone} == {"m@3", "m@4"} and done.bytes == made[3].bytes
    assert [model.version for model in await catalog.versions("m")] == [1, 2]
    assert stored(catalog) == sorted(map(catalog.path, [made[0], made[1], made[2]]))
    with pytest.raises(NotAllowed):
        await catalog.collecting.gc(STRANGER, "r", dry_run=True)


# ---------------------------------------------------------------------------------------- what somebody agreed to


async def test_what_was_not_shown_is_not_removed(catalog: Catalog, tmp_path: Path) -> None:
    for n in (1, 2):
        await take(catalog, file(tmp_path, n))
    shown = [each.name for each in (await catalog.collecting.gc(ME, "r", dry_run=True)).gone]
    await take(catalog, file(tmp_path, 3))
    with pytest.raises(Changed, match="m@3 would go too"):
        await catalog.collecting.gc(ME, "r", dry_run=False, seen=shown)
    await catalog.alias(ME, "r", "m", "canary", "2")
    with pytest.raises(Changed, match=r"m@3 would go too, and m@2 would not go any more"):
        await catalog.collecting.gc(ME, "r", dry_run=False, seen=shown)
    with pytest.raises(Changed, match="m@3 would go too"):
        await catalog.rm(ME, "r", "m", seen=["m@1", "m@2"])
    assert [each.version for each in await catalog.versions("m")] == [1, 2, 3] and len(stored(catalog)) == 3
    assert [each.name for each in (await catalog.collecting.gc(ME, "r", dry_run=False, seen=["m@3"])).gone] == ["m@3"]
    await catalog.rm(ME, "r", "m", seen=["m@2", "m@1"])
    assert stored(catalog) == []


async def test_an_alias_that_means_another_version_by_now_is_not_moved(catalog: Catalog, tmp_path: Path) -> None:
    for n in (1, 2, 3):
        await take(catalog, file(tmp_path, n))
    shown = await catalog.alias(ME, "r", "m", "live", "2", move=False)
    await catalog.alias(ME, "r", "m", "live", "3")
    with pytest.raises(Changed, match="m:live means version 3 now: it meant version 1 when it was shown"):
        await catalog.alias(ME, "r", "m", "live", str(shown.version), seen=shown.before)
    assert (await catalog.get("m")).version == 3
    assert not (await catalog.alias(ME, "r", "m", "live", "3", seen=1)).moved  # somebody did just that
    await catalog.alias(ME, "r", "m", "new", "1", seen=0)
    with pytest.raises(Changed, match="it meant nothing"):
        await catalog.alias(ME, "r", "m", "new", "2", seen=0)
    await catalog.drop_alias(ME, "r", "m", "new")
    with pytest.raises(Changed, match="m:new is gone now"):
        await catalog.alias(ME, "r", "m", "new", "2", seen=1)


# ---------------------------------------------------------------------------------------- what it is served with


async def test_a_version_keeps_what_its_projector_takes(catalog: Catalog, tmp_path: Path) -> None:
    eye, other = tmp_path / "eye.gguf", tmp_path / "other.gguf"
    told = projectors.metadata("gemma3-224") | {"general.architecture": "clip", "general.type": "mmproj"}
    told = {key: value for key, value in told.items() if not isinstance(value, (list, float))}
    eye.write_bytes(maker.make(told))
    other.write_bytes(maker.make(told | {"clip.projector_type": "resampler"}))
    seeing = await take(catalog, file(tmp_path, 1), projector=eye)
    assert seeing.projector_graph == graph_bytes(told, seeing.shape.n_embd) > 0
    assert (await catalog.get("m")).projector_graph == seeing.projector_graph
    assert (await take(catalog, file(tmp_path, 1), projector=other)).projector_graph == 0
    assert (await take(catalog, file(tmp_path, 2))).projector_graph == 0


def lora(arch: str = "llama", tensor: str = "blk.0.w.weight", down: int = 64, up: int = 64, **more: object) -> bytes:
    """An adapter of rank 4."""
    told = {"general.architecture": arch, "general.type": "adapter", "adapter.type": "lora", **more}
    pair = [(f"{tensor}.lora_a", [down, 4], 0, None), (f"{tensor}.lora_b", [4, up], 0, None)]
    return bytes(maker.make(told, pair))


async def test_a_projector_adapters_and_a_template_make_another_version(catalog: Catalog, tmp_path: Path) -> None:
    plain = await take(catalog, file(tmp_path, 1))
    projector, adapter = tmp_path / "mm.gguf", tmp_path / "lora.gguf"
    projector.write_bytes(maker.make({"general.architecture": "clip", "general.type": "mmproj"}))
    adapter.write_bytes(lora())
    served = ImportOptions(template="{{ messages }}", defaults={"temperature": 0.2})
    whole = await take(catalog, file(tmp_path, 1), options=served, projector=projector, adapters=(adapter,))
    assert whole.version == 2 and whole.sha256 != plain.sha256 and whole.files == plain.files
    serving = await catalog.serving("m@2")
    assert Path(serving.projector).read_bytes() == projector.read_bytes()
    assert [Path(each).read_bytes() for each in serving.adapters] == [adapter.read_bytes()]
    assert (serving.template, serving.model.defaults) == ("{{ messages }}", {"temperature": 0.2})
    assert len(stored(catalog)) == 3
    for wrong in ({"projector": adapter}, {"adapters": (projector,)}, {"projector": file(tmp_path, 5)}):
        with pytest.raises(AssertionError, match="is no"):
            await take(catalog, file(tmp_path, 1), "x", **wrong)
    await catalog.rm(ME, "r", "m@2")
    assert stored(catalog) == [catalog.path(plain)]


@pytest.mark.parametrize("given", [{"temperature": 9.0}, {"nonsense": 1.0}, {"top_p": -1.0}])
async def test_defaults_that_no_engine_takes_are_refused(
    catalog: Catalog, tmp_path: Path, given: dict[str, float]
) -> None:
    with pytest.raises(Invalid, match="may be"):
        await take(catalog, file(tmp_path, 1), options=ImportOptions(defaults=given))
    assert stored(catalog) == []


async def test_words_that_no_list_could_show_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    for options in (ImportOptions(label="x" * 101), ImportOptions(notes="x" * 4001), ImportOptions(licence="x" * 1001)):
        with pytest.raises(Invalid, match="is too long"):
            await take(catalog, file(tmp_path, 1), options=options)
    for label in ("live", "previous"):
        with pytest.raises(Invalid, match="taken for the alias"):
            await take(catalog, file(tmp_path, 1), options=ImportOptions(label=label))
    await take(catalog, file(tmp_path, 1))
    with pytest.raises(Invalid, match="is too long"):
        await catalog.note(ME, "r", "m", label="x" * 101)
    assert (await catalog.get("m")).label == ""


async def test_a_template_that_reaches_for_more_or_has_changed_is_flagged(catalog: Catalog, tmp_path: Path) -> None:
    usual = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert (await take(catalog, file(tmp_path, 1, template=usual))).flags == ()
    changed = await take(catalog, file(tmp_path, 2, template=usual + "{{ ''.__class__ }}"))
    assert len(changed.flags) == 2 and "__class__" in changed.flags[0] and "m@1" in changed.flags[1]
    assert await catalog.template(changed) == usual + "{{ ''.__class__ }}"


async def test_a_template_that_is_not_its_makers_is_flagged(catalog: Catalog, tmp_path: Path) -> None:
    found = await take(catalog, file(tmp_path, 1, template="{{ messages }}"), "qwq-32b")
    assert found.flags == ("its chat template is not that of qwq-32b in the catalogue",)


@pytest.mark.parametrize(
    "text",
    ["{{ self.__init__ }}", "{% include '/etc/passwd' %}", "{{ x|attr('y') }}", "{{ os.popen('id') }}", "a\x1b[2Jb",
     "{% for i in range(99999999) %}{% endfor %}", "see https://evil.example/x", "{{ '" + "x" * 70_000 + "' }}"],
)  # fmt: skip
def test_what_is_unusual_in_a_template_is_said(text: str) -> None:
    assert template.flags(text)


def test_words_inside_texts_of_a_template_are_no_code() -> None:
    text = "{{ 'use os.path and __main__, import it' }}{% if config is defined %}Environment: ipython{% endif %}"
    assert template.flags(text) == ()


async def test_what_two_versions_differ_in_is_told(catalog: Catalog, tmp_path: Path) -> None:
    one = await take(catalog, file(tmp_path, 1, template="a\nb", llama__context_length=1024))
    licence = {"general__license": "mit", "tokenizer__ggml__tokens": ["<s>", "x"]}
    two = await take(catalog, file(tmp_path, 2, template="a\nc", **licence))
    found = {(each.kind, each.what): (each.old, each.new) for each in await catalog.diff(one, two)}
    assert found["licence", "licence"] == ("apache-2.0", "mit")
    assert found["shape", "ctx_train"] == ("1024", "2048")
    assert found["template", "chat template"] == ("b", "c")
    assert found["tokenizer", "tokenizer.ggml.tokens"] == ('{"count":4}', '{"count":2}')
    assert ("files", "model") in found and ("shape", "arch") not in found
    assert await catalog.diff(one, one) == []


# ------------------------------------------------------------------------------------------------ older programs


async def test_what_an_older_program_stored_is_version_one_of_each_name(tmp_path: Path) -> None:
    """The table before migration 0021, with a row as it was written then."""
    async with opened(tmp_path) as catalog:
        model = await take(catalog, file(tmp_path, 1, template="{{ ''.__class__ }}"))
        database = catalog._paths.database
    db = sqlite3.connect(database)
    (data,) = db.execute("SELECT data FROM model_versions").fetchone()
    migration = (Path(tables.__file__).parent / "migrations/0021_versions.sql").read_text()
    for table in ("version_objects", "model_aliases", "model_versions", "model_names", "model_changes", "objects",
                  "verifications", "tier_reservations", "tiers", "loads"):  # fmt: skip
        db.execute(f"DROP TABLE {table}")
    db.executescript((Path(tables.__file__).parent / "migrations/0003_models.sql").read_text())
    db.execute("INSERT INTO models VALUES ('m', ?, ?)", (model.sha256, data))
    db.execute("DELETE FROM migrations WHERE number IN (21, 26)")
    db.commit()
    db.close()
    assert "DROP TABLE models" in migration
    async with opened(tmp_path) as catalog:
        found = await catalog.get("m")
        assert (found.version, found.aliases, found.sha256) == (1, ("live",), model.sha256)
        assert found.template_sha256 == model.template_sha256 and "__class__" in found.flags[0]
        assert stored(catalog) == [catalog.path(found)]
        assert [each.what for each in await catalog.history("m")] == ["added"]


async def test_a_projector_is_read_again_when_sizing_knows_more_of_it(tmp_path: Path) -> None:
    eye = tmp_path / "eye.gguf"
    told = projectors.metadata("gemma3-224") | {"general.architecture": "clip", "general.type": "mmproj"}
    eye.write_bytes(maker.make({key: value for key, value in told.items() if not isinstance(value, (list, float))}))
    async with opened(tmp_path) as catalog:
        whole = await take(catalog, file(tmp_path, 1), projector=eye, options=ImportOptions(label="seen", notes="kept"))
        await take(catalog, file(tmp_path, 2))
        database = catalog._paths.database
    db = sqlite3.connect(database)
    # As a program wrote it that read nothing of a projector, and then one of other rules.
    for change in ("json_remove(data, '$.projector_graph', '$.projector_rules')",
                   "json_set(data, '$.projector_graph', 5, '$.projector_rules', 0)"):  # fmt: skip
        db.execute(f"UPDATE model_versions SET data = {change} WHERE version = 1")
        db.commit()
        async with opened(tmp_path) as catalog:
            assert await catalog.get("m@1") == msgspec.structs.replace(whole, versions=2)
            place = Path((await catalog.serving("m@1")).projector)
    db.execute("UPDATE model_versions SET data = json_set(data, '$.projector_graph', 5) WHERE version = 1")
    db.commit()
    async with opened(tmp_path) as catalog:  # by the rules of now it is not read at each start
        assert (await catalog.get("m@1")).projector_graph == 5
    db.execute("UPDATE model_versions SET data = json_set(data, '$.projector_rules', 0) WHERE version = 1")
    db.commit()
    place.unlink()
    async with opened(tmp_path) as catalog:  # nor does one that cannot be read keep a daemon from its start
        assert (await catalog.get("m@1")).projector_graph == 5
    db.close()


async def test_a_projector_of_another_width_is_refused_with_both(catalog: Catalog, tmp_path: Path) -> None:
    """By the matrix that makes its tokens, as llama.cpp does: old headers name a width of another kind."""
    told = {"general.architecture": "clip", "general.type": "mmproj", "clip.projector_type": "mlp",
            "clip.vision.projection_dim": 768}  # fmt: skip
    for kind, tensor in (("mlp", [32, 96]), ("gemma3", [96, 32]), ("qwen2vl_merger", [96])):
        name = {"mlp": "mm.2.weight", "gemma3": "mm.input_projection.weight", "qwen2vl_merger": "mm.2.bias"}[kind]
        for width in (96, 64):
            eye = tmp_path / f"{kind}{width}.gguf"
            dims = [width if each == 96 else each for each in tensor]
            eye.write_bytes(maker.make(told | {"clip.projector_type": kind}, [(name, dims, 0, None)]))
        with pytest.raises(AssertionError, match=r"tokens of 96 numbers, and this model's have 64"):
            await take(catalog, file(tmp_path, 1), kind, projector=tmp_path / f"{kind}96.gguf")
        assert (await take(catalog, file(tmp_path, 1), kind[:5], projector=eye)).projector is not None
    assert len(await catalog.ls()) == 3


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (lora("qwen2"), "architecture 'qwen2', and this model's is 'llama'"),
        (lora(tensor="blk.7.w.weight"), "'blk.7.w.weight', which this model has not"),
        (lora(down=96), "of 96 x 64, and this model's has 64 x 64"),
        (lora(up=96), "of 64 x 96, and this model's has 64 x 64"),
        (lora(**{"adapter.type": "ia3"}), "of the kind 'ia3'"),
        (maker.make({"general.architecture": "llama", "general.type": "adapter"}, []), "holds no tensors"),
        (maker.make({"general.architecture": "llama", "general.type": "adapter"}), "has not both of"),
    ],
)
async def test_an_adapter_of_another_model_is_refused_with_both_figures(
    catalog: Catalog, tmp_path: Path, adapter: bytes, words: str
) -> None:
    """It was planned for, and the engine ended again and again."""
    path = tmp_path / "lora.gguf"
    path.write_bytes(adapter)
    with pytest.raises(AssertionError) as told:
        await take(catalog, file(tmp_path, 1), adapters=(path,))
    assert words in str(told.value).replace("\\", "")
    assert stored(catalog) == []


async def test_an_adapter_that_fits_is_taken_whatever_it_leaves_alone(catalog: Catalog, tmp_path: Path) -> None:
    told = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    # Of the embedding the two stand the other way round; norms are applied by no engine.
    tensors = [("token_embd.weight.lora_a", [4, 4], 0, None), ("token_embd.weight.lora_b", [4, 64], 0, None),
               ("blk.0.attn_norm.weight", [9], 0, None)]  # fmt: skip
    (path := tmp_path / "lora.gguf").write_bytes(maker.make(told, tensors))
    assert len((await take(catalog, file(tmp_path, 1), adapters=(path,))).adapters) == 1


async def test_a_projector_without_tensors_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    (eye := tmp_path / "eye.gguf").write_bytes(
        maker.make({"general.architecture": "clip", "general.type": "mmproj"}, [])
    )
    with pytest.raises(AssertionError, match="holds no tensors"):
        await take(catalog, file(tmp_path, 1), projector=eye)


# ------------------------------------------------------------------------------------------------ any order of verbs


class Names(RuleBasedStateMachine):
    """Against a picture of names, versions and aliases: whatever is said in whatever order, what the tables hold is
    that, `live` and `previous` are where they should be, and no object is lost or left."""

    @initialize()
    def begin(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.execute("PRAGMA foreign_keys=ON")
        for _, _, sql in find(("core.catalog",)):
            self.db.executescript(sql)
        self.there: dict[str, dict[int, str]] = {}
        self.meant: dict[str, dict[str, int]] = {}
        self.last: dict[str, int] = {}

    @rule(name=st.sampled_from("ab"), content=st.integers(0, 5), live=st.booleans())
    def add(self, name: str, content: int, live: bool) -> None:
        sha256 = f"{content:064x}"
        model = MODEL(name, sha256)
        if sha256 in self.there.get(name, {}).values():
            with pytest.raises(Conflict):
                tables.add(self.db, model, {}, "", 0.0, live=live)
            return
        new = tables.add(self.db, model, {}, "", 0.0, live=live)
        self.last[name] = self.last.get(name, 0) + 1
        assert new.version == self.last[name]
        self.there.setdefault(name, {})[new.version] = sha256
        mine = self.meant.setdefault(name, {})
        if live or "live" not in mine:
            self._move(name, "live", new.version)

    @rule(name=st.sampled_from("ab"), alias=st.sampled_from(["live", "x"]), version=st.integers(1, 6))
    def move(self, name: str, alias: str, version: int) -> None:
        if version in self.there.get(name, {}):
            tables.move(self.db, name, alias, version, 0.0, "me")
            self._move(name, alias, version)

    def _move(self, name: str, alias: str, version: int) -> None:
        mine = self.meant[name]
        if alias == "live" and mine.get("live", version) != version:
            mine["previous"] = mine["live"]
        mine[alias] = version

    @rule(name=st.sampled_from("ab"), version=st.integers(1, 6))
    def drop(self, name: str, version: int) -> None:
        mine = self.there.get(name, {})
        if version not in mine or (self.meant[name].get("live") == version and len(mine) > 1):
            return
        sha256 = mine.pop(version)
        alone = not any(sha256 in each.values() for each in self.there.values())
        gone = tables.drop(self.db, tables.find(self.db, Reference(name, version=version)), 0.0, "me")
        assert gone == ([(sha256, "home")] if alone else [])
        self.meant[name] = {alias: v for alias, v in self.meant[name].items() if v != version}

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "db"):
            return
        found = {(m.name, m.version): (m.sha256, set(m.aliases)) for m in tables.versions(self.db)}
        assert found == {
            (name, version): (sha256, {alias for alias, v in self.meant[name].items() if v == version})
            for name, versions in self.there.items()
            for version, sha256 in versions.items()
        }
        objects = {row[0] for row in self.db.execute("SELECT sha256 FROM objects")}
        assert objects == {sha256 for versions in self.there.values() for sha256 in versions.values()}
        live = {m.name: m.version for m in tables.live(self.db)}
        assert live == {name: self.meant[name]["live"] for name, versions in self.there.items() if versions}


def MODEL(name: str, sha256: str) -> Model:  # noqa: N802
    from core.nouns import ModelFile, ModelShape

    shape = ModelShape(
        arch="llama", n_layer=1, n_embd=1, n_ff=1, n_head=1, n_head_kv=(1,), key_length=1, value_length=1, n_vocab=1,
        ctx_train=1,
    )  # fmt: skip
    files = (ModelFile(name="f", bytes=1, sha256=sha256),)
    return Model(
        name=name, version=0, sha256=sha256, files=files, bytes=1, shape=shape, licence="", origin="", imported_at=0.0,
        imported_by="me",
    )  # fmt: skip


def test_names_versions_and_aliases_in_any_order() -> None:
    run_state_machine_as_test(Names)  # type: ignore[no-untyped-call]


async def test_an_error_of_the_family_is_all_that_a_wrong_reference_gives(catalog: Catalog, tmp_path: Path) -> None:
    await take(catalog, file(tmp_path, 1))
    for text in ("m@9", "m:none", "m@sha256:00000000", "nothing", "m@x"):
        with pytest.raises(CorralError) as told:
            await catalog.get(text)
        assert told.value.why or told.value.todo


async def test_an_upload_may_bring_what_stands_beside_the_model(catalog: Catalog, tmp_path: Path) -> None:
    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        yield data

    model = file(tmp_path, 1).read_bytes()
    beside = maker.make({"general.architecture": "clip", "general.type": "mmproj"})
    parts = [("m.gguf", len(model)), ("mm.gguf", len(beside))]
    with pytest.raises(Invalid, match="not among the files"):
        await catalog.imports.start_upload(ME, "r", "m", parts, projector="other.gguf")
    job = await catalog.imports.start_upload(ME, "r", "m", parts, ImportOptions(label="x"), projector="mm.gguf")
    await catalog.imports.write(ME, job.id, 1, pieces(beside))
    await catalog.imports.write(ME, job.id, 0, pieces(model))
    done = (await catalog.imports.ended(job.id)).model
    assert done is not None and done.projector is not None and (done.label, done.projector.name) == ("x", "mm.gguf")
    assert Path((await catalog.serving("m")).projector).read_bytes() == beside
