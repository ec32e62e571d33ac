"""The disk with the database and the models really full: a small file system of its own that somebody fills to the last
byte. Every change says so and is not half made, what is there can be seen, and with room again all goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import command
import pytest
from command import ask, corral
from hub_double import in_a_thread
from pullworld import model
from stores import file

from core.paths import user_paths

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

SIZE = "320m"
"""256 MiB of it are kept for the database."""


@pytest.fixture
def small(home: Path) -> Iterator[Path]:
    """The home, on a small disk."""
    how = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "none", str(home)]
    if subprocess.run(how, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield home
    finally:
        command.run("shutdown", "--all")
        subprocess.run(["umount", "-l", home], capture_output=True)


class Filler:
    """Somebody else's file, which takes all that is free."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        with self.path.open("ab", buffering=0) as out:
            for step in (1 << 24, 1 << 12):
                try:
                    while out.write(bytes(step)) == step:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        self.path.unlink()


def picture() -> object:
    """What there is of models and tiers, and where it lies."""
    tiers = [(each["name"], each["stored_bytes"], each["reserved_bytes"]) for each in ask("tiers", "ls")]
    lie = sorted(path.name for path in user_paths().models.rglob("*") if path.is_file())
    return ask("models", "ls", "--versions"), tiers, lie


def test_a_full_disk_is_told_of_and_nothing_is_half_made(
    small: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fast = tmp_path_factory.mktemp("fast")
    fast.chmod(0o700)
    if fast.stat().st_dev == small.stat().st_dev:
        pytest.skip("there is no second file system")
    for n, name in ((1, "m"), (2, "m"), (3, "m"), (4, "old")):
        corral("models", "import", str(file(tmp_path, n)), "--name", name)
    corral("models", "alias", "m", "live", "3")  # nothing needs m@2 now
    corral("tiers", "add", "fast", str(fast), "--no-speed")
    filler = Filler(small / "somebody-elses")
    with in_a_thread() as hub:
        hub.files["p.gguf"] = model(4000)
        changes = (
            ("models", "import", str(file(tmp_path, 5)), "--name", "n"),
            ("models", "pull", f"{hub.url}/files/p.gguf", "--name", "p"),
            ("models", "alias", "m", "canary", "1", "--yes"),
            ("models", "alias", "m", "previous", "--rm"),
            ("models", "move", "m", "--to", "fast"),
            ("models", "verify"),
            ("models", "note", "m", "--label", "second"),
            ("models", "gc", "--yes"),
            ("models", "rm", "old", "--yes"),
            ("tiers", "set", "fast", "--default"),
        )
        filler.fill()
        corral("models", "note", "m", "--label", "first")  # in the room that is kept for a full disk
        filler.fill()
        before = picture()
        for args in changes:
            done = command.run(*args)
            told = done.stdout + done.stderr
            assert done.returncode in (1, 5) and ("is full" in told or "no room" in told), (args, done)
            assert "Errno" not in told and "bug" not in told, told
            assert picture() == before, args
        assert "full: nothing is started until there is room" in corral("status")
        filler.free()
        for args in changes:
            corral(*args)
    there = [(each["name"], each["version"]) for each in ask("models", "ls", "--versions")]
    assert sorted(there) == [("m", 1), ("m", 3), ("n", 1), ("p", 1)]
    corral("tiers", "check")
    assert ask("audit", "verify")["ok"]
