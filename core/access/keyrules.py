"""What may be written of an API key: its name, its patterns, its routes, its networks, its end."""

from __future__ import annotations

import ipaddress
import re

from core.access.limitrules import check as check_limits
from core.errors import Invalid
from core.nouns import ENDPOINTS, Limits

LOCAL = "local"
"""Stands among the networks of a key for the gateway's Unix socket."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\*?|\*")


def check_name(name: str) -> None:
    """Raises `Invalid`."""
    if not _NAME.fullmatch(name):
        raise Invalid(f"{name!r} is no name of a key", "a-z, 0-9, ., _ and -, up to 63 of them")


def check(
    deployments: tuple[str, ...], endpoints: tuple[str, ...], sources: tuple[str, ...], limits: Limits,
    until: float | None, now: float,
) -> None:  # fmt: skip
    """Raises `Invalid`."""
    if not deployments:
        raise Invalid("the key could use no deployment", todo="name some, or say *")
    for pattern in deployments:
        if not _PATTERN.fullmatch(pattern):
            raise Invalid(
                f"{pattern!r} is no name of deployments",
                "they are of a-z, 0-9, dot, dash and underscore; a star stands at the end only", "for example team-a-*",
            )  # fmt: skip
    for endpoint in endpoints:
        if endpoint not in ENDPOINTS:
            raise Invalid(f"there is no endpoint {endpoint!r}", f"there are: {', '.join(ENDPOINTS)}")
    for source in sources:
        if source == LOCAL:
            continue
        try:
            ipaddress.ip_network(source, strict=False)
        except ValueError as error:
            raise Invalid(f"{source!r} is no network", str(error), "for example 10.1.0.0/16, or local") from None
    check_limits(limits, lifts=False)
    if until is not None and until <= now:
        raise Invalid("the key would end before it begins", todo="give an end that lies ahead")
