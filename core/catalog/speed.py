"""Tokens a second before a model runs: what a token touches against what the host was measured to do.

    step(u) = L * layer + u * (token + vocabulary * V)                             beside the weights
            + |weights of each type * u / rate(type, u) , bytes of the step / bandwidth|  (`_both`: they overlap)
            + |u * looked back on / attention , u * bytes of the cells / bandwidth|
    prompt(p) = L * layer * batches + weights * p / rate(type, prompt) + sum of what each token looks back on
    to the first token = first + prompt(p) + step(1)

`rate` is what the engine itself passed of each type (core/catalog/hostbench.py), between one token a step, two, four
and a prompt by the logarithm of how many; other counts of threads lie between those that were measured. What was seen
of a model on this host (`Seen`) corrects it, within bounds. Figures and errors: docs/choosing.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import msgspec

from core.catalog.sizing import N_UBATCH
from core.catalog.sizing.parts import CELL_BYTES
from core.catalog.work import Work, near_type
from core.nouns import Hidden, HostBench, Noun, Rate, Seen, Speed

FIRST_ERROR = 0.25
"""Of a file's own tensors before its first run: what bench_speed.py holds the median to."""
SHAPE_ERROR = 0.4
"""Of a shape's counts."""
SEEN_ERROR = 0.1
NEAR_ERROR = 0.15
"""Of what was seen with other threads, or with twice or half as many users at once; beyond that it is FIRST_ERROR."""
OFTEN = 5
"""Answers whose spread says how much the host's other work changes a speed."""
BUSY, BUSY_ERROR = 0.6, 0.5
"""Load of a core from which on a measurement of the host is doubtful."""
OTHER_THREADS = 0.5
"""How much of a correction (of its logarithm) holds for other threads; for other users at once it is all of it. Both
by what made the least error when each measured point told of each other one (docs/choosing.md)."""
CORRECTION = (0.2, 5.0)
"""What was seen may differ by so much; what differs more is no measurement of this model on this host."""
MEASURED_USERS = 4
"""Up to so many at once each count has a rate of its own; beyond it they go one way."""
PROMPT_BATCH = 64
"""Tokens a step from which on it goes as fast as a prompt."""


Point = tuple[int, float]
"""Threads, and a rate with so many."""


class Seat(Noun, frozen=True, kw_only=True):
    """How a model is served: threads, slots, and the type of its cache."""

    threads: int
    parallel: int = 1
    cache_type: str = "f16"


class Raw(Noun, frozen=True, kw_only=True):
    """Seconds, not corrected by anything seen."""

    step_s: float
    """Of one step with all that are answered at once."""
    prompt_s: float
    first_s: float


def reckon(work: Work, host: HostBench, seat: Seat, *, users: int, ctx: int, prompt: int) -> Raw:
    """Of `users` conversations at once, `ctx` cells filled in each, and a prompt of `prompt` tokens."""
    return Raw(
        step_s=_step(work, host, seat, max(1, users), ctx), prompt_s=_prompt(work, host, seat, prompt),
        first_s=host.first_s,
    )  # fmt: skip


