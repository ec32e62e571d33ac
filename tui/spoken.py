"""What the daemon says to a command line, as the console says it: fields and screens instead of options and verbs."""

from __future__ import annotations

import re

from core.errors import CorralError, ErrorBody

FIELDS = {
    "name": "name", "ctx": "ctx", "parallel": "slots", "replicas": "replicas", "engine": "engine", "threads": "threads",
    "cache-type": "cache type", "cache_type": "cache type", "url": "url", "model": "model",
}  # fmt: skip
"""Options and fields of a spec by what the deploy form calls them."""

_PLACES = (
    (r"corral (?:deployments|ps)(?: ls)?", "screen 2"),
    (r"corral models ls", "screen 3"),
    (r"corral chats ls", "screen 5"),
    (r"corral audit verify", "v on screen 9"),
    (r"corral audit ls[^`;.]*", "screen 9"),
    (r"corral status", "screen 1"),
    (r"corral explain \S+", "e on screen 2"),
    (r"corral start \S+", "s on screen 2"),
    (r"corral reload", "\"reload\" in the palette"),
)  # fmt: skip
_SAID = [(re.compile(rf"`{words}`|(?<!`){words}(?=$|[\s.,;:])"), place) for words, place in _PLACES]
_OPTION = re.compile(rf"--({'|'.join(sorted(FIELDS, key=len, reverse=True))})\b")
_FIELD = re.compile(r"^(parallel|cache_type) is ")


def spoken(error: Exception | ErrorBody) -> str:
    """An error for who sits at the console; what has no place there stays a command. Names and paths, which stand in
    `what` and `why`, are left as they are."""
    if not isinstance(error, CorralError | ErrorBody):
        return str(error) or type(error).__name__
    what = _FIELD.sub(lambda found: f"{FIELDS[found[1]]} is ", error.what)
    todo = error.todo.replace("one with --name", "name")
    for pattern, place in _SAID:
        todo = pattern.sub(place, todo)
    todo = _OPTION.sub(lambda found: FIELDS[found[1]], todo)
    return "; ".join(part.rstrip(".") for part in (what, error.why, todo) if part)
