"""The child process around llama-cpp-python's server: run by file path with its parameters as JSON, secret in API_KEY.

It imports nothing of core: its Python may be another one than Corral's. It listens on a Unix socket, because a TCP
port of a dead replica could be taken by any local user, who would then get secret and prompts.
"""

import json
import os
import sys
from typing import Any

GGML_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 8}


def model_settings(told: dict[str, Any]) -> dict[str, Any]:
    """ModelSettings with the defaults that bite set: logits_all=True takes gigabytes."""
    quantised = told["cache_type"] != "f16"
    return {
        "model": told["model"],
        "model_alias": told["alias"],
        "n_ctx": told["ctx"],
        "n_threads": told["threads"],
        "n_threads_batch": told["threads"],
        "n_gpu_layers": 0,
        "use_mlock": False,
        "logits_all": False,
        "embedding": told["embedding"],
        "type_k": GGML_TYPES[told["cache_type"]] if quantised else None,
        "type_v": GGML_TYPES[told["cache_type"]] if quantised else None,
        # As the other engines do by themselves: without it the buffers grow with context and batch, and a quantised
        # cache is refused.
        "flash_attn": True,
        "verbose": True,
    }


def main() -> None:
    told = json.loads(sys.argv[1])
    import uvicorn
    from llama_cpp.server.app import create_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    server_settings = ServerSettings(api_key=os.environ["API_KEY"], interrupt_requests=False)
    app = create_app(server_settings=server_settings, model_settings=[ModelSettings(**model_settings(told))])
    # Without a model in the request it would name itself by the file's path.
    import llama_cpp.server.app as server_app

    proxy = server_app._llama_proxy
    assert proxy is not None
    proxy().model_path = told["alias"]

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            """At once: an answer in the making cannot be interrupted, and there is nothing to save."""
            os._exit(0)

    Server(uvicorn.Config(app, uds=told["socket"], access_log=False, log_level="warning")).run()


if __name__ == "__main__":
    main()
