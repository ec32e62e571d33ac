"""Where everything lies. $CORRAL_HOME moves it all under one folder.

State lies under one folder per machine-id, because a home folder may be shared by several hosts. Paths are
computed, never created, here; `daemon` makes the folders and checks their owner and mode.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import socket
from pathlib import Path
from typing import Literal

import msgspec

from core.errors import Invalid

SYSTEM_SOCKET = Path("/run/corral/corral.sock")
SOCKET_LIMIT = 107
"""Bytes a Unix socket's path may have (sun_path is 108 with its final zero)."""


def machine_id() -> str:
    """8 hex digits that name this host in paths: /etc/machine-id, else the host name's hash."""
    for name in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if re.fullmatch(r"[0-9a-f]{32}", text):
            return hashlib.sha256(text.encode()).hexdigest()[:8]
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


class Paths(msgspec.Struct, frozen=True):
    """Where everything lies. `root` holds one folder a machine; `config` is corral.toml."""

    root: Path
    config: Path
    machine: str
    mode: Literal["user", "system"] = "user"
    secrets: Path | None = None
    """Folder of the master key of the chats, apart from the database; None: below `root`, beside the state."""

    @property
    def chats_key(self) -> Path:
        """The master key of the chats, unless corral.toml names another one (core/chats/master.py says why there)."""
        return (self.secrets or self.root / "secret") / f"chats-{self.machine}.key"

    @property
    def state(self) -> Path:
        return self.root / self.machine

    @property
    def run(self) -> Path:
        """Folder of the sockets and pid files."""
        return SYSTEM_SOCKET.parent if self.mode == "system" else self.state

    @property
    def socket(self) -> Path:
        return SYSTEM_SOCKET if self.mode == "system" else self.state / "corral.sock"

    @property
    def daemon_crash(self) -> Path:
        """Left by a daemon that ended by an error of its own: which, for the next one to record."""
        return self.state / "daemon.crash"

    @property
    def daemon_lock(self) -> Path:
        """flock held by the daemon for life; its text is {"pid", "boot_id", "start_time", "machine", "host"}."""
        return self.state / "daemon.lock"

    @property
    def daemon_log(self) -> Path:
        return self.state / "daemon.log"

    @property
    def database(self) -> Path:
        return self.state / "corral.db"

    @property
    def audit_head(self) -> Path:
        """The chain's head, outside the database."""
        return self.state / "audit.head"

    @property
    def audit_accepted(self) -> Path:
        """The record by which a fault of the chain was accepted last, outside the database."""
        return self.state / "audit.accepted"

    @property
    def audit_key(self) -> Path:
        """The private key that signs the trail, unless corral.toml names another file."""
        return self.state / "audit.key"

    @property
    def audit_proof(self) -> Path:
        """Public keys and checkpoints, outside the database."""
        return self.state / "audit.proof"

    @property
    def audit_archive(self) -> Path:
        """The folder of files with old records, unless corral.toml names another one."""
        return self.state / "audit-archive"

    @property
    def audit_sinks(self) -> Path:
        """How far each sink is."""
        return self.state / "audit.sinks"

    @property
    def audit_installation(self) -> Path:
        """The installation's id, which outlives the database."""
        return self.state / "audit.installation"

    @property
    def ballast(self) -> Path:
        return self.state / "ballast"

    @property
    def backups(self) -> Path:
        return self.state / "backups"

    @property
    def launches(self) -> Path:
        """One folder a launch: the engine's working folder, its socket `e.sock` and its logs."""
        return self.state / "l"

    @property
    def records(self) -> Path:
        """One folder a launch: the keeper's lock, launch.json and exit.json, owned by the daemon."""
        return self.state / "r"

    @property
    def gateway(self) -> Path:
        """The gateway's folder: control socket, snapshot and spool."""
        return self.state / "gateway"

    @property
    def gateway_socket(self) -> Path:
        """In system mode in a folder of the gateway's account, which may not write beside the daemon's socket."""
        return (SYSTEM_SOCKET.parent / "gateway" if self.mode == "system" else self.state) / "gateway.sock"

    @property
    def gateway_control(self) -> Path:
        return self.gateway / "control.sock"

    @property
    def gateway_certificate(self) -> Path:
        """The certificate of the gateway's listeners (PEM), unless corral.toml names another."""
        return self.state / "gateway.crt"

    @property
    def gateway_key(self) -> Path:
        """Its private key."""
        return self.state / "gateway.key"

    @property
    def keys(self) -> Path:
        """One file for each attached server that asks for a key (core/engines/keys.py); people write it."""
        return self.config.parent / "keys"

    @property
    def catalogue(self) -> Path:
        """Own entries of the curated list, *.toml (docs/catalogue.md); people write them."""
        return self.config.parent / "catalogue"

    @property
    def models(self) -> Path:
        """objects/<2 hex>/<sha256> (mode 0444) and incoming/ (what is being written)."""
        return self.state / "models"


