"""Lesson 13: each case can be read alone, has all its parts, and is found from its symptom."""

import ast
import builtins
import re

import nbformat
import pytest
from cells import tags

from kdcourse.course.lessons import find_lessons

HEADING = re.compile(r"^## (?:Case (?P<number>\d+)|What you see)", re.MULTILINE)
ROW = re.compile(r"^\|.*\bcase (?P<number>\d+) \|.*\| `(?P<cell>[\w-]+)` \|$", re.MULTILINE)


def parts():
    """The cells of the notebook by the number of their case; 0 for the tools before the first, and for the table."""
    (lesson,) = find_lessons(["13"])
    found, number = {}, 0
    for cell in nbformat.read(lesson.path, as_version=4).cells:
        heading = HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        number = int(heading["number"] or 0) if heading else number
        found.setdefault(number, []).append(cell)
    return found


PARTS = parts()
CASES = [number for number in PARTS if number]
SYMPTOMS = "\n".join(cell.source for cell in PARTS[0] if cell.cell_type == "markdown")


def names_in(cells):
    """The names that cells of code define, import or take as arguments, and all that they mention."""
    nodes = [node for cell in cells if cell.cell_type == "code" for node in ast.walk(ast.parse(cell.source))]
    names = [node for node in nodes if isinstance(node, ast.Name)]
    defined = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    defined |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    defined |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    imports = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    defined |= {(alias.asname or alias.name).partition(".")[0] for alias in imports}
    return defined, {node.id for node in names}


def test_the_cases_are_numbered_in_order():
    """A case that is counted twice, or a header that promises another number of them."""
    assert list(range(1, len(CASES) + 1)) == CASES
    assert len(CASES) >= 10


@pytest.mark.parametrize("number", CASES)
def test_a_case_has_its_parts(number):
    """A story without a question, or a diagnosis without a repair and a way to recognise it."""
    prose = "\n".join(cell.source for cell in PARTS[number] if cell.cell_type == "markdown")
    for part in ("**The cause.**", "**The repair.**", "**Next time.**"):
        assert part in prose, part
    assert any("prediction" in tags(cell) for cell in PARTS[number])
    assert any("reveal(" in cell.source for cell in PARTS[number] if cell.cell_type == "code")


@pytest.mark.parametrize("number", CASES)
def test_a_case_needs_no_other_case(number):
    """A reader who opens the case that they are in, and gets a NameError."""
    (tools, _), (defined, named) = names_in(PARTS[0]), names_in(PARTS[number])
    assert named - defined - tools - set(dir(builtins)) == set()


@pytest.mark.parametrize("number", CASES)
def test_a_case_is_found_from_its_symptom(number):
    """A case that the table forgot, or a row that leads to another case."""
    cells = [row["cell"] for row in ROW.finditer(SYMPTOMS) if int(row["number"]) == number]
    assert cells
    assert set(cells) <= {cell.id for cell in PARTS[number]}
