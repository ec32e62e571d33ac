"""Nodes: the hosts that there are, and what they are labelled with."""

from __future__ import annotations

import click

from core.errors import Invalid
from tui.command import Spread, Told, options, run, with_options
from tui.lines import as_json, say, table, tell
from tui.plain import line


def _ls() -> None:
    found = run(lambda client: client.nodes.ls())
    if options().json:
        as_json(found)
    elif options().quiet:
        for each in found:
            say(each.node)
    else:
        table(("NODE", "LABELS"), [(each.node, _said(each.labels)) for each in found])


def _said(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "-"


class Nodes(Spread):
    ELSEWHERE = {"bench": "nodebench"}


@click.group(cls=Nodes, invoke_without_command=True)
@with_options
@click.pass_context
def nodes(context: click.Context) -> None:
    """Hosts and their labels: the same as `corral nodes ls`."""
    if context.invoked_subcommand is None:
        _ls()


@nodes.command("ls")
@with_options
def ls() -> None:
    """The hosts that there are, and their labels."""
    _ls()


@nodes.command("label")
@click.argument("node")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE ...]")
@click.option("--rm", "gone", multiple=True, metavar="KEY", help="take a label away (repeat for more)")
@with_options
def label(node: str, labels: tuple[str, ...], gone: tuple[str, ...]) -> None:
    """Label a host (`local` is this one): a sensitive deployment runs only where its labels are."""
    if not labels and not gone:
        raise click.UsageError("say which labels, for example zone=secure, or --rm zone")
    changes: dict[str, str | None] = dict.fromkeys(gone)
    for each in labels:
        key, equals, value = each.partition("=")
        if not equals:
            raise Told(Invalid(f"{each!r} is no label", todo="say KEY=VALUE, for example zone=secure"))
        changes[key] = value
    made = run(lambda client: client.nodes.label(node, changes))
    tell(made, f"{line(made.node)}: {line(_said(made.labels))}")
