"""Slides: what is on one can be read, and does not answer the question that it asks."""

import ast
import itertools
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from kdcourse.course import canvas, decks, slides, statements
from kdcourse.course.editions import _shown_on_slides
from kdcourse.course.exercises import all_exercises
from kdcourse.course.lessons import all_lessons, find_lessons
from kdcourse.course.no_break import unbroken
from kdcourse.course.slide_pieces import lines_of, picture_of
from kdcourse.course.speaker_notes import Lecture


@pytest.fixture(scope="module", params=all_lessons(), ids=lambda lesson: lesson.name)
def cells(request):
    return list(_shown_on_slides(nbformat.read(request.param.path, as_version=4)))


@pytest.fixture(scope="module")
def deck(cells):
    return slides.cut(cells)


def printed(lines):
    return new_output("stream", name="stdout", text="\n".join(["line"] * lines))


def code_of(slide):
    return [block for block in slide.blocks if block.kind == "code"]


def test_no_result_stands_beneath_its_prediction(deck):
    """A room that reads the answer while it should be thinking."""
    asked = 0
    for slide in deck:
        kinds = [block.kind for block in slide.blocks]
        assert "question" not in kinds[:-1]
        asked += kinds[-1:] == ["question"]
    assert asked > 5


def test_nothing_stands_beneath_an_exercise(cells, deck):
    """What comes next in the lesson often is the answer."""
    stubs = {cell.id for cell in cells if "exercise" in cell.metadata.get("tags", [])}
    ends = {slide.blocks[-1].cell for slide in deck if not slide.continues}
    assert stubs <= ends


def test_nothing_is_lost_or_shown_twice(cells, deck):
    """A paragraph, an output or a line of code that falls between two slides."""
    pieces = [piece for slide in deck for piece in slide.pieces]
    asks = {cell.id for cell in cells if "prediction" in cell.metadata.get("tags", [])}
    code = [cell for cell in cells if cell.cell_type == "code" and cell.id not in asks]
    for cell in code:
        shown = "\n".join(piece.source for piece in pieces if piece.kind == "code" and piece.cell == cell.id)
        assert shown == re.sub(r" +# (fmt: skip|noqa: \w+.*)", "", cell.source)
        results = [p for p in pieces if p.tells and p.kind != "code" and re.fullmatch(rf"{cell.id}(-\d+)?", p.cell)]
        assert words("".join(each.text for each in results)) == words("".join(map(said, cell.outputs)))
    for cell in cells:
        if cell.cell_type == "markdown":
            shown = " ".join(piece.source for piece in pieces if piece.cell == cell.id)
            assert words(shown) == words(re.sub(r"</?(details|summary)>", " ", cell.source))
    assert [piece.cell for piece in pieces if piece.kind == "question"] == [
        cell.id for cell in cells if cell.id in asks
    ]


def said(output):
    return output.get("text") or output.data.get("text/markdown") or output.data["text/plain"]


def words(text):
    """Without the signs that begin and end a table, a derivation or a title."""
    text = re.sub(r"\\(begin|end)\{aligned\}|\\\\(?=\n)|\$\$|\*\*", " ", text)
    return re.sub(r"\s", "", text).replace("\N{NON-BREAKING HYPHEN}", "-")


def test_a_slide_is_not_overfull(deck):
    """Text below the edge, or thirty lines of code."""
    for slide in deck:
        assert slide.code_lines <= 12
        assert slide.height(smallest=True) <= canvas.HEIGHT


def test_code_is_torn_between_statements(deck):
    """Half a call on a slide. Only what has more than twelve lines itself is torn, and where it is, that is said."""
    for slide, following in itertools.pairwise(deck):
        assert slide.continues == following.continued
        for piece in following.pieces[:1]:
            if following.continued and piece.joint == statements.IN_A_STATEMENT:
                assert slide.code_lines >= 6


def test_no_slide_is_a_heading_alone(deck):
    """A click for four words; the title of a table at the foot of the slide before."""
    assert not [slide.pieces[-1].source for slide in deck if slide.pieces[-1].leads]


WIDER = {"no-threes-figure", "train-tokenizer"}
"""Cells whose figures are a little wider than a slide: digits in a row, and a sentence in a line."""


def test_no_other_figure_is_wider_than_a_slide(cells):
    """A figure whose words a back row cannot read."""
    pictures = [(cell.id, picture_of(output)) for cell in cells for output in cell.get("outputs", [])]
    widths = {name: canvas.size_of(png)[0] * canvas.LEAST_ZOOM for name, png in pictures if png}
    assert {name for name, width in widths.items() if width > canvas.WIDTH - canvas.GAP} <= WIDER
    assert max(widths.values(), default=0) * 0.9 < canvas.WIDTH


