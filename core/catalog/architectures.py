"""What llama.cpp does with each architecture that sizing knows: which layers keep what, and how wide a token is.

Everything here is read from llama.cpp as llama-cpp-python 0.3.36 carries it; docs/sizing.md names file and function for
each rule, and bench_sizing.py loads one small file of every architecture in KNOWN with the real engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from core.errors import BadModel

ANOTHER = "it cannot be served as it is: get it anew, or convert it again from its original"
"""What to do about a header that lacks something."""
ENCODERS = frozenset({
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert",
    "gemma-embedding",
})  # fmt: skip
"""They keep no cache (llama_model::create_memory)."""
MAMBA = frozenset({"mamba", "jamba"})
MAMBA2 = frozenset({"mamba2", "falcon-h1", "granitehybrid", "nemotron_h", "nemotron_h_moe"})
DELTA = {"qwen35": 4, "qwen35moe": 4, "qwen3next": 5}
"""Gated delta nets, and how many times the width of their convolution a token is."""
RWKV = {"rwkv6": 31, "rwkv6qwen2": 31, "rwkv7": 41, "arwkv7": 36}
"""And how many halves of its embedding's width a token is."""
SHORTCONV = frozenset({"lfm2", "lfm2moe"})
RECURRENT = frozenset({"mamba", "mamba2", *RWKV})
"""All their layers have a state and none a cache (llm_arch_is_recurrent)."""
WITHOUT_HEADS = frozenset({"jamba", "granitehybrid", "nemotron_h", "nemotron_h_moe"}) | SHORTCONV
"""Their layers without key heads have a state."""


class Window(NamedTuple):
    """Which layers see a window where the header has no pattern: all but one of each `period`, which is the last of
    them, or the first (`dense_first`). `size` stands where the header has none; 0: then there is no window."""

    period: int
    dense_first: bool = False
    size: int = 0
    fixed: bool = False
    """`size` is used whatever the header says, unless it says 0."""


WINDOWS = {
    "afmoe": Window(4), "cohere2": Window(4), "cohere2moe": Window(4, True), "exaone-moe": Window(4, size=128),
    "exaone4": Window(4, size=4096),
    "gemma2": Window(2, size=4096),
    "gemma3": Window(6), "gemma3n": Window(5), "gemma4": Window(5), "gemma-embedding": Window(6), "gpt-oss": Window(2),
    "lfm2": Window(0), "llama4": Window(4, size=8192, fixed=True), "mimo2": Window(1), "modern-bert": Window(3, True),
    "olmo2": Window(4), "smallthinker": Window(4, True, 4096, True), "step35": Window(1),
}  # fmt: skip
"""load_arch_hparams in src/models/*.cpp. What is not here has no window, whatever its header says of one (llama,
mistral, qwen2, phi3: llama.cpp does not read it, or has it switched off)."""

KNOWN = (
    ENCODERS | MAMBA | MAMBA2 | frozenset(DELTA) | frozenset(RWKV) | SHORTCONV | frozenset(WINDOWS) | frozenset({
        "llama", "llama-embed", "mistral3", "qwen2", "qwen2vl", "qwen3", "qwen3vl", "stablelm", "internlm2", "granite",
        "smollm3", "seed_oss", "ernie4_5", "arcee", "hunyuan-dense", "exaone", "nemotron", "starcoder",
        "starcoder2", "glm4", "chatglm", "baichuan", "minicpm", "minicpm3", "olmo", "xverse", "orion", "apertus",
        "command-r", "gemma", "phi2", "phi3", "gptneox", "falcon", "gpt2", "bloom", "mpt", "openelm",
        "qwen2moe", "qwen3moe", "qwen3vlmoe", "olmoe", "granitemoe", "deepseek", "deepseek2", "mistral4", "glm4moe",
        "dbrx", "phimoe", "bailingmoe", "bailingmoe2", "dots1", "ernie4_5-moe", "hunyuan-moe", "minimax-m2", "grok",
        "deci", "hunyuan_vl", "paddleocr",
    })
)  # fmt: skip
"""Of whose memory the formula is measured."""


class Header:
    """The metadata of a model, by key without its architecture. Raises `BadModel` for what is no count."""

    def __init__(self, meta: dict[str, Any], arch: str) -> None:
        self.meta, self.arch = meta, arch

    def get(self, key: str) -> Any:
        return self.meta.get(f"{self.arch}.{key}")

    def number(self, key: str, default: int | None = None) -> int:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
            is_so = "is not there" if value is None else f"is {value!r:.60}, and should be a count"
            raise BadModel("the header is incomplete", f"{self.arch}.{key} {is_so}", ANOTHER)
        return value

    def layers(self, key: str, count: int, default: int) -> tuple[int, ...]:
        """A count for each layer, where the header has one for all or one for each."""
        value = self.get(key)
        value = default if value is None else value
        found = tuple(value) if isinstance(value, list) else (value,) * count
        if len(found) < count or not all(
            isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 32 for n in found
        ):
            raise BadModel("the header has absurd counts", f"{self.arch}.{key} does not fit {count} layers", ANOTHER)
        return found[:count]

    def flags(self, key: str, count: int) -> tuple[bool, ...] | None:
        """Yes or no for each layer, where the header has them so."""
        value = self.get(key)
        if not isinstance(value, list):
            return None
        if len(value) < count or not all(isinstance(n, int) and n in (0, 1) for n in value):
            raise BadModel("the header has absurd counts", f"{self.arch}.{key} does not fit {count} layers")
        return tuple(bool(n) for n in value[:count])


