"""llama-cpp-python's server, in a child process of its own; one request at a time, no counters."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.engines import probe
from core.engines.base import Abilities, Availability, Command, Endpoint, Engine, Failure, Health, LaunchPlan
from core.engines.llamacpp import cells, environment, explain_exit
from core.nouns import Counters, ModelShape

CHILD = str(Path(__file__).with_name("llama_cpp_python_child.py"))
INSTALL = "install it (pip install 'corral[llama-cpp-python]') or name a python that has it in engines.llama_cpp_python"


class LlamaCppPython(Engine):
    name = "llama-cpp-python"
    abilities = Abilities(
        parallel=False, stream_usage=False, counters=False, whole_window=True, early_scores=True, unpooled=True,
        program_bytes=64 << 20,
    )  # fmt: skip

    def _python(self) -> str:
        named = self.settings.llama_cpp_python
        return str(Path(named).expanduser()) if named else sys.executable

    def availability(self) -> Availability:
        if self.settings.llama_cpp_python:
            return self._other(Path(self._python()))
        missing = [name for name in ("llama_cpp", "uvicorn", "fastapi") if importlib.util.find_spec(name) is None]
        if missing:
            return Availability(found=False, reason=f"the package {missing[0]} is not installed: {INSTALL}")
        try:
            found = version("llama-cpp-python")
        except PackageNotFoundError:
            found = ""
        return Availability(found=True, version=found, path=sys.executable)

    def _other(self, python: Path) -> Availability:
        """Another Python. Its folder is looked at and it is not run: this must not wait for a program."""
        path = str(python)
        if not python.is_absolute():
            reason = f"engines.llama_cpp_python is {path!r}: it must be an absolute path"
        elif not os.access(path, os.X_OK) or not python.is_file():
            reason = f"{path} cannot be executed: set engines.llama_cpp_python to a python"
        else:
            folder = python.parent.parent
            if (folder / "pyvenv.cfg").exists():
                dist = next(folder.glob("lib/python3*/site-packages/llama_cpp_python-*.dist-info"), None)
                if dist is None:
                    return Availability(found=False, path=path, reason=f"{folder} has no llama-cpp-python: {INSTALL}")
                found = dist.name.removeprefix("llama_cpp_python-").removesuffix(".dist-info")
                return Availability(found=True, version=found, path=path)
            return Availability(found=True, path=path)
        return Availability(found=False, path=path, reason=reason)

    def command(self, plan: LaunchPlan) -> Command:
        told = {
            "model": plan.model_path,
            "alias": plan.alias,
            "socket": "e.sock",
            "ctx": cells(plan),
            "threads": plan.threads,
            "cache_type": plan.spec.cache_type,
            "embedding": plan.spec.embedding,
        }
        return Command(
            argv=(self._python(), "-I", CHILD, json.dumps(told)),
            env=environment(plan.secret, "API_KEY"),
        )

    def untouched_bytes(self, shape: ModelShape) -> int:
        """It maps the scores of a whole batch for the whole vocabulary (measured: 319 MiB beside 111 in use)."""
        return (192 << 20) + 2 * 512 * 4 * shape.n_vocab

    async def health(self, endpoint: Endpoint) -> Health:
        """It listens only after it has loaded. /v1/models would wait for the running answer; this page does not."""
        try:
            answer = await probe.get(endpoint, "/openapi.json")
        except TimeoutError:
            return Health(state="loading", reason="it does not answer within 2 s")
        except (FileNotFoundError, ConnectionRefusedError):
            return Health(state="starting", reason="nothing listens yet")
        except (OSError, ValueError) as error:
            return Health(state="starting", reason=f"it does not answer: {error}")
        if answer.status == 200:
            return Health(state="ready")
        return Health(state="loading", reason=f"/openapi.json says {answer.status}")

    async def counters(self, endpoint: Endpoint) -> Counters | None:
        return None

    def explain(self, *, code: int | None, signal: int | None, log_tail: Sequence[str], was_ready: bool) -> Failure:
        return explain_exit(code, signal, log_tail, was_ready)
