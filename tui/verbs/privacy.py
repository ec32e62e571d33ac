"""Chats, and who keeps or sees them: the master key, retention, legal hold, forgetting, what others said."""

from __future__ import annotations

import sys
from typing import Any

import click

from core.errors import Invalid
from core.nouns import ChatKey, Hold, OthersChats, RetentionRule
from tui.amounts import Whole
from tui.command import Nouns, Told, options, run, with_options
from tui.lines import as_json, ask, ask_typed, say, table, tell
from tui.plain import line
from tui.words import age, kept

REASON = click.option("--reason", default="", help="why; it stands in the audit trail")
MUST = click.option("--reason", required=True, help="why; it stands in the audit trail")
SECRET_LIMIT = 4096


# ------------------------------------------------------------------------------------------------ the master key


def _passphrase(question: str, *, new: bool) -> str:
    """Asked for, or the first line of standard input: a secret does not belong in a command line."""
    if sys.stdin.isatty():
        found = str(click.prompt(question, hide_input=True, confirmation_prompt=new, err=True))
    else:
        found = sys.stdin.readline(SECRET_LIMIT).rstrip("\r\n")
    if not found:
        raise Told(Invalid("no passphrase was given", todo="type it, or give it on standard input"))
    return found


def _told_key(key: ChatKey) -> None:
    if options().json:
        as_json(key)
        return
    if options().quiet:
        say(line(key.state))
        return
    users = "1 user" if key.users == 1 else f"{key.users} users"
    say(f"chats are {line(key.state)}: master key {line(key.id) or '-'} ({line(key.place)}), keys of {users}")
    if key.why:
        say(f"  {line(key.why)}; {line(key.todo)}")
    if key.state == "open" and key.passphrase != (key.wanted == "passphrase"):
        say(f"  corral.toml says {line(key.wanted)}: `corral chats rekey` goes over to it")
    if key.plain:
        say(f"  {key.plain} chats of before they were sealed are still to be")


@click.command("key")
@with_options
def key() -> None:
    """Whether the chats are open, and with which master key."""
    _told_key(run(lambda client: client.privacy.key()))


@click.command("unlock")
@with_options
def unlock() -> None:
    """Unlock the chats with their passphrase, which the daemon keeps in memory alone.

    It is asked for, or read from standard input. The first one is chosen here.
    """
    now = run(lambda client: client.privacy.key())
    if now.state == "open":
        file = "" if now.passphrase else f": the key is in {line(now.place)}"
        tell({"state": "open"}, f"the chats are open, no passphrase was looked at{file}")
        return
    new = now.state == "new"
    text = _passphrase("A new passphrase (without it nobody can read the chats)" if new else "Passphrase", new=new)
    _told_key(run(lambda client: client.privacy.unlock(text)))


@click.command("rekey")
@with_options
def rekey() -> None:
    """Go over to another master key: a new file, the one that next_master_key names, or another passphrase.

    What is sealed stays as it is; the users' keys are wrapped anew. Copies of the database that were made elsewhere
    still need the old key.
    """
    now = run(lambda client: client.privacy.key())
    ask("Go over to another master key? Copies of the database elsewhere still need the old one")
    text = _passphrase("The new passphrase", new=True) if now.wanted == "passphrase" else ""
    _told_key(run(lambda client: client.privacy.rekey(text)))


# ------------------------------------------------------------------------------------------------ forgetting


@click.command("forget")
@click.argument("whom", metavar="USER")
@MUST
@with_options
def forget(whom: str, reason: str) -> None:
    """Delete all that USER said, and destroy his key. It cannot be undone."""
    ahead = run(lambda client: client.privacy.ahead(whom))
    ask_typed(f"Forget {line(whom)}: {ahead.chats} chats with {ahead.turns} questions, and the key?", whom)
    gone = run(lambda client: client.privacy.forget(whom, reason))
    tell(gone, f"{line(whom)} is forgotten: {gone.chats} chats, {gone.turns} questions, {gone.keys} keys")


# ------------------------------------------------------------------------------------------------ legal hold


@click.group("hold", cls=Nouns)
def hold() -> None:
    """Legal hold: nothing of a user's chats, or of a chat, is deleted."""


