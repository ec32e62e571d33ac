"""Whether a request may begin by the limits that apply to it: hours, lengths, and room in all that is counted."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from core.gateway.apis import Api
from core.gateway.asked import Asked
from core.gateway.errors import TOO_MANY, Refusal, too_many
from core.gateway.limits import Hold, Meter, Short, headers
from core.gateway.subjects import Subjects

Used = Callable[[], tuple[int, int]]
PATIENT_S = 120
"""Seconds that a client may wait by itself: more is for whoever asked to know."""
_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
"""Those that bound an answer; where several stand, engines differ in which they believe."""


def admit(
    subjects: Subjects, meters: tuple[Meter, ...], api: Api, body: bytes, asked: Asked, ctx_per_slot: int, used: Used,
    prompt: int, answers: int = 1,
) -> tuple[Hold, bytes]:  # fmt: skip
    """Reserve for a request, whose prompt is taken for `prompt` tokens and that wants so many `answers`; with it the
    body, in which the longest answer is set where it does not say one. `used` says what it has used so far. Raises
    `Refusal`: 400 for what is too long or too many in itself, 429 with the limit, whose it is and when to come again.
    """
    answer = asked.answer() if api.answers else 0
    for meter in meters:
        if meter.bounds:
            answer, body = _bound(subjects, meters, api, body, asked, answer, prompt)
            break
    tokens_in, tokens_out = estimate(prompt, answer, ctx_per_slot, answers) if api.costs else (0, 0)
    hold = subjects.admit(meters, tokens_in, tokens_out, used, answers)
    if isinstance(hold, Short):
        if answers > 1:
            _never(meters, answers, tokens_in, tokens_out)
        raise _refusal(subjects, meters, hold)
    return hold, body


def estimate(prompt: int, answer: int | None, ctx_per_slot: int, answers: int = 1) -> tuple[int, int]:
    """Tokens (in, out) to reserve for a request of `prompt` tokens whose answers have `answer` tokens at most each
    (None: it does not say)."""
    if answer is None:
        # Of several prompts some may be short.
        answer = max(0, ctx_per_slot - prompt) if answers == 1 else ctx_per_slot
    elif answer > ctx_per_slot > 0:
        answer = ctx_per_slot
    return prompt, answer * answers


def _bound(
    subjects: Subjects, meters: tuple[Meter, ...], api: Api, body: bytes, asked: Asked, answer: int | None,
    prompt: int,
) -> tuple[int | None, bytes]:  # fmt: skip
    """Hours and lengths: the most that the answer may have, and the body that says so. Raises `Refusal`."""
    _open(subjects, meters)
    if not api.costs:
        return answer, body
    longest = _least(meters, "longest_prompt")
    if longest is not None and prompt > longest.longest_prompt:
        raise Refusal(
            400, f"the prompt has some {prompt} tokens (4 bytes of the request are taken for one), and"
            f" {longest.whose} may ask {longest.longest_prompt}", "context_length_exceeded",
        )  # fmt: skip
    longest = _least(meters, "longest_answer")
    if longest is None or not api.answers:
        return answer, body
    return _bounded(api, asked, body, longest)


def _open(subjects: Subjects, meters: tuple[Meter, ...]) -> None:
    """Raises `Refusal` outside the hours of one of them."""
    for meter in meters:
        for hours in meter.hours:
            seconds = 3600.0 if hours is None else hours.closed_for(subjects.clock.unix(subjects.clock.now()))
            if seconds:
                text = "hours that cannot be read on this host" if hours is None else hours.text
                raise Refusal(
                    429, f"{meter.whose} is served at {text} only; come again in {_span(seconds)}", "outside_hours",
                    headers=_again(max(1, round(seconds + 0.5))),
                )  # fmt: skip


def look(subjects: Subjects, meters: tuple[Meter, ...], costs: bool) -> None:
    """Raises `Refusal` for a request that may not begin now whatever its body says: it has not come yet. Nothing is
    reserved."""
    _open(subjects, meters)
    now, wanted = subjects.clock.now(), (1, int(costs), 0, int(costs))
    shorts = [short for each in meters if (short := each.short(now, wanted)) is not None]
    if shorts:
        raise _refusal(subjects, meters, max(shorts, key=lambda short: short.seconds))


def _least(meters: tuple[Meter, ...], name: str) -> Meter | None:
    """The one that allows the least, of those that say something."""
    found, least = None, 0
    for each in meters:
        most = getattr(each, name)
        if most and (found is None or most < least):
            found, least = each, most
    return found


def _bounded(api: Api, asked: Asked, body: bytes, longest: Meter) -> tuple[int, bytes]:
    """What the answer may have, and the body that says so. Raises `Refusal` for one that asks for more."""
    most = longest.longest_answer
    said = asked.bounds()
    field = "max_output_tokens" if api.shape == "responses" else "max_tokens"
    if said and max(said) > most:
        raise Refusal(
            400, f"{field} is too large: {max(said)}. {longest.whose} may have answers of {most} tokens at most",
            "invalid_value",
        )  # fmt: skip
    if said and min(said) >= 0:
        return max(said), body
    bound = max((n for n in said if n >= 0), default=most)
    if not said and not any(name.encode() in body for name in _FIELDS):
        return bound, body.rstrip()[:-1] + b',"%b":%d}' % (field.encode(), bound)
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    kept = {name: value for name, value in fields.items() if name not in _FIELDS}
    return bound, msgspec.json.encode({**kept, field: bound})


def _never(meters: tuple[Meter, ...], answers: int, tokens_in: int, tokens_out: int) -> None:
    """Raises `Refusal` for several answers that no time makes room for, since they are more than a whole limit."""
    wanted = 1, tokens_in, tokens_out, tokens_in + tokens_out
    for meter in meters:
        if 0 < meter.concurrency < answers:
            raise too_many(answers, meter.concurrency, f"{meter.whose} may have")
        for gauge in meter.limiting:
            if wanted[gauge.what] > gauge.most:
                raise Refusal(
                    400, f"this asks for {answers} answers, which may take {wanted[gauge.what]} tokens in all, and"
                    f" {meter.whose} has {gauge.most} {gauge.words}: say a smaller max_tokens, or ask for fewer in one"
                    " request", TOO_MANY,
                )  # fmt: skip


def _refusal(subjects: Subjects, meters: tuple[Meter, ...], short: Short) -> Refusal:
    seconds = max(1, round(short.seconds + 0.5))
    again = f"in {_span(seconds)}" if short.kind != "concurrency" else "when an answer has ended"
    message = f"{short.meter.whose} has reached its limit of {short.most} {short.words}; there is room again {again}"
    more = _again(seconds) + headers(meters, subjects.clock)
    return Refusal(429, message, "rate_limit_exceeded", headers=more)


def _again(seconds: int) -> bytes:
    """Headers that say when to come again. OpenAI's client for Node sleeps for as long as that is, hours too, but for
    the second one."""
    return b"Retry-After: %d\r\n" % seconds + (b"x-should-retry: false\r\n" if seconds > PATIENT_S else b"")


def _span(seconds: float) -> str:
    """`12 s`, `3 h 20 min`, `4 d 2 h`."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = -(-whole // 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"
