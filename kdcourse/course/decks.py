"""A lesson's slides as one HTML page, with notes for the speaker; the list of all decks; and a deck on paper.

The page has 127 lines of script of its own, and none of reveal.js: that would bring half a megabyte to each of fourteen
files, has no MathML of ours, and scales a slide that is too full beneath the size that a back row can read, where
`kdcourse.course.slides` cuts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup
from nbconvert.filters import Highlight2HTML
from nbformat import NotebookNode

from kdcourse.course.canvas import indent_of, picture_size
from kdcourse.course.formulas import markdown_to_html
from kdcourse.course.html_pages import TEMPLATES, policy
from kdcourse.course.lessons import Lesson
from kdcourse.course.slide_pieces import Block, is_prose, lines_of, merged, part_of, picture_of, text_of
from kdcourse.course.slides import Row, Slide
from kdcourse.course.text import visible

SLIDES = re.compile(r'<meta name="slides" content="(\d+)">')


@dataclass(frozen=True)
class Page:
    """A slide as its template needs it."""

    section: str
    html: Markup
    notes: Markup
    is_question: bool


def deck_page(title: str, slides: Sequence[Slide], notes: Iterable[Sequence[str]]) -> str:
    """The HTML of a deck.

    Args:
        notes: for each slide, paragraphs of Markdown for the speaker.
    """
    pages = [
        Page(
            slide.section.replace("`", "").replace("*", ""),
            Markup("\n").join(_row(row, slide) for row in slide.rows),
            _markdown("\n\n".join(said)),
            {row.left.kind for row in slide.rows} == {"question"},
        )
        for slide, said in zip(slides, notes, strict=True)
    ]
    script = (TEMPLATES / "slides.js").read_text(encoding="utf-8")
    css = (TEMPLATES / "slides.css").read_text(encoding="utf-8")
    return _render(
        "slides.html", title=title, slides=pages, script=_safe(script), css=_safe(css), policy=policy(script)
    )


@dataclass(frozen=True)
class Listed:
    """A deck in the list of decks."""

    lesson: Lesson
    file: str
    slides: int
    pdf: str


def decks_page(decks: Sequence[Listed]) -> str:
    """The page that leads to all decks."""
    return _render("decks.html", decks=decks, policy=policy())


def listed(lesson: Lesson, folder: Path) -> Listed | None:
    """The deck of a lesson in this folder, if there is one."""
    deck = folder / f"{lesson.name}.html"
    found = SLIDES.search(deck.read_text(encoding="utf-8", errors="replace")) if deck.is_file() else None
    pdf = deck.with_suffix(".pdf")
    return Listed(lesson, deck.name, int(found[1]), pdf.name if pdf.is_file() else "") if found else None


def _safe(html: str) -> Markup:
    """What is HTML, style or script already, of ours or of a lesson; the page's policy lets no other script run."""
    return Markup(html)  # noqa: S704


def _render(name: str, **content: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(f"{name}.j2").render(**content)


def _row(row: Row, slide: Slide) -> Markup:
    if row.right is None:
        return _block(row.left, slide)
    shares = (1 - row.share, row.share)
    columns = (
        Markup('<div class="column" style="--share: {:.3f}">{}</div>').format(share, _block(block, slide, share))
        for share, block in zip(shares, (row.left, row.right), strict=True)
    )
    return Markup('<div class="beside">{}</div>').format(Markup("").join(columns))


def _block(block: Block, slide: Slide, share: float = 1.0) -> Markup:
    if block.kind == "prose":
        return Markup('<div class="prose">{}</div>').format(_markdown(block.source))
    if block.kind == "question":
        return _question(block.source)
    if block.kind == "code":
        return _code(block, slide)
    return Markup("\n").join(_output(output, share) for output in merged(block.outputs))


def _markdown(source: str) -> Markup:
    return _safe(markdown_to_html(source, exclude_anchor_links=True))


def _question(text: str) -> Markup:
    question, *choices = (line.strip() for line in text.splitlines())
    items = Markup("").join(Markup("<li>{}</li>").format(_with_code(choice.lstrip("○ "))) for choice in choices)
    asked = Markup("<p>{}</p>").format(_with_code(question))
    return Markup('<div class="question">{}{}</div>').format(
        asked, Markup("<ol>{}</ol>").format(items) if items else ""
    )


def _with_code(text: str) -> Markup:
    """Plain text, in which backquotes set code."""
    parts = enumerate(text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in parts)


FRAME_OF_CODE = re.compile(r"^<div[^>]*><pre>(<span></span>)?|</pre></div>\s*$")


def _code(block: Block, slide: Slide) -> Markup:
    """Coloured lines; where the cell's code goes on from or to another slide, that is said."""
    html = FRAME_OF_CODE.sub("", Highlight2HTML(pygments_lexer="python")(block.source))
    lines = Markup("").join(
        Markup('<span class="codeline" style="--indent: {}ch">{}</span>').format(indent_of(line), _safe(coloured))
        for line, coloured in zip(block.source.split("\n"), html.rstrip("\n").split("\n"), strict=True)
    )
    first, last = slide.pieces[0], slide.pieces[-1]
    before = after = Markup("")
    if slide.continued and block.pieces[0] is first:
        within = f", in {first.opening}" if first.opening else ""
        before = Markup('<span class="from">… continued{}</span>').format(within)
    if slide.continues and block.pieces[-1] is last:
        after = Markup('<span class="onward">continues …</span>')
    return Markup('<pre class="{}">{}{}{}</pre>').format("goes-on" if after else "", before, lines, after)


def _output(output: NotebookNode, share: float) -> Markup:
    if png := picture_of(output):
        alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
        part, parts = part_of(output)
        width, height = picture_size(png, share, parts=parts)
        return Markup(
            '<div class="picture{}" style="--width: {:.0f}; --height: {:.0f}; --part: {:.0%}">'
            '<img src="data:image/png;base64,{}" alt="{}"></div>'
        ).format(" in-parts" if parts > 1 else "", width, height, part / max(parts - 1, 1), png.replace("\n", ""), alt)
    if is_prose(output):
        return Markup('<p class="revealed">{}</p>').format(visible(text_of(output)))
    lines = Markup("").join(Markup("<span>{}</span>").format(visible(line)) for line in lines_of(output))
    return Markup('<div class="printed">{}</div>').format(lines)
