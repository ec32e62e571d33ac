"""Models: what is stored, and an import on its way."""

from __future__ import annotations

from core.errors import ErrorBody
from core.nouns.base import Noun


class ModelShape(Noun, frozen=True, kw_only=True):
    """What sizing needs to know of a model, read from its header (bytes and counts).

    What has one entry a layer may also be empty: nothing is known of the layers, and sizing takes them for equal.
    """

    arch: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: tuple[int, ...]
    """One a layer; 0 for a layer that keeps no keys and values: it has a state, shares another's, or only feeds."""
    key_length: int
    value_length: int
    """0: only keys are kept (multi-head latent attention)."""
    n_vocab: int
    ctx_train: int
    n_swa: int = 0
    swa_layers: tuple[bool, ...] = ()
    """Which layers see only a sliding window."""
    n_params: int = 0
    tensor_bytes: int = 0
    repack_bytes: int = 0
    """Bytes of the matrices that the CPU backend copies into its own order."""
    n_expert: int = 0
    quantization: str = ""
    """As people say it: Q4_1, Q4_K_M, F16."""
    chat_template: bool = False
    open_questions: tuple[str, ...] = ()
    """Why the plan is less certain for this model (mixture of experts, unknown architecture, …)."""
    key_length_swa: int = 0
    value_length_swa: int = 0
    """Where layers that see a window have heads of another length."""
    state_bytes: int = 0
    """What one such layer of a state-space or linear-attention model keeps of one conversation, however long."""
    state_layers: tuple[bool, ...] = ()
    cache: bool = True
    """False: an encoder, which reads all at once and keeps nothing."""
    compute_row: int = 0
    """Bytes that a token of a batch takes in the widest step of the graph; 0 = as of a dense model."""
    layer_bytes: tuple[int, ...] = ()
    """Weights, one entry a layer."""
    expert_bytes: tuple[int, ...] = ()
    """Of these, those of the experts that a router chooses among."""
    output_bytes: int = 0
    """Weights of the last step, to scores."""
    tied: bool = False
    """These are the embedding's own: what has both on one device keeps them once."""
    layer_repack: tuple[int, ...] = ()
    """Of `repack_bytes`, those of each layer."""
    mapped_bytes: int = 0
    """Of the weights, those that stay mapped from the file beside the copies; 0 = all."""
    base_bytes: int = 0
    """Its vocabulary in memory and the room for its graph; 0 = not known, estimated from `n_vocab`."""
    matrix_bytes: int = 0
    """The largest matrix of the layers, all experts of a layer counted as one: what a GPU gets lent of a layer in the
    host to compute a whole batch."""
    output_ahead: int = 0
    """Of `output_bytes`, what lies in the file between the embedding and the layers: mapped with them."""
    vendor_math: bool = False
    """On a GPU some matrices are multiplied by its vendor's library: those in floats, and states."""
    margin: float = 0.0
    """0: the formula knows the architecture. Else its figures are a bound, raised by this share."""


class SizeSeen(Noun, frozen=True, kw_only=True):
    """What one launch took when it was ready, beside what the formula alone had said (bytes)."""

    launch: str
    model: str
    planned: int
    measured: int
    at: float
    outlier: bool = False
    """Far from the others: nothing is learned from it."""
    small: bool = False
    """So small that a difference within what the formula promises would be a large share: it says nothing of others."""


class SizeCorrection(Noun, frozen=True, kw_only=True):
    """By how much plans are changed for what launches were seen to take, by architecture and engine build."""

    arch: str
    engine: str
    build: str
    correction: float
    """-0.03 is 3 % less; 0.0: too few launches, they disagree, or the formula is right."""
    bounded: bool
    """The launches say more than may be corrected."""
    seen: tuple[SizeSeen, ...]
    """Newest first."""
    revoked_at: float = 0.0
    revoked_by: str = ""
    """Somebody revoked it: the formula alone is used."""


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
    projector_graph: int = 0
    """Bytes that it takes beside its file once it was asked a picture; 0: not known, and an allowance is planned."""
    projector_rules: int = 0
    """By which rules of sizing that was read from its header; 0: by none yet."""
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
    """One thing that happened to a name: `added`, `alias`, `alias-removed`, `removed`, `quarantined`, `restored`,
    `missing`, `moved`, `interrupted` (a move, by the end of the daemon)."""

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
    healed: bool = False
    """It has its bytes again: it was imported anew since."""
    removed: bool = False
    """No version is made of it any more: all that were are removed."""

    @property
    def settled(self) -> bool:
        """There is nothing to do about it any more."""
        return self.healed or self.removed


class Unread(Noun, frozen=True, kw_only=True):
    """A version that a verification passed by, because its bytes were not there to be read."""

    version: str
    """`chat@3`."""
    state: str
    """quarantined, missing, away."""
    tier: str
    """Where it lies."""


class Verified(Noun, frozen=True, kw_only=True):
    """A verification of stored bytes. States: hashing, done, cancelled, failed. It goes on where a daemon that ended
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
    unread: tuple[Unread, ...] = ()
    error: ErrorBody | None = None
    """Why it failed, for as long as the daemon lives in which it did."""


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
    stored_bytes: int = 0
    """Of bytes that were in the store already no second copy is kept."""
    spilled: tuple[str, ...] = ()
    """Why the tier where new models land did not take it, and it lies in another one: away, or full, with figures."""
    model: Model | None = None
    error: ErrorBody | None = None
