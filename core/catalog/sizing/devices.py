"""A model over the host and its GPUs: what each takes, and the largest share that fits into the GPUs.

llama.cpp's own rules (llama_model_base::load_tensors of src/llama-model.cpp): the embedding stays in the host; the
last `gpu_layers` of the layers, the output counted as one behind them, go to the GPUs, which share them by what each
has free; a layer's keys, values and state lie with it; --n-cpu-moe keeps the experts of the first layers in the host.
What one GPU takes is measured (`gpu`); how several share is reckoned.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from core.catalog.sizing import gpu
from core.catalog.sizing.parts import N_UBATCH, CacheType, kv_by_layer, state_by_layer
from core.engines.base import Abilities
from core.nouns import DevicePlan, ModelShape, PlanParts, Split


def split(
    shape: ModelShape,
    found: PlanParts,
    ctx: int,
    parallel: int,
    cache_type: CacheType,
    host_free: int,
    gpus_free: Sequence[int],
    *,
    gpu_layers: int,
    cpu_moe: int = 0,
    shares: Sequence[int] = (),
    n_ubatch: int = N_UBATCH,
    engine: Abilities,
) -> Split:
    """What the host and each GPU take (bytes) with so many layers on the GPUs; `found` is the plan in the host alone,
    `gpus_free` has one entry a GPU and may be empty. `shares` as --tensor-split: by what the layers are shared, where
    it is not what each has free; a GPU without a share is not given to the engine at all."""
    slots = max(1, parallel)
    layers = shape.n_layer
    count = min(max(0, gpu_layers), layers + 1) if gpus_free else 0
    first = layers + 1 - count
    weights, experts = _layer_bytes(shape)
    more = 1 + shape.margin
    uses = not shares or bool(shares[0])
    kv = [more * size for size in kv_by_layer(shape, ctx, slots, cache_type, n_ubatch, engine)]
    state = [more * size for size in state_by_layer(shape, slots)]
    ends = list(accumulate(shares or gpus_free))
    on = [_Sum() for _ in range(len(gpus_free) + 1)]
    for place in range(layers + 1):
        device = 0
        if place >= first:
            device = 1 + bisect_right([end / (ends[-1] or 1) for end in ends[:-1]], (place - first) / count)
        on[device].layers += 1
        if place == layers:
            on[device].weights += shape.output_bytes if device else 0
            continue
        kept = experts[place] if device and place < cpu_moe else 0
        on[device].weights += weights[place] - kept
        on[0].weights += kept
        on[device].kv += kv[place] + state[place]
    embedding = shape.tensor_bytes - sum(weights) - (0 if shape.tied else shape.output_bytes)
    host_weights = embedding + on[0].weights + (0 if shape.tied or count else shape.output_bytes)
    # With no layer there the first GPU still computes whole batches, unless none is given to the engine at all.
    lent = gpu_layers <= layers or cpu_moe > first
    used = [bool(sums.layers) or (not count and not n and uses) for n, sums in enumerate(on[1:])]
    beside = found.base + found.output + found.checkpoints + found.projector + found.pictures
    beside += found.adapters + found.learned
    if any(used):
        step = gpu.host_buffers(shape, ctx, slots, n_ubatch, engine)
        other = beside + gpu.HOST_BYTES + gpu.library(shape) + _between(shape, weights, experts, first, cpu_moe, count)
    else:
        step = found.compute
        other = beside + found.repack
    host = DevicePlan(
        device="host", layers=on[0].layers, weights=round(host_weights), kv_cache=round(on[0].kv), compute=step,
        other=other, total=round(host_weights + on[0].kv) + step + other, free_bytes=host_free, fits=False,
    )  # fmt: skip
    plans = [_fitted(host, host_free)]
    for number, (free, sums, on_it) in enumerate(zip(gpus_free, on[1:], used, strict=True)):
        width = gpu.buffers(
            shape, ctx, slots, cache_type, lent=lent and used.index(True) == number, n_ubatch=n_ubatch, engine=engine
        ) if on_it else 0  # fmt: skip
        other = gpu.driver(shape) if on_it else 0
        plans.append(
            _fitted(
                DevicePlan(
                    device=f"gpu{number}", layers=sums.layers, weights=round(sums.weights), kv_cache=round(sums.kv),
                    compute=width, other=other, total=round(sums.weights + sums.kv) + width + other, free_bytes=free,
                    fits=False,
                ),
                free * (1 - gpu.SPARE),
            )
        )  # fmt: skip
    return Split(
        gpu_layers=count, cpu_moe=min(cpu_moe, layers), devices=tuple(plans), fits=all(each.fits for each in plans),
        measured=sum(used) == 1 and not shape.margin and shape.arch not in gpu.UNMEASURED,
    )  # fmt: skip


def largest(
    shape: ModelShape,
    found: PlanParts,
    ctx: int,
    parallel: int,
    cache_type: CacheType,
    host_free: int,
    gpus_free: Sequence[int],
    *,
    cpu_moe: int | None = None,
    n_ubatch: int = N_UBATCH,
    engine: Abilities,
) -> Split:
    """The split with the most on the GPUs that fits everywhere. Of a mixture of experts all layers go there first, with
    the fewest layers' experts in the host; then fewer layers go. Nothing fits: the one with all in the host. A GPU that
    has not even room for its driver gets none."""
    shares = [free if free * (1 - gpu.SPARE) > gpu.driver(shape) else 0 for free in gpus_free]

    def tried(gpu_layers: int, moe: int) -> Split:
        return split(
            shape, found, ctx, parallel, cache_type, host_free, gpus_free, gpu_layers=gpu_layers, cpu_moe=moe,
            shares=shares if gpu_layers else [0] * len(shares), n_ubatch=n_ubatch, engine=engine,
        )  # fmt: skip

    if not any(shares):
        return tried(0, 0)
    wanted = range(shape.n_layer + 1) if cpu_moe is None and shape.expert_bytes else (cpu_moe or 0,)
    for moe in wanted:
        found_split = tried(shape.n_layer + 1, moe)
        if found_split.fits:
            return found_split
    for count in range(shape.n_layer, 0, -1):
        found_split = tried(count, wanted[-1] if cpu_moe is None else cpu_moe)
        if found_split.fits:
            return found_split
    return tried(0, 0)


class _Sum:
    """What one device has so far."""

    def __init__(self) -> None:
        self.layers, self.weights, self.kv = 0, 0.0, 0.0


def _between(
    shape: ModelShape, weights: Sequence[float], experts: Sequence[float], first: int, cpu_moe: int, count: int
) -> int:
    """Of what lies on a GPU, what stays mapped in the host: from its first tensor to its last all of the file is."""
    if not count:
        return 0
    ahead = shape.output_ahead if first or cpu_moe else 0
    return ahead + round(sum(weights[n] - experts[n] for n in range(first, min(cpu_moe, shape.n_layer))))


def _layer_bytes(shape: ModelShape) -> tuple[Sequence[float], Sequence[float]]:
    """Weights and experts of each layer; equal shares where only the sum is known."""
    none = (0.0,) * shape.n_layer
    if shape.layer_bytes:
        return shape.layer_bytes, shape.expert_bytes or none
    return (shape.tensor_bytes / (shape.n_layer + 1),) * shape.n_layer, none


def _fitted(plan: DevicePlan, free: float) -> DevicePlan:
    return DevicePlan(
        device=plan.device, layers=plan.layers, weights=plan.weights, kv_cache=plan.kv_cache, compute=plan.compute,
        other=plan.other, total=plan.total, free_bytes=plan.free_bytes, fits=plan.total <= free,
    )  # fmt: skip
