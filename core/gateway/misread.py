"""What is wrong with a field of a body, in the words of an API and not in the reader's, which speaks of types."""

from __future__ import annotations

import re

from core.gateway.errors import Refusal

_AT = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_TYPE = re.compile(r"Expected `(?P<types>[^`]+)`, got `(?P<got>[^`]+)`")
_MOST = re.compile(r"Expected `\w+` (?P<length>of length )?(?P<sign><=|>=) (?P<bound>[-0-9.e+]+)")
_NOUNS = {
    "float": "a number", "int": "a number", "bool": "true or false", "str": "a string", "object": "an object",
    "array": "a list", "null": "null",
}  # fmt: skip
_OF = {"str": "characters", "array": "entries"}


def misread(error: str) -> Refusal:
    """The refusal for a body that the reader refused with `error`."""
    found = _AT.search(error)
    field = found["field"] if found else ""
    why = _AT.sub("", error)
    if missing := _MISSING.fullmatch(why):
        field = f"{field}.{missing['field']}" if field else missing["field"]
        words = "is required"
    elif wrong := _TYPE.fullmatch(why):
        kinds = [_NOUNS.get(each, each) for each in wrong["types"].split(" | ") if each != "null"]
        words = f"must be {' or '.join(kinds)}, not {_NOUNS.get(wrong['got'], wrong['got'])}"
    elif bound := _MOST.fullmatch(why):
        side = "at most" if bound["sign"] == "<=" else "at least"
        of = f" {_OF['array' if '`array`' in why else 'str']}" if bound["length"] else ""
        words = f"{'has' if of else 'must be'} {side} {float(bound['bound']):.0f}{of}"
    elif why == "Number out of range":
        words = "is a number out of range"
    else:
        return Refusal(400, f"the body cannot be read: {error}", "bad_request", param=field)
    return Refusal(400, f"{field or 'the body'} {words}", "bad_request", param=field)
