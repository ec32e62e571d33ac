"""How a version is named: `chat` (its live one), `chat:canary` (by an alias), `chat@3`, `chat@sha256:ab12…`.

No service: whoever takes a model's name from a person splits it here, so that all take the same.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from core.errors import Invalid

LIVE, PREVIOUS = "live", "previous"
"""The alias that a bare name means, and the version that it meant before: the way back."""
LEAST_HASH = 8
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HASH = re.compile(rf"sha256:([0-9a-f]{{{LEAST_HASH},64}})")


class Reference(NamedTuple):
    """A name with one of: an alias, a number (0: none), the beginning of a hash."""

    name: str
    alias: str = ""
    version: int = 0
    sha256: str = ""

    def __str__(self) -> str:
        if self.version:
            return f"{self.name}@{self.version}"
        return f"{self.name}@sha256:{self.sha256}" if self.sha256 else f"{self.name}:{self.alias or LIVE}"


def split(text: str) -> Reference:
    """What a person's words mean. Raises `Invalid` for what can be no name of a version."""
    name, at, exact = text.partition("@")
    if at:
        found = _HASH.fullmatch(exact)
        if found:
            return Reference(name, sha256=found[1])
        if exact.isascii() and exact.isdecimal() and 0 < len(exact) < 10 and int(exact):
            return Reference(name, version=int(exact))
        raise Invalid(
            f"{text[:100]!r} names no version",
            f"after @ comes a number or sha256: and {LEAST_HASH} or more hexadecimal digits of its hash",
            f"see `corral models versions {name}`" if _NAME.fullmatch(name) else "",
        )
    name, colon, alias = text.partition(":")
    if colon and not _ALIAS.fullmatch(alias):
        raise Invalid(f"{text[:100]!r} names no version", "after : comes an alias, like live or previous")
    return Reference(name, alias=alias or LIVE)


def of(name: str, text: str) -> Reference:
    """A version of `name` by what follows its name: `3`, `@3`, `canary`, `:canary`, `sha256:…`. Raises `Invalid`."""
    plain = text[1:] if text[:1] in "@:" else text
    exact = plain.isdecimal() or plain.startswith("sha256:")
    return split(f"{name}@{plain}" if exact else f"{name}:{plain}")


def base(text: str) -> str:
    """The name alone, of whatever is wanted: what rights, limits and usage go by."""
    return re.split("[:@]", text, maxsplit=1)[0]


def check_name(name: str) -> str:
    """A name that a new model may have. Raises `Invalid`."""
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"{name!r} is no name for a model",
            "it has 1 to 63 of a-z, 0-9, dot, dash and underscore and begins with a letter or digit",
            "give another one with --name",
        )
    return name


def made_name(text: str) -> str:
    """A name that a model may have, from any text."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63].rstrip("-._") or "model"


def check_alias(alias: str) -> str:
    """An alias that a person may set. Raises `Invalid`."""
    if not _ALIAS.fullmatch(alias) or alias == PREVIOUS or alias.isdecimal():
        why = (
            f"it follows {LIVE} by itself" if alias == PREVIOUS
            else "it would be taken for the number of a version" if alias.isdecimal()
            else "it has 1 to 63 of a-z, 0-9, dot, dash and underscore and begins with a letter or digit"
        )  # fmt: skip
        raise Invalid(f"{alias[:80]!r} is no alias that can be set", why)
    return alias
