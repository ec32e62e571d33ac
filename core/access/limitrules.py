"""What may be written as a limit, for whomever it is."""

from __future__ import annotations

from core.errors import Invalid
from core.hours import Hours
from core.nouns import Limits

MOST = 10**12
UNLIMITED, ALWAYS = -1, "always"
"""No limit, and no hours, whatever a default says."""


def check(limits: Limits, *, lifts: bool) -> None:
    """Raises `Invalid`. `lifts`: it may say that there is no limit, whatever a default for each says."""
    for name in Limits.__struct_fields__:
        value = getattr(limits, name)
        if name == "hours":
            _check_hours(value, lifts=lifts)
        elif value == UNLIMITED and not lifts:
            raise _nothing_to_lift(f"{name} cannot be unlimited here")
        elif not (0 <= value <= MOST or value == UNLIMITED):
            raise Invalid(f"{name} is {value}", f"it may be 0 (not said) to {MOST}")


def _check_hours(text: str, *, lifts: bool) -> None:
    if not text or (text == ALWAYS and lifts):
        return
    if text == ALWAYS:
        raise _nothing_to_lift("hours cannot be always here")
    try:
        Hours(text)
    except ValueError as error:
        raise Invalid("the hours are not understood", str(error)) from None


def _nothing_to_lift(what: str) -> Invalid:
    return Invalid(
        what, "only a default for each user or key can be lifted",
        "leave it out, or say it for user:NAME, key:OWNER/NAME, each:group:NAME or each:team:NAME",
    )  # fmt: skip
