"""What is said of API keys in the same words on the command line and on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tui.plain import line

SHOWN = 5


def unmatched(patterns: Iterable[str], names: Sequence[str]) -> str:
    """Of patterns of deployments (a star at the end only) those that match none of `names`, as a sentence; "" where all
    do. A key may be made for what is to be deployed later, so it is no error."""
    lost = [each for each in patterns if each != "*" and not any(_matches(each, name) for name in names)]
    if not lost:
        return ""
    there = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "") if names else "none"
    return line(f"no deployment that you see is meant by {', '.join(lost)}: there are {there}")


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
