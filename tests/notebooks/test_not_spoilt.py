"""A prediction is one only as long as nothing has given its answer away: no code, no output, no picture, no text."""

import ast
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from cells import said, tags
from prose_numbers import NUMBER, number_of

from kdcourse.course.editions import PREDICTION, instructor, learner
from kdcourse.course.expectations import expectations_path, read_expectations
from kdcourse.course.html_pages import notebook_to_html
from kdcourse.course.lessons import all_lessons

EDITIONS = {"source": lambda notebook: notebook, "learner": learner, "instructor": instructor}
TELLING = 12
"""Characters from which on a choice is recognised wherever it stands."""


def calls(cell, function):
    """The calls of a function in a cell of code."""
    if cell.cell_type != "code":
        return []
    nodes = ast.walk(ast.parse(cell.source))
    return [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function]


def predictions_of(lesson, edition="source"):
    """(id, choices, index of the cell that asks, index of the cell that reveals) of each prediction, in order."""
    notebook = EDITIONS[edition](nbformat.read(lesson.path, as_version=4))
    places = {}
    for function in ("predict", "reveal"):
        for place, cell in enumerate(notebook.cells):
            for call in calls(cell, function):
                name, *rest = (
                    ast.literal_eval(argument) for argument in call.args if isinstance(argument, ast.Constant)
                )
                assert (name, function) not in places, f"{name} is in two cells"
                places[name, function] = place, rest[1:]
    return notebook, places


def shown(cell):
    """All that a reader sees of a cell: its text, and what it gave."""
    outputs = cell.get("outputs", [])
    alts = (output.get("metadata", {}).get("image/png", {}).get("alt", "") for output in outputs)
    return "\n".join([cell.source, *(str(said(output)) for output in outputs), *alts])


def gives_away(text, answer, *, near):
    """Whether a text holds an answer: `near` the question any number that rounds to it, elsewhere a telling one."""
    if isinstance(answer, str):
        return (near or len(answer) >= TELLING) and len(answer) > len("yes") and answer in text
    for found in NUMBER.finditer(text):
        digits = found["digits"].replace(",", "").lstrip("0.").replace(".", "")
        decimals = len(found["digits"].partition(".")[2])
        if len(digits) >= (2 if near else 3) and abs(number_of(found) - abs(answer)) <= 0.5001 * 10.0**-decimals:
            return True
    return False


def expectations_of(lesson):
    return read_expectations(expectations_path(lesson.number, lesson.path.parent))


def numbered():
    return pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.name)


@numbered()
def test_each_question_is_asked_once_and_answered_later(lesson):
    """A prediction that nobody resolves, an answer to a question that was not asked, or one that comes first."""
    notebook, places = predictions_of(lesson)
    expected = expectations_of(lesson).predictions
    asked = [name for name, function in places if function == "predict"]
    assert set(asked) == {name for name, function in places if function == "reveal"} == set(expected)
    assert all(name.startswith(f"{lesson.number}.") for name in asked)
    assert len(asked) >= 5
    for name in asked:
        assert places[name, "predict"][0] < places[name, "reveal"][0], name
        cell = notebook.cells[places[name, "predict"][0]]
        assert PREDICTION in tags(cell), name
        assert all(isinstance(node, ast.Expr) for node in ast.parse(cell.source).body), "a cell that asks only asks"


@pytest.mark.parametrize("edition", EDITIONS)
@numbered()
def test_no_answer_stands_before_its_result(lesson, edition):
    """`0.8543` in the next cell of code, under "0.3, 0.9 or 3 nats?"; a picture of the answer above the question."""
    notebook, places = predictions_of(lesson, edition)
    expected = expectations_of(lesson).predictions
    spoilt = []
    for name, entry in expected.items():
        (asked, choices), (revealed, _) = places[name, "predict"], places[name, "reveal"]
        for place, cell in enumerate(notebook.cells[: revealed + 1]):
            near = place > asked
            text = cell.source if place == revealed else shown(cell)
            if place != asked and gives_away(text, entry.answer, near=near):
                spoilt.append(f"{name}: {entry.answer!r} in {cell.id}")
        assert not re.search(r"\bguess\s*=", notebook.cells[asked].source), f"{name} is stored with a guess"
        assert not isinstance(entry.answer, float) or not gives_away(
            ast.literal_eval(calls(notebook.cells[asked], "predict")[0].args[1]), entry.answer, near=True
        ), f"{name}: its question tells it"
        assert not choices or len(choices) > 1
    assert spoilt == []


@pytest.mark.slow
@numbered()
def test_no_answer_stands_before_its_result_on_the_page(lesson):
    """A page that shows more than its notebook: a title, an alt text, a value that a template puts in."""
    page = BeautifulSoup(notebook_to_html(lesson.path, lesson.title), "html.parser")
    for prompt in page.select(".jp-InputPrompt, .jp-OutputPrompt"):
        prompt.decompose()  # the 30 of "In [30]" tells nothing
    cells = page.select(".jp-Cell")
    for name, entry in expectations_of(lesson).predictions.items():
        asked, revealed = (place_of(cells, f'{kind}[data-prediction="{name}"]') for kind in (".kdcourse-predict", "p"))
        before = [on_page(cell) for cell in cells[asked + 1 : revealed]]
        code = cells[revealed].select_one(".jp-Cell-inputWrapper").get_text()
        assert not any(gives_away(text, entry.answer, near=True) for text in (*before, code)), name


def place_of(cells, selector):
    (place,) = [place for place, cell in enumerate(cells) if cell.select_one(selector)]
    return place


def on_page(cell):
    return "\n".join([cell.get_text(), *(image.get("alt", "") for image in cell.select("img"))])


@pytest.mark.parametrize(
    ("text", "answer", "near", "found"),
    [
        ("claim(x, 0.8543)", 0.8543, False, True),
        ("it is 0.85, as we shall see", 0.8543, True, True),
        ("it is 0.85", 0.8543, False, False),
        ("a factor of 16", 16, True, True),
        ("a factor of 16", 16, False, False),
        ("T = 4", 4, True, False),
        ("It harms where the end is a token of its own.", "It harms where the end is a token of its own.", False, True),
        ("no, it is not", "no", True, False),
        ("0.3, 0.9 or 3", 0.8543, True, False),
    ],
)
def test_what_counts_as_giving_away(text, answer, near, found):
    """A rule that finds nothing, or everything."""
    assert gives_away(text, answer, near=near) == found
