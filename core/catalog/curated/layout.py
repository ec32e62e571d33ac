"""Which tensors a GGUF file of a model has, by architecture and counts: so that a file nobody has here can be sized.

The names and dimensions are those that llama.cpp creates when it loads such a file (`src/models/*.cpp` of the release
that the engine is built from, pypi:xllamacpp 2026.10.11549). What depends on how a file was converted (tables of rope
frequencies, the position table of an encoder that counts from 2) is a few KiB and left out or taken as the larger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Tensor = tuple[str, tuple[int, ...]]
"""Name and dimensions, the first one being the length of a row."""
Header = Mapping[str, Any]
"""Keys as in a GGUF header without the architecture's name before them; and `tied_embeddings`, which a header does not
say: the output matrix is the embedding's."""


class NoLayout(ValueError):
    """The tensors of this architecture, or of these counts, are not known here."""


def tensors(header: Header) -> list[Tensor]:
    """All tensors of the model. Raises `NoLayout`."""
    arch = header.get("architecture")
    build = LAYOUTS.get(arch) if isinstance(arch, str) else None
    if build is None:
        raise NoLayout(
            f"the tensors of the architecture {arch!r} are not known; known are {', '.join(sorted(LAYOUTS))}"
        )
    try:
        found = list(build(header))
    except KeyError as error:
        raise NoLayout(f"the shape lacks {error.args[0]}") from error
    if not all(isinstance(side, int) and side > 0 for _, dims in found for side in dims):
        raise NoLayout("the shape has a count that is no whole number above 0")
    return found


def _whole(header: Header, key: str, default: int | None = None) -> int:
    found = header[key] if default is None else header.get(key, default)
    if not isinstance(found, int) or isinstance(found, bool):
        raise NoLayout(f"{key} is {found!r}, and a whole number is meant")
    return found


