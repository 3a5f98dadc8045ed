"""What the search finds: sections, questions, symptoms and terms, each with the place where its answer stands.

Sphinx keeps which word is on which page. That finds every page that holds the words of a question, in no order; a
passage is short enough to be about something, and `_static/course.js` orders passages by BM25 (Robertson and
Zaragoza 2009, section 3).
"""

from __future__ import annotations

import json
import posixpath
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.search.en import SearchEnglish

if TYPE_CHECKING:
    from sphinx.application import Sphinx

OWN_ANCHOR = re.compile(r'id="(term-[^"]+)"')
CELL = re.compile(r'href="(?P<page>[^"#]+)\.html(?P<anchor>#[^"]+)"')
NO_PROSE = (nodes.raw, nodes.literal_block, nodes.math_block, nodes.comment, nodes.title)
LONGEST = 110
"""Letters of a title in a list of results."""
AGAIN = 2
"""How many times more a word of a name counts than one beneath it."""
SENTENCE = 60
"""Letters from which on a row's first cell is a sentence, and no name."""
LANGUAGE = SearchEnglish({})
ALSO = {
    "squared": "T²",
    "square": "T²",
    "vocab": "vocabulary tokenizer",
    "oom": "memory",
    "vram": "memory",
    "gpu": "accelerator CUDA",
    "significant": "chance interval verdict",
    "significance": "chance interval verdict",
    "mismatch": "differ refused",
    "long": "minutes seconds",
    "slow": "seconds cost",
    "money": "cost",
    "price": "cost",
    "crash": "resumed stopped",
    "api": "server",
    "overconfident": "calibration sure",
    "worse": "below",
    "generates": "writes",
    "generated": "written",
}
"""Words that people ask with, and those of the course."""


@dataclass(frozen=True)
class Passage:
    """A result: where it leads, what it is called, and the words that find it."""

    page: str
    """A path from the root, without suffix."""
    anchor: str
    """With its `#`, or nothing for the whole page."""
    title: str
    within: str
    """The page that it is a row of; nothing for a section, of which the search shows the beginning."""
    words: Counter[str]


@cache
def _stem(word: str) -> str:
    """As Sphinx's own script cuts a word that is typed; empty for one that is everywhere."""
    return LANGUAGE.stem(word) if LANGUAGE.word_filter(word) else ""


def stems_of(text: str) -> list[str]:
    """The stems of a text's words, in their order."""
    return [stem for word in LANGUAGE.split(text.lower()) if (stem := _stem(word))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    pages: dict[str, nodes.document] = {}

    def keep(app: Sphinx, doctree: nodes.document, page: str) -> None:
        pages[page] = doctree

    def write(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
        """The search comes behind all pages, and alone needs the passages."""
        if page == "search":
            titles = {name: title.astext() for name, title in app.env.titles.items()}
            found = [each for name in sorted(pages) for each in passages_of(pages[name], name, titles)]
            (Path(app.outdir) / "_static" / "passages.js").write_text(as_script(found), encoding="utf-8")
            app.add_js_file("passages.js")

    app.connect("doctree-resolved", keep)
    app.connect("html-page-context", write)
    return {"parallel_read_safe": True, "parallel_write_safe": False}


def passages_of(document: nodes.document, page: str, titles: dict[str, str]) -> Iterator[Passage]:
    """The sections of a page, and the rows of its tables that lead somewhere.

    Args:
        titles: of all pages, by their paths.
    """
    for section in document.findall(nodes.section):
        name = section.next_node(nodes.title).astext()
        is_page = section.parent is document
        rows = {id(row) for part in _own(section) for row in part.findall(nodes.row) if _leads_to(row, page)}
        text = " ".join(text.astext() for part in _own(section) for text in _prose(part, rows))
        words = Counter(stems_of(text)) + Counter((1 + AGAIN) * stems_of(name))
        anchor, title = ("", titles[page]) if is_page else (f"#{section['ids'][0]}", f"{titles[page]} › {name}")
        yield Passage(page, anchor, title, "", words)
    for row in document.findall(nodes.row):
        if there := _leads_to(row, page):
            cells = [" ".join(text.astext() for text in _prose(cell, set())) for cell in row.findall(nodes.entry)]
            name = next(cell for cell in cells if not cell.strip().isdigit())
            words = Counter(stems_of(" ".join(cells))) + Counter(AGAIN * stems_of(name) if len(name) < SENTENCE else ())
            title = f"{titles[there[0]]} › {textwrap.shorten(name, LONGEST, placeholder=' …')}"
            yield Passage(*there, title, titles[page], words)


def as_script(passages: list[Passage]) -> str:
    """What the search page loads: passages, and those that hold each stem, as steps to the next one and counts."""
    where: dict[str, list[int]] = {}
    last: dict[str, int] = {}
    for number, passage in enumerate(passages):
        for word, count in passage.words.items():
            where.setdefault(word, []).extend((number - last.get(word, 0), count))
            last[word] = number
    shown = [[each.page, each.anchor, each.title, each.within, each.words.total()] for each in passages]
    also = {stems_of(word)[0]: stems_of(others) for word, others in ALSO.items()}
    data = json.dumps({"all": shown, "where": where, "also": also}, ensure_ascii=False, separators=(",", ":"))
    return f"globalThis.kdcourse ??= {{ turns: {{}}, parts: {{}} }};\nkdcourse.passages = {data};\n"


def _own(section: nodes.section) -> list[nodes.Node]:
    """What is in a section and in none of its own sections."""
    return [part for part in section.children if not isinstance(part, nodes.section)]


def _prose(part: nodes.Node, without: set[int]) -> Iterator[nodes.Text]:
    """Texts that are no code, no markup, and in no row of `without`."""
    if isinstance(part, NO_PROSE) or id(part) in without:
        return
    if isinstance(part, nodes.Text):
        yield part
        return
    for child in part.children:
        yield from _prose(child, without)


def _leads_to(row: nodes.row, page: str) -> tuple[str, str] | None:
    """The page and the anchor of a row's answer: the row itself where it has an id, or else the first cell it links."""
    markup = "".join(raw.astext() for raw in row.findall(nodes.raw))
    if own := OWN_ANCHOR.search(markup):
        return page, f"#{own[1]}"
    if cell := CELL.search(markup):
        return posixpath.normpath(posixpath.join(posixpath.dirname(page), cell["page"])), cell["anchor"]
    return None