def test_no_result_announces_the_next_slide(deck):
    """ "A student that is near:", and nothing beneath it."""
    results = [slide.pieces[-1].text for slide in deck if slide.pieces[-1].kind == "result"]
    assert not [text for text in results if text.rstrip().endswith(":")]


def test_few_slides_say_little(deck):
    """A click for one line, again and again."""
    sparse = [slide for slide in deck if slide.words < 25]
    assert len(sparse) <= max(3, len(deck) // 20)


@pytest.mark.parametrize(
    "source",
    [
        "\n".join(f"x{number} = {number}" for number in range(40)),
        "def f():\n" + "\n".join(f"    x{number} = {number}" for number in range(40)),
        "rows = [\n" + "\n".join(f"    {number}," for number in range(40)) + "\n]",
        "class A:\n" + "\n\n".join(f"    # about {n}\n    def f{n}(self):\n        return {n}" for n in range(12)),
        "%%time\n" + "\n\n".join(f"for each in range({n}):\n    print(each)" for n in range(12)),
        "this is\n\nno python\n" * 9,
        'text = """\n' + "line\n" * 30 + '"""',
        "",
    ],
)
def test_pieces_of_code_are_short_and_are_the_code(source):
    """Forty lines at once, or a line that is gone."""
    pieces = statements.statements_of(source)
    assert "\n".join(piece.source for piece in pieces) == source.removesuffix("\n")
    assert all(len(piece.source.splitlines()) <= 12 for piece in pieces)


def test_a_comment_stays_with_its_code():
    """A sentence about the next slide."""
    pieces = [
        piece.source
        for piece in statements.statements_of(
            "a = 1\n# about b\nb = 2\n\n# about f\n@g\ndef f():\n    c = 3\n    # about d\n    d = 4"
        )
    ]
    assert pieces == ["a = 1", "# about b\nb = 2", "\n# about f\n@g\ndef f():\n    c = 3", "    # about d\n    d = 4"]
    assert ast.unparse(ast.parse("\n".join(pieces)))


def test_a_head_is_not_left_alone():
    """`def f():` and what f is for, without what it does; a last `return` on a slide of its own."""
    source = 'def f():\n    """What it is for."""\n    a = 1\n    b = 2\n    c = 3\n    d = 4\n    return a'
    joints = {piece.source.strip(): piece.joint for piece in statements.statements_of(source)}
    assert min(joints["a = 1"], joints["b = 2"], joints["return a"]) > max(joints["c = 3"], joints["d = 4"])


def test_empty_lines_are_no_lines_of_code():
    """Eleven lines of code on two slides, as three empty ones stand between them."""
    cell = new_code_cell("\n\n".join("a = 1\nb = 2\nc = 3" for _ in range(4)), id="apart")
    (slide,) = slides.cut([new_markdown_cell("Set them."), cell])
    assert slide.code_lines == 12


def test_code_that_goes_on_says_so_and_where():
    """Somebody who looks up, and does not know in which function they are."""
    body = "\n".join(f"    total += {number}" for number in range(20))
    cell = new_code_cell(f"def summed(total):\n{body}\n    return total", outputs=[printed(3)], id="long")
    first, second = slides.cut([new_markdown_cell("## 1 · One\n\nA reason."), cell])
    assert (first.continues, second.continued) == (True, True)
    page = decks.deck_page("A toy", [first, second], [[], []])
    assert "… continued, in def summed(total):" in page
    assert "continues …" in page


def test_a_short_result_stands_beside_its_code():
    """A result below, and half of the slide empty."""
    cell = new_code_cell("total = 1 + 1\nprint(total)", outputs=[printed(2)], id="short")
    (slide,) = slides.cut([new_markdown_cell("Add."), cell])
    assert [row.right is not None for row in slide.rows] == [False, True]
    wide = new_code_cell("x = '" + "-" * 70 + "'", outputs=[printed(2)], id="wide")
    (slide,) = slides.cut([new_markdown_cell("Add."), wide])
    assert not any(row.right for row in slide.rows)


def test_a_slide_knows_its_section():
    """A slide that somebody who looks up cannot place."""
    prose = "A sentence of some length. " * 45
    text = f"## 1 · One\n\n{prose}\n\n{prose}\n\n### Below\n\nMore."
    assert {slide.section for slide in slides.cut([new_markdown_cell(text)])} == {"1 · One"}


def test_what_belongs_together_is_not_torn():
    """Half a code block, or a list item without its second paragraph."""
    text = "Before:\n\n```python\na = 1\n\n## no heading\nb = 2\n```\n\n- item\n\n  goes on\n\nAfter."
    blocks = list(canvas.blocks_of_prose(text))
    assert [re.split(r"\n+", block)[0] for block in blocks] == ["Before:", "```python", "- item", "After."]
    assert blocks[1].endswith("b = 2\n```")
    assert blocks[2] == "- item\n\n  goes on"


def test_a_long_table_keeps_its_head():
    """Columns of numbers of which nobody remembers what they are."""
    rows = "\n".join(f"| {number} | {number**2} |" for number in range(40))
    deck = slides.cut([new_markdown_cell(f"## 1 · Squares\n\n| number | square |\n|---|---|\n{rows}")])
    assert len(deck) > 2
    for slide in deck:
        assert "| number | square |\n|---|---|\n|" in slide.blocks[-1].source


def test_a_table_of_few_rows_is_whole():
    """Three rows here, and three on the next slide, to spare a slide."""
    prose = "A sentence of some length. " * 28
    rows = "\n".join(f"| {number} | {number**2} |" for number in range(6))
    text = f"## 1 · Squares\n\n{prose}\n\n| number | square |\n|---|---|\n{rows}\n\n{prose}"
    held = [slide for slide in slides.cut([new_markdown_cell(text)]) if "| 1 |" in slide.blocks[-1].source]
    assert "| 0 | 0 |" in held[0].blocks[-1].source
    assert "| 5 | 25 |" in held[0].blocks[-1].source


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("at T = 1 and at T = 4.", ["at", "T = 1", "and", "at", "T = 4."]),
        ("what 0 · log 0 is", ["what", "0 · log", "0", "is"]),
        ("| mean over | `one cell` | |", ["|", "mean over", "|", "`one cell`", "|", "|"]),
        ("## 1 · One", ["##", "1", "·", "One"]),
        ("of $a + b$", ["of", "$a", "+", "b$"]),
        ("```\na = 1\n```", ["```\na", "=", "1\n```"]),
    ],
)  # fmt: skip
def test_a_short_expression_stays_in_one_line(block, words):
    """ "T" at the end of a line, and "= 4" on the next; a formula or code with signs that it does not know."""
    assert [word.replace("\N{NO-BREAK SPACE}", " ") for word in unbroken(block).split(" ")] == words


