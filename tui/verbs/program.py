"""The program itself: running the daemon by hand or by systemd, completion, version, help, and taking it away."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from core import program_version, starting, systemd
from core.client import Client
from core.nouns import API_VERSION
from core.paths import cache_folder, system_paths, user_paths
from tui.command import Told, note, note_answers, options, run, with_options
from tui.lines import as_json, ask, say, table, tell
from tui.plain import line

STATE, THE_UNIT = "state, models, audit trail", "systemd unit"
"""What `uninstall` names what it finds."""

UNIT = """[Unit]
Description=Corral{which}
After=network.target

[Service]
Type=notify
# A large database is checked before the daemon serves.
TimeoutStartSec=10min
ExecStart={python} -P -m core --foreground{flag}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
TimeoutStopSec=90
# Models and the gateway run on when the daemon is stopped or updated.
KillMode=process
# One engine killed for memory must not stop the unit.
OOMPolicy=continue
Delegate=yes
PrivateTmp=no
UMask=0077
# 1 and not 0: systemd-coredump and its like get a dump whatever the limit is, but for 1.
LimitCORE=1
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
# Engines inherit it. What they may need stays: threads, affinity, memory policy, memory that is written and run (GPUs).
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
{more}
[Install]
WantedBy={target}
"""

SYSTEM = """# The gateway runs as corral-gw, engines as corral-run, who must not be in the group corral:
#   useradd --system --no-create-home --shell /usr/sbin/nologin corral-gw
#   useradd --system --no-create-home --shell /usr/sbin/nologin corral-run
#   groupadd --system corral        (whose members may do everything)
StateDirectory=corral
StateDirectoryMode=0755
RuntimeDirectory=corral
RuntimeDirectoryMode=0755
# Else /run/corral goes on stop, with the sockets of what runs on.
RuntimeDirectoryPreserve=yes
# Daemon and gateway lock their memory, so that no key and nothing of what passes through is written to swap.
LimitMEMLOCK=infinity
# The master key of the chats lies here, apart from the database, unless corral.toml names another place.
ConfigurationDirectory=corral
ConfigurationDirectoryMode=0755
# For a file that audit records are appended to ([audit.sinks]).
LogsDirectory=corral
LogsDirectoryMode=0700
ProtectSystem=strict
# read-only where the program, or llama_server of corral.toml, lies in a home folder.
ProtectHome={home}
ProtectClock=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# Change owner of the accounts' folders, become them, signal them, read their logs and memory figures.
CapabilityBoundingSet={capabilities}
"""

HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
"""What systemd's ProtectHome=yes hides."""

CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_NICE",
    "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE", "CAP_SYSLOG",
)  # fmt: skip
"""All that the shared daemon keeps of root's."""


@click.command()
@click.option("--foreground", is_flag=True, help="stay in this terminal and log to it")
@click.option("--system", is_flag=True, help="the shared daemon of this host (root)")
@click.option("--print-unit", is_flag=True, help="print a systemd unit instead")
@with_options
def daemon(foreground: bool, system: bool, print_unit: bool) -> None:
    """Run the daemon here, or print a systemd unit for it.

    With --user the unit is one of the user's own.
    """
    if print_unit:
        text = _user_unit() if options().user else _system_unit()
        if options().json:
            as_json({"unit": text})
        else:
            sys.stdout.write(text)
        return
    if not foreground and not system:
        found = run(lambda client: client.status()).daemon
        tell({"pid": found.pid, "version": found.version}, "the daemon runs")
        return
    sys.stdout.flush()
    args = [sys.executable, "-P", "-m", "core", "--foreground", *(["--system"] if system else [])]
    os.execv(args[0], args)  # noqa: S606 - our own interpreter


def _user_unit() -> str:
    return UNIT.format(which=" (per user)", python=sys.executable, flag="", more="", target="default.target")


