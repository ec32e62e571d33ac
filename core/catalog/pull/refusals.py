"""What servers say in place of the bytes: not to you, not so often, or something that is no model."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from core.catalog.pull.web import Answer, NotReached, Web
from core.errors import CorralError, Failed, NeedsToken
from core.formats import HEAD, no_gguf

LONGEST_S = 300.0
"""That a server may ask us to wait."""
AGAIN = "say it again, or: corral models pulls resume"


class TooOften(NotReached):
    """The server has been asked too often, and does not say for how long."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} has been asked too often", "it answers 429 and does not say for how long")


class Shut(Failed):
    """A server wants a login, and there is none that Corral could say there."""


def refused(answer: Answer, web: Web, url: str) -> CorralError:
    """What to say of a 401 or 403. A token is said to hubs alone: an address is asked for as anybody asks for it."""
    said = f"it answers {answer.status}"
    if not web.hub and "?" in url:
        return NeedsToken(
            f"{answer.host} does not let us in", f"{said}: what follows the ? of the address may have expired",
            "get a new address, then say it again, or: corral models pulls resume ID --url ADDRESS",
        )  # fmt: skip
    if not web.hub and answer.status == 403:
        return Shut(
            f"{answer.host} does not give this file",
            f"{said}: it is not for who asks without user, password or token, as Corral does, or there is none",
            "look at the address in a browser; fetch the file otherwise and import it, or name one that all may ask",
        )  # fmt: skip
    if not web.hub:
        return Shut(
            f"{answer.host} wants a login", f"{said}, and to an address Corral says no user, password or token",
            "fetch the file otherwise and import it, or name an address that everybody may ask",
        )  # fmt: skip
    if answer.told.get("x-error-code") == "GatedRepo" or (answer.status == 403 and web.says_token):
        by = " with the token's account" if web.says_token else f", log in (`hf auth login`, or HF_TOKEN), then {AGAIN}"
        why = "the repository is gated" + (", or this token has no access to it" if web.says_token else "")
        return NeedsToken(f"{answer.host} does not let us in", why, f"accept the licence on its page{by}")
    login = f"log in (`hf auth login`, or HF_TOKEN), then {AGAIN}"
    return NeedsToken(f"{answer.host} wants {'another' if web.says_token else 'a'} token", said, login)


def pause(answer: Answer, said: Callable[[str], None]) -> float:
    """How long the server asks us to wait (seconds). Raises `NotReached` if it does not say."""
    seconds = wait_of(answer)
    if seconds is None:
        raise TooOften(answer.host) if answer.status == 429 else NotReached(f"{answer.host} answers {answer.status}")
    said(f"{answer.host} answers {answer.status}: waiting {seconds:.0f} s")
    return seconds


def wait_of(answer: Answer, now: Callable[[], float] = time.time) -> float | None:
    """What Retry-After says, a number of seconds or a date, as seconds; None: nothing that can be read."""
    told = answer.header("Retry-After").strip()
    if re.fullmatch(r"\d{1,6}", told):
        return min(LONGEST_S, max(0.1, float(told)))
    try:
        return min(LONGEST_S, max(0.1, parsedate_to_datetime(told).timestamp() - now()))
    except (ValueError, OverflowError):
        return None


def looks_like(data: bytes) -> str:
    """What a file that is no GGUF begins as."""
    known = no_gguf("", data[:HEAD])
    return known.why if known else "it does not begin with GGUF"
