"""Terms of `docs/glossary.md`: where each is introduced, and what a lesson shows of it beside its first use."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

ROW = re.compile(
    r"^\| (?P<term>[^|]+?) \| (?P<meaning>[^|]+?) "
    r"\| \[(?P<lesson>\d\d)\]\((?P<there>[^)]+)\.ipynb\) `(?P<cell>[^`]+)` \|$",
    re.MULTILINE,
)
HEADING = re.compile(r"^## (\d\d)$", re.MULTILINE)
OF_THE_COURSE = "how"
"""The cell that introduces words of the course itself, such as "claim", which texts also use as everybody does."""
PAGE = Path(__file__).parents[1] / "glossary.md"
APART = (nodes.reference, nodes.literal, nodes.literal_block, nodes.title, nodes.raw, nodes.math, nodes.math_block)
"""What keeps its words as they are."""


@dataclass(frozen=True)
class Term:
    """A row of the glossary."""

    written: str
    meaning: str
    lesson: str
    cell: str

    @property
    def anchor(self) -> str:
        return anchor_of(self.written)

    @property
    def words(self) -> list[str]:
        """As texts write it: "Kullback–Leibler divergence (KL)" is also written KL."""
        name, _, aside = self.written.partition(" (")
        short = aside.rstrip(")")
        return [each for each in (name, short if short.isupper() else "") if re.search(r"[a-zA-Z]", each)]


def anchor_of(term: str) -> str:
    """The id of a term's row."""
    return "term-" + re.sub(r"\W+", "-", term.lower()).strip("-")


def terms_of(page: str) -> list[Term]:
    """The terms of the glossary's text, in its order."""
    return [Term(found["term"], found["meaning"], found["lesson"], found["cell"]) for found in ROW.finditer(page)]


def with_anchors(page: str, titles: Mapping[str, str]) -> str:
    """The glossary's text, whose rows can be linked to, and lead to their cells; headings get the lessons' `titles`."""

    def linked(found: re.Match[str]) -> str:
        anchor = f'<span id="{anchor_of(found["term"])}"></span>'
        there = f'<a href="{found["there"]}.html#cell-{found["cell"]}">lesson {found["lesson"]}</a>'
        return f"| {anchor}{found['term']} | {found['meaning']} | {there} |"

    return HEADING.sub(lambda found: f"## {titles[found[1]]}", ROW.sub(linked, page))


class ExplainTerms(SphinxPostTransform):
    """The first use of each term in a lesson leads to the glossary, and says the meaning under the pointer."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_: object) -> None:
        """Called by Sphinx for each page."""
        lesson = re.match(r"notebooks/(\d\d)_", self.env.docname)
        if not lesson:
            return
        known = [term for term in terms_of(PAGE.read_text(encoding="utf-8")) if term.lesson <= lesson[1]]
        waiting = {word.casefold(): term for term in known if term.cell != OF_THE_COURSE for word in term.words}
        for text in list(self._prose()):
            if pieces := _explained(text.astext(), waiting):
                text.parent.replace(text, pieces)

    def _prose(self) -> Iterator[nodes.Text]:
        for text in self.document.findall(nodes.Text):
            parents = []
            node = text.parent
            while node is not None:
                parents.append(node)
                node = node.parent
            if any(isinstance(node, nodes.paragraph) for node in parents) and not any(
                isinstance(node, APART) for node in parents
            ):
                yield text


def _explained(text: str, waiting: dict[str, Term]) -> list[nodes.Node]:
    """The text in pieces, with a link at the first use of each term, which then waits no longer; or nothing."""
    if not waiting:
        return []
    words = "|".join(re.escape(word) for word in sorted(waiting, key=len, reverse=True))
    pieces: list[nodes.Node] = []
    end = 0
    for found in re.finditer(rf"(?<![\w-])({words})(?![\w-])", text, re.IGNORECASE):
        term = waiting.get(found[0].casefold())
        if term is None:
            continue
        for word in term.words:
            waiting.pop(word.casefold(), None)
        pieces += [nodes.Text(text[end : found.start()]), nodes.raw("", _link(term, found[0]), format="html")]
        end = found.end()
    return [*pieces, nodes.Text(text[end:])] if pieces else []


def _link(term: Term, word: str) -> str:
    meaning = html.escape(re.sub(r"[`*]", "", term.meaning), quote=True)
    return (
        f'<a class="term" href="../docs/glossary.html#{term.anchor}" data-meaning="{meaning}">{html.escape(word)}</a>'
    )
