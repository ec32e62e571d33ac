"""llama-server: the user's own build of llama.cpp, found on PATH or named in corral.toml (GPU builds come this way)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from core.engines.base import Abilities, Availability, Command, LaunchPlan
from core.engines.llamacpp import ROUTES, LlamaCpp, cells, environment

DEFAULTS = {"temperature": "--temp", "top_p": "--top-p", "top_k": "--top-k", "min_p": "--min-p"}


class LlamaServer(LlamaCpp):
    name = "llama-server"
    # Seen: with an answer in the making its clean-up waits for ever, and the second SIGTERM ends it at once.
    abilities = Abilities(
        routes=ROUTES, prompt_progress=True, term_again_s=2.0, program_bytes=23 << 19, checkpoints=2, projector=True,
        adapters=True, template=True, defaults=True,
    )  # fmt: skip

    def _path(self) -> str:
        """Absolute, because the engine runs in its launch folder; "" if there is none."""
        path = self.settings.llama_server
        if path:
            return str(Path(path).expanduser())
        found = shutil.which("llama-server")
        return str(Path(found).absolute()) if found else ""

    def availability(self) -> Availability:
        path = self._path()
        if not path:
            return Availability(
                found=False,
                reason="llama-server is not on the daemon's PATH: build llama.cpp, or set engines.llama_server",
            )
        if not Path(path).is_absolute():
            reason = f"engines.llama_server is {path!r}: it must be an absolute path"
        elif not Path(path).is_file():
            reason = f"{path} is not there: set engines.llama_server to llama-server's path"
        elif not os.access(path, os.X_OK):
            reason = f"{path} cannot be executed: chmod +x it, or set engines.llama_server to another"
        else:
            return Availability(found=True, path=path)
        return Availability(found=False, path=path, reason=reason)

    def command(self, plan: LaunchPlan) -> Command:
        spec, threads = plan.spec, str(plan.threads)
        argv = (
            self._path(), "--model", plan.model_path, "--alias", plan.alias, "--host", "e.sock",
            "--ctx-size", str(cells(plan)), "--parallel", str(plan.parallel),
            "--threads", threads, "--threads-batch", threads, "--metrics",
            "--cache-type-k", spec.cache_type, "--cache-type-v", spec.cache_type,
            *(("--embedding",) if spec.embedding else ()), *(("--reranking",) if spec.rerank else ()),
            *(("--mmproj", plan.projector_path) if plan.projector_path else ()),
            *(word for path in plan.adapter_paths for word in ("--lora", path)),
            *(("--jinja", "--chat-template", plan.template) if plan.template else ()),
            *(word for name, value in plan.defaults.items() for word in (DEFAULTS[name], f"{value:g}")),
        )  # fmt: skip
        # By environment and not as options: an older build ignores what it does not know.
        told = {
            "LLAMA_ARG_CACHE_RAM": str(plan.cache_ram_mib),
            "LLAMA_ARG_CTX_CHECKPOINTS": str(self.abilities.checkpoints),
            "LLAMA_ARG_SSE_PING_INTERVAL": "1",
            "LLAMA_ARG_OFFLINE": "1",
            "LLAMA_ARG_NO_CONTEXT_SHIFT": "1",
        }
        return Command(argv=argv, env=environment(plan.secret) | told)
