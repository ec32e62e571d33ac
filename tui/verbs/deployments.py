"""Deployments: deploy, stop, start, restart, remove, scale, logs, explain, and what runs."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import click

from core.client import Client
from core.client.catalog import parted
from core.errors import Conflict, Failed, Invalid, TimedOut
from core.nouns import Deployment, DeploymentSpec
from tui.amounts import Number, Signed, Size, Whole
from tui.command import Nouns, Told, filled, named, note, note_answers, options, run, with_options
from tui.lines import as_json, ask, note_ctx, say, table, tell
from tui.plain import line
from tui.words import age, plural, served, size, slots

LOOK_S = 2.0
"""What waits looks so often for what there is to say meanwhile."""
SECONDS = Number(0, 86400)
NOTHING = "nothing is deployed: corral deploy MODEL"


@click.command()
@click.argument("model", shell_complete=named("models"))
@click.option("--name", callback=filled, help="default: the model's name")
@click.option("--ctx", default=0, help="total context cells of a replica (default: 4096 a slot)")
@click.option("--parallel", default=1, show_default=True, help="conversations at once")
@click.option(
    "--engine", callback=filled, shell_complete=named("engines"),
    help="xllamacpp (default), llama-server, llama-cpp-python, attach",
)  # fmt: skip
@click.option("--threads", default=0, help="default: usable cores less one, shared among replicas")
@click.option("--memory", type=Size(), default="0", help="hard limit of private memory, e.g. 2G (default: the plan)")
@click.option("--cache-type", type=click.Choice(["f16", "q8_0", "q4_0"]), default="f16", show_default=True)
@click.option("--replicas", default=1, show_default=True)
@click.option(
    "--url",
    callback=filled,
    help="attach to this OpenAI-compatible server, which knows MODEL by that name (not on the internet: admins)",
)
@click.option("--embedding", is_flag=True, help="serve /v1/embeddings")
@click.option("--rerank", is_flag=True, help="serve /v1/rerank: MODEL is a reranker")
@click.option(
    "--tier", callback=filled, shell_complete=named("tiers"),
    help="where MODEL must lie: it is moved there first, and is not moved away while this runs",
)  # fmt: skip
@click.option(
    "--sensitive",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="mark it: only on nodes with this label, no chats kept, no keys but --keys-of (repeat for more)",
)
@click.option("--keys-of", multiple=True, help="of a sensitive one: group:staff or team:ml, whose keys may use it")
@click.option("--replace", is_flag=True, help="change a deployment that exists, without asking")
@click.option("--wait", is_flag=True, help="return when it is ready, or with the reason")
@click.option("--timeout", type=SECONDS, default=300.0, show_default=True, help="seconds that --wait waits")
@with_options
def deploy(
    model: str, name: str | None, ctx: int, parallel: int, engine: str | None, threads: int, memory: int,
    cache_type: str, replicas: int, url: str | None, embedding: bool, rerank: bool, tier: str | None,
    labels: tuple[str, ...], keys_of: tuple[str, ...], replace: bool, wait: bool, timeout: float,
) -> None:  # fmt: skip
    """Run MODEL. Under a name that exists the difference is shown and asked about; without a terminal, and with --yes,
    it needs --replace."""
    spec = DeploymentSpec(
        name=name or parted(model)[0], model=model, ctx=ctx, parallel=parallel,
        engine=engine or ("attach" if url else "xllamacpp"), threads=threads, memory=memory,
        cache_type=cache_type, replicas=replicas, url=url or "", embedding=embedding, rerank=rerank,  # type: ignore[arg-type]
        tier=tier or "",
    )  # fmt: skip

    if keys_of and not labels:
        raise click.UsageError("--keys-of is about a sensitive deployment: say --sensitive KEY=VALUE too")
    mark = {"labels": labels, "groups": keys_of} if labels else None

    async def work(client: Client) -> Deployment:
        try:
            found, changed = await client.apply(spec, replace, mark)
        except Conflict as error:
            changes: list[dict[str, Any]] = error.details.get("changes", [])
            if not changes:
                raise
            if not options().json:
                table(("FIELD", "NOW", "NEW"), [(c["field"], c["old"], c["new"]) for c in changes])
            if options().yes or not sys.stdin.isatty():  # --yes is said by habit: it replaces nothing that runs
                what = f"{spec.name} exists and would change"
                raise Told(Invalid(what, error.why, "say --replace to change it", changes=changes)) from None
            ask(f"{line(spec.name)} exists and would change. Replace it?")
            found, changed = await client.apply(spec, True, mark)
        note_ctx(spec.ctx, found.spec.ctx)
        if not changed and not options().json and not options().quiet:
            say(f"{line(spec.name)} exists as it is asked for: nothing changes")
        return await _settled(client, found, timeout) if wait else found

    _tell(run(work))


async def _settled(client: Client, found: Deployment, timeout: float) -> Deployment:
    """The deployment when it is ready. Raises `Failed` with its reason, `TimedOut` when it takes too long."""
    name = found.spec.name
    last = await _waited(client, found, timeout)
    if last.state == "ready" or not last.spec.replicas:
        return last
    if last.state in ("failed", "stopped"):
        raise Failed(f"{name} is {last.state}", last.reason, f"corral explain {name}")
    raise TimedOut(
        f"{name} is not ready after {timeout:.0f} s", f"it is {last.state}: {last.reason}", f"corral explain {name}"
    )


async def _waited(client: Client, found: Deployment, timeout: float) -> Deployment:
    """With a word for each new reason for which a replica is tried again. Ctrl+c ends the waiting and nothing else, and
    says so."""
    name, told = line(found.spec.name), set[str]()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        while True:
            last = await client.wait_deployment(found.spec.name, max(0.0, min(LOOK_S, deadline - loop.time())))
            if last.state in ("ready", "failed", "stopped") or loop.time() >= deadline:
                return last
            if not options().quiet and not options().json:
                await _note_trouble(client, found.spec.name, told)
    except asyncio.CancelledError:
        note(f"no longer waiting; what was asked for goes on: `corral ps`, or `corral stop {name}`")
        raise


async def _note_trouble(client: Client, name: str, told: set[str]) -> None:
    """Say on standard error which replicas are in back-off and why: what was `told` is not said again."""
    for each in await client.replicas():
        words = f"{each.id} is in back-off: {each.reason}"
        if each.deployment == name and each.state == "backoff" and words not in told:
            told.add(words)
            again = f"; it is started again in {max(0.0, each.next_try - time.time()):.0f} s" if each.next_try else ""
            note(line(words) + again)


def _tell(found: Deployment) -> None:
    if options().json:
        as_json(found)
    elif not options().quiet:
        say(f"{line(found.spec.name)} is {line(found.state)}" + (f": {line(found.reason)}" if found.reason else ""))


def _hint(text: str) -> None:
    """What is still missing for what was probably meant."""
    if not options().json and not options().quiet:
        note(text)


@click.command()
@click.option("--pss", is_flag=True, help="measure PSS now: 5 ms and more a replica (default: that of the last 30 s)")
@with_options
def ps(pss: bool) -> None:
    """The replicas that run or should run."""
    found = run(lambda client: client.replicas(pss=pss))
    if options().json:
        as_json(found)
        return
    if options().quiet:
        for replica in found:
            say(line(replica.id))
        return
    if not found:
        there = run(lambda client: client.deployments())
        names = ", ".join(each.spec.name for each in there)
        say(line(f"no replica runs or should run: {names}") if there else NOTHING)
        return
    table(
        ("REPLICA", "STATE", "SINCE", "MODEL", "ENGINE", "PID", "MEMORY", "CPU", "TOK/S", "SLOTS", "CTX", "REASON"),
        [
            (r.id, r.state, age(r.since), r.model, r.engine, r.pid or "-", size(r.rss_bytes) if r.rss_bytes else "-",
             f"{r.cpu_percent:.0f}%", f"{r.tokens_per_second:.0f}", slots(r.slots_busy, r.parallel, r.queued),
             f"{r.parallel}x{r.ctx_per_slot}" if r.ctx else "-", r.reason)
            for r in found
        ],
        spare=("ENGINE", "PID", "CTX", "SLOTS", "TOK/S", "CPU", "SINCE", "MODEL", "MEMORY"),
    )  # fmt: skip


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def deployments(context: click.Context) -> None:
    """What should run, and how much of it does.

    Without a verb: the same as `corral deployments ls`.
    """
    if context.invoked_subcommand is None:
        _list()


@deployments.command("ls")
@with_options
def ls() -> None:
    """What should run: how many replicas are wanted and ready."""
    _list()


def _list() -> None:
    found = run(lambda client: client.deployments())
    if options().json:
        as_json(found)
    elif options().quiet:
        for deployment in found:
            say(line(deployment.spec.name))
    elif not found:
        say(NOTHING)
    else:
        mark = ("MARK",) if any(d.mark is not None for d in found) else ()
        table(
            ("NAME", "STATE", "SINCE", "DESIRED", "READY", "MODEL", "ENGINE", "CTX", "RESERVED", *mark, "REASON"),
            [
                (d.spec.name, d.state, age(d.since), d.spec.replicas if d.wanted == "running" else 0, d.ready,
                 served(d), d.spec.engine, f"{d.spec.parallel}x{d.spec.ctx // max(1, d.spec.parallel)}",
                 size(d.plan_bytes), *(["sensitive" if d.mark is not None else "-"] if mark else []), d.reason)
                for d in found
            ],
            spare=("ENGINE", "CTX", "RESERVED", "SINCE", "MODEL"),
        )  # fmt: skip


@deployments.command("marks")
@with_options
def marks() -> None:
    """Sensitive deployments: where they may run, and for whom."""
    found = run(lambda client: client.nodes.marks())
    if options().json:
        as_json(found)
    elif options().quiet:
        for each in found:
            say(line(each.deployment))
    elif found:
        table(
            ("NAME", "ON NODES WITH", "KEYS OF", "BY", "REASON"),
            [
                (m.deployment, ", ".join(m.labels), ", ".join(map(str, m.groups)) or "nobody", m.by, m.reason)
                for m in found
            ],
        )
    else:
        say("no deployment is sensitive: `corral deployments mark NAME --label zone=secure`")


@deployments.command("mark")
@click.argument("name", shell_complete=named("deployments"))
@click.option("--label", "labels", multiple=True, required=True, metavar="KEY=VALUE", help="its nodes must have it")
@click.option("--keys-of", multiple=True, help="group:staff or team:ml, whose keys may use it (default: no keys)")
@click.option("--reason", default="", help="why; it stands in the audit trail")
@with_options
def mark(name: str, labels: tuple[str, ...], keys_of: tuple[str, ...], reason: str) -> None:
    """Say that NAME is sensitive: where it may run, and for whom.

    It runs only where its labels are and keeps no chats. The mark stays when the deployment is removed.
    """
    made = run(lambda client: client.nodes.mark(name, labels, keys_of, reason))
    tell(made, f"{line(name)} is sensitive: only on nodes with {line(', '.join(made.labels))}, "
               f"keys of {line(', '.join(map(str, made.groups))) or 'nobody'}")  # fmt: skip


@deployments.command("unmark")
@click.argument("name", shell_complete=named("deployments"))
@click.option("--reason", default="", help="why; it stands in the audit trail")
@with_options
def unmark(name: str, reason: str) -> None:
    """Say that NAME is sensitive no more."""
    ask(f"Take the mark of {line(name)} away? It may run anywhere then, and whoever may use it keeps chats with it")
    run(lambda client: client.nodes.unmark(name, reason))
    tell({"unmarked": name}, f"{line(name)} is sensitive no more")


@click.command()
@click.argument("name", shell_complete=named("deployments"))
@click.option("--wait", is_flag=True, help="return when it has stopped")
@click.option("--timeout", type=SECONDS, default=60.0, show_default=True, help="seconds that --wait waits")
@with_options
def stop(name: str, wait: bool, timeout: float) -> None:
    """Stop a deployment: no new requests, drain, end."""

    async def work(client: Client) -> Deployment:
        found = await client.stop_deployment(name)
        if not wait:
            return found
        await note_answers(client)
        last = await _waited(client, found, timeout)
        if last.state != "stopped":
            raise TimedOut(f"{name} has not stopped after {timeout:.0f} s", f"it is {last.state}: {last.reason}")
        return last

    _tell(run(work))


@click.command()
@click.argument("name", shell_complete=named("deployments"))
@click.option("--wait", is_flag=True, help="return when it is ready, or with the reason")
@click.option("--timeout", type=SECONDS, default=300.0, show_default=True, help="seconds that --wait waits")
@with_options
def start(name: str, wait: bool, timeout: float) -> None:
    """Start a stopped or failed deployment."""

    async def work(client: Client) -> Deployment:
        found = await client.start_deployment(name)
        return await _settled(client, found, timeout) if wait else found

    found = run(work)
    _tell(found)
    if not found.spec.replicas:
        _hint(f"{name} has 0 replicas: `corral scale {name} 1` runs one")


@click.command()
@click.argument("name", shell_complete=named("deployments"))
@click.option("--wait", is_flag=True, help="return when it is ready, or with the reason")
@click.option("--timeout", type=SECONDS, default=300.0, show_default=True, help="seconds that --wait waits")
@with_options
def restart(name: str, wait: bool, timeout: float) -> None:
    """Stop and start a deployment's replicas."""

    async def work(client: Client) -> Deployment:
        found = await client.restart_deployment(name)
        return await _settled(client, found, timeout) if wait else found

    _tell(run(work))


@click.command()
@click.argument("name", shell_complete=named("deployments"))
@with_options
def rm(name: str) -> None:
    """Remove a deployment; its replicas end. The model stays."""
    run(lambda client: client.deployment(name))  # before anything is asked
    ask(f"Remove the deployment {line(name)}?")
    run(lambda client: client.remove_deployment(name))
    tell({"removed": name}, f"removed {line(name)}")


@click.command(cls=Signed)
@click.argument("name", shell_complete=named("deployments"))
@click.argument("replicas", type=Whole(0, 64))
@with_options
def scale(name: str, replicas: int) -> None:
    """Run 0 to 64 replicas."""
    found = run(lambda client: client.scale(name, replicas))
    _tell(found)
    if replicas and found.wanted == "stopped":
        _hint(f"{name} is stopped: `corral start {name}` runs its {replicas} {plural(replicas, 'replica')}")
