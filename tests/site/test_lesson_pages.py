"""What becomes of a notebook before Sphinx reads it."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))

from coursesite.glossary import terms_of, with_anchors  # noqa: E402  (docs/ is no package of the path)
from coursesite.lesson_pages import LessonPage, executed_or_stored  # noqa: E402
from coursesite.reference import _prose  # noqa: E402

from kdcourse.course.lessons import Lesson  # noqa: E402

HEADER = new_markdown_cell("# 05 · A lesson\n\n***Why?***", id="header")
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def lesson(tmp_path):
    return Lesson(tmp_path / "05_toy.ipynb")


def page_of(lesson, *cells):
    """The page's notebook, and what it is made of."""
    notebook = new_notebook(cells=[HEADER, *cells])
    nbformat.write(notebook, lesson.path)
    page = LessonPage(lesson, notebook, {"01": "01_one.ipynb", "02": "02_two.ipynb", "05": lesson.path.name})
    return page.notebook(), page


def claimed(text, **record):
    return new_output("display_data", data={"text/plain": text}, metadata={"kdcourse_claim": record})


def test_lessons_in_prose_are_linked_and_those_in_code_are_not(lesson):
    """A text that sends a reader to another lesson, and nothing to click; a formula or a name that becomes a link."""
    text = "See lesson 01, and lessons 01 (KL) and 02 (logs). Not `lesson 01`, nor $lesson 01$, lesson 05 or lesson 99."
    notebook, _ = page_of(lesson, new_markdown_cell(text, id="prose"))
    got = next(cell.source for cell in notebook.cells if "See" in cell.source)
    assert got.count("[01](01_one.ipynb)") == 2
    assert got.count("[02](02_two.ipynb)") == 1
    assert "Not `lesson 01`, nor $lesson 01$, lesson 05 or lesson 99." in got


def test_a_claim_is_a_badge_with_its_tolerance(lesson):
    """A number without how far it may be off; one that broke and looks as if it held."""
    outputs = [
        claimed("✓ share: 0.50", name="share", expected=0.5, tolerance=0.01, holds=True, is_truth=False),
        claimed("✗ gain <b>: ≈ 3", name="gain <b>", at_least=4, holds=False, is_truth=False),
        claimed("✓ it is so", name="it is so", at_least=1, holds=True, is_truth=True),
    ]
    notebook, _ = page_of(lesson, new_code_cell("claim()", id="claims", outputs=outputs))
    (output,) = next(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    badges = output.data["text/html"]
    assert badges.count("<li") == 3
    assert "<b>0.50</b>" in badges
    assert "± 0.01" in badges
    assert 'class="fails"' in badges
    assert "gain &lt;b&gt;" in badges
    assert "at least 4" in badges
    assert "at least 1" not in badges


def test_a_picture_keeps_its_words(lesson):
    """A plot whose description is lost between the notebook and the page."""
    picture = new_output("display_data", data={"image/png": PNG}, metadata={"image/png": {"alt": 'Bars: "a" & "b".'}})
    notebook, page = page_of(lesson, new_code_cell("draw()", id="plot", outputs=[picture]))
    (output,) = next(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert 'alt="Bars: &quot;a&quot; &amp; &quot;b&quot;."' in output.data["text/html"]
    assert len(page.pictures) == 1


@pytest.mark.parametrize(
    ("source", "tags", "folded"),
    [
        ("import torch\nx = 1", [], "hide-input"),
        ("x = 1\nimport torch", [], None),
        ("%%capture\nimport torch", [], None),
        ("PROFILE = 1", ["parameters"], "hide-input"),
        ("def solved(): pass", ["solution"], "hide-cell"),
    ],
)
def test_what_is_folded(lesson, source, tags, folded):
    """A solution in the open; code that belongs to the text, and is hidden."""
    notebook, _ = page_of(lesson, new_code_cell(source, id="code", metadata={"tags": tags}))
    got = next(cell for cell in notebook.cells if cell.cell_type == "code").metadata.tags
    assert [tag for tag in got if tag.startswith("hide")] == ([folded] if folded else [])


def test_outputs_of_another_text_are_not_shown(lesson, tmp_path):
    """Yesterday's run beneath today's code."""
    page_of(lesson, new_code_cell("1 + 1", id="sum"))
    folder = tmp_path / "course"
    folder.mkdir()
    outputs = [new_output("stream", text="2")]
    for source, shown in (("1 + 1", 1), ("1 + 2", 0)):
        ran = new_notebook(cells=[HEADER, new_code_cell(source, id="sum", outputs=outputs)])
        nbformat.write(ran, folder / lesson.path.name)
        assert len(executed_or_stored(lesson, folder).cells[1].outputs) == shown


def test_the_glossary_is_read_whole():
    """A term that explains nothing, because its row has another form."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "notebooks/" in line]
    terms = terms_of(text)
    assert len(terms) == len(rows) > 50
    assert with_anchors(text).count('<span id="term-') == len(rows)
    assert len({term.anchor for term in terms}) == len(terms)


def test_a_docstring_becomes_a_list():
    """A page on which all arguments run into one paragraph."""
    arguments = "    one: the first,\n        a number.\n    other: $5 < 6.\n"
    text = f"Adds.\n\nArgs:\n{arguments}\nRaises:\n    ValueError: never.\n"
    assert list(_prose(text)) == [
        "Adds.",
        "**Arguments**",
        "- `one`: the first,\n  a number.\n- `other`: \\$5 \\< 6.",
        "**Raises**",
        "- `ValueError`: never.",
    ]
