"""The build program itself, with small doubles of what it runs; the real build is `make test-engines`."""

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.paths import cache_folder

PROGRAM = Path(__file__).with_name("build.py")


@pytest.fixture
def build() -> Any:
    spec = importlib.util.spec_from_file_location("build_tested", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finish(build: Any, folder: Path, **changes: Any) -> None:
    root = folder / build.KEY
    (root / "bin").mkdir(parents=True)
    (root / "venv/bin").mkdir(parents=True)
    (root / "bin/llama-server").write_text("#!/bin/sh\n")
    (root / "bin/llama-server").chmod(0o755)
    (root / "venv/bin/python").symlink_to(sys.executable)
    (root / "done.json").write_text(json.dumps({"version": build.VERSION} | changes))


@pytest.mark.parametrize(
    "environ",
    [
        {"CORRAL_HOME": "/h", "HOME": "/home/a"},
        {"HOME": "/home/a"},
        {"HOME": "/home/a", "XDG_CACHE_HOME": "/c"},
    ],
)
def test_it_builds_where_the_settings_say(build: Any, environ: dict[str, str]) -> None:
    assert build.engines_folder(environ) == cache_folder(environ) / "engines"


def test_a_finished_build_is_found_and_not_made_again(build: Any, tmp_path: Path) -> None:
    assert build.found(tmp_path) is None
    finish(build, tmp_path)
    built = build.found(tmp_path)
    assert built and build.build(tmp_path) == built
    (tmp_path / build.KEY / "venv/bin/python").unlink()
    assert build.found(tmp_path) is None


@pytest.mark.parametrize("spoil", [{"version": "0.0.1"}, None])
def test_another_version_or_a_spoiled_record_is_not_taken(build: Any, tmp_path: Path, spoil: Any) -> None:
    finish(build, tmp_path, **(spoil or {}))
    if spoil is None:
        (tmp_path / build.KEY / "done.json").write_text("{cut")
    assert build.found(tmp_path) is None


def test_a_home_of_its_own_still_finds_the_users_build(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / "home"))
    assert build.found() is None
    finish(build, tmp_path / "corral/engines")
    assert build.found().llama_server.is_relative_to(tmp_path / "corral/engines")


def test_a_package_with_another_hash_is_removed_and_nothing_is_built(build: Any, tmp_path: Path) -> None:
    path = tmp_path / f"sdist/llama_cpp_python-{build.VERSION}.tar.gz"
    path.parent.mkdir()
    path.write_bytes(b"not the package")
    with pytest.raises(build.Stop, match="nothing was built"):
        build._sdist(tmp_path, tmp_path / "venv")
    assert not path.exists()


def test_without_a_compiler_it_says_what_to_install(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.Stop, match=r"apt install g\+\+"):
        build._check(tmp_path)


def test_without_room_it_says_how_much(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "NEEDS_BYTES", 1 << 60)
    with pytest.raises(build.Stop, match="MiB free"):
        build._check(tmp_path)


def test_a_second_builder_waits_for_the_first(build: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cache/engines"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)], env={"PATH": os.environ["PATH"], "CORRAL_HOME": str(tmp_path)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert second.stderr and "waiting for it" in second.stderr.readline()
        finish(build, folder)
    out, _ = second.communicate(timeout=30)
    assert second.returncode == 0 and out.splitlines()[0].endswith("bin/llama-server")


def test_a_compiler_that_fails_shows_its_words(build: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "print('[20/40] CXX'); print('x.cpp:1: error: no'); raise SystemExit(1)"
    with pytest.raises(build.Stop, match="goes on from here"):
        build._ninja([sys.executable, "-c", code])
    said = capfd.readouterr().err
    assert "compiled 20 of 40" in said and "x.cpp:1: error" in said
