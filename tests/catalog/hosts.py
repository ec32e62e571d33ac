"""A host and models by figures alone, for what is reckoned."""

from collections.abc import Mapping, Sequence

from core.catalog.hostbench import KINDS
from core.catalog.work import Work
from core.nouns import Bandwidth, Beside, Hidden, HostBench, ModelShape, Rate

SHAPE = ModelShape(
    arch="llama", n_layer=30, n_embd=576, n_ff=1536, n_head=9, n_head_kv=(3,) * 30, key_length=64, value_length=64,
    n_vocab=49152, ctx_train=8192, n_params=134_515_008, tensor_bytes=96_000_000, quantization="Q4_1",
)  # fmt: skip
MIXED = Work(
    layers={"Q4_K": 3e9}, output={"Q6_K": 2e8}, bytes_shared=1e9, bytes_experts=14e9, expert_share=0.0625, n_layer=48,
    n_vocab=150_000, multiplications=((0, 48 * 32 * 256),), cell_weights=((0, 48 * 4 * 256),), exact=True,
)  # fmt: skip


def rates(
    one: float = 20e9, four: float = 22e9, prompt: float = 40e9, threads: Sequence[int] = (1, 4),
    two: float | None = None,
) -> list[Rate]:  # fmt: skip
    """Each type with one thread, and one type with all."""
    two = two or (one + four) / 2
    found = [Rate(kind=kind, threads=1, one=one, two=two, four=four, prompt=prompt) for kind in KINDS]
    return found + [
        Rate(
            kind="Q8_0", threads=n, one=one * n * 0.9, two=two * n * 0.9, four=four * n * 0.9,
            prompt=prompt * n * 0.95,
        )
        for n in threads if n > 1
    ]  # fmt: skip


def host(
    *, bandwidth: Mapping[int, float] = {1: 20e9, 4: 50e9}, load: float = 0.1, one: float = 20e9, four: float = 22e9,
    prompt: float = 40e9, hidden: tuple[float, float, float] = (0.5, 0.5, 0.5),
    two: float | None = None,
) -> HostBench:  # fmt: skip
    """Four cores."""
    return HostBench(
        node="local", cpu_model="a CPU", cores=4, engine="xllamacpp", version="1", at=0.0, by="ada",
        bandwidths=tuple(Bandwidth(threads=n, bytes_s=each) for n, each in bandwidth.items()),
        rates=tuple(rates(one, four, prompt, two=two)),
        beside=tuple(
            Beside(
                threads=n, layer_s=5e-6, token_s=5e-5, attention_short=4e9 * n, attention_one=4e9 * n,
                attention_prompt=1e10 * n,
            )
            for n in (1, 4)
        ),
        hidden=tuple(Hidden(threads=n, one=hidden[0], two=hidden[1], four=hidden[2]) for n in (1, 4)),
        vocabulary_s=5e-9, first_s=0.002, load=load, crowded=0.2,
    )  # fmt: skip
