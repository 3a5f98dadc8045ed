"""Code in pieces between which a slide may end: statements, with the comments that lead to them."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from kdcourse.course.canvas import indent_of

MOST_LINES = 12
"""Of code on one slide; empty ones do not count."""

MAGIC = re.compile(r"^[%!]", re.MULTILINE)
IN_A_STATEMENT = 3.0
LEFT_ALONE = 0.5
"""What it costs more to leave one statement of a body alone, or only its docstring with the line that opens it."""


@dataclass(frozen=True)
class Statement:
    """Lines that stay together."""

    source: str
    """As in the cell, empty lines before it included."""
    joint: float
    """What it costs to begin a slide here: more, the deeper it is within a function, and much within a statement."""
    within: str = ""
    """The line that opens the function or class around it, such as `def fit(model):`; empty at the top."""


def lines_said(source: str) -> int:
    """Lines of code that are not empty."""
    return sum(bool(line.strip()) for line in source.splitlines())


def statements_of(source: str) -> list[Statement]:
    """The pieces of a cell, of at most `MOST_LINES` lines each; joined by line ends, they are the source.

    Code that Python cannot read is torn at its empty lines.
    """
    lines = source.splitlines()
    try:
        starts = dict(_starts(ast.parse(MAGIC.sub("#", source)).body, lines))
    except SyntaxError:
        starts = {number: (0.2, "") for number, line in enumerate(lines) if number and not lines[number - 1].strip()}
    bounds = [0, *sorted(start for start in starts if 0 < start < len(lines)), len(lines)]
    pieces = []
    for start, end in itertools.pairwise(bounds):
        joint, within = starts.get(start, (0.2, ""))
        for number, (first, last) in enumerate(_short(lines, start, end)):
            text = "\n".join(lines[first:last])
            pieces.append(Statement(text, IN_A_STATEMENT if number else joint, within))
    return pieces


def _starts(
    body: list[ast.stmt], lines: list[str], depth: int = 0, within: str = ""
) -> Iterator[tuple[int, tuple[float, str]]]:
    """Each statement's first line, its comments and empty lines included: the cost to begin there, and what is around.

    The first statement of a body is not among them: it stays with the line that opens the body.
    """
    first = 2 if any(map(_is_docstring, body[:1])) else 1
    for number, statement in enumerate(body):
        decorators = getattr(statement, "decorator_list", [])
        start = min([statement.lineno, *(each.lineno for each in decorators)]) - 1
        while start and lines[start - 1].lstrip().startswith("#"):
            start -= 1
        apart = start > 0 and not lines[start - 1].strip()
        while start and not lines[start - 1].strip():
            start -= 1
        if number or not depth:
            left_alone = LEFT_ALONE if depth and (number <= first or number == len(body) - 1) else 0.0
            yield start, ((0.2 if apart else 0.35) + 0.25 * depth + left_alone, within)
        opener = lines[statement.lineno - 1].strip()
        is_scope = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for inner in _bodies(statement):
            yield from _starts(inner, lines, depth + 1, opener if is_scope or not within else within)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        if (inner := getattr(statement, name, None)) and isinstance(inner[0], ast.stmt):
            yield inner
    for handler in getattr(statement, "handlers", []):
        yield handler.body


CLOSING = tuple(")]}")


def _short(lines: list[str], start: int, end: int) -> Iterator[tuple[int, int]]:
    """A statement that is too long for one slide, torn before its least indented lines."""
    while lines_said("\n".join(lines[start:end])) > MOST_LINES:
        window = range(start + MOST_LINES // 2, start + MOST_LINES + 1)
        best = min(window, key=lambda at: (lines[at].lstrip()[:1] in CLOSING, indent_of(lines[at]), -at))
        yield start, best
        start = best
    yield start, end
