"""Corral under systemd: say that the daemon is ready, whether a logout will end us, and how to start where it does not.

The starter and the daemon call it. Everything is read from files (logind's configuration, our own cgroup, the linger
mark); the only programs run are systemd-run and systemctl, by the starter.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from configparser import ConfigParser, Error
from dataclasses import dataclass
from pathlib import Path

UNIT = "corral.service"
YES = ("yes", "y", "true", "t", "on", "1")
"""As systemd reads a truth value."""


@dataclass(frozen=True)
class Places:
    """Where systemd keeps what is read here; tests give others."""

    lib: Path = Path("/usr/lib/systemd")
    etc: Path = Path("/etc/systemd")
    run: Path = Path("/run/systemd")
    user: Path = Path("/run/user")
    linger: Path = Path("/var/lib/systemd/linger")
    cgroup: Path = Path("/proc/self/cgroup")


HERE = Places()


def tell(state: str) -> None:
    """Send `state` ("READY=1", "STOPPING=1") to systemd, if it started this process. Never raises."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.settimeout(1.0)
        out.sendto(state.encode(), path.replace("@", "\0", 1) if path[0] == "@" else path)


def logout_ends(user: str, places: Places = HERE) -> str:
    """The sentence if logging out would end this process and all that it starts, else an empty text.

    A process in the scope of a session ends with it where KillUserProcesses says so, linger or not. One that the
    user's own systemd holds ends some seconds after the last session, unless the user may linger.
    """
    ours = _cgroup(places)
    lingers = (places.linger / user).exists()
    if re.search(r"/session-[^/]+\.scope(/|$)", ours) and _session_kills(user, places):
        todo = (
            "" if lingers else f"run `loginctl enable-linger {user}`, then "
        ) + "`corral shutdown`: the next verb starts it outside of the session, if systemd-run is there"
        return f"logging out will end the daemon and its models (KillUserProcesses=yes): {todo}"
    if re.search(r"/user@\d+\.service(/|$)", ours) and not lingers:
        return (
            "logging out will end the daemon and its models (the user's systemd ends with the last session): "
            f"run `loginctl enable-linger {user}`"
        )
    return ""


def outside(argv: list[str], user: str, environ: dict[str, str], places: Places = HERE) -> list[str]:
    """`argv` so that a logout does not end it: under the user's own systemd, where our session would take it along.

    `argv` itself where nothing threatens it or nothing can be done. The process stays our child, with our environment.
    """
    runner = shutil.which("systemd-run", path=environ.get("PATH"))
    scope = re.search(r"/session-[^/]+\.scope(/|$)", _cgroup(places))
    if not runner or not scope or not _session_kills(user, places) or not _manager(places):
        return argv
    return [runner, "--user", "--scope", "--quiet", "--collect", f"--unit=corral-{os.getpid()}.scope", "--", *argv]


def user_unit(environ: dict[str, str], places: Places = HERE) -> list[str]:
    """The command that starts the user's own unit, if one is installed and the user's systemd runs; else empty."""
    config = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "/nonexistent") / ".config")
    found = shutil.which("systemctl", path=environ.get("PATH"))
    if environ.get("CORRAL_HOME") or not found or not _manager(places):
        return []
    return [found, "--user", "start", UNIT] if (config / "systemd/user" / UNIT).exists() else []


def with_manager(environ: dict[str, str], places: Places = HERE) -> dict[str, str]:
    """`environ` with what systemd-run and systemctl need to find the user's systemd; `su` alone leaves it out."""
    return ({"XDG_RUNTIME_DIR": str(places.user / str(os.getuid()))} if _manager(places) else {}) | environ


def system_unit(places: Places = HERE) -> bool:
    """Whether the shared daemon is installed on this host as a unit."""
    return (places.etc / "system" / UNIT).exists()


def _manager(places: Places) -> bool:
    """Whether the user's own systemd runs."""
    return (places.user / str(os.getuid()) / "systemd/private").exists()


def _cgroup(places: Places) -> str:
    """Our path in systemd's own hierarchy; empty where systemd is not in charge."""
    if not (places.run / "system").exists():
        return ""
    with contextlib.suppress(OSError):
        for row in places.cgroup.read_text().splitlines():
            _, controllers, path = row.split(":", 2)
            if controllers in ("", "name=systemd") and path != "/":
                return path
    return ""


def _session_kills(user: str, places: Places) -> bool:
    """Whether logind ends this user's processes with their session (logind.conf(5), all its folders)."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    drop_ins: dict[str, Path] = {}
    for folder in (places.lib, places.run, places.etc):  # a name in a later folder hides the same in an earlier one
        drop_ins |= {file.name: file for file in sorted((folder / "logind.conf.d").glob("*.conf"))}
    for file in (places.etc / "logind.conf", *(drop_ins[name] for name in sorted(drop_ins))):
        with contextlib.suppress(OSError, Error, UnicodeDecodeError):
            parser.read(file)
    kills = parser.get("Login", "KillUserProcesses", fallback="").strip().lower() in YES
    only = parser.get("Login", "KillOnlyUsers", fallback="").split()
    spared = parser.get("Login", "KillExcludeUsers", fallback="root").split()
    return kills and user not in spared and (not only or user in only)
