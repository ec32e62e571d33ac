"""What to expect of a model's speed, in words: the same in both faces."""

from __future__ import annotations

from core.nouns import Speed
from tui.plain import line
from tui.words import plural


def told(speed: Speed) -> list[str]:
    """Line by line."""
    if not speed.known:
        return [f"speed: not known: {line('; '.join(speed.basis))}"]
    if not speed.writes:
        return [f"speed: {reads(speed)}", f"       by {line('; '.join(speed.basis))}"]
    out = [
        f"speed: {speed.decode:.1f} tokens/s for one user, prompts {speed.prefill:.0f} tokens/s (± {speed.error:.0%};"
        f" {speed.threads} {plural(speed.threads, 'thread')}, {speed.ctx} cells filled)"
    ]
    if speed.users > 1:
        waits = f", of whom {speed.waits} wait for a slot" if speed.waits else ""
        of_each = f"{speed.each:.1f} tokens/s for each of {speed.users} at once{waits}"
        out.append(f"       {of_each} (± {speed.error_each:.0%})")
    all_s = f"; when all ask at once, {speed.ttft_all_s:.2f} s" if speed.users > 1 else ""
    out.append(f"       first token of a prompt of {speed.prompt} after {speed.ttft_s:.2f} s{all_s}")
    return [*out, f"       by {line('; '.join(speed.basis))}"]


def reads(speed: Speed) -> str:
    """Of a model that only reads."""
    texts = speed.prefill / max(1, speed.prompt)
    each = f", {speed.each:.0f} for each of {speed.users} at once" if speed.users > 1 else ""
    return (
        f"reads {speed.prefill:.0f} tokens/s{each}, which is {texts:.1f} texts of {speed.prompt} tokens a second"
        f" (± {speed.error:.0%}; {speed.threads} {plural(speed.threads, 'thread')})"
    )
