"""Speed and choice through the command, with the real daemon, engine and sample model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import ask, corral, deployed, until

from core.catalog.probemodel import Probe, write

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]


def test_a_curve_is_measured_drawn_and_reckoned_with(home: Path, tmp_path: Path) -> None:
    """Of a model with random weights, a sixth of the sample's: the engine works as hard on nonsense."""
    write(Probe(kind="Q8_0"), tmp_path / "probe.gguf")
    corral("models", "import", str(tmp_path / "probe.gguf"), "--name", "probe")
    assert "not known" in corral("fit", "probe", "--threads", "1", "--ctx", "512")
    assert "was not measured yet" in corral("models", "bench", "probe", "--last")
    drawn = corral("models", "bench", "probe", "--threads", "1", "--parallel", "1,2", "--ctx", "512")
    assert "ALL TOGETHER" in drawn and drawn.count("#") + drawn.count("█") > 10
    (kept,) = ask("models", "bench", "probe", "--last")
    assert [each["parallel"] for each in kept["points"]] == [1, 2]
    assert all(each["each"] > 0 and each["prefill"] > 0 for each in kept["points"])
    speed = ask("fit", "probe", "--threads", "1", "--ctx", "512")["speed"]
    assert speed["known"] and speed["decode"] == kept["points"][0]["each"]
    assert "seen on this host" in speed["basis"][0]
    records = ask("audit", "ls", "--verb", "models.bench")
    assert sorted(each["outcome"] for each in records) == ["done", "intent"]


def test_answers_to_people_are_learned_of(home: Path, sample: Path) -> None:
    deployed("--ctx", "512", "--threads", "1")

    def known() -> bool:
        """After one more answer: one that ended early is too short to tell anything."""
        corral("chat", "chat", "word " * 80 + "Tell a story.", "--max-tokens", "40")
        told = ask("fit", "smollm2-135m", "--threads", "1", "--ctx", "512")["speed"]
        return bool(told["known"])

    until(known)


def test_ctrl_c_ends_a_measurement_and_leaves_nothing(home: Path, sample: Path) -> None:
    corral("models", "sample")
    argv = [sys.executable, "-P", "-m", "tui", "models", "bench", "smollm2-135m", "--threads", "1", "--ctx", "2048",
            "--parallel", "1,2,4,8"]  # fmt: skip
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def engines() -> list[Path]:
        return [each for each in home.glob("*/r/*/launch.json") if b'"kind": "bench"' in each.read_bytes()]

    until(engines)
    assert "model:smollm2-135m: measuring, 0 of 4" in corral("models", "bench", "smollm2-135m@1", "--status")
    job = ask("models", "bench", "smollm2-135m", "--status")
    assert job["state"] == "measuring"
    assert "being measured" in corral("nodes", "bench", "--cancel", code=3)
    told = json.loads(corral("models", "bench", "smollm2-135m", "--json", code=1))
    assert told["code"] == "conflict" and "model:smollm2-135m" in told["reason"]
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert "the measurement of model:smollm2-135m was cancelled: nothing of it is kept" in said
    until(lambda: len(ask("audit", "ls", "--verb", "models.bench")) == 2)
    assert "interrupted" in {each["outcome"] for each in ask("audit", "ls", "--verb", "models.bench")}
    until(lambda: not engines())
    assert ask("models", "bench", "smollm2-135m", "--last") == []
    assert "cancelled" in corral("models", "bench", "smollm2-135m", "--status")
    assert "not being measured now" in corral("models", "bench", "smollm2-135m", "--cancel", code=3)
    assert "--cancel ends it" in corral(*argv[4:], "--no-wait")
    until(engines)
    assert ask("models", "bench", "smollm2-135m", "--cancel")["state"] == "cancelled"
    until(lambda: not engines())


def test_what_to_take_and_what_the_nearest_would_need(home: Path, sample: Path) -> None:
    corral("models", "sample")
    shown = corral("models", "recommend", "--for", "general", "--users", "2", "--limit", "100")
    assert "smollm2-135m" in shown and "corral deploy smollm2-135m" in shown and "corral nodes bench" in shown
    assert "its load time is not known" in shown
    none = corral("models", "recommend", "--memory", "100M", code=5)
    assert "nothing meets every wish" in none and "more memory" in none
    assert corral("models", "recommend", "-q").split()[0]
    document = ask("models", "recommend", "--licence", "apache*")
    assert all(each["licence"].lower().startswith("apache") for each in document["choices"])
