"""What the engines made of llama.cpp share: environment, the reasons in their lines, and the server's own figures."""

from __future__ import annotations

import os
import re
import signal as signals
import time
from collections.abc import Sequence
from typing import NamedTuple

from core.engines import probe
from core.engines.base import ADAPTER, PROJECTOR, Endpoint, Engine, Failure, Health, LaunchPlan
from core.gateway import apis
from core.nouns import Counters

KEEP = (
    "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES",
)  # fmt: skip
"""All that an engine inherits: HOST=0.0.0.0 in the environment has made one listen on every interface."""

ROUTES = tuple(api.path for api in apis.APIS)
"""All: tests/engines asks real ones."""
LINE_CHARACTERS = 300
_MARKED = re.compile(r"^[\d.]+ E |\sE\s")
_SPOKEN = re.compile(r"error|failed|exception|insufficient|invalid|assert|no module named", re.IGNORECASE)
_LAST_WORDS = re.compile(r"terminate called|what\(\):|GGML_ASSERT|libgomp:|Assertion")
"""What a program says that ends itself: never marked."""


class Cause(NamedTuple):
    """A reason found in an engine's lines. `permanent`: such a start never works, whatever one waits for."""

    pattern: re.Pattern[str]
    reason: str
    """May name groups of the pattern."""
    permanent: bool = True


def _cause(pattern: str, reason: str, permanent: bool = True) -> Cause:
    return Cause(re.compile(pattern, re.IGNORECASE | re.MULTILINE), reason, permanent)


CAUSES = (
    _cause(
        r"insufficient memory \(attempted to allocate\s+(?P<size>[\d.]+ MB)\)",
        "it could not get its memory: {size} more was refused",
    ),
    _cause(
        r"failed to allocate|unable to allocate|cannot allocate memory|out of memory|MemoryError|bad_alloc"
        r"|mem_buffer != NULL",
        "it could not get its memory",
    ),
    _cause(r"unknown model architecture: '(?P<arch>[^'\n]{1,64})'", "it does not know the architecture {arch!r}"),
    _cause(r"no such file or directory|model path does not exist", "the model's file is not there"),
    _cause(r"permission denied", "it may not read the model's file, or not enter its folder"),
    _cause(r"invalid magic", "the model's file is no GGUF file"),
    _cause(
        r"not within the file bounds|corrupted or incomplete|unexpectedly reached end of file|failed to read tensor",
        "the model's file is damaged or incomplete",
    ),
    _cause(r"failed to apply lora adapter: (?P<what>[^\n]{1,200})", ADAPTER + ": {what}"),
    _cause(r"mismatch between text model (?P<what>[^\n]{1,200})", PROJECTOR + ": text model {what}"),
    _cause(r"failed to load lora adapter", ADAPTER),
    _cause(r"failed to load CLIP model|failed to load multimodal model", PROJECTOR),
    _cause(
        r"couldn't bind|address already in use|address '[^']*' is already in use",
        "it could not listen on its socket",
        permanent=False,
    ),
    _cause(r"No module named '(?P<name>[\w.]{1,64})'", "its Python lacks the package {name}"),
    _cause(r"error: invalid argument: (?P<option>\S{1,64})", "this build does not know the option {option}"),
    _cause(r"error while loading shared libraries: (?P<name>[^:\n]{1,128})", "it lacks the library {name}"),
    _cause(r"failed to load model", "it could not load the model"),
    # Of llama.cpp's own checks at a start; what a GPU answers (`CUDA error`) may be otherwise the next time.
    _cause(
        r"^[^\n]{1,300}?\.(?:c|cc|cpp|cu|cuh|h|hpp|m):\d+: (?!\w+ error)(?P<what>[^\n]{1,200})",
        "a check of its own failed: {what}",
    ),
)
"""In this order: the first that is found is the reason."""

SIGNALS = {
    signals.SIGILL: "illegal instruction: it was built for another CPU",
    signals.SIGABRT: "it aborted (a memory limit, or a check of its own that failed)",
    signals.SIGKILL: "it was killed (SIGKILL: out of memory, a limit, or by hand)",
    signals.SIGTERM: "it was asked to end (SIGTERM) and not by Corral",
    signals.SIGSEGV: "it crashed (SIGSEGV)",
    signals.SIGBUS: "it crashed (SIGBUS: the model's file was cut or its disk failed while it was read)",
}


def environment(secret: str, name: str = "LLAMA_API_KEY") -> dict[str, str]:
    """An engine's whole environment: an allow-list, the launch's secret, and no backtraces through gdb."""
    env = {key: os.environ[key] for key in KEEP if key in os.environ}
    return env | {name: secret, "GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1"}


