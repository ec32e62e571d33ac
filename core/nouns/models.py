"""Models: what is stored, and an import on its way."""

from __future__ import annotations

from core.errors import ErrorBody
from core.nouns.base import Noun


class ModelShape(Noun, frozen=True, kw_only=True):
    """What sizing needs to know of a model, read from its header (bytes and counts).

    `n_head_kv` has one entry a layer. `swa_layers` says for each layer whether it sees only a sliding window.
    """

    arch: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: tuple[int, ...]
    key_length: int
    value_length: int
    n_vocab: int
    ctx_train: int
    n_swa: int = 0
    swa_layers: tuple[bool, ...] = ()
    n_params: int = 0
    tensor_bytes: int = 0
    repack_bytes: int = 0
    """Bytes of the 2-D matrices the CPU backend copies into its own order (Q4_0, Q2_K, Q4_K, IQ4_NL)."""
    n_expert: int = 0
    quantization: str = ""
    """As people say it: Q4_1, Q4_K_M, F16."""
    chat_template: bool = False
    open_questions: tuple[str, ...] = ()
    """Why the plan is less certain for this model (mixture of experts, unknown architecture, …)."""


class ModelFile(Noun, frozen=True, kw_only=True):
    name: str
    bytes: int
    sha256: str


class Model(Noun, frozen=True, kw_only=True):
    """One version of a named model: an immutable set of files and what it is served with.

    What is asked for by its name alone is the version that the alias `live` means.
    """

    name: str
    version: int
    """Of this name, from 1 on; a number that was taken is never given again."""
    sha256: str
    """Of the one file, or of the list of the hashes where it has several."""
    files: tuple[ModelFile, ...]
    """The model's own: one, or the parts of a split model in their order."""
    bytes: int
    """Of all its files."""
    shape: ModelShape
    licence: str
    origin: str
    """Where it came from: a path as the importer named it, `sample`, or what was pulled."""
    imported_at: float
    imported_by: str
    label: str = ""
    """What people call this version: `2026-11`, `v2-rc1`."""
    notes: str = ""
    projector: ModelFile | None = None
    """What turns pictures or sound into tokens, where the model takes them."""
    adapters: tuple[ModelFile, ...] = ()
    """LoRA adapters that it is served with."""
    template_sha256: str = ""
    """Of its chat template, which is code that came with a download; "" where it has none."""
    own_template: bool = False
    """It is served with another template than its file has."""
    defaults: dict[str, float] = {}
    """What it is asked with where a request says nothing: temperature, top_p, top_k, min_p."""
    flags: tuple[str, ...] = ()
    """What a person should look at before it is served, as sentences."""
    aliases: tuple[str, ...] = ()
    """Those that mean this version now, `live` first."""
    versions: int = 1
    """How many the name has now."""
    state: str = "stored"
    """stored, quarantined (its bytes are not what they were), missing, away (its tier is not there)."""
    tier: str = "home"

    @property
    def reference(self) -> str:
        """How it is named exactly: `chat@3`."""
        return f"{self.name}@{self.version}"


class AliasMoved(Noun, frozen=True, kw_only=True):
    """An alias and what moving it touches: deployments that want it, and get the new version when they next start."""

    model: str
    alias: str
    version: int
    before: int | None
    """The version that it meant; None: it is new."""
    touches: tuple[str, ...]
    """Deployments that want this alias and run another version."""
    moved: bool
    """False: only asked."""


class ModelChange(Noun, frozen=True, kw_only=True):
    """One thing that happened to a name: `added`, `alias`, `alias-removed`, `removed`, `quarantined`, `restored`."""

    at: float
    by: str
    what: str
    version: int
    detail: str = ""


class VersionDifference(Noun, frozen=True, kw_only=True):
    """One thing in which two versions differ; None: it has none. `kind`: files, size, licence, shape, served with,
    header, template, tokenizer."""

    kind: str
    what: str
    old: str | None
    new: str | None


class Gone(Noun, frozen=True, kw_only=True):
    """One thing that `gc` removes, or would, and why."""

    what: str
    """`version`, or `quarantined` for bytes that were set aside."""
    name: str
    bytes: int
    """What removing it frees: 0 where another version is made of the same bytes."""
    why: str


class Collected(Noun, frozen=True, kw_only=True):
    """What `gc` removed, or would (`dry_run`), and what it kept though nothing uses it, with the reason."""

    dry_run: bool
    gone: tuple[Gone, ...]
    kept: tuple[Gone, ...]
    bytes: int


class Rotten(Noun, frozen=True, kw_only=True):
    """An object whose bytes are not what they were (set aside), or are gone; what is made of it, and who uses that."""

    sha256: str
    bytes: int
    versions: tuple[str, ...]
    deployments: tuple[str, ...]


class Verified(Noun, frozen=True, kw_only=True):
    """A verification of stored bytes. States: waiting, hashing, done, cancelled. It goes on where a daemon that ended
    left it."""

    state: str
    objects_done: int
    objects_total: int
    bytes_done: int
    bytes_total: int
    started_at: float
    started_by: str
    ended_at: float | None = None
    rotten: tuple[Rotten, ...] = ()
    missing: tuple[Rotten, ...] = ()


class ImportOptions(Noun, frozen=True, kw_only=True):
    """What a new version gets beside its files."""

    label: str = ""
    notes: str = ""
    licence: str = ""
    """Where the file says none, or another one than that it came under."""
    live: bool = False
    """The name means this version from now on; a first version always is."""
    template: str = ""
    """Served with this chat template and not with that of the file."""
    defaults: dict[str, float] = {}


NO_OPTIONS = ImportOptions()


class ImportJob(Noun, frozen=True, kw_only=True):
    """An import that the daemon carries out; it lives on when the terminal closes. States: waiting (for an upload),
    reading, hashing, storing, done, failed, cancelled."""

    id: str
    name: str
    origin: str
    state: str
    bytes_done: int = 0
    bytes_total: int = 0
    model: Model | None = None
    error: ErrorBody | None = None
