"""On which line of a file of entries something stands."""

from __future__ import annotations

import re
import tomllib

Place = tuple[str | int, ...]
"""The way to it: `("models", 2, "ctx", "source")`."""


def line_of(text: str, place: Place) -> int:
    """The line of `place`, or the nearest one above it that can be told; 1 if none can."""
    lines = text.splitlines()
    first, last = 0, len(lines)
    inside = ""
    best = 1
    rest = list(place)
    if rest[:1] == ["models"] and len(rest) > 1 and isinstance(rest[1], int):
        starts = [number for number, line in enumerate(lines) if _header(line) == "models"]
        if rest[1] >= len(starts):
            return best
        first = starts[rest[1]]
        last = starts[rest[1] + 1] if rest[1] + 1 < len(starts) else len(lines)
        best, inside, rest = first + 1, "models.", rest[2:]
    if not rest:
        return best
    key = str(rest[0])
    nth = rest[1] if len(rest) > 1 and isinstance(rest[1], int) else 0
    under = str(rest[-1])
    seen = 0
    table = inside.rstrip(".")
    for number in range(first, last):
        line = lines[number]
        header = _header(line)
        if header is not None:
            table = header
            if header == inside + key or header.startswith(inside + key + "."):
                if seen == nth:
                    best = number + 1
                seen += 1
            continue
        if table == inside + key and seen == nth + 1 and re.match(rf"\s*[\"']?{re.escape(under)}[\"']?\s*[.=]", line):
            return number + 1
        if table == inside.rstrip(".") and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
            return number + 1
    return best


def place_of(error: tomllib.TOMLDecodeError, text: str) -> int:
    """The line that a TOML error names; the last one where it says the end."""
    found = re.search(r"line (\d+)", str(error))
    return int(found[1]) if found else max(1, len(text.splitlines()))


def _header(line: str) -> str | None:
    found = re.match(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$", line)
    return found[1].replace('"', "").replace("'", "") if found else None
