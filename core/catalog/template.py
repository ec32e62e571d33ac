"""A chat template is code that came with a download: what in it a person should look at before it is served.

Jinja as llama.cpp runs it has no files and no network; a template that reaches for Python's insides was written for
somebody else's interpreter, and one that is large or loops without bound costs every request.
"""

from __future__ import annotations

import hashlib
import re

LARGEST = 256 << 10
"""Bytes of a template that is taken; the longest known ones have some 20 KiB."""
_REACHES = re.compile(
    r"__\w+__|\b(?:import|include|extends|from)\b(?=[^%}]*%\})|\b(?:lipsum|cycler|joiner|self|config|request|environment)"
    r"\s*[.\[(]|\b(?:os|sys|subprocess|popen|eval|exec|getattr|open)\s*[.(]|\|\s*attr\b"
)
_CODE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_RANGE = re.compile(r"\brange\s*\(\s*\d{5,}")
_URL = re.compile(r"https?://[^\s'\"<>]{1,120}")


def digest(text: str) -> str:
    """SHA-256 of a template; "" for none."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def flags(text: str) -> tuple[str, ...]:
    """What is unusual in a template, as sentences."""
    found = []
    code = " ".join(_TEXT.sub("''", piece) for piece in _CODE.findall(text))
    reached = sorted({each.strip() for each in _REACHES.findall(code)})
    if reached:
        found.append(f"its chat template reaches for more than text: {', '.join(reached[:5])}")
    if _RANGE.search(code):
        found.append("its chat template counts to a very high number")
    if len(text.encode()) > 64 << 10:
        found.append(f"its chat template has {len(text.encode()) >> 10} KiB")
    addresses = sorted(set(_URL.findall(text)))
    if addresses:
        found.append(f"its chat template names an address: {addresses[0]}")
    if any(ord(letter) < 32 and letter not in "\n\r\t" for letter in text):
        found.append("its chat template holds control characters")
    return tuple(found)


def compared(text: str, others: dict[str, str]) -> tuple[str, ...]:
    """`others`: by whose they are, hashes of templates that this one should be like."""
    mine = digest(text)
    differ = [whose for whose, other in others.items() if other and mine and other != mine]
    return tuple(f"its chat template is not that of {whose}" for whose in differ)