def cells(plan: LaunchPlan) -> int:
    """Total context cells. Above the trained context of a slot they would be allocated and never used."""
    most = plan.shape.ctx_train * plan.parallel
    return min(plan.ctx, most) if most else plan.ctx


def reasons(log_tail: Sequence[str], was_ready: bool = False) -> tuple[str, ...]:
    """The engine's own lines that say what went wrong, three at most. Of a failed start the first ones that are marked
    ` E `, else those that speak of it (what follows are consequences); of a later death the last ones of both: what
    ended it need not be marked, and what is marked may be a request that was refused long before."""
    marked = [line.strip() for line in log_tail if _MARKED.search(line) or (was_ready and _LAST_WORDS.search(line))]
    told = list(dict.fromkeys(marked or [line.strip() for line in log_tail if _SPOKEN.search(line)]))
    return tuple(line[:LINE_CHARACTERS] for line in (told[-3:] if was_ready else told[:3]))


def cause(lines: Sequence[str]) -> tuple[str, bool] | None:
    """The reason that the lines give, and whether it is permanent."""
    text = "\n".join(line for line in lines if _MARKED.search(line) or _SPOKEN.search(line))
    for each in CAUSES:
        found = each.pattern.search(text)
        if found:
            return each.reason.format(**found.groupdict()), each.permanent
    return None


def explain_exit(code: int | None, signal: int | None, log_tail: Sequence[str], was_ready: bool) -> Failure:
    """From exit code or signal and the last lines; a shell's 128+n counts as the signal."""
    lines = reasons(log_tail, was_ready)
    if signal is None and code is not None and code > 128:
        signal = code - 128
    # After it was ready, old lines must not explain a later death; an abort's own lines do.
    told = cause(lines if was_ready else log_tail)
    if signal is not None:
        known = {int(each): text for each, text in SIGNALS.items()}
        reason = known.get(signal, f"it ended by signal {signal}")
        if signal == signals.SIGABRT and told is not None:
            return Failure(reason=told[0], permanent=told[1] and not was_ready, lines=lines)
        return Failure(reason=reason, permanent=signal == signals.SIGILL, lines=lines)
    if code is None:
        return Failure(reason="nobody saw how it ended", lines=lines)
    if code in (126, 127) and not was_ready:
        reason = told[0] if told else "its program could not be executed"
        return Failure(reason=reason, permanent=True, lines=lines)
    if was_ready:
        reason = f"it ended by itself with exit code {code}"
        return Failure(reason=f"{reason}: {told[0]}" if told and code else reason, lines=lines)
    if told is not None:
        return Failure(reason=told[0], permanent=told[1], lines=lines)
    reason = f"it ended with exit code {code} before it was ready"
    return Failure(reason=f"{reason}: {lines[0]}" if lines else reason, lines=lines)


class LlamaCpp(Engine):
    """Health, counters and reasons of llama.cpp's own HTTP server (xllamacpp and llama-server)."""

    async def health(self, endpoint: Endpoint) -> Health:
        try:
            answer = await probe.get(endpoint, "/health")
        except TimeoutError:
            return Health(state="loading", reason="it does not answer within 2 s")
        except (FileNotFoundError, ConnectionRefusedError):
            return Health(state="starting", reason="nothing listens yet")
        except (OSError, ValueError) as error:
            return Health(state="starting", reason=f"it does not answer: {error}")
        if answer.status == 200:
            return Health(state="ready")
        return Health(state="loading", reason="it loads the model" if answer.status == 503 else _says(answer.status))

    async def counters(self, endpoint: Endpoint) -> Counters | None:
        try:
            answer = await probe.get(endpoint, "/metrics")
        except (OSError, ValueError, TimeoutError):
            return None
        if answer.status != 200:
            return None
        return parse_metrics(answer.body.decode("utf-8", "replace"))

    def explain(self, *, code: int | None, signal: int | None, log_tail: Sequence[str], was_ready: bool) -> Failure:
        return explain_exit(code, signal, log_tail, was_ready)


def _says(status: int) -> str:
    return f"/health says {status}"


def parse_metrics(text: str) -> Counters:
    """Counters from llama.cpp's Prometheus text. Prompt tokens leave out cached ones, and all of them are added only
    when a request ends."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name.startswith("llamacpp:"):
            try:
                found[name.removeprefix("llamacpp:")] = int(float(value))
            except (ValueError, OverflowError):
                continue
    return Counters(
        time=time.monotonic(),
        prompt_tokens=found.get("prompt_tokens_total"),
        cached_tokens=found.get("prompt_tokens_cached_total"),
        generated_tokens=found.get("tokens_predicted_total"),
        slots_busy=found.get("requests_processing"),
        queued=found.get("requests_deferred"),
    )