def _heads(header: Header) -> tuple[int, int, int, int]:
    """Width of the queries, keys and values, and of one key."""
    width, heads = _whole(header, "embedding_length"), _whole(header, "attention.head_count")
    shared = _whole(header, "attention.head_count_kv", heads)
    key = _whole(header, "attention.key_length", width // max(1, heads))
    value = _whole(header, "attention.value_length", key)
    return heads * key, shared * key, shared * value, key


def _ends(header: Header) -> Iterator[Tensor]:
    width, words = _whole(header, "embedding_length"), _whole(header, "vocab_size")
    yield "token_embd.weight", (width, words)
    yield "output_norm.weight", (width,)
    if not header["tied_embeddings"]:
        yield "output.weight", (width, words)


def _attention(header: Header, at: str, *, biased: bool = False, fused: bool = False) -> Iterator[Tensor]:
    width = _whole(header, "embedding_length")
    query, keys, values, _ = _heads(header)
    yield f"{at}.attn_norm.weight", (width,)
    if fused:
        yield f"{at}.attn_qkv.weight", (width, query + keys + values)
    else:
        for name, out in (("q", query), ("k", keys), ("v", values)):
            yield f"{at}.attn_{name}.weight", (width, out)
            if biased:
                yield f"{at}.attn_{name}.bias", (out,)
    yield f"{at}.attn_output.weight", (query, width)


def _gated(header: Header, at: str, inner: int, suffix: str = "", experts: int = 0) -> Iterator[Tensor]:
    width = _whole(header, "embedding_length")
    more = (experts,) if experts else ()
    yield f"{at}.ffn_gate{suffix}.weight", (width, inner, *more)
    yield f"{at}.ffn_up{suffix}.weight", (width, inner, *more)
    yield f"{at}.ffn_down{suffix}.weight", (inner, width, *more)


def _decoder(
    header: Header, *, biased: bool = False, fused: bool = False, key_norms: bool = False, after_norms: bool = False
) -> Iterator[Tensor]:
    """The usual decoder; `fused` as Phi has it, `after_norms` as Gemma."""
    yield from _ends(header)
    width, inner, key = _whole(header, "embedding_length"), _whole(header, "feed_forward_length"), _heads(header)[3]
    for layer in range(_whole(header, "block_count")):
        at = f"blk.{layer}"
        yield from _attention(header, at, biased=biased, fused=fused)
        if key_norms:
            yield f"{at}.attn_q_norm.weight", (key,)
            yield f"{at}.attn_k_norm.weight", (key,)
        if after_norms:
            yield f"{at}.post_attention_norm.weight", (width,)
            yield f"{at}.post_ffw_norm.weight", (width,)
        yield f"{at}.ffn_norm.weight", (width,)
        if fused:
            yield f"{at}.ffn_up.weight", (width, 2 * inner)
            yield f"{at}.ffn_down.weight", (inner, width)
        else:
            yield from _gated(header, at, inner)


def _qwen3moe(header: Header) -> Iterator[Tensor]:
    yield from _ends(header)
    width, experts, key = _whole(header, "embedding_length"), _whole(header, "expert_count"), _heads(header)[3]
    for layer in range(_whole(header, "block_count")):
        at = f"blk.{layer}"
        yield from _attention(header, at)
        yield f"{at}.attn_q_norm.weight", (key,)
        yield f"{at}.attn_k_norm.weight", (key,)
        yield f"{at}.ffn_norm.weight", (width,)
        yield f"{at}.ffn_gate_inp.weight", (width, experts)
        yield from _gated(header, at, _whole(header, "expert_feed_forward_length"), "_exps", experts)


def _gpt_oss(header: Header) -> Iterator[Tensor]:
    yield from _ends(header)
    width, experts = _whole(header, "embedding_length"), _whole(header, "expert_count")
    inner = _whole(header, "expert_feed_forward_length")
    for layer in range(_whole(header, "block_count")):
        at = f"blk.{layer}"
        yield from _attention(header, at, biased=True)
        yield f"{at}.attn_output.bias", (width,)
        yield f"{at}.attn_sinks.weight", (_whole(header, "attention.head_count"),)
        yield f"{at}.post_attention_norm.weight", (width,)
        yield f"{at}.ffn_gate_inp.weight", (width, experts)
        yield f"{at}.ffn_gate_inp.bias", (experts,)
        yield from _gated(header, at, inner, "_exps", experts)
        for name, out in (("gate", inner), ("up", inner), ("down", width)):
            yield f"{at}.ffn_{name}_exps.bias", (out, experts)


def _deepseek2(header: Header) -> Iterator[Tensor]:
    """With latent attention, its two matrices apart as the engine's converter writes them."""
    yield from _ends(header)
    width, heads = _whole(header, "embedding_length"), _whole(header, "attention.head_count")
    latent, turned = _whole(header, "attention.kv_lora_rank"), _whole(header, "rope.dimension_count")
    key, value = _whole(header, "attention.key_length_mla"), _whole(header, "attention.value_length_mla")
    low = _whole(header, "attention.q_lora_rank", 0)
    experts, inner = _whole(header, "expert_count"), _whole(header, "expert_feed_forward_length")
    for layer in range(_whole(header, "block_count")):
        at = f"blk.{layer}"
        yield f"{at}.attn_norm.weight", (width,)
        yield f"{at}.attn_kv_a_norm.weight", (latent,)
        if low:
            yield f"{at}.attn_q_a_norm.weight", (low,)
            yield f"{at}.attn_q_a.weight", (width, low)
            yield f"{at}.attn_q_b.weight", (low, heads * key)
        else:
            yield f"{at}.attn_q.weight", (width, heads * key)
        yield f"{at}.attn_kv_a_mqa.weight", (width, latent + turned)
        yield f"{at}.attn_k_b.weight", (key - turned, latent, heads)
        yield f"{at}.attn_v_b.weight", (latent, value, heads)
        yield f"{at}.attn_output.weight", (heads * value, width)
        yield f"{at}.ffn_norm.weight", (width,)
        if layer < _whole(header, "leading_dense_block_count"):
            yield from _gated(header, at, _whole(header, "feed_forward_length"))
        else:
            yield f"{at}.ffn_gate_inp.weight", (width, experts)
            if header.get("expert_probs_bias"):
                yield f"{at}.exp_probs_b.bias", (experts,)
            yield from _gated(header, at, inner, "_exps", experts)
            yield from _gated(header, at, inner * _whole(header, "expert_shared_count"), "_shexp")


def _encoder(header: Header, *, gated: bool = False, positions: bool = True, biased: bool = True) -> Iterator[Tensor]:
    """BERT's, and what grew out of it; `gated` as nomic-bert."""
    width, inner = _whole(header, "embedding_length"), _whole(header, "feed_forward_length")
    yield "token_embd.weight", (width, _whole(header, "vocab_size"))
    if kinds := _whole(header, "token_type_count", 0):
        yield "token_types.weight", (width, kinds)
    if positions:
        yield "position_embd.weight", (width, _whole(header, "context_length"))
    yield from _normed("token_embd_norm", width)
    if header.get("classifier"):
        yield "cls.weight", (width, width)
        yield "cls.bias", (width,)
        yield "cls.output.weight", (width, 1)
        yield "cls.output.bias", (1,)
    for layer in range(_whole(header, "block_count")):
        at = f"blk.{layer}"
        sides = [("attn_q", width, width), ("attn_k", width, width), ("attn_v", width, width)]
        if gated:
            sides = [("attn_qkv", width, 3 * width), ("ffn_gate", width, inner)]
        for name, over, out in (*sides, ("attn_output", width, width), ("ffn_up", width, inner),
                                ("ffn_down", inner, width)):  # fmt: skip
            yield f"{at}.{name}.weight", (over, out)
            if biased:
                yield f"{at}.{name}.bias", (out,)
        yield from _normed(f"{at}.attn_output_norm", width)
        yield from _normed(f"{at}.layer_output_norm", width)


def _normed(name: str, width: int) -> Iterator[Tensor]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _with(build: Callable[..., Iterator[Tensor]], **more: bool) -> Callable[[Header], Iterator[Tensor]]:
    return lambda header: build(header, **more)


LAYOUTS: dict[str, Callable[[Header], Iterator[Tensor]]] = {
    **dict.fromkeys(("llama", "mistral3", "smollm3", "granite"), _decoder),
    **dict.fromkeys(("qwen2", "qwen2vl"), _with(_decoder, biased=True)),
    **dict.fromkeys(("qwen3", "qwen3vl"), _with(_decoder, key_norms=True)),
    **dict.fromkeys(("qwen3moe", "qwen3vlmoe"), _qwen3moe),
    "phi3": _with(_decoder, fused=True),
    "gemma2": _with(_decoder, after_norms=True),
    **dict.fromkeys(("gemma3", "gemma-embedding"), _with(_decoder, after_norms=True, key_norms=True)),
    "gpt-oss": _gpt_oss,
    "deepseek2": _deepseek2,
    "bert": _encoder,
    "nomic-bert": _with(_encoder, gated=True, positions=False, biased=False),
}
"""By llama.cpp's name of the architecture."""


def active(header: Header, found: list[Tensor]) -> int:
    """Parameters that one token passes: of the experts only those that are used. The embedding's table counts whole,
    as the makers of these models count it."""
    experts, used = _whole(header, "expert_count", 0), _whole(header, "expert_used_count", 0)
    total = 0
    for name, dims in found:
        count = size(dims)
        total += count * used // experts if experts and used and "_exps." in name else count
    return total


def size(dims: tuple[int, ...]) -> int:
    total = 1
    for side in dims:
        total *= side
    return total