def predict(
    work: Work, host: HostBench | None, seat: Seat, *, users: int, ctx: int, prompt: int, seen: Sequence[Seen] = ()
) -> Speed:
    """What to expect. Without a measured host it is what was seen of the model just so, or not known."""
    slots = max(1, min(users, seat.parallel))
    told = {
        what: [each for each in seen if each.what == what and each.rate > 0] for what in ("decode", "prefill")
    }  # fmt: skip
    if host is None:
        return _only_seen(seat, told, users=users, slots=slots, ctx=ctx, prompt=prompt)
    alone = reckon(work, host, seat, users=1, ctx=ctx, prompt=prompt)
    one, reading = (_correction(told[what], seat.threads, 1) for what in ("decode", "prefill"))
    decode, each = one / alone.step_s, one / alone.step_s
    for count in _counts(slots):  # nobody is faster for more company, whatever was seen
        many = _correction(told["decode"], seat.threads, count)
        each = min(each, many / _step(work, host, seat, count, ctx))
    prompt_s = alone.prompt_s / reading
    basis = [_host_words(host)]
    if not work.exact:
        basis.append("its shape alone, since its file is not here")
    strange = sorted({kind for kind in {**work.layers, **work.output} if kind not in _table(host).kinds})
    if strange:
        basis.append(f"the nearest measured type for {', '.join(strange)}")
    error = each_error = FIRST_ERROR if work.exact and not strange else SHAPE_ERROR
    known = bool(told["decode"] and told["prefill"])
    if known:
        error = max(_seen_error(told[what], seat.threads, 1) for what in ("decode", "prefill"))
        each_error = _seen_error(told["decode"], seat.threads, slots) if slots > 1 else error
    if seen:
        basis.append(_seen_words(seen))
    least = 0.0
    if sum(each.count for each in told["decode"] if each.threads == seat.threads) < OFTEN:
        least = max(_varied(host, seat.threads), BUSY_ERROR if host.load > BUSY and not known else 0.0)
        basis += [busy_words(host)] if host.load > BUSY else []
    if shares(seat.threads, host):
        least = max(least, _shared_error(told["decode"], seat.threads, host))
        basis.append(
            f"threads on all {host.cores} cores, so what else runs there decides: beside one busy program"
            f" {host.crowded:.0%} was left of a probe's speed"
        )  # fmt: skip
    waits = max(0, users - slots)
    ttft = alone.first_s + prompt_s + 1 / decode
    return Speed(
        known=True, threads=seat.threads, users=users, ctx=ctx, prompt=prompt,
        prefill=round(max(1, prompt) / prompt_s, 2) if prompt_s else 0.0, decode=round(decode, 2),
        each=round(each, 2), ttft_s=round(ttft, 4),
        ttft_all_s=round(alone.first_s + prompt_s * slots + slots / max(1e-9, each * slots), 4), waits=waits,
        error=round(max(error, least), 2), error_each=round(max(each_error, least), 2), basis=tuple(basis),
    )  # fmt: skip


def busy_words(host: HostBench) -> str:
    """Of a measurement to which others' work belongs; "" of an idle host's."""
    if host.load <= BUSY:
        return ""
    return (
        f"the host was busy when it was measured (load {host.load:.1f} a core): measure it again when it is idle,"
        " `corral nodes bench`"
    )


def _varied(host: HostBench, threads: int) -> float:
    """How far apart rounds of one probe lay, with the measured counts of threads around."""
    below = [row for row in host.beside if row.threads <= threads]
    above = [row for row in host.beside if row.threads >= threads]
    around = [*sorted(below, key=lambda row: -row.threads)[:1], *sorted(above, key=lambda row: row.threads)[:1]]
    return max((row.spread for row in around), default=0.0)


def _seen_error(seen: Sequence[Seen], threads: int, users: int) -> float:
    """Of a rate that what was seen corrects: what that varied by, and more the further off it was seen."""
    best, wanted = _nearest(seen, threads, users), bucket(users)
    if best.users == wanted:
        far = SEEN_ERROR if best.threads == threads else NEAR_ERROR
    else:
        far = NEAR_ERROR if 0.5 <= best.users / wanted <= 2 else FIRST_ERROR
    return max(far, best.spread)


def reading(speed: Speed) -> Speed:
    """Of a model that only reads, since it is asked for embeddings or ranks: texts take turns, and none is answered."""
    if not speed.known or not speed.prefill:
        return msgspec.structs.replace(speed, writes=False)
    users = max(1, speed.users)
    text_s = speed.prompt / speed.prefill
    return msgspec.structs.replace(
        speed, writes=False, decode=speed.prefill, each=round(speed.prefill / users, 2), ttft_s=round(text_s, 4),
        ttft_all_s=round(text_s * users, 4), waits=0,
    )  # fmt: skip


def _only_seen(
    seat: Seat, told: Mapping[str, list[Seen]], *, users: int, slots: int, ctx: int, prompt: int
) -> Speed:  # fmt: skip
    """Without a measured host: what was seen with these very threads and users, and nothing else."""
    nothing = Speed(
        known=False, threads=seat.threads, users=users, ctx=ctx, prompt=prompt,
        basis=("this host was not measured: `corral nodes bench` takes about a minute",),
    )  # fmt: skip

    def just(what: str, count: int) -> float:
        same = [each for each in told[what] if each.threads == seat.threads and each.users == bucket(count)]
        return max(same, key=lambda each: each.at).rate if same else 0.0

    decode, each, prefill = just("decode", 1), just("decode", slots), just("prefill", 1)
    if not each or not prefill:
        return nothing
    decode = max(decode, each)
    return Speed(
        known=True, threads=seat.threads, users=users, ctx=ctx, prompt=prompt, prefill=round(prefill, 2),
        decode=round(decode, 2), each=round(each, 2), ttft_s=round(prompt / prefill + 1 / decode, 4),
        ttft_all_s=round(slots * prompt / prefill + 1 / each, 4), waits=max(0, users - slots), error=FIRST_ERROR,
        error_each=FIRST_ERROR,
        basis=(_seen_words([*told["decode"], *told["prefill"]]), *nothing.basis),
    )  # fmt: skip


