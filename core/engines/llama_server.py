"""llama-server: the user's own build of llama.cpp, found on PATH or named in corral.toml (GPU builds come this way)."""

from __future__ import annotations

import os
import shutil

from core.engines.base import Abilities, Availability, Command, LaunchPlan
from core.engines.llamacpp import LlamaCpp, environment


class LlamaServer(LlamaCpp):
    name = "llama-server"
    abilities = Abilities()

    def _path(self) -> str:
        return self.settings.llama_server or shutil.which("llama-server") or ""

    def availability(self) -> Availability:
        path = self._path()
        if not path:
            return Availability(
                found=False, reason="llama-server is not on PATH: build llama.cpp, or set engines.llama_server"
            )
        if not os.access(path, os.X_OK):
            return Availability(found=False, path=path, reason=f"{path} cannot be executed")
        return Availability(found=True, path=path)

    def command(self, plan: LaunchPlan) -> Command:
        spec = plan.spec
        argv = (
            self._path(), "--model", plan.model_path, "--alias", plan.alias, "--host", "e.sock",
            "--ctx-size", str(plan.ctx), "--parallel", str(plan.parallel), "--threads", str(plan.threads),
            "--threads-batch", str(plan.threads), "--cache-ram", str(plan.cache_ram_mib), "--metrics", "--slots",
            "--cache-type-k", spec.cache_type, "--cache-type-v", spec.cache_type,
            *(("--embedding",) if spec.embedding else ()),
        )  # fmt: skip
        return Command(argv=argv, env=environment(plan.secret))
