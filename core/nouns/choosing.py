"""Speed and choice: what a host does in a second, what a model would do on it, and which model one should take."""

from __future__ import annotations

from core.errors import ErrorBody
from core.nouns.base import Noun


class Bandwidth(Noun, frozen=True, kw_only=True):
    """What so many threads read from memory at once, bytes a second."""

    threads: int
    bytes_s: float


class Rate(Noun, frozen=True, kw_only=True):
    """Weights of one type that an engine passes in a second, measured with a probe that fits a cache: with one token
    a step, with two and four conversations at once (two may be slower than one, token by token), and of a prompt."""

    kind: str
    threads: int
    one: float
    two: float
    four: float
    prompt: float


class Beside(Noun, frozen=True, kw_only=True):
    """What a step costs beside its weights, by threads (seconds; attention in multiplications a second)."""

    threads: int
    layer_s: float
    """Of each layer, once a step."""
    token_s: float
    """Of each token that is made: sampled, written, sent."""
    attention_short: float
    """While an answer is made, with little to look back on."""
    attention_one: float
    """With much: some engines share that among their threads, and not the other."""
    attention_prompt: float
    """While a prompt is read."""
    spread: float = 0.0
    """By how much the slowest of a few rounds took longer than the fastest, a fraction."""


class Hidden(Noun, frozen=True, kw_only=True):
    """How much of the shorter of reading weights from memory and multiplying them goes on while the other does, by
    threads and by how many are answered at once: 1 = all of it; below 0 each hinders the other."""

    threads: int
    one: float
    two: float
    four: float


class HostBench(Noun, frozen=True, kw_only=True):
    """What `corral nodes bench` measured on a host, with the engine itself on probes made for it."""

    node: str
    cpu_model: str
    cores: int
    engine: str
    version: str
    at: float
    by: str
    bandwidths: tuple[Bandwidth, ...]
    rates: tuple[Rate, ...]
    beside: tuple[Beside, ...]
    vocabulary_s: float = 0.0
    """Of each entry of the vocabulary, for each token that is made."""
    first_s: float = 0.0
    """Of a request, before anything is computed."""
    hidden: tuple[Hidden, ...]
    looked: tuple[int, int] = (192, 1536)
    """Cells that `attention_short` and `attention_one` are of."""
    crowded: float = 0.0
    """What is left of the speed with threads on all cores while one other program is busy; 0 = there is one core."""
    seconds: float = 0.0
    """What it took."""
    replicas: int = 0
    """That ran beside it: they make a host slower."""
    load: float = 0.0
    """Programs that wanted each of its cores before it began."""


class Speed(Noun, frozen=True, kw_only=True):
    """What a model does on a host; rates in tokens a second. `known` False: nothing was measured that it could be
    reckoned from, and every figure is 0."""

    known: bool
    threads: int
    users: int
    """Conversations at once that `each` and `ttft_all_s` are for."""
    ctx: int
    """Cells that a conversation has filled on average while it is answered."""
    prompt: int
    """Tokens of the prompt that the times to the first token are for."""
    prefill: float = 0.0
    decode: float = 0.0
    """Of one user alone."""
    each: float = 0.0
    """Of each of `users` at once."""
    ttft_s: float = 0.0
    """To the first token, nothing else being asked."""
    ttft_all_s: float = 0.0
    """When all `users` ask at the same moment: of the last one."""
    waits: int = 0
    """How many of the `users` have no slot, and wait for another's answer to end."""
    error: float = 0.0
    """Of the rates of one user, a fraction: 0.25 is a quarter more or less."""
    error_each: float = 0.0
    """Of `each`, which was seen more seldom or never."""
    basis: tuple[str, ...] = ()
    """What it was reckoned from, in words."""
    writes: bool = True
    """False: it only reads, as for embeddings and reranking. All rates are tokens of texts, the times until a text of
    `prompt` tokens is read."""


