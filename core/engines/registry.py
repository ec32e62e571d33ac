"""The engines that a daemon knows."""

from __future__ import annotations

from core.engines.attach import Attach
from core.engines.base import EngineRegistry
from core.engines.llama_cpp_python import LlamaCppPython
from core.engines.llama_server import LlamaServer
from core.engines.xllamacpp import XLlamaCpp
from core.settings import EnginesTable


def registry(settings: EnginesTable) -> EngineRegistry:
    """All adapters, the default first."""
    return EngineRegistry([XLlamaCpp(settings), LlamaServer(settings), LlamaCppPython(settings), Attach(settings)])
