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
    """One version of a named model: an immutable set of files. At this stage each name has version 1."""

    name: str
    version: int
    sha256: str
    """Of the one file, or of the list of the parts' hashes for a split model."""
    files: tuple[ModelFile, ...]
    bytes: int
    shape: ModelShape
    licence: str
    origin: str
    """Where it came from: a path as the importer named it, or `sample`."""
    imported_at: float
    imported_by: str


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
