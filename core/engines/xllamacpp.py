"""xllamacpp, the default engine: upstream llama.cpp's server from a wheel, in a child process of its own."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.engines.base import Abilities, Availability, Command, LaunchPlan
from core.engines.llamacpp import ROUTES, LlamaCpp, cells, environment

CHILD = str(Path(__file__).with_name("xllamacpp_child.py"))


class XLlamaCpp(LlamaCpp):
    name = "xllamacpp"
    abilities = Abilities(
        routes=ROUTES, prompt_progress=True, checkpoints=2, projector=True, adapters=True, template=True, defaults=True
    )

    def availability(self) -> Availability:
        if importlib.util.find_spec("xllamacpp") is None:
            return Availability(found=False, reason="the package xllamacpp is not installed: pip install xllamacpp")
        try:
            found = version("xllamacpp")
        except PackageNotFoundError:
            found = ""
        if platform.machine() == "x86_64" and "avx2" not in _cpu_flags():
            return Availability(
                found=False, version=found,
                reason="its wheel needs a CPU with AVX2: build llama-server and name it in corral.toml",
            )  # fmt: skip
        return Availability(found=True, version=found, path=sys.executable)

    def command(self, plan: LaunchPlan) -> Command:
        told = {
            "model": plan.model_path,
            "alias": plan.alias,
            "socket": "e.sock",
            "ctx": cells(plan),
            "parallel": plan.parallel,
            "threads": plan.threads,
            "cache_type": plan.spec.cache_type,
            "cache_ram_mib": plan.cache_ram_mib,
            "checkpoints": self.abilities.checkpoints,
            "embedding": plan.spec.embedding,
            "rerank": plan.spec.rerank,
            "projector": plan.projector_path,
            "adapters": plan.adapter_paths,
            "template": plan.template,
            "defaults": plan.defaults,
        }
        return Command(
            argv=(sys.executable, "-I", CHILD, json.dumps(told)),
            env=environment(plan.secret),
        )


def _cpu_flags() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "avx2"
    return next((line for line in text.splitlines() if line.startswith("flags")), "avx2")
