"""What xllamacpp and llama-server share: both are llama.cpp's HTTP server, with its health, metrics and reasons."""

from __future__ import annotations

import os
import re
import signal as signals
import time
from collections.abc import Sequence

from core.engines import probe
from core.engines.base import Endpoint, Engine, Failure, Health
from core.nouns import Counters

KEEP = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TMPDIR")
"""All that an engine inherits: HOST=0.0.0.0 in the environment has made one listen on every interface."""
_ERROR = re.compile(r"(?:^|\s)E\s|error|failed|exception", re.IGNORECASE)
_PERMANENT = (
    "failed to load model",
    "no such file",
    "invalid magic",
    "unknown model architecture",
    "is not within the file bounds",
    "tensor",
    "exec failed",
)


def environment(secret: str) -> dict[str, str]:
    """An engine's whole environment: an allow-list, the launch's secret, and no backtraces through gdb."""
    env = {key: os.environ[key] for key in KEEP if key in os.environ}
    return env | {"LLAMA_API_KEY": secret, "GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1"}


def reasons(log_tail: Sequence[str]) -> tuple[str, ...]:
    """The engine's own lines that say what went wrong: the first three marked ` E `, else those that speak of it."""
    marked = [line.strip() for line in log_tail if " E " in f" {line} "]
    told = marked or [line.strip() for line in log_tail if _ERROR.search(line)]
    return tuple(line[:300] for line in told[:3])


def explain_exit(code: int | None, signal: int | None, log_tail: Sequence[str], was_ready: bool) -> Failure:
    """Exit codes as engines use them; a shell's 128+n counts as the signal."""
    lines = reasons(log_tail)
    if signal is None and code is not None and code > 128:
        signal = code - 128
    if signal is not None:
        told = {
            signals.SIGILL: "illegal instruction: the engine was built for another CPU",
            signals.SIGABRT: "it aborted (a memory limit or a failed check)",
            signals.SIGKILL: "it was killed (SIGKILL: out of memory, a limit, or by hand)",
            signals.SIGTERM: "it was asked to end (SIGTERM)",
            signals.SIGSEGV: "it crashed (SIGSEGV)",
        }.get(signal, f"it ended by signal {signal}")  # type: ignore[call-overload]
        return Failure(reason=told, permanent=signal == signals.SIGILL, lines=lines)
    text = "\n".join(log_tail).lower()
    memory = "failed to allocate" in text or "out of memory" in text or "insufficient memory" in text
    if memory:
        return Failure(reason="it could not get its memory", permanent=not was_ready, lines=lines)
    permanent = not was_ready and any(word in text for word in _PERMANENT)
    if code == 127:
        return Failure(reason="the engine's program could not be executed", permanent=True, lines=lines)
    what = lines[0] if lines else f"it ended with exit code {code}"
    return Failure(
        reason=what if not was_ready else f"it ended with exit code {code}", permanent=permanent, lines=lines
    )


class LlamaCpp(Engine):
    """Health, counters and reasons of llama.cpp's server."""

    async def health(self, endpoint: Endpoint) -> Health:
        try:
            answer = await probe.get(endpoint, "/health")
        except TimeoutError:
            return Health(state="loading", reason="it does not answer within 2 s")
        except (OSError, ValueError) as error:
            return Health(state="starting", reason=str(error))
        if answer.status == 200:
            return Health(state="ready")
        return Health(state="loading", reason=f"/health says {answer.status}")

    async def counters(self, endpoint: Endpoint) -> Counters | None:
        try:
            answer = await probe.get(endpoint, "/metrics")
        except (OSError, ValueError, TimeoutError):
            return None
        if answer.status != 200:
            return None
        found: dict[str, int] = {}
        for line in answer.body.decode("utf-8", "replace").splitlines():
            name, _, value = line.partition(" ")
            if name.startswith("llamacpp:"):
                try:
                    found[name.removeprefix("llamacpp:")] = int(float(value))
                except ValueError:
                    continue
        return Counters(
            time=time.monotonic(),
            prompt_tokens=found.get("prompt_tokens_total"),
            generated_tokens=found.get("tokens_predicted_total"),
            slots_busy=found.get("requests_processing"),
            queued=found.get("requests_deferred"),
        )

    def explain(self, *, code: int | None, signal: int | None, log_tail: Sequence[str], was_ready: bool) -> Failure:
        return explain_exit(code, signal, log_tail, was_ready)
