"""The secrets of API keys: 256 random bits behind a prefix that scanners can look for, with a checksum.

    corral_<43 letters and digits of the bits><6 of their CRC-32>

Only the SHA-256 is kept: of 256 random bits no slow hash is needed. `corral keys whose` and scanners of repositories
tell a key from a look-alike by its checksum, without asking anybody.
"""

from __future__ import annotations

import hashlib
import re
import secrets as random
import zlib

PREFIX = "corral_"
SHOWN = len(PREFIX) + 6
"""Characters by which people know a key."""
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"corral_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")


def new_secret() -> str:
    """A new one."""
    body = _digits(int.from_bytes(random.token_bytes(32)), 43)
    return PREFIX + body + _digits(zlib.crc32(body.encode()), 6)


def well_formed(text: str) -> bool:
    """Is this one of ours, by form and checksum?"""
    match = _FORM.fullmatch(text)
    return match is not None and _digits(zlib.crc32(match[1].encode()), 6) == match[2]


def hash_of(secret: str) -> str:
    """What is kept of it: SHA-256, 64 hex digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _digits(number: int, width: int) -> str:
    found = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        found = _ALPHABET[digit] + found
    return found
