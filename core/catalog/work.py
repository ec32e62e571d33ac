"""What one token costs a model: weights that it passes by type, bytes that it touches, cells that it looks back on.

From a model's own tensors where its file is here, else from the counts of its shape, which is coarser and said to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.catalog.probemodel import BLOCKS
from core.nouns import ModelShape, Noun

EXPERTS = "_exps."
"""In the name of a tensor that holds all experts of a layer (llama.cpp's names)."""
OUTPUT = ("output.weight", "cls.output.weight")
TABLES = ("token_embd.weight", "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight")
"""Of which a token reads one row."""
MAIN = {
    "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "MXFP4_MOE": "MXFP4",
}  # fmt: skip
"""The type that most matrices of a quantisation have."""


class Work(Noun, frozen=True, kw_only=True):
    """Of one model. Weights are counted, not bytes; `bytes_…` are what must come from memory."""

    layers: dict[str, float]
    """Type to weights that each token passes, in its prompt too; of experts those that it uses."""
    output: dict[str, float]
    """Type to weights of the scores, for each token that is made."""
    bytes_shared: float
    """Read once a step, however many conversations are in it."""
    bytes_experts: float = 0.0
    """Of all experts."""
    expert_share: float = 0.0
    """Of the experts, what one token uses."""
    n_layer: int
    n_vocab: int
    multiplications: tuple[tuple[int, float], ...]
    """For attention: (cells that are looked back on at most, 0 = all; multiplications for each of them), layers that
    are alike together."""
    cell_weights: tuple[tuple[int, float], ...]
    """As before, numbers that are kept of a cell."""
    exact: bool
    """From the file's own tensors."""
    state_bytes: float = 0.0
    """Of one conversation in layers that keep a state instead of cells."""


def of_headers(headers: Sequence[Mapping[str, Any]], shape: ModelShape) -> Work:
    """From the headers of all files of a model."""
    meta = headers[0]["metadata"]
    tensors = [tensor for header in headers for tensor in header["tensors"] if len(tensor[2]) > 1]
    used, all_experts = meta.get(f"{shape.arch}.expert_used_count"), meta.get(f"{shape.arch}.expert_count")
    share = (
        used / all_experts if isinstance(used, int) and isinstance(all_experts, int) and used and all_experts else 1.0
    )
    apart = any(tensor[0] in OUTPUT for tensor in tensors)
    layers: dict[str, float] = {}
    output: dict[str, float] = {}
    shared = experts = 0.0
    for name, kind, dims, size in tensors:
        count = 1.0
        for dim in dims:
            count *= dim
        if EXPERTS in name:
            layers[kind] = layers.get(kind, 0.0) + count * min(1.0, share)
            experts += size
        elif name in OUTPUT or (name == TABLES[0] and not apart):
            output[kind] = output.get(kind, 0.0) + count
            shared += size
        elif name not in TABLES:
            layers[kind] = layers.get(kind, 0.0) + count
            shared += size
    look, kept = _attention(shape)
    return Work(
        layers=layers, output=output, bytes_shared=shared, bytes_experts=experts,
        expert_share=min(1.0, share) if experts else 0.0, n_layer=shape.n_layer, n_vocab=shape.n_vocab,
        multiplications=look, cell_weights=kept, state_bytes=shape.state_bytes * sum(shape.state_layers), exact=True,
    )  # fmt: skip


def of_shape(shape: ModelShape, *, active_params: int = 0, params: int = 0) -> Work:
    """From counts alone: one type for all, a table of scores as large as that of the embedding."""
    total = float(params or shape.n_params or 1)
    table = float(shape.n_vocab * shape.n_embd)
    active = float(active_params or total)
    kind = main_type(shape.quantization)
    body = max(active - table, active * 0.1)
    per = shape.tensor_bytes / total
    look, kept = _attention(shape)
    mixed = active < 0.95 * total
    return Work(
        layers={kind: body}, output={kind: table}, bytes_shared=(table if mixed else body + table) * per,
        bytes_experts=max(0.0, total - table) * per if mixed else 0.0,
        expert_share=body / max(1.0, total - table) if mixed else 0.0, n_layer=shape.n_layer, n_vocab=shape.n_vocab,
        multiplications=look, cell_weights=kept, state_bytes=shape.state_bytes * sum(shape.state_layers), exact=False,
    )  # fmt: skip


def main_type(quantization: str) -> str:
    """The type that most weights have, by the name of a quantisation."""
    name = quantization.upper()
    return MAIN.get(name, name)


def near_type(kind: str, measured: Mapping[str, object]) -> str:
    """The measured type that is nearest by bits a weight: for one that no probe is made of."""
    if kind in measured:
        return kind
    bits = {"BF16": 16.0, "F32": 32.0, "IQ4_XS": 4.25, "IQ3_S": 3.4, "IQ3_XXS": 3.1, "IQ2_S": 2.6, "IQ2_XS": 2.3,
            "IQ2_XXS": 2.1, "IQ1_S": 1.6, "IQ1_M": 1.8, "TQ1_0": 1.7, "TQ2_0": 2.1}.get(kind, 5.0)  # fmt: skip
    return min(measured, key=lambda each: (abs(8 * BLOCKS[each][1] / BLOCKS[each][0] - bits), each))


def _attention(shape: ModelShape) -> tuple[tuple[tuple[int, float], ...], tuple[tuple[int, float], ...]]:
    look: dict[int, float] = {}
    kept: dict[int, float] = {}
    slides = shape.swa_layers or (False,) * shape.n_layer
    for heads, sliding in zip(shape.n_head_kv, slides, strict=False):
        if not heads:
            continue
        key, value = shape.key_length, shape.value_length
        if sliding:
            key, value = shape.key_length_swa or key, shape.value_length_swa or value
        window = shape.n_swa if sliding else 0
        look[window] = look.get(window, 0.0) + shape.n_head * (key + (value or key))  # latent: keys serve for both
        kept[window] = kept.get(window, 0.0) + heads * (key + value)
    return tuple(sorted(look.items())), tuple(sorted(kept.items()))
