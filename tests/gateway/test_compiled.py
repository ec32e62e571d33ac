"""A gateway that is compiled, or is not: it says which, and what can be compiled stays so."""

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from core.nouns.daemon import GatewayStatus
from tui.cli import cli
from tui.verbs import gateway as verb

SETUPTOOLS = pytest.mark.skipif(
    importlib.util.find_spec("setuptools") is None, reason="a virtual environment of Python 3.12 has no setuptools"
)
HEADERS = Path(sysconfig.get_path("include"), "Python.h").exists()
ROOT = Path(__file__).parents[2]
SETUP = ast.parse((ROOT / "setup.py").read_text())


class Shown(NamedTuple):
    """What is used of a status."""

    gateway_status: GatewayStatus


def compiled() -> list[str]:
    for node in SETUP.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED":
            return list(ast.literal_eval(node.value))
    raise AssertionError("setup.py names no modules")


def packaged(asked: str, cc: str, script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script that knows as `told` what setup.py tells setuptools. In a process of its own: setuptools puts its
    own distutils in place of Python's."""
    load = (
        "import runpy, setuptools, sys\ntold = {}\nargs, sys.argv = sys.argv[1:], ['setup.py', 'egg_info']\n"
        f"setuptools.setup = told.update\nrunpy.run_path({str(ROOT / 'setup.py')!r})\n"
    )
    env = {**os.environ, "CORRAL_COMPILED": asked, "CC": cc}
    return subprocess.run(
        [sys.executable, "-c", load + script, *args], env=env, capture_output=True, text=True, timeout=60
    )  # fmt: skip


@SETUPTOOLS
@pytest.mark.parametrize(("asked", "cc", "wanted"), [
    ("", sys.executable, HEADERS), ("", f"{sys.executable} -O1", HEADERS), ("", "/nowhere/cc", False),
    ("0", sys.executable, False), ("1", "/nowhere/cc", True),
])  # fmt: skip
def test_a_wheel_is_compiled_where_that_can_be_done(asked, cc, wanted):
    done = packaged(asked, cc, "print(told['setup_requires'])")
    assert done.returncode == 0 and ("mypy==" in done.stdout) is wanted, done.stderr


BUILD = """
broken = setuptools.Extension("core.gateway.heads", [args[0] + "/no.c"])
build = told["cmdclass"]["build_ext"](setuptools.Distribution({"name": "corral", "ext_modules": [broken]}))
build.ensure_finalized()
build.build_lib = build.build_temp = args[0]
build.run()
"""


@SETUPTOOLS
@pytest.mark.parametrize("asked", ["", "1"])
def test_a_wheel_whose_compiler_fails_has_all_of_it_as_python(tmp_path, asked):
    """A part that was compiled already would be a door to a library that is not there."""
    there = tmp_path / "core" / "gateway" / "keys.so"
    there.parent.mkdir(parents=True)
    there.touch()
    done = packaged(asked, sys.executable, BUILD, str(tmp_path))
    if asked:
        assert done.returncode and "failed with exit code" in done.stderr
    else:
        assert done.returncode == 0 and not there.exists() and "runs as Python" in done.stderr, done.stderr


async def test_it_says_whether_it_is_compiled(gateway):
    gateway.hang_up()
    welcome = await gateway.connect()
    assert welcome.compiled is (os.environ.get("CORRAL_TEST_COMPILED") == "1")


@pytest.mark.parametrize("compiled", [True, False, None])
def test_the_command_line_says_so(monkeypatch, compiled):
    told = Shown(gateway_status=GatewayStatus(
        state="ready", pid=7, version="1", snapshot=1, acknowledged=1, compiled=compiled,
    ))  # fmt: skip
    monkeypatch.setattr(verb, "run", lambda work, start: told)
    shown = CliRunner().invoke(cli, ["gateway", "show"])
    assert shown.exit_code == 0 and ("pid 7, compiled:" in shown.output) is (compiled is True)


@pytest.mark.parametrize("name", compiled())
def test_what_is_compiled_makes_no_struct(name):
    """It would be compiled without a complaint, and forget that it is frozen."""
    tree = ast.parse((ROOT / "core/gateway" / f"{name}.py").read_text())
    bases = [ast.unparse(base) for each in ast.walk(tree) if isinstance(each, ast.ClassDef) for base in each.bases]
    keywords = [each.name for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and each.keywords]
    assert not [base for base in bases if base.endswith(("Struct", "Message"))] and not keywords


@pytest.mark.parametrize("name", compiled())
def test_nothing_that_is_compiled_can_be_weakly_referred_to(name):
    """mypyc 2.4.1 gives up a reference that is not its own when such an object goes: Python crashes later, elsewhere.
    Only classes that derive from one that is not compiled can be."""
    module = importlib.import_module(f"core.gateway.{name}")
    if not module.__file__.endswith(".so"):
        pytest.skip("it is not compiled")
    classes = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    made = [each for each in classes if not getattr(each, "_is_protocol", False)]
    assert [each.__name__ for each in made if each.__weakrefoffset__] == []
