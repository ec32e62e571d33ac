"""Limits in words, and what is left of them: for the command line and for the screen."""

from __future__ import annotations

from collections.abc import Iterable

from core.nouns import Left, Limits
from tui.words import moment

UNLIMITED = -1
UNSAID = "the gateway does not say what is left"
KINDS = {
    "rpm": ("requests/min", "requests a minute"), "tpm": ("tokens/min", "tokens a minute, in and out"),
    "tpm_in": ("tokens in/min", "tokens in a minute"), "tpm_out": ("tokens out/min", "tokens out a minute"),
    "concurrency": ("at once", "requests at once"),
    "daily_tokens": ("tokens/day", "tokens a day (UTC), in and out"), "daily_in": ("tokens in/day", "tokens in a day"),
    "daily_out": ("tokens out/day", "tokens out a day"),
    "monthly_tokens": ("tokens/month", "tokens a month (UTC), in and out"),
    "monthly_in": ("tokens in/month", "tokens in a month"),
    "monthly_out": ("tokens out/month", "tokens out a month"),
    "longest_prompt": ("tokens a prompt", "tokens of one prompt, at 4 bytes a token"),
    "longest_answer": ("tokens an answer", "tokens of one answer"),
}  # fmt: skip
"""Field to few words and to more."""


def told(limits: Limits) -> str:
    """All that is said, in a line; "" for nothing."""
    parts = []
    for field, (few, _) in KINDS.items():
        amount = getattr(limits, field)
        if amount:
            parts.append(f"{amount} {few}" if amount != UNLIMITED else f"unlimited {few}")
    if limits.hours:
        parts.append(limits.hours)
    return ", ".join(parts)


def rest(left: Left) -> str:
    """What is left of one limit: `48 of 60 requests/min, all again at 14:03`."""
    if left.kind == "hours":
        return f"served {left.words}" + (f", again from {moment(left.free_at)}" if left.free_at is not None else "")
    few = KINDS[left.kind][0] if left.kind in KINDS else left.kind  # a newer daemon may have more
    if left.kind.startswith("longest"):
        return f"{left.most} {few}"
    free = f", all of it from {moment(left.free_at)}" if left.free_at is not None and left.used else ""
    return f"{left.left} of {left.most} {few}{free}"


def rests(left: Iterable[Left]) -> str:
    """What is left of those that are used up, without when they are free again; "" where there are none."""
    counted = (each for each in left if not each.kind.startswith("longest") and (each.kind != "hours" or each.free_at))
    return ", ".join(rest(each).partition(", all of it")[0] for each in counted)
