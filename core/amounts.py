"""Sizes as people type them, on the command line and in corral.toml."""

from __future__ import annotations

import re

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
LARGEST = 1 << 62


def size_of(text: str) -> int:
    """Bytes from `512M`, `2G`, `1.5GiB` or a number; units are binary. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if found:
        number, unit = found[1], _UNITS[found[2]]
        amount = int(float(number) * unit) if "." in number else int(number) * unit
        if amount <= LARGEST and (amount or not float(number)):  # 0 may mean all: a part of a byte must not
            return amount
    raise ValueError(f"{text!r} is no size; say 512M or 2G")


def as_typed(amount: int) -> str:
    """Bytes as `size_of` takes them, in the largest unit that they are a whole number of: `4G`."""
    for letter in ("T", "G", "M", "K"):
        unit = _UNITS[letter.lower()]
        if amount and amount % unit == 0:
            return f"{amount // unit}{letter}"
    return str(amount)


def size_said(amount: int) -> str:
    """Bytes for people, in binary units: `812 MiB`, `3.4 GiB`."""
    for unit, length in (("TiB", 1 << 40), ("GiB", 1 << 30)):
        if amount >= length:
            return f"{amount / length:.1f} {unit}"
    for unit, length in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if amount >= length:
            return f"{amount / length:.0f} {unit}"
    return f"{amount} B"
