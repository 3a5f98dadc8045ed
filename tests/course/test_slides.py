"""Slides: what is on one can be read, and does not answer the question that it asks."""

import itertools
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from kdcourse.course import slides
from kdcourse.course.lessons import all_lessons


@pytest.fixture(params=all_lessons(), ids=lambda lesson: lesson.name)
def cells(request):
    return nbformat.read(request.param.path, as_version=4).cells


def cut(cells):
    """The pieces, slide by slide."""
    pages = []
    for piece in slides.cut(cells):
        if "slide" in piece.metadata:
            pages.append([])
        pages[-1].append(piece)
    return pages


def printed(lines):
    return new_output("stream", name="stdout", text="\n".join(["line"] * lines))


def test_no_result_stands_beneath_its_prediction(cells):
    """A room that reads the answer while it should be thinking."""
    for page in cut(cells):
        asked = False
        for piece in page:
            assert not (asked and piece.get("outputs"))
            asked |= piece.cell_type == "markdown" and "**Predict" in piece.source


def test_nothing_is_lost_or_shown_twice(cells):
    """A paragraph, an output or a line of code that falls between two slides."""
    pieces = list(itertools.chain(*cut(cells)))
    for kind in ("markdown", "code"):
        shown = [piece for piece in pieces if piece.cell_type == kind and "transient" not in piece.metadata]
        assert words(shown) == words(cell for cell in cells if cell.cell_type == kind)
    outputs = [[output for cell in some for output in cell.get("outputs", [])] for some in (pieces, cells)]
    assert outputs[0] == outputs[1]
    assert len({piece.id for piece in pieces}) == len(pieces)


def words(cells):
    return " ".join(cell.source for cell in cells).split()


def test_a_slide_is_not_overfull(cells):
    """Text below the edge: only a single piece may be larger than a slide; the page shrinks it, or scrolls."""
    for page in cut(cells):
        heights = [slides._height(piece) for piece in page if not slides.HEADING.match(piece.source)]
        assert len(heights) == 1 or sum(heights) <= slides.SLIDE


def test_no_slide_is_a_heading_alone(cells):
    """A click for four words."""
    for page in cut(cells):
        assert not all(piece.cell_type == "markdown" and slides.HEADING.match(piece.source) for piece in page)
        assert all(piece.source for piece in page)


def test_long_code_and_its_outputs_get_slides_of_their_own():
    """Forty lines of code, and the result that everybody waits for below the edge."""
    cell = new_code_cell("\n".join(["x = 1"] * 20), outputs=[printed(20), printed(8), printed(3)], id="long")
    code, first, second = cut([new_markdown_cell("## 1 · One"), new_markdown_cell("**Predict.** How many?"), cell])[1:]
    assert [piece.outputs for piece in code] == [[]]
    assert [len(page[0].outputs) for page in (first, second)] == [1, 2]
    assert all(page[0].metadata.transient.remove_source for page in (first, second))


def test_a_slide_knows_its_section():
    """A slide that somebody who looks up cannot place."""
    prose = "A sentence of some length. " * 60
    text = f"## 1 · One\n\n{prose}\n\n{prose}\n\n### Below\n\nMore."
    assert [page[0].metadata.slide for page in cut([new_markdown_cell(text)])] == ["1 · One"] * 3


def test_what_belongs_together_is_not_torn():
    """Half a code block, or a list item without its second paragraph."""
    text = "Before:\n\n```python\na = 1\n\n## no heading\nb = 2\n```\n\n- item\n\n  goes on\n\nAfter."
    blocks = list(slides._blocks(text))
    assert [re.split(r"\n+", block)[0] for block in blocks] == ["Before:", "```python", "- item", "After."]
    assert blocks[1].endswith("b = 2\n```")
    assert blocks[2] == "- item\n\n  goes on"
