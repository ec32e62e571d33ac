"""The child process around `xllamacpp.Server`: run by file path with its parameters as JSON, secret in LLAMA_API_KEY.

It imports nothing of core, so that an update of the program does not matter to a running engine.
"""

import json
import os
import signal
import sys
import time

import xllamacpp


def parameters(told: dict) -> xllamacpp.CommonParams:  # type: ignore[type-arg]
    """CommonParams with the defaults that bite set: cache_ram is 8192 MiB otherwise, the SSE ping 30 s, and a slot
    keeps 32 states of a model with sliding windows (gemma-3-270m: 7.5 MiB each, 15 more with each turn)."""
    params = xllamacpp.CommonParams()
    params.model.path = told["model"]
    params.model_alias = {told["alias"]} if isinstance(params.model_alias, set) else told["alias"]
    params.hostnames = [told["socket"]]
    params.n_ctx = told["ctx"]
    params.n_parallel = told["parallel"]
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = told["threads"]
    params.cpuparams_batch.n_threads = told["threads"]
    params.cache_ram_mib = told["cache_ram_mib"]
    params.n_ctx_checkpoints = told["checkpoints"]
    params.sse_ping_interval = 1
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.fit_params = False
    params.embedding = told["embedding"] or told["rerank"]
    if told["rerank"]:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    if told["projector"]:
        params.mmproj.path = told["projector"]
    if told["adapters"]:
        params.lora_adapters = [_adapter(path) for path in told["adapters"]]
    if told["template"]:
        params.chat_template = told["template"]
    for name, value in told["defaults"].items():
        name = {"temperature": "temp"}.get(name, name)
        setattr(params.sampling, name, int(value) if name == "top_k" else value)
    params.api_keys = [os.environ["LLAMA_API_KEY"]]
    kind = {"f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}[told["cache_type"]]
    if kind != "F16":
        kinds = xllamacpp.ggml_type
        params.cache_type_k = params.cache_type_v = getattr(kinds, f"GGML_TYPE_{kind}")
    return params


def _adapter(path: str) -> xllamacpp.CommonAdapterLoraInfo:
    found = xllamacpp.CommonAdapterLoraInfo()
    found.path, found.scale = path, 1.0
    return found


LOGGED_S = 0.5
"""What the engine's own thread has to write down why it failed."""


def main() -> None:
    told = json.loads(sys.argv[1])
    try:
        server = xllamacpp.Server(parameters(told))
    except RuntimeError:
        time.sleep(LOGGED_S)
        raise
    # Only now: the constructor blocks signal handling while it loads the model. Without the destructor: it waits for
    # ever for an answer in the making whose client stays, and there is nothing to save.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    print(f"listening on {server.listening_address}", flush=True)  # noqa: T201
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
