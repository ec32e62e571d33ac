"""The gateway: where programs reach it, and the certificate of its listeners."""

from __future__ import annotations

from datetime import datetime

import click

from tui.amounts import Whole
from tui.command import Nouns, options, run, with_options
from tui.lines import as_json, say, table
from tui.plain import line


def _show() -> None:
    found = run(lambda client: client.status(), start=False).gateway_status
    if options().json:
        as_json(found)
        return
    if options().quiet:
        for door in found.doors:
            if door.url:
                say(line(door.url))
        return
    pid = f", pid {found.pid}" if found.pid else ""
    pid += ", compiled" if found.compiled else ""
    say(f"{line(found.state)}{pid}: {found.in_flight} in flight, {found.queued} queued, {found.requests} served")
    if found.connections_evicted or found.connections_refused:
        say(
            f"connections: {found.connections_evicted} idle ones closed for new ones of the same address,"
            f" {found.connections_refused} refused"
        )
    if found.doors:
        rows = [
            (
                door.address, door.url or "-", door.fingerprint[:16] or "-",
                _day(door.until) if door.until is not None else "-", door.trouble or "-",
            )
            for door in found.doors
        ]  # fmt: skip
        table(("ADDRESS", "URL", "CERTIFICATE", "UNTIL", "TROUBLE"), rows)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M %Z")


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def gateway(context: click.Context) -> None:
    """Where programs reach the gateway (alone: `show`)."""
    if context.invoked_subcommand is None:
        _show()


@gateway.command("show")
@with_options
def show() -> None:
    """Its listeners for programs, their certificates, and what is wrong with any."""
    _show()


@gateway.command("certificate")
@click.option("--name", "names", multiple=True, metavar="HOST", help="another name or address that clients use")
@click.option("--days", type=Whole(1, 3650), default=365, show_default=True, help="for how long it is valid")
@click.option("--force", is_flag=True, help="replace the one that is there")
@with_options
def certificate(names: tuple[str, ...], days: int, force: bool) -> None:
    """Make a certificate that signs itself, for this host's names and addresses.

    The gateway takes it up by itself, and cuts no stream. Clients have to be told to trust it: how is printed. One of
    your own CA is named in corral.toml instead: `certificate` and `certificate_key` in [gateway].
    """
    made = run(lambda client: client.make_certificate(names, days, replace=force))
    if options().json:
        as_json(made)
        return
    if options().quiet:
        say(line(made.certificate))
        return
    say(f"certificate  {line(made.certificate)}")
    say(f"key          {line(made.key)}")
    say(f"sha256       {made.fingerprint}")
    say(f"until        {_day(made.until)}")
    say(f"for          {line(', '.join(made.names))}")
    path = line(made.certificate)
    say("")
    say("Clients trust it with a copy of the certificate (never of the key):")
    say(f"  curl         --cacert {path}")
    say(f"  Python       SSL_CERT_FILE={path}")
    say(f"  Node         NODE_EXTRA_CA_CERTS={path}")
    say("Who takes it over a network compares the fingerprint first:")
    say(f"  openssl x509 -noout -fingerprint -sha256 -in {path}")