def user_paths(environ: dict[str, str] | None = None) -> Paths:
    """The per-user daemon's paths: under $CORRAL_HOME if it is set, else the XDG state and config folders. Raises
    `Invalid` for what is no full path, or none that can be written as text."""
    env = dict(os.environ) if environ is None else environ
    home = env.get("CORRAL_HOME", "")
    if home:
        _refuse_bytes("CORRAL_HOME", home)
        root = Path(home).expanduser()
        if not root.is_absolute():
            raise Invalid(
                f"CORRAL_HOME is {home!r}",
                "it must be an absolute path",
                "set it to a full path, or unset it",
            )
        return Paths(root, root / "corral.toml", machine_id())
    state = _xdg(env, "XDG_STATE_HOME", ".local/state") / "corral"
    config = _xdg(env, "XDG_CONFIG_HOME", ".config") / "corral/corral.toml"
    return Paths(state, config, machine_id(), "user", _secrets(env, config))


def _secrets(env: dict[str, str], config: Path) -> Path:
    """Beside the settings for somebody who has no home folder and named the other two."""
    try:
        return _xdg(env, "XDG_DATA_HOME", ".local/share") / "corral"
    except Invalid:
        return config.parent


def _xdg(env: dict[str, str], name: str, below: str) -> Path:
    """The folder that `name` names, else `below` the home folder. One that is relative counts for nothing, as the
    specification of these variables has it."""
    named = env.get(name, "")
    if named.startswith("/"):
        _refuse_bytes(name, named)
        return Path(named)
    home = env["HOME"] if "HOME" in env else _home()
    if not home.startswith("/"):
        raise Invalid(
            f"HOME is {home!r}" if home and "HOME" in env else "HOME is not set",
            "Corral's state and settings lie below it",
            "set HOME to your home folder, or CORRAL_HOME to a folder for Corral",
        )
    _refuse_bytes("HOME", home)
    return Path(home) / below


def _home() -> str:
    """The account's home folder; "" if it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def _refuse_bytes(name: str, value: str) -> None:
    """Raises `Invalid` for bytes that are no UTF-8: paths are stored, shown and sent as text."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Invalid(
            f"{name} is {ascii(os.fsencode(value))[2:-1]}", "it is not UTF-8", "set it to a path that is"
        ) from None


def system_paths() -> Paths:
    """The shared daemon's paths."""
    etc = Path("/etc/corral")
    return Paths(Path("/var/lib/corral"), etc / "corral.toml", machine_id(), "system", etc)


def cache_folder(environ: dict[str, str] | None = None) -> Path:
    """Downloads and builds that can be made again."""
    env = dict(os.environ) if environ is None else environ
    if env.get("CORRAL_HOME"):
        return Path(env["CORRAL_HOME"]) / "cache"
    return _xdg(env, "XDG_CACHE_HOME", ".cache") / "corral"