def test_a_printed_table_that_is_too_wide_loses_only_its_gaps():
    """Numbers that stand under the wrong heading."""
    text = f"{'name':30}{'value':>20}{'error':>50}\n{'one':30}{'1':>20}{'2':>50}"
    first, second = lines_of(new_output("stream", name="stdout", text=text))
    assert (first.split(), second.split()) == (["name", "value", "error"], ["one", "1", "2"])
    assert len(first) <= 84
    assert first.index("error") + 4 == second.index("2")


def test_a_printed_table_may_need_all_its_gaps():
    """A last column that stands beneath the first, in five of ten rows."""
    wide = "".join(f"{'x' * 8:12}" for _ in range(9))
    assert lines_of(new_output("stream", name="stdout", text=wide)) == [" ".join(["x" * 8] * 9)]


def test_the_speaker_is_told_what_people_say(cells, deck):
    """An instructor who does not know the usual wrong answer, in front of forty who give it."""
    minutes = Lecture(cells, 45, {}, {}).notes(deck)
    assert len(minutes) == len(deck)
    told = [int(re.match(r"Minute (\d+) of 45", said[0])[1]) for said in minutes]
    assert told == sorted(told)
    assert (told[0], told[-1] <= 45) == (0, True)


def test_the_speaker_knows_the_mistakes_of_an_exercise():
    """A room full of the same wrong answer, and an instructor who has never seen it; hints that everybody can read."""
    (lesson,) = find_lessons(["03"])
    source = nbformat.read(lesson.path, as_version=4)
    deck = slides.cut(_shown_on_slides(source))
    notes = Lecture(source.cells, lesson.minutes, {}, all_exercises()).notes(deck)
    told = {
        piece.source.split()[2]: "\n".join(said)
        for slide, said in zip(deck, notes, strict=True)
        for piece in slide.pieces
        if piece.source.startswith("### Exercise")
    }
    assert sorted(told) == sorted(exercise.id for exercise in lesson.exercises)
    for name, said in told.items():
        exercise = all_exercises()[name]
        assert f"{exercise.minutes} minutes" in said
        assert all(mistake.signature in said for mistake in exercise.misconceptions)
        assert "Hint" not in said