def shares(threads: int, host: HostBench) -> bool:
    """Whether so many threads leave no core to what else runs: all of them wait for the one that lost its core."""
    return threads >= host.cores > 1 and host.crowded > 0


def _shared_error(decoded: Sequence[Seen], threads: int, host: HostBench) -> float:
    """What one other busy program would take away, half at least; what was seen of it once that is more than chance."""
    seen = [each for each in decoded if each.threads == threads]
    most = max(BUSY_ERROR, 1 - host.crowded)
    return most if sum(each.count for each in seen) < OFTEN else min(most, max(each.spread for each in seen))


def bucket(users: int) -> int:
    """Users at once that are counted together: 1, 2, 4, 8, …"""
    return 1 << max(0, round(math.log2(max(1, users))))


def _counts(users: int) -> set[int]:
    """`users`, and the fewer ones that may have come out slower: those that were measured one by one, and the most of
    each bucket before."""
    edges = (int(2 ** (n + 0.5)) for n in range(bucket(users).bit_length() - 1))
    return {*range(1, min(users, MEASURED_USERS + 1)), *edges, users}


def _host_words(host: HostBench) -> str:
    return f"{host.node} as measured with {host.engine} {host.version}".rstrip()


def _seen_words(seen: Sequence[Seen]) -> str:
    runs = sum(each.count for each in seen if each.what == "decode")
    return f"{runs} {'answers' if runs != 1 else 'answer'} of it seen on this host"


def _correction(seen: Sequence[Seen], threads: int, users: int) -> float:
    """By what to multiply a rate."""
    if not seen:
        return 1.0
    best = _nearest(seen, threads, users)
    ratio = min(max(best.ratio, CORRECTION[0]), CORRECTION[1])
    return ratio if best.threads == threads else ratio**OTHER_THREADS


def _nearest(seen: Sequence[Seen], threads: int, users: int) -> Seen:
    """With these threads and users, else with what is nearest, the newest first."""
    wanted = bucket(users)

    def far(each: Seen) -> tuple[float, float, float]:
        return (
            abs(math.log2(each.threads / max(1, threads))), abs(math.log2(each.users / wanted)), -each.at
        )  # fmt: skip

    return min(seen, key=far)


# ---------------------------------------------------------------------------------------- seconds


def _step(work: Work, host: HostBench, seat: Seat, users: int, ctx: int) -> float:
    beside, hidden = _beside(host, seat.threads), _hidden(host, seat.threads, users)
    bandwidth = _bandwidth(host, seat.threads)
    weights = sum(
        count * users / _rate(host, kind, seat.threads, users)
        for part in (work.layers, work.output) for kind, count in part.items()
    )  # fmt: skip
    touched = work.bytes_shared + work.bytes_experts * (1 - (1 - work.expert_share) ** users)
    look_s = users * sum(
        _look_s(host, seat.threads, _cells(window, ctx), count) for window, count in work.multiplications
    )
    cells = sum(_cells(window, ctx) * count for window, count in work.cell_weights) * CELL_BYTES[seat.cache_type]
    return (
        work.n_layer * beside[0]
        + users * (beside[1] + host.vocabulary_s * work.n_vocab)
        + _both(hidden, weights, touched / bandwidth)
        + _both(hidden, look_s, users * (cells + work.state_bytes) / bandwidth)
    )


def _prompt(work: Work, host: HostBench, seat: Seat, prompt: int) -> float:
    if prompt <= 0:
        return 0.0
    beside = _beside(host, seat.threads)
    weights = sum(
        count * prompt / _rate(host, kind, seat.threads, min(prompt, N_UBATCH)) for kind, count in work.layers.items()
    )
    look = sum(_looked_back(window, prompt) * count for window, count in work.multiplications)
    batches = math.ceil(prompt / N_UBATCH)
    touched = batches * (work.bytes_shared + work.bytes_experts) / _bandwidth(host, seat.threads)
    read = _both(_hidden(host, seat.threads, MEASURED_USERS), weights, touched)
    return batches * work.n_layer * beside[0] + read + look / beside[2]


def _look_s(host: HostBench, threads: int, cells: int, each: float) -> float:
    """To look back on so many cells, of `each` multiplications; never less for more of them."""
    short = _between([(row.threads, row.attention_short) for row in host.beside], threads)
    long = _between([(row.threads, row.attention_one) for row in host.beside], threads)
    low, high = host.looked
    return cells * each / _log(low, short, high, min(long, short * high / low), min(max(cells, low), high))


