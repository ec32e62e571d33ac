"""What adapters say without starting anything: availability, command lines, and reasons from recorded lines."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from core.engines.base import LaunchPlan
from core.engines.llama_cpp_python import LlamaCppPython
from core.engines.llama_server import LlamaServer
from core.engines.llamacpp import environment, explain_exit, parse_metrics, reasons
from core.engines.registry import registry
from core.engines.xllamacpp import XLlamaCpp
from core.errors import Invalid
from core.nouns import DeploymentSpec, ModelShape
from core.settings import EnginesTable, parse

SHAPE = ModelShape(
    arch="llama", n_layer=1, n_embd=1, n_ff=1, n_head=1, n_head_kv=(1,), key_length=1, value_length=1, n_vocab=1,
    ctx_train=8192,
)  # fmt: skip
PLAN = LaunchPlan(
    spec=DeploymentSpec(name="chat", model="m"), alias="chat", model_path="/m/x.gguf", shape=SHAPE, ctx=4096,
    parallel=2, threads=3, secret="top-secret",
)  # fmt: skip


# ---------------------------------------------------------------------------------------------- what there is


def test_the_default_engine_comes_first_and_an_unknown_one_is_named() -> None:
    known = registry(EnginesTable())
    assert known.names == ("xllamacpp", "llama-server", "llama-cpp-python", "attach")
    with pytest.raises(Invalid, match="no engine 'vllm'"):
        known.get("vllm")


def test_the_engines_can_be_named_in_the_settings() -> None:
    table = parse('[engines]\nllama_server = "/opt/llama-server"\nllama_cpp_python = "/opt/venv/bin/python"').engines
    assert (table.llama_server, table.llama_cpp_python) == ("/opt/llama-server", "/opt/venv/bin/python")


def test_llama_server_is_found_on_the_path_or_where_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    none = LlamaServer(EnginesTable()).availability()
    assert not none.found and "engines.llama_server" in none.reason
    program = tmp_path / "llama-server"
    missing = LlamaServer(EnginesTable(llama_server=str(program))).availability()
    assert not missing.found and "is not there" in missing.reason
    program.write_text("#!/bin/sh\n")
    closed = LlamaServer(EnginesTable(llama_server=str(program))).availability()
    assert not closed.found and "chmod" in closed.reason
    program.chmod(0o755)
    assert LlamaServer(EnginesTable()).availability().path == str(program)
    assert LlamaServer(EnginesTable()).command(PLAN).argv[0] == str(program)
    relative = LlamaServer(EnginesTable(llama_server="bin/llama-server")).availability()
    assert not relative.found and "absolute" in relative.reason
    folder = LlamaServer(EnginesTable(llama_server=str(tmp_path))).availability()
    assert not folder.found


def test_llama_cpp_python_may_live_in_another_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    own = LlamaCppPython(EnginesTable()).availability()
    assert not own.found and "engines.llama_cpp_python" in own.reason
    python = tmp_path / "bin/python"
    for named, words in ((str(python), "cannot be executed"), ("bin/python", "absolute")):
        there = LlamaCppPython(EnginesTable(llama_cpp_python=named)).availability()
        assert not there.found and words in there.reason
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    engine = LlamaCppPython(EnginesTable(llama_cpp_python=str(python)))
    assert "has no llama-cpp-python" in engine.availability().reason
    (tmp_path / "lib/python3.11/site-packages/llama_cpp_python-0.3.36.dist-info").mkdir(parents=True)
    assert (engine.availability().found, engine.availability().version) == (True, "0.3.36")
    assert engine.command(PLAN).argv[0] == str(python)


def test_a_missing_package_of_the_default_engine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    there = XLlamaCpp(EnginesTable()).availability()
    assert not there.found and "pip install xllamacpp" in there.reason


def test_a_cpu_without_avx2_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.engines.xllamacpp._cpu_flags", lambda: "flags : sse2 avx")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    there = XLlamaCpp(EnginesTable()).availability()
    assert not there.found and "AVX2" in there.reason and "llama-server" in there.reason


# ---------------------------------------------------------------------------------------------- how it is started


@pytest.mark.parametrize("engine", [XLlamaCpp, LlamaServer, LlamaCppPython])
def test_the_secret_is_in_the_environment_alone(engine: type[XLlamaCpp], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    command = engine(EnginesTable(llama_server="/opt/llama-server")).command(PLAN)
    assert "top-secret" not in " ".join(command.argv) and "top-secret" in command.env.values()
    assert "HOST" not in command.env and command.listens == "unix"
    assert os.path.isabs(command.argv[0]) and "e.sock" in " ".join(command.argv)


def test_the_traps_of_llama_server_are_set_and_an_old_build_is_not_stopped_by_them() -> None:
    command = LlamaServer(EnginesTable(llama_server="/opt/llama-server")).command(PLAN)
    assert command.env["LLAMA_ARG_CTX_CHECKPOINTS"] == str(LlamaServer.abilities.checkpoints)
    assert command.env["LLAMA_ARG_CACHE_RAM"] == "256" and command.env["LLAMA_ARG_SSE_PING_INTERVAL"] == "1"
    assert not any("cache-ram" in each or "sse" in each for each in command.argv)
    assert command.argv[command.argv.index("--alias") + 1] == "chat"
    assert command.argv[command.argv.index("--threads") + 1] == "3"


def test_the_traps_of_xllamacpp_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    child = pytest.importorskip("core.engines.xllamacpp_child", reason="xllamacpp is not installed")
    monkeypatch.setenv("LLAMA_API_KEY", "top-secret")
    told = json.loads(XLlamaCpp(EnginesTable()).command(PLAN).argv[-1])
    params = child.parameters(told)
    assert (params.cache_ram_mib, params.sse_ping_interval, params.fit_params) == (256, 1, False)
    assert (params.n_ctx, params.n_parallel, params.n_gpu_layers) == (4096, 2, 0)
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (3, 3)
    assert params.model_alias in ({"chat"}, "chat") and params.api_keys == ["top-secret"]
    assert params.hostnames == ["e.sock"]


def test_the_traps_of_llama_cpp_python_are_set() -> None:
    from core.engines import llama_cpp_python_child as child

    settings = child.model_settings(json.loads(LlamaCppPython(EnginesTable()).command(PLAN).argv[-1]))
    assert settings["logits_all"] is False and settings["use_mlock"] is False
    assert settings["model_alias"] == "chat" and settings["n_threads_batch"] == 3


def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("HOST", "HF_TOKEN", "LLAMA_ARG_PORT", "PYTHONPATH", "LD_PRELOAD"):
        monkeypatch.setenv(key, "x")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    env = environment("s")
    assert env["CUDA_VISIBLE_DEVICES"] == "1" and env["GGML_NO_BACKTRACE"] == "1"
    assert not {"HOST", "HF_TOKEN", "LLAMA_ARG_PORT", "PYTHONPATH", "LD_PRELOAD", "HOME"} & set(env)


# ---------------------------------------------------------------------------------------------- why it ended

MARKED = [
    "0.00.004.598 I srv    load_model: loading model '/m/x.gguf'",
    "0.00.188.509 E ggml_aligned_malloc: insufficient memory (attempted to allocate 1440.00 MB)",
    "0.00.188.515 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1509949440",
    "0.00.188.515 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1509949440",
    "0.00.188.789 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
    "0.00.189.094 E srv          init: exiting due to model loading error",
    "RuntimeError: Failed to init server, please check the input params.",
]


LORA = [
    "0.00.265.756 E llama_adapter_lora_init_from_file_ptr: failed to apply lora adapter: tensor 'blk.9.ffn_down.weight'"
    " has incorrect shape (hint: maybe wrong base model?)",
    "0.00.270.779 E cmn  common_init_: failed to load lora adapter '/m/adapter.gguf'",
    "0.00.270.784 E srv    load_model: failed to create_context with model '/m/x.gguf'",
    "0.00.271.082 E srv          init: exiting due to model loading error",
]


def test_the_first_three_marked_lines_of_a_failed_start_are_shown() -> None:
    assert reasons(MARKED) == (MARKED[1], MARKED[2], MARKED[4])
    assert reasons(MARKED, was_ready=True)[-1] == MARKED[5]
    assert reasons(["a quiet day"]) == () and reasons([]) == ()
    assert len(reasons(["0.1 E " + "x" * 5000])[0]) == 300


@pytest.mark.parametrize(
    "code, signum, lines, words, permanent",
    [
        (1, None, MARKED, "1440.00 MB", True),
        (1, None, ["0.0 E srv start: couldn't bind HTTP server socket, hostname: e.sock"], "its socket", False),
        (1, None, ["ModuleNotFoundError: No module named 'llama_cpp'"], "lacks the package llama_cpp", True),
        (1, None, ["error: invalid argument: --alias"], "--alias", True),
        (127, None, ["x: error while loading shared libraries: libcuda.so.1: cannot open"], "libcuda.so.1", True),
        (1, None, LORA, "adapter does not fit the model: tensor 'blk.9.ffn_down.weight' has incorrect shape", True),
        (1, None, [LORA[1]], "adapter does not fit", True),
        (
            1,
            None,
            ["0.1 E mtmd_init_from_file: error: Failed to load CLIP model from /m/mm.gguf"],
            "projector is",
            True,
        ),
        (127, None, [], "could not be executed", True),
        (1, None, [], "exit code 1", False),
        (1, None, ["error: something unheard of"], "something unheard of", False),
        (0, None, [], "exit code 0", False),
        (None, None, [], "nobody saw", False),
        (None, signal.SIGILL, [], "another CPU", True),
        (132, None, [], "another CPU", True),
        (None, signal.SIGABRT, ["ggml.c:1644: GGML_ASSERT(ctx->mem_buffer != NULL) failed"], "its memory", True),
        (134, None, [], "aborted", False),
        (None, signal.SIGABRT, ["/b d/common.cpp:2245: get_sub_batch: failed to add token 2"], "get_sub_batch", True),
        (
            134,
            None,
            ["/llama.cpp/src/llama-kv.cpp:9: GGML_ASSERT(n_pad > 0) failed"],
            "its own failed: GGML_ASSERT",
            True,
        ),
        (134, None, ["/ggml-cuda/ggml-cuda.cu:98: CUDA error"], "aborted", False),
        (None, signal.SIGKILL, MARKED, "SIGKILL", False),
        (137, None, [], "SIGKILL", False),
        (143, None, [], "SIGTERM", False),
        (None, signal.SIGSEGV, [], "crashed", False),
        (None, 64, [], "signal 64", False),
    ],
)
def test_a_failed_start_is_explained(
    code: int | None, signum: int | None, lines: list[str], words: str, permanent: bool
) -> None:
    failure = explain_exit(code, signum, lines, was_ready=False)
    assert words in failure.reason and failure.permanent is permanent


def test_the_last_words_of_a_program_that_ends_itself_come_after_what_was_marked_before() -> None:
    lines = [
        "0.1 E srv: Prompt contains invalid tokens",
        "terminate called after throwing",
        "  what():  std::bad_alloc",
    ]
    assert reasons(lines, was_ready=True) == tuple(line.strip() for line in lines)


def test_a_program_that_was_ready_could_be_executed_whatever_its_exit_code() -> None:
    assert explain_exit(127, None, [], was_ready=False).permanent
    later = explain_exit(127, None, [], was_ready=True)
    assert not later.permanent and "exit code 127" in later.reason


def test_a_death_after_it_was_ready_is_tried_again_and_not_blamed_on_old_lines() -> None:
    killed = explain_exit(None, signal.SIGKILL, MARKED, was_ready=True)
    assert "SIGKILL" in killed.reason and not killed.permanent
    memory = explain_exit(None, signal.SIGABRT, ["terminate called: what():  std::bad_alloc failed"], was_ready=True)
    assert "memory" in memory.reason and not memory.permanent
    ended = explain_exit(0, None, ["0.0 E something failed to load model long ago"], was_ready=True)
    assert ended.reason == "it ended by itself with exit code 0" and not ended.permanent


def test_hostile_lines_break_nothing() -> None:
    lines = ["\x1b[31m E {0.__class__} {arch}", "E " * 10000, "unknown model architecture: '{x}' error", "\x00 error"]
    failure = explain_exit(1, None, lines, was_ready=False)
    assert "{x}" in failure.reason and all(len(line) <= 300 for line in failure.lines)


# ---------------------------------------------------------------------------------------------- counters


def test_counters_are_read_from_the_metrics_text() -> None:
    text = (
        "# HELP llamacpp:prompt_tokens_total x\nllamacpp:prompt_tokens_total 34\n"
        "llamacpp:prompt_tokens_cached_total 1.5e+03\nllamacpp:tokens_predicted_total 16\n"
        "llamacpp:requests_processing 1\nllamacpp:requests_deferred nan\nllamacpp:other inf\nother 9\n"
    )
    found = parse_metrics(text)
    assert (found.prompt_tokens, found.cached_tokens, found.generated_tokens) == (34, 1500, 16)
    assert (found.slots_busy, found.queued) == (1, None)
    assert parse_metrics("").prompt_tokens is None
