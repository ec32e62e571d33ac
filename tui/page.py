"""A page of headings, sentences and tables, as Markdown or HTML. Every text in it is hostile: nothing of it becomes
markup, a link or a character that reorders a line."""

from __future__ import annotations

import html
from collections.abc import Sequence

import msgspec

from tui.plain import line

_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .,:;-/='\"()?%+")
_STYLE = (
    "body{font:15px/1.45 sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#111;background:#fff}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em;width:100%}"
    "th,td{border:1px solid #bbb;padding:.25em .5em;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "th{background:#eee}.bad{font-weight:bold;border-left:.4em solid #b00;padding-left:.5em}"
    "@media print{body{margin:0;max-width:none}tr{break-inside:avoid}}"
)


class Section(msgspec.Struct, frozen=True):
    """A heading with sentences and at most one table below it; `bad` sentences stand out."""

    title: str
    sentences: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: Sequence[Sequence[object]] = ()
    empty: str = "none"
    """What is said instead of a table without rows."""


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """CommonMark with tables."""
    out = [f"# {markdown(title)}", ""]
    for each in sections:
        out += [f"## {markdown(each.title)}", ""]
        out += [f"**{told}**\n" for text in each.bad if (told := markdown(text))]
        out += [f"{markdown(text)}\n" for text in each.sentences]
        if each.head and each.rows:
            out += [_row(each.head), "|" + "---|" * len(each.head), *map(_row, each.rows), ""]
        elif each.head:
            out += [f"{markdown(each.empty)}\n"]
    return "\n".join(out)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(markdown(cell) for cell in cells) + " |"


def markdown(text: object) -> str:
    """`text` on one line, with a character reference for whatever could be markup: those are never read as such."""
    clean = line(text).strip()
    out = "".join(
        each if each in _SAFE or (each.isalnum() and not each.isascii()) else f"&#{ord(each)};" for each in clean
    )
    # What GitHub makes links of without being asked; and what begins a list, a heading's underline or a number.
    out = out.replace("://", "&#58;//").replace("www.", "www&#46;").replace("WWW.", "WWW&#46;")
    first = out[:1]
    if first in ("-", "+", "=", ":") and out:
        out = f"&#{ord(first)};{out[1:]}"
    digits = len(out) - len(out.lstrip("0123456789"))
    if digits and out[digits : digits + 1] in (".", ")"):
        out = f"{out[:digits]}&#{ord(out[digits])};{out[digits + 1 :]}"
    return out


def _referred(letter: str) -> str:
    safe = letter in _SAFE or (letter.isalnum() and not letter.isascii())
    return letter if safe else f"&#{ord(letter)};"


def as_html(title: str, sections: Sequence[Section]) -> str:
    """One file that loads nothing and runs nothing."""
    out = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>",
    ]
    for each in sections:
        out.append(f"<h2>{_text(each.title)}</h2>")
        out += [f'<p class="bad">{_text(text)}</p>' for text in each.bad]
        out += [f"<p>{_text(text)}</p>" for text in each.sentences]
        if each.head and each.rows:
            heads = "".join(f"<th>{_text(cell)}</th>" for cell in each.head)
            out.append(f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>")
            out += ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in each.rows]
            out.append("</tbody>\n</table>")
        elif each.head:
            out.append(f"<p>{_text(each.empty)}</p>")
    return "\n".join([*out, "</body>\n</html>\n"])


def _text(text: object) -> str:
    return html.escape(line(text), quote=True)