def _cells(window: int, ctx: int) -> int:
    return min(window, ctx) if window else ctx


def _looked_back(window: int, prompt: int) -> float:
    """Cells that all tokens of a prompt look back on together."""
    if not window or prompt <= window:
        return prompt * prompt / 2
    return window * window / 2 + (prompt - window) * window


def _both(hidden: float, compute_s: float, memory_s: float) -> float:
    """Two things of which so much of the shorter goes on while the other does."""
    return max(compute_s, memory_s) + (1 - hidden) * min(compute_s, memory_s)


def _hidden(host: HostBench, threads: int, users: int) -> float:
    """As far as was measured of this host."""

    def of(row: Hidden) -> float:
        if users <= 2:
            return row.one + (row.two - row.one) * math.log2(max(1, users))
        return row.two + (row.four - row.two) * (math.log2(min(users, 4)) - 1)

    rows = sorted(host.hidden, key=lambda row: row.threads)
    for low, high in itertools.pairwise(rows):
        if low.threads < threads <= high.threads:
            part = math.log(threads / low.threads) / math.log(high.threads / low.threads)
            return of(low) + (of(high) - of(low)) * part
    return of(rows[0] if threads <= rows[0].threads else rows[-1])


class _Table:
    """The rates of a host by type."""

    def __init__(self, host: HostBench) -> None:
        self.host = host
        self.kinds: dict[str, list[Rate]] = {}
        for each in host.rates:
            self.kinds.setdefault(each.kind, []).append(each)
        self.widest = max(self.kinds.values(), key=len, default=[])
        """Of the type that was measured with each count of threads."""
        self._near: dict[str, list[Rate]] = {}

    def of(self, kind: str) -> list[Rate]:
        """Those of a type, or of the nearest one."""
        if kind not in self._near:
            self._near[kind] = self.kinds[near_type(kind, self.kinds)]
        return self._near[kind]


_kept: list[_Table] = []
"""The last host's: it is asked of many models in turn."""


def _table(host: HostBench) -> _Table:
    if not _kept or _kept[0].host is not host:
        _kept[:] = [_Table(host)]
    return _kept[0]


def _rate(host: HostBench, kind: str, threads: int, tokens: int) -> float:
    """Weights a second with `tokens` in a step."""
    table = _table(host)
    rates = table.of(kind)
    if len(rates) > 1:
        return _between([(each.threads, _of(each, tokens)) for each in rates], threads)
    # Of one thread alone: as much more with others as the type that was measured with all of them.
    points = [(each.threads, _of(each, tokens)) for each in table.widest]
    return _of(rates[0], tokens) * _between(points, threads) / _between(points, rates[0].threads)


def _of(rate: Rate, tokens: int) -> float:
    """Between one token a step, two, four, and a prompt; a step with more tokens never takes less time."""
    two = min(rate.two, 2 * rate.one)
    four = min(rate.four, 2 * two)
    prompt = min(rate.prompt, PROMPT_BATCH / 4 * four)
    if tokens <= 2:
        return _log(1, rate.one, 2, two, tokens)
    if tokens <= 4:
        return _log(2, two, 4, four, tokens)
    return _log(4, four, PROMPT_BATCH, prompt, min(tokens, PROMPT_BATCH))


def _log(low: int, at_low: float, high: int, at_high: float, at: float) -> float:
    part = math.log(at / low) / math.log(high / low)
    return float(at_low ** (1 - part) * at_high**part)


def _between(points: Sequence[Point], threads: int) -> float:
    """A rate between the measured threads around; beyond the last one as with that."""
    ordered = sorted(points)
    if threads <= ordered[0][0]:
        return ordered[0][1]
    for (low, at_low), (high, at_high) in itertools.pairwise(ordered):
        if threads <= high:
            return _log(low, at_low, high, at_high, threads)
    return ordered[-1][1]


def _bandwidth(host: HostBench, threads: int) -> float:
    return _between([(each.threads, each.bytes_s) for each in host.bandwidths], threads)


def _beside(host: HostBench, threads: int) -> tuple[float, float, float]:
    """Of a layer, of a token, and multiplications a second of a prompt that looks back."""
    rows = host.beside
    return (
        _between([(each.threads, each.layer_s) for each in rows], threads),
        _between([(each.threads, each.token_s) for each in rows], threads),
        _between([(each.threads, each.attention_prompt) for each in rows], threads),
    )
