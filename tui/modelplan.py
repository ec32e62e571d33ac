"""The memory of a plan, as bars of letters: the host's alone by part, and each device's where it lies over GPUs."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from core.nouns import DevicePlan, Plan, Split
from tui.words import plural, size

LETTERS = {
    "weights": ("W", "weights"), "kv_cache": ("K", "KV cache"), "compute": ("C", "compute"),
    "repack": ("R", "repacked"), "output": ("O", "output"), "base": ("B", "base"),
    "checkpoints": ("P", "kept states"), "state": ("S", "state"), "projector": ("V", "projector"),
    "pictures": ("I", "pictures"), "adapters": ("A", "adapters"), "learned": ("L", "learned"), "other": ("X", "other"),
}  # fmt: skip
"""Parts of a plan by the letter that stands for them in a bar."""
MIB = 1 << 20
WIDEST = 100
"""Cells of a bar at most."""
ON_DEVICE = ("weights", "kv_cache", "compute", "other")


def left_of(plan: Plan) -> int:
    """Bytes that may be had beside what is kept for the host and promised to others."""
    return max(0, plan.free_bytes - plan.reserve_bytes - plan.reserved_bytes)


def bar(parts: Mapping[str, int], of: float, width: int) -> str:
    """Parts of a plan as letters, each as wide as its share of `of` bytes; what is left as dots."""
    cells = max(8, width - 2)
    drawn, at = "", 0.0
    for name, value in parts.items():
        if value > 0:
            at += value
            letter = LETTERS.get(name, (name[:1].upper(), name))[0]
            upto = min(cells, max(round(cells * at / max(1.0, of)), len(drawn) + (value >= MIB)))
            drawn += letter * (upto - len(drawn))
    return f"[{drawn.ljust(cells, '.')}]"


def legend(parts: Mapping[str, int]) -> str:
    """What the letters stand for, with their bytes."""
    shown = []
    for name, value in parts.items():
        letter, words = LETTERS.get(name, (name[:1].upper(), name.replace("_", " ")))
        if abs(value) >= MIB:
            shown.append(f"{letter} {words} {size(value)}")
    return ", ".join(shown)


def memory(plan: Plan | str | None, width: int) -> list[str]:
    """What a plan takes of what may be had, as a bar; of a text why there is none."""
    if plan is None:
        return []
    if isinstance(plan, str):
        return [f"memory: {plan}"]
    left, parts = left_of(plan), msgspec.structs.asdict(plan.parts)
    does = "fits here" if plan.fits else "DOES NOT FIT here"
    return [
        f"{does}: a replica reserves {size(plan.plan_bytes)}, {size(left)} may be had; ctx {plan.ctx}, in use:",
        bar(parts, max(plan.rss_bytes, left), min(width, WIDEST)),
        legend(parts),
    ]


def over(split: Split, width: int) -> list[str]:
    """How a model lies over the host and its GPUs: a bar for each, of what is free there."""
    moe = f", the experts of {split.cpu_moe} layers in the host" if split.cpu_moe else ""
    there = f"{split.gpu_layers} {plural(split.gpu_layers, 'layer')} on GPUs{moe}"
    told = {each.device: _took(each) for each in split.devices}
    name, tail = max(map(len, told)), max(map(len, told.values()))
    cells = min(WIDEST, width - name - tail - 2)
    sums = {part: sum(getattr(each, part) for each in split.devices) for part in ON_DEVICE}
    return [
        f"{there}: {'fits' if split.fits else 'DOES NOT FIT'} (by llama.cpp's rules; no GPU's share was measured)",
        *(
            f"{each.device:{name}} {bar(_parts(each), max(each.total, each.free_bytes), cells)} {told[each.device]}"
            for each in split.devices
        ),
        legend(sums),
    ]


def _parts(device: DevicePlan) -> dict[str, int]:
    return {part: getattr(device, part) for part in ON_DEVICE}


def _took(device: DevicePlan) -> str:
    layers = f"{device.layers} {plural(device.layers, 'layer')}"
    short = "" if device.fits else ", TOO LITTLE"
    return f"{size(device.total)} of {size(max(0, device.free_bytes))}, {layers}{short}"
