"""What becomes of a notebook before Sphinx reads it."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))

from coursesite import reasons_beneath, side_by_side, staging  # noqa: E402  (docs/ is no package of the path)
from coursesite.glossary import terms_of, with_anchors  # noqa: E402
from coursesite.lean import PLAIN, write_one_sheet  # noqa: E402
from coursesite.lesson_pages import LessonPage, executed_or_stored  # noqa: E402
from coursesite.passages import as_script, passages_of  # noqa: E402
from coursesite.reference import _prose  # noqa: E402
from coursesite.turns import Turn, all_turns  # noqa: E402

from kdcourse.course.formulas import mathml  # noqa: E402
from kdcourse.course.lessons import Lesson, course_lessons, source_of  # noqa: E402

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
    text += " Lesson **02 · Logs** is next."
    notebook, _ = page_of(lesson, new_markdown_cell(text, id="prose"))
    got = next(cell.source for cell in notebook.cells if "See" in cell.source)
    assert got.count("[01](01_one.ipynb)") == 2
    assert got.count("[02](02_two.ipynb)") == 1
    assert "Not `lesson 01`, nor $lesson 01$, lesson 05 or lesson 99." in got
    assert got.endswith("Lesson [02 · Logs](02_two.ipynb) is next.")


def test_each_of_several_lessons_is_linked_and_so_is_a_page(lesson):
    """Prerequisites of which only the first can be clicked; a page that is named, and has to be looked for."""
    text = (
        "**Prerequisites:** lessons 01, 02 and 05. Lab 02 asks, as lessons 01 to 02 did; see `docs/porting.md`. In 02."
    )
    notebook, _ = page_of(lesson, new_markdown_cell(text, id="prose"))
    got = next(cell.source for cell in notebook.cells if "Prerequisites" in cell.source)
    assert "lessons [01](01_one.ipynb), [02](02_two.ipynb) and 05. Lab [02](02_two.ipynb) asks" in got
    assert "lessons [01](01_one.ipynb) to [02](02_two.ipynb) did; see [`docs/porting.md`](../docs/porting.md)." in got
    assert got.endswith("In 02.")


def test_what_only_a_linter_reads_is_not_on_the_page(lesson):
    """A reader who wonders what `fmt: skip` does for distillation; a comment for people that goes with it."""
    code = "run(  # noqa: S603  (our own)\n    1, 2,\n)  # fmt: skip\nx = 1  # one"
    notebook, _ = page_of(lesson, new_code_cell(code, id="code"))
    assert next(cell.source for cell in notebook.cells if cell.id == "code") == "run(\n    1, 2,\n)\nx = 1  # one"


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
    titles = {term.lesson: f"Title of {term.lesson}" for term in terms}
    page = with_anchors(text, titles)
    assert page.count('<span id="term-') == page.count(".html#cell-") == len(rows)
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert headings == [titles[number] for number in re.findall(r"^## (\d\d)$", text, re.MULTILINE)]
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


def test_an_unknown_cell_is_refused(monkeypatch, tmp_path):
    """Something to turn that is gone from its lesson, because a cell was renamed."""
    monkeypatch.setattr(staging, "all_turns", lambda: [Turn("x", "X", "03", "no-such-cell", "")])
    with pytest.raises(ValueError, match="no-such-cell, which is no cell of 03_"):
        staging.stage(tmp_path, tmp_path)


@pytest.mark.parametrize("turn", all_turns(), ids=lambda turn: turn.name)
def test_nothing_to_turn_answers_an_open_prediction(turn):
    """A slider that shows the result which the next cell asks for."""
    lesson = next(lesson for lesson in course_lessons() if lesson.number == turn.lesson)
    sources = [source_of(cell) for cell in lesson.cells]
    above = "\n".join(sources[: [cell["id"] for cell in lesson.cells].index(turn.cell) + 1])
    asked, revealed = (set(re.findall(rf'{call}\(\s*"([^"]+)"', above)) for call in ("predict", "reveal"))
    assert set(turn.answers) <= revealed
    assert asked == revealed, "it stands between a question and its result"


def test_a_passage_is_a_section_or_a_row_that_leads_somewhere():
    """A question that the search finds on a page of a hundred, and not where it is answered; code found like prose."""

    def row(*cells):
        return nodes.row("", *(nodes.entry("", cell) for cell in cells))

    def words(text):
        return nodes.paragraph("", text)

    asks = row(words("1"), words("is it negative?"), nodes.raw("", 'href="../lessons/02_two.html#cell-signs"'))
    table = nodes.table("", nodes.tgroup("", nodes.tbody("", asks, row(words("loose")))))
    code = nodes.literal_block("", "hidden = 1")
    inner = nodes.section("", nodes.title("", "Softened"), words("Each teacher."), code, table, ids=["inner"])
    page = new_document("asked")
    page += nodes.section("", nodes.title("", "Asked"), words("Small words."), inner, ids=["top"])
    found = list(passages_of(page, "docs/asked", {"docs/asked": "Asked", "lessons/02_two": "02 · Two"}))
    assert [(each.page, each.anchor, each.title, each.within) for each in found] == [
        ("docs/asked", "", "Asked", ""),
        ("docs/asked", "#inner", "Asked › Softened", ""),
        ("lessons/02_two", "#cell-signs", "02 · Two › is it negative?", "Asked"),
    ]
    assert [{*each.words} for each in found] == [{"ask", "small", "word"}, {"soften", "teacher", "loos"}, {"negat"}]
    assert '"negat":[2,' in as_script(found)


@pytest.mark.parametrize(
    ("tex", "parts"),
    [
        (r"a = b \qquad c = d", ["a = b ", " c = d"]),
        (r"a \quad\text{and so}\quad b", ["a ", r"\text{and so}", " b"]),
        (r"\text{if \quad so}", [r"\text{if \quad so}"]),
        (r"\begin{aligned}a &= b \quad c\end{aligned}", [r"\begin{aligned}a &= b \quad c\end{aligned}"]),
    ],
)
def test_formulas_that_stand_apart_may_stand_beneath_each_other(tex, parts):
    """Two formulas in one line that is wider than a phone; one that is cut where it belongs together."""
    assert side_by_side(tex) == parts


def test_the_reason_of_a_line_may_stand_beneath_it():
    """A derivation on a phone whose reasons are past the edge; a formula without reasons that gains empty rows."""
    derivation = r"\begin{aligned}a &= b + b && \text{a sum} \\ &= 2b\end{aligned}"
    markup = BeautifulSoup(reasons_beneath(mathml(derivation, "block")), "html.parser")
    rows = [(row.get("class"), row.get_text().strip()) for row in markup.select("mtr")]
    assert [kind for kind, _ in rows] == [None, ["beneath"], None]
    assert rows[1][1].replace("\xa0", " ") == "a sum"
    assert markup.select_one("mtr .beside mtext").get_text().replace("\xa0", " ") == "a sum"
    for plain in (r"a = \frac{b}{c}", r"\begin{aligned}a &= b \\ &= c\end{aligned}"):
        before, after = (
            BeautifulSoup(form, "html.parser")
            for form in (mathml(plain, "block"), reasons_beneath(mathml(plain, "block")))
        )
        assert before.get_text() == after.get_text()


def test_code_without_colour_has_no_tags():
    """A page that is a third heavier for names in the colour of the text; a keyword that loses its own."""
    code = '<span class="k">def</span><span class="w"> </span><span class="n">f</span><span class="p">(</span>'
    assert PLAIN.sub(r"\1", code) == '<span class="k">def</span> f('


def test_style_sheets_become_one(tmp_path):
    """A rule that is lost, or comes before the one that it overrides; a picture beside a sheet that has moved."""
    static = tmp_path / "_static"
    (static / "styles").mkdir(parents=True)
    ours = static / "course.css"
    (static / "styles" / "theme.css").write_text("/* long */\na {\n  color: red;\n}\n", encoding="utf-8")
    ours.write_text(".highlight .k { top: 0 }\n.highlight .mi { top: 0 }\na { color: blue; }\n", encoding="utf-8")
    sheets = ["_static/styles/theme.css?v=1", "_static/course.css?v=2"]
    write_one_sheet(tmp_path, sheets, {"k"})
    merged = "\na {\ncolor: red;\n}\n.highlight .k { top: 0 }\na { color: blue; }\n"
    assert ours.read_text(encoding="utf-8") == merged
    with pytest.raises(ValueError, match="last style sheet"):
        write_one_sheet(tmp_path, sheets[::-1], set())
    ours.write_text("a { background: url(dot.png); }", encoding="utf-8")
    with pytest.raises(ValueError, match=r"url\(dot.png\)"):
        write_one_sheet(tmp_path, sheets, set())
