"""Who used how much of what: sums of tokens, requests and times, and what they cost."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import click
import msgspec

from core.client import Client
from core.nouns import UsageReport, UsageRow, UsageSums
from tui.amounts import Moment
from tui.command import note, options, run, with_options_but
from tui.lines import as_json, say, table
from tui.plain import line
from tui.rights import lacks
from tui.words import plural

WORDS = (
    "user", "group", "key", "deployment", "model", "version", "replica", "node", "outcome", "day", "hour",
)  # fmt: skip
READ_OTHERS = "usage.read-others"
_BY = f"of {', '.join(WORDS)}, with commas; '' for one sum"


class Words(click.ParamType[tuple[str, ...]]):
    """Words of `WORDS` with commas between them."""

    name = "words"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:  # fmt: skip
        found = tuple(word.strip() for word in str(value).split(",") if word.strip())
        for word in found:
            if word not in WORDS:
                self.fail(f"usage is not kept by {word!r}; there are: {', '.join(WORDS)}", param, ctx)
        return found


@click.command("usage")
@click.option("--by", default="user,model", show_default=True, type=Words(), help=_BY)
@click.option("--since", type=Moment(), default="7d", show_default=True, help="7d, 2h, or an ISO 8601 time")
@click.option("--until", type=Moment(), help="as --since")
@click.option("--user", "users", multiple=True, help="only this one's; may end in *, as all of these")
@click.option("--group", "groups", multiple=True, help="only of users whose first group this is")
@click.option(
    "--key", "keys", multiple=True, help="only through this key: its name, OWNER/NAME, id or beginning; - for none"
)
@click.option("--deployment", "deployments", multiple=True, help="only of this deployment")
@click.option("--model", "models", multiple=True, help="only of this model")
@click.option("--node", "nodes", multiple=True, help="only on this node")
@click.option("--replica", "replicas", multiple=True, help="only of this replica, e.g. chat/0")
@click.option("--outcome", "outcomes", multiple=True, help="only with this outcome, e.g. ok or timeout")
@click.option("--mine", is_flag=True, help="your own alone, though you may see others'")
@click.option("--csv", "as_csv", is_flag=True, help="comma-separated values")
@with_options_but("user")
def usage(
    by: tuple[str, ...], since: float, until: float | None, mine: bool, as_csv: bool, **chosen: tuple[str, ...]
) -> None:
    """Who used how much: requests, tokens, times and cost.

    Everybody's if you may see them, else your own. Days and hours are UTC's.
    """
    if as_csv and options().json:
        raise click.UsageError("--csv and --json are two formats: say one of them")
    only = {name.removesuffix("s"): texts for name, texts in chosen.items() if texts}

    async def work(client: Client) -> UsageReport:
        all = False if mine else await _may_see_others(client) or "user" in only
        return await client.usage.report(all=all, by=by, since=since, until=until, only=only)

    found = run(work)
    if as_csv:
        say(_csv(found).rstrip("\n"))
    elif options().json:
        as_json(found)
    else:
        _show(found)


async def _may_see_others(client: Client) -> bool:
    """Asked first: a refusal would stand in the trail."""
    return not lacks(await client.access.whoami(), READ_OTHERS, "usage:all")


def _csv(found: UsageReport) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*found.by, *UsageSums.__struct_fields__])
    rows = found.rows if found.by else (UsageRow(group={}, sums=found.total),)
    for row in rows:
        sums = ["" if value is None else value for value in msgspec.structs.astuple(row.sums)]
        writer.writerow([*(_cell(row.group[word]) for word in found.by), *sums])
    return out.getvalue()


def _cell(value: str | int) -> str:
    """A spreadsheet takes what begins with one of these for a formula."""
    text = line(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@")) else text


# ------------------------------------------------------------------------------------------------ for people


def _show(found: UsageReport) -> None:
    total = found.total
    if not total.requests:
        say("nothing was used" + (" by you" if found.mine else "") + " in that time")
        return
    words = [word for word in found.by if word not in ("uid", "key_name") or (word == "uid" and _uid_tells(found.rows))]
    priced = total.cost is not None
    head = [word.upper() for word in words]
    names = _key_names(found.rows)
    head += ["REQUESTS", "ERRORS", "IN", "CACHED", "OUT", "FIRST p50/p95", "TOTAL p50/p95"]
    head += ["CORE-HOURS", line(found.currency).upper() or "COST"] if priced else []
    rows = [
        [*(names[str(row.group[word])] if word == "key" else row.group[word] for word in words),
         *_figures(row.sums, priced)]
        for row in found.rows
    ]  # fmt: skip
    if len(rows) != 1:
        rows.append([*(["all", *[""] * (len(words) - 1)] if words else []), *_figures(total, priced)])
    table(head, rows)
    if options().quiet:
        return
    if found.left_out:
        one = found.left_out == 1
        note(
            f"{found.left_out} more {plural(found.left_out, 'row')} {'is' if one else 'are'} not shown,"
            f" and {'is' if one else 'are'} in the last one: ask for less at once"
        )
    if total.estimated:
        note(f"~ is estimated: of {total.estimated} {plural(total.estimated, 'request')} no engine told all tokens")
    if priced and total.unpriced:
        note(f"* is without {total.unpriced} {plural(total.unpriced, 'request')} of models that have no price")


def _key_names(rows: Sequence[UsageRow]) -> dict[str, str]:
    """By id what a key is shown as: its name, with the id where two keys had the name; a dash for no key."""
    names = {str(row.group["key"]): str(row.group.get("key_name", "")) for row in rows if "key" in row.group}
    several = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {
        id: (f"{name} ({id})" if name in several and name else name or id or "-") for id, name in names.items()
    }  # fmt: skip


def _uid_tells(rows: Sequence[UsageRow]) -> bool:
    """Whether a name had two uids."""
    both = {(row.group["user"], row.group["uid"]) for row in rows}
    return len(both) != len({user for user, _ in both})


def _figures(sums: UsageSums, priced: bool) -> list[str]:
    about = "~" if sums.estimated else ""
    figures = [
        str(sums.requests), str(sums.errors), f"{about}{sums.prompt_tokens}", str(sums.cached_tokens),
        f"{about}{sums.answer_tokens}", _times(sums.first_token_p50_s, sums.first_token_p95_s),
        _times(sums.total_p50_s, sums.total_p95_s),
    ]  # fmt: skip
    if priced:
        cost = "-" if sums.cost is None else f"{sums.cost:.4f}" + ("*" if sums.unpriced else "")
        figures += [f"{sums.core_hours:.3f}", cost]
    return figures


def _times(median: float | None, most: float | None) -> str:
    return "-" if median is None or most is None else f"{median:.2g}/{most:.2g} s"
