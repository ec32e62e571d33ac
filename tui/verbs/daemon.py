"""The daemon: status, shutdown, reload, events, engines, and running it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import click
import msgspec

from core import program_version
from core.client import Client
from core.nouns import API_VERSION, Event
from core.settings import cache_folder, user_paths
from tui.command import Told, again, options, run, with_options
from tui.lines import as_json, ask, say, table, tell
from tui.plain import line
from tui.words import age, size

RECENT = 100
"""Events that `corral events` shows."""

UNIT = """[Unit]
Description=Corral{which}
After=network.target

[Service]
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
LimitCORE=0
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
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
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# Change owner of the accounts' folders, become them, signal them, read their logs and memory figures.
CapabilityBoundingSet={capabilities}
"""

CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_NICE",
    "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE", "CAP_SYSLOG",
)  # fmt: skip
"""All that the shared daemon keeps of root's."""


@click.command()
@with_options
def status() -> None:
    """What runs and whether all is right. Exit 6 if no daemon runs."""
    found = run(lambda client: client.status(), start=False)
    if options().json:
        as_json(found)
        return
    daemon, gateway = found.daemon, found.gateway_status
    say(f"daemon    pid {daemon.pid}, version {daemon.version}, up {age(daemon.started_at)}, {daemon.mode} mode")
    say(f"gateway   {line(gateway.state)}, pid {gateway.pid}, {gateway.in_flight} in flight, {gateway.requests} served")
    for node in found.nodes:
        say(
            f"host      {node.cpu_percent:.0f} % CPU, {size(node.free_bytes)} of {size(node.memory_bytes)} memory free,"
            f" {size(node.disk_free_bytes)} disk free"
        )
    counts = ", ".join(f"{count} {state}" for state, count in sorted(found.deployments.items())) or "none"
    say(f"models    {found.models}; deployments: {line(counts)}")
    say(f"audit     {found.audit_records} records, {line(found.audit_message) if found.audit_ok else 'BROKEN'}")
    say(f"socket    {line(daemon.socket)}")
    warnings = list(daemon.warnings)
    if daemon.api != API_VERSION:
        warnings.append("this terminal and the daemon have different versions: corral shutdown, then start again")
    for warning in warnings:
        say(f"! {line(warning)}")


@click.command()
@click.option("--all", "everything", is_flag=True, help="stop the models and the gateway first")
@with_options
def shutdown(everything: bool) -> None:
    """End the daemon and wait until it is gone. Models run on, unless --all."""

    async def work(client: Client) -> None:
        await client.shutdown(everything)

    run(work, start=False)
    models = "its models are stopped" if everything else "models run on"
    tell({"daemon": "gone", "models": models}, f"the daemon is gone; {models}")


@click.command()
@with_options
def reload() -> None:
    """Read corral.toml again; it is refused whole if it is wrong."""
    run(lambda client: client.reload())
    tell({"reloaded": True}, "corral.toml is in force")


@click.command()
@click.option("-f", "--follow", is_flag=True, help="go on until ctrl+c")
@click.option("--since", help="after this event id")
@with_options
def events(follow: bool, since: str | None) -> None:
    """What happened last, one line an event; -f follows, and goes on through a new daemon."""

    async def work(client: Client) -> None:
        last = (await client.picture()).event
        epoch, _, seq = last.partition(".")
        at = since or (last if follow else f"{epoch}.{max(0, int(seq) - RECENT)}")

        async def after() -> AsyncIterator[Event]:
            nonlocal at
            async with contextlib.aclosing(client.events(at)) as news:  # type: ignore[type-var]
                async for event in news:
                    at = event.id
                    yield event

        if follow:
            async for event in again(after):
                _one(event)
        elif at != last:
            _all([event async for event in _until(client.events(at), last)])
        else:
            _all([])

    run(work)


async def _until(news: AsyncIterator[Event], last: str) -> AsyncIterator[Event]:
    """Up to the event `last`, or a resync, which stands for it."""
    async for event in news:
        yield event
        if event.id == last or event.type == "resync":
            return


def _one(event: Event) -> None:
    if options().json:
        say(msgspec.json.encode(event).decode())
    else:
        data = event.data if isinstance(event.data, dict) else {"": event.data} if isinstance(event.data, str) else {}
        told = [str(data[key]) for key in ("verb", "outcome", "state", "reason", "") if data.get(key)]
        at = time.strftime("%H:%M:%S", time.localtime(event.time))
        say(f"{event.id}  {at}  {line(event.type):<12} {line(event.object):<24} {line(': '.join(told))}".rstrip())


def _all(found: list[Event]) -> None:
    if options().json:
        as_json(found)
        return
    for event in found:
        _one(event)


@click.command()
@with_options
def engines() -> None:
    """Which inference servers can be started here, and why not."""
    rows = run(lambda client: client.engines())
    if options().json:
        as_json(rows)
        return
    table(
        ("ENGINE", "FOUND", "VERSION", "WHERE OR WHY NOT"),
        [(r["name"], "yes" if r["found"] else "no", r["version"] or "-", r["reason"] or r["path"]) for r in rows],
    )


@click.command()
@click.option("--foreground", is_flag=True, help="stay in this terminal and log to it")
@click.option("--system", is_flag=True, help="the shared daemon of this host (root)")
@click.option("--print-unit", is_flag=True, help="print a systemd unit instead")
@with_options
def daemon(foreground: bool, system: bool, print_unit: bool) -> None:
    """Run the daemon in the foreground, or print a systemd unit for it (with --user a user's one)."""
    if print_unit:
        user = options().user
        more = "" if user else SYSTEM.format(capabilities=" ".join(CAPABILITIES))
        flag = "" if user else " --system"
        which = " (per user)" if user else ""
        target = "default.target" if user else "multi-user.target"
        sys.stdout.write(UNIT.format(which=which, python=sys.executable, flag=flag, more=more, target=target))
        return
    if not foreground and not system:
        run(lambda client: client.status())
        say("the daemon runs")
        return
    sys.stdout.flush()
    args = [sys.executable, "-P", "-m", "core", "--foreground", *(["--system"] if system else [])]
    os.execv(args[0], args)  # noqa: S606 - our own interpreter


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: eval "$(corral completion bash)"."""
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
    """Say what is where; with --yes stop the models and remove this host's state and the settings."""
    paths = user_paths()
    places = [(paths.state, "state, models, audit trail"), (paths.config, "settings"), (cache_folder(), "cache")]
    if not options().json:
        table(("WHAT", "WHERE"), [(what, place) for place, what in places if place.exists()])
        say("the program itself: pip uninstall corral (or pipx uninstall corral), or remove the clone")
    ask(
        "Stop all models and remove all of that, audit trail included?",
        places={what: str(place) for place, what in places if place.exists()},
    )
    options().user = True
    if paths.state.exists():
        # A daemon is started if none runs: it finds the models that still run and stops them.
        run(lambda client: client.shutdown(True))
    for place, _ in places:
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    tell({"removed": [str(place) for place, _ in places]}, "removed")