def window(head: Header, n_layer: int) -> tuple[int, tuple[bool, ...]]:
    """The window's size (tokens; 0 = none), and which layers see no more than it."""
    rule = WINDOWS.get(head.arch)
    if rule is None or (head.arch == "exaone4" and n_layer != 64):  # its 32B alone has them
        return 0, ()
    told = head.number("attention.sliding_window", rule.size)
    size = rule.size if rule.fixed and told else told
    if not size or (rule.fixed and head.arch == "smallthinker" and head.get("attention.sliding_window") is None):
        return 0, ()
    key = "attention.sliding_window_pattern"
    each = head.flags(key, n_layer)
    if each is not None:
        return size, each
    period = head.number(key, rule.period)
    if period == 0:
        return size, (True,) * n_layer
    if rule.dense_first:
        return size, tuple(n % period != 0 for n in range(n_layer))
    return size, tuple(n % period < period - 1 for n in range(n_layer))


def states(head: Header, n_layer: int, heads: Sequence[int], feeds: Sequence[int]) -> tuple[bool, ...]:
    """Which layers have a state (load_arch_hparams and create_memory's filters); empty: none."""
    arch = head.arch
    if arch in RECURRENT or arch == "falcon-h1":
        return (True,) * n_layer
    if arch in ("nemotron_h", "nemotron_h_moe"):
        return tuple(not kv and not ff for kv, ff in zip(heads, feeds, strict=True))
    if arch in WITHOUT_HEADS:
        return tuple(not kv for kv in heads)
    if arch in DELTA:
        told = head.flags("attention.recurrent_layers", n_layer)
        every = head.number("full_attention_interval", 4) or 1
        return told or tuple((n + 1) % every != 0 for n in range(n_layer))
    if arch not in KNOWN and (head.get("ssm.inner_size") or head.get("wkv.head_size") or head.get("kda.head_dim")):
        return (True,) * n_layer  # a bound
    return ()


def state_bytes(head: Header, n_embd: int, n_head: int) -> int:
    """Of one such layer and one conversation, in 32-bit floats (llama_hparams::n_embd_r and n_embd_s)."""
    wkv, short = head.number("wkv.head_size", 0), head.number("shortconv.l_cache", 0)
    if wkv:
        return 4 * n_embd * (head.number("token_shift_count", 2) + wkv)
    if short:
        return 4 * n_embd * (short - 1)
    conv, inner, state = (head.number(f"ssm.{key}", 0) for key in ("conv_kernel", "inner_size", "state_size"))
    if kda := head.number("kda.head_dim", 0):
        return 4 * n_head * kda * (3 * max(1, conv - 1) + kda)
    rows = max(0, conv - 1) * (inner + 2 * head.number("ssm.group_count", 0) * state)
    return 4 * (rows + state * inner)


def row_bytes(head: Header, *, n_embd: int, n_ff: int, n_head: int, key_length: int, gated: bool, dense: bool) -> int:
    """What a token of a batch takes in the widest step of the graph, bytes (docs/sizing.md derives each line).
    `gated`: two matrices before the one down; `dense`: some layer has no experts."""
    arch, wide = head.arch, [3 * n_head * key_length + n_embd]
    if dense:
        wide.append(3 * n_ff + 5 * n_embd if gated else 2 * n_ff + 2 * n_embd)
    if used := max(head.layers("expert_used_count", 1, 0)):
        each = max(head.layers("expert_feed_forward_length", 1, n_ff))
        wide.append(max(3 * used * each, (3 if arch == "minimax-m2" else 2) * used * n_embd) + 5 * n_embd)
    if head.get("attention.key_length_mla"):
        wide.append(3 * n_head * key_length + head.number("attention.kv_lora_rank", 0))
    inner, state = head.number("ssm.inner_size", 0), head.number("ssm.state_size", 0)
    conv = inner + 2 * head.number("ssm.group_count", 0) * state
    if arch in MAMBA:
        wide.append(8 * inner)
    elif arch in MAMBA2:
        wide.append(2 * (inner + conv + head.number("ssm.time_step_rank", 0)) + conv + 7 * n_embd)
    elif arch in DELTA:
        wide.append(DELTA[arch] * conv)
    elif arch in RWKV:
        wide.append(RWKV[arch] * n_embd // 2)
    elif arch not in KNOWN:
        wide = [2 * max(*wide, 8 * conv, 6 * n_ff + 10 * n_embd)]  # a bound
    if arch in ("gemma3n", "gemma4"):
        each = head.number("embedding_length_per_layer_input", 256) * head.number("block_count")
        wide = [max(wide) + 2 * each, *([4 * each + 5 * n_embd] if arch == "gemma3n" else [])]
    return 4 * max(wide)


def shares(head: Header, n_layer: int) -> int:
    """From which layer on none keeps keys and values of its own (llama_hparams::has_kv); also those that predict
    further tokens (nextn), which the server does not use."""
    last = n_layer - min(head.number("nextn_predict_layers", 0), n_layer - 1)
    if head.arch == "gemma3n":
        return min(last, 20)
    if head.arch == "gemma4":
        return min(last, n_layer - min(head.number("attention.shared_kv_layers", 0), n_layer - 1))
    return last


def nodes(arch: str, tensors: int) -> int:
    """How many nodes a graph may have, for which room is made (llama_context::graph_max_nodes)."""
    if arch in DELTA or arch not in KNOWN:
        return max(512 * 40, 32 * tensors)
    return max(1024, 8 * tensors)