class BenchPoint(Noun, frozen=True, kw_only=True):
    """One measured point of a model; the median of what was run."""

    threads: int
    parallel: int
    ctx: int
    """Cells of one conversation."""
    filled: int
    """Tokens that the conversation held when its answer began."""
    prefill: float
    each: float
    """Tokens a second of each of `parallel` at once."""
    total: float
    ttft_s: float
    expected: float = 0.0
    """What was reckoned of `each` before this was measured; 0 where nothing was."""


class Bench(Noun, frozen=True, kw_only=True):
    """A measured curve of one version of a model on one host."""

    id: str
    model: str
    sha256: str
    node: str
    engine: str
    version: str
    cache_type: str
    at: float
    by: str
    points: tuple[BenchPoint, ...]
    replicas: int = 0
    """That ran beside it."""
    left_out: tuple[str, ...] = ()
    """Points that were not measured, and why."""


class BenchJob(Noun, frozen=True, kw_only=True):
    """A measurement that the daemon carries out; it lives on when the terminal closes. States: measuring, done,
    failed, cancelled."""

    id: str
    kind: str
    """`node` or `model`."""
    object: str
    """`node:local`, `model:chat`."""
    state: str
    by: str
    step: str = ""
    """What is measured now."""
    done: int = 0
    total: int = 0
    bench: Bench | None = None
    host: HostBench | None = None
    error: ErrorBody | None = None


class Seen(Noun, frozen=True, kw_only=True):
    """How what was seen compares with what was reckoned, for a model, engine, threads and users at once."""

    sha256: str
    engine: str
    version: str
    threads: int
    users: int
    what: str
    """`decode` or `prefill`."""
    rate: float
    """Tokens a second that were seen, of each user."""
    ratio: float
    """By what that differs from what is reckoned: 1.2 is a fifth faster."""
    spread: float
    """Of that, a fraction."""
    count: int
    at: float


class Wishes(Noun, frozen=True, kw_only=True):
    """What a model is wanted for. Nothing said of a thing: any will do."""

    use: str = "general"
    users: int = 1
    """Who are answered at once."""
    ctx: int = 4096
    """Tokens of each of their conversations."""
    min_speed: float = 0.0
    """Tokens a second for each of them."""
    memory: int = 0
    """Bytes that it may take; 0 = what is free on the host."""
    node: str = "local"
    licences: tuple[str, ...] = ()
    """Any of these: `apache-2.0`, or how they begin (`apache*`)."""
    prompt: int = 512
    """Tokens of a question, for the time to the first token."""
    limit: int = 10
    """Answers at most."""


class Choice(Noun, frozen=True, kw_only=True):
    """A model with a quantisation, weighed against the wishes."""

    rank: int
    name: str
    """Of the stored model, or of the entry in the catalogue."""
    title: str
    quantization: str
    stored: bool
    fits: bool
    plan_bytes: int
    """That a replica would reserve; 0 = not known."""
    bound: bool
    """`plan_bytes` is more than a plan can say, or less: the shape is not known well."""
    short_bytes: int
    """That are missing; 0 if it fits."""
    bytes: int
    """Of its files."""
    params: int
    licence: str
    speed: Speed
    quality: float | None
    """By its sourced scores for this use among those that are weighed, 0 to 1; None = not known."""
    load_s: float | None
    """To read its files from where they lie, cold; None = not known."""
    reasons: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """What it would need to be a candidate; nothing for one that is."""
    commands: tuple[str, ...] = ()
    """What pulls and deploys it."""


class Recommendation(Noun, frozen=True, kw_only=True):
    """The answer: what meets every wish, best first; else the nearest."""

    wishes: Wishes
    choices: tuple[Choice, ...]
    nearest: tuple[Choice, ...]
    """Three that come nearest, where none meets every wish."""
    plain: str = ""
    """What one would say without figures."""
    overruled: str = ""
    """Why another one comes first than that."""
    notes: tuple[str, ...] = ()
    """What is not known."""
    weighed: int = 0
    """How many models and quantisations were looked at."""
    room_bytes: int = 0
    """What they were weighed against."""