@hold.command("add")
@click.argument("what")
@MUST
@with_options
def hold_add(what: str, reason: str) -> None:
    """Hold WHAT: a user's name, user:NAME, or the id of a chat.

    A word of ten hex digits is taken for a chat.
    """
    made = run(lambda client: client.privacy.hold(_what(what), reason))
    tell(made, f"hold {line(made.id)}: nothing of {made.kind} {line(made.name)} is deleted")


def _what(text: str) -> str:
    if ":" in text:
        return text
    is_chat = len(text) == 10 and all(each in "0123456789abcdef" for each in text)
    return f"chat:{text}" if is_chat else f"user:{text}"


@hold.command("ls")
@with_options
def hold_ls() -> None:
    """The holds that you may release."""
    found: list[Hold] = run(lambda client: client.privacy.holds())
    if options().json:
        as_json(found)
        return
    if options().quiet:
        for each in found:
            say(line(each.id))
        return
    if not found:
        say("nothing is under legal hold")
        return
    table(("HOLD", "OF", "BY", "SINCE", "REASON"),
          [(h.id, f"{h.kind}:{h.name}", h.by, age(h.at), h.reason) for h in found], spare=("BY", "SINCE"))  # fmt: skip


@hold.command("release")
@click.argument("hold_id", metavar="HOLD")
@MUST
@with_options
def hold_release(hold_id: str, reason: str) -> None:
    """End a hold: retention, its owner and forgetting may delete again."""
    ended = run(lambda client: client.privacy.release(hold_id, reason))
    tell(ended, f"hold {line(ended.id)} of {ended.kind} {line(ended.name)} is released")


# ------------------------------------------------------------------------------------------------ retention


@click.group("retention", invoke_without_command=True)
@with_options
@click.pass_context
def retention(context: click.Context) -> None:
    """How long chats are kept, by user, group and deployment: the strictest rule wins.

    Without a verb: the rules. Where none speaks, [chats] keep_days of corral.toml does.
    """
    if context.invoked_subcommand is None:
        context.invoke(retention_ls)


@retention.command("ls")
@with_options
def retention_ls() -> None:
    """The rules."""
    found: list[RetentionRule] = run(lambda client: client.privacy.retention())
    if options().json:
        as_json(found)
        return
    if options().quiet:
        for each in found:
            say(line(f"{each.kind}:{each.name}"))
        return
    if not found:
        say("no rules: [chats] keep_days of corral.toml counts for all")
        return
    table(("FOR", "KEPT", "BY", "SINCE", "REASON"),
          [(f"{r.kind}:{r.name}", kept(r.days), r.by, age(r.at), r.reason) for r in found],
          spare=("BY", "SINCE"))  # fmt: skip


@retention.command("set")
@click.argument("subject")
@click.option("--days", type=Whole(1, 36500), help="days after the last question")
@click.option("--none", "none", is_flag=True, help="nothing is kept: chats are private")
@click.option("--keep", is_flag=True, help="until somebody deletes them")
@REASON
@with_options
def retention_set(subject: str, days: int | None, none: bool, keep: bool, reason: str) -> None:
    """Say how long the chats of user:NAME, of group:NAME or with deployment:NAME are kept."""
    if (days is not None) + none + keep != 1:
        raise click.UsageError("say one of --days N, --none and --keep")
    if none:
        ask(f"Keep nothing for {line(subject)}? What there is goes within the hour")
    rule = run(lambda client: client.privacy.retain(subject, None if keep else 0 if none else days, reason))
    tell(rule, f"{line(subject)}: {kept(rule.days)}")


@retention.command("rm")
@click.argument("subject")
@REASON
@with_options
def retention_rm(subject: str, reason: str) -> None:
    """Take a rule back."""
    run(lambda client: client.privacy.drop_rule(subject, reason))
    tell({"removed": subject}, f"no rule speaks of {line(subject)} any more")


# ------------------------------------------------------------------------------------------------ what others said


def look(reason: str, **what: Any) -> OthersChats:
    """What another one said; recorded. Without a reason the verb ends with 2."""
    if not reason.strip():
        raise click.UsageError("what others said is shown for a --reason, which stands in the audit trail")
    return run(lambda client: client.privacy.others(reason, **what))


VERBS = (key, unlock, rekey, forget, hold, retention)
"""Of `corral chats`."""