def _system_unit() -> str:
    program = (Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix), Path(__file__))
    shown = any(path.resolve().is_relative_to(home) for path in program for home in HOMES)
    more = SYSTEM.format(capabilities=" ".join(CAPABILITIES), home="read-only" if shown else "yes")
    return UNIT.format(which="", python=sys.executable, flag=" --system", more=more, target="multi-user.target")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    bash: eval "$(corral completion bash)"; zsh: the same with zsh, after compinit; fish:
    corral completion fish | source.
    """
    env = {**os.environ, "_CORRAL_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-P", "-m", "tui"], env=env, capture_output=True, text=True, timeout=20)
    sys.stdout.write(done.stdout.replace("python -P -m tui", "corral"))


@click.command()
@with_options
def version() -> None:
    """The program's version, and the daemon's if one runs."""
    theirs = None
    with contextlib.suppress(Told):
        theirs = run(lambda client: client.status(), start=False).daemon.version
    if options().json:
        as_json({"program": program_version(), "daemon": theirs, "api": API_VERSION})
        return
    say(f"corral {program_version()}")
    if theirs:
        say(f"daemon {line(theirs)}")


@click.command("help")
@click.argument("verb", nargs=-1)
@click.pass_context
def help(context: click.Context, verb: tuple[str, ...]) -> None:
    """Help for a verb: corral help models import."""
    at = context.find_root()
    for name in verb:
        if not isinstance(at.command, click.Group):
            raise click.UsageError(f"`{at.command_path}` has no verbs of its own", at)
        found = at.command.resolve_command(at, [name])[1]
        assert found is not None
        at = click.Context(found, info_name=name, parent=at)
    say(at.get_help())


@click.command()
@with_options
def uninstall() -> None:
    """Say what is where, and remove it when told so.

    With --yes it stops the models and removes this host's state and the settings.

    Root's is the shared daemon where one is installed, else (and with --user) everybody's is their own.
    """
    shared = os.getuid() == 0 and not options().user and systemd.system_unit()
    places = _shared() if shared else _own()
    if not options().json:
        table(("WHAT", "WHERE"), [(what, place) for place, what in places])
        say("the program itself: pip uninstall corral (or pipx uninstall corral), or remove the clone")
        if shared:
            say("its accounts: userdel corral-gw; userdel corral-run; groupdel corral")
    ask(
        "Stop all models and remove all of that, audit trail included?",
        places={what: str(place) for place, what in places},
    )
    options().user = not shared
    if starting.runs(system_paths() if shared else user_paths()):
        # A daemon is started if only models run: it finds and stops them. With nothing to stop, none is: a console that
        # is open would come back with it.
        if shared:
            _systemctl("start", systemd.UNIT)
        run(_stop_all)
    units = [place for place, what in places if what == THE_UNIT]
    if units:
        _systemctl(*([] if shared else ["--user"]), "disable", "--now", systemd.UNIT)
    for place, _ in places:
        if place.is_dir():
            # Gone at once: an open console that found half of it would take its daemon for one that died, and start it.
            going = place.rename(place.with_name(f".{place.name}.removed-{os.getpid()}"))
            shutil.rmtree(going)
        else:
            place.unlink(missing_ok=True)
    if not shared and not os.environ.get("CORRAL_HOME"):
        for place in (user_paths().root, user_paths().config.parent):
            with contextlib.suppress(OSError):  # another host's state, or a file of somebody's own, is there
                place.rmdir()
    if units:
        _systemctl(*([] if shared else ["--user"]), "daemon-reload")
    tell({"removed": [str(place) for place, _ in places]}, "removed")


async def _stop_all(client: Client) -> None:
    await note_answers(client)
    await client.shutdown(True)


def _own() -> list[tuple[Path, str]]:
    """What is there of this user's own daemon."""
    paths = user_paths()
    unit = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user" / systemd.UNIT
    found = [(paths.state, STATE), (paths.config, "settings"), (paths.keys, "keys"),
             (paths.chats_key, "master key of the chats"), (cache_folder(), "cache")]  # fmt: skip
    if not os.environ.get("CORRAL_HOME"):
        found.append((unit, THE_UNIT))
    return [(place, what) for place, what in found if place.exists()]


def _shared() -> list[tuple[Path, str]]:
    """What is there of the shared daemon of this host."""
    paths = system_paths()
    found = [
        (paths.state, STATE), (paths.config.parent, "settings"), (paths.run, "sockets"),
        (systemd.HERE.etc / "system" / systemd.UNIT, THE_UNIT),
    ]  # fmt: skip
    return [(place, what) for place, what in found if place.exists()]


def _systemctl(*args: str) -> None:
    """Ask systemd; a refusal is told, and what is to be removed is removed all the same."""
    try:
        done = subprocess.run(["systemctl", *args], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        note(f"systemctl {' '.join(args)}: {error}")
        return
    if done.returncode:
        note(f"systemctl {' '.join(args)}: {line(done.stderr.strip())}")
