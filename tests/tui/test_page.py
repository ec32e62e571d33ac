"""A page for an auditor: whatever a name, a reason or an object says, it is text on the page and nothing else."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tui.page import Section, as_html, as_markdown
from tui.plain import line

MARKDOWN = MarkdownIt("commonmark").enable("table")
TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td",
    "strong",
}  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>", "[x](javascript:alert(1))", "![x](http://evil/x.png)", "a|b|c", "`code`", "**bold**",
    "# title", "- item", "1. item", "1) item", "> quote", "---", "===", "\\|", "&lt;b&gt;", "&#60;b&#62;",
    "http://evil.example", "www.evil.example", "<http://evil>", "~~x~~", "$x$", "||", "\\", "</td></tr></table><b>",
    "a\nb\n\n# c", "[^1]", ":---:",
    "\x1b[31mred\x1b[0m", "\u202eevil", '" onmouseover="x', "'", "${x}", "{{x}}", "    indented", "```",
    "<!-- x -->", "]]>", "\x00", "|---|", "+ item", "* * *", "_x_", "<a href=//evil>", "&nbsp;", "\u00a0x",
]  # fmt: skip


class Seen(HTMLParser):
    """The tags of a page with their attributes, and the text of its cells, paragraphs and headings."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th", "p", "h1", "h2", "title"):
            self.open = tag
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.open:
            self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def page(text: str) -> list[Section]:
    return [Section(text, (text,), (text,), (text, "b"), [(text, text), ("1", text)])]


def expected(text: str) -> list[str]:
    clean = " ".join(line(text).split())
    return [clean, clean, clean, clean, clean, "b", clean, clean, "1", clean]


def check(made: str, text: str, *, titles: int) -> None:
    seen = Seen(made)
    assert {tag for tag, _ in seen.tags} <= TAGS
    for tag, attributes in seen.tags:
        assert not set(attributes) - {"lang", "charset", "http-equiv", "content", "class"}, (tag, attributes)
    found = [" ".join(each.split()) for each in seen.texts]
    if not expected(text)[0]:  # Markdown has no paragraph without letters
        assert [each for each in found if each] == ["b", "1"]
        return
    assert found == expected(text)[:1] * (titles - 1) + expected(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    check(as_html(text, page(text)), text, titles=2)
    check(MARKDOWN.render(as_markdown(text, page(text))), text, titles=1)


@given(st.text(max_size=40) | st.lists(st.sampled_from(HOSTILE), max_size=3).map("".join))
def test_any_text_stays_text(text: str) -> None:
    check(as_html(text, page(text)), text, titles=2)
    check(MARKDOWN.render(as_markdown(text, page(text))), text, titles=1)


def test_a_page_of_html_loads_and_runs_nothing() -> None:
    text = as_html("t", [Section("s", ("x",))])
    assert "default-src 'none'" in text and "<script" not in text and "http://" not in text and "href" not in text


def test_a_link_is_no_link_where_addresses_become_links() -> None:
    for text in ("http://evil.example/x", "https://evil", "www.evil.example", "x@evil.example", "ftp://evil"):
        made = as_markdown(text, [])
        assert "://" not in made and "www." not in made and "@" not in made


def test_a_table_without_rows_says_so() -> None:
    for made in (as_markdown("t", [Section("s", head=("a",))]), as_html("t", [Section("s", head=("a",))])):
        assert "none" in made and "<table" not in made and "|" not in made
