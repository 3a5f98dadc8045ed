"""A learner's functions in a notebook, each with what it needs: imports, helpers, constants. Nothing is run here.

Which function answers which exercise is said by the learner's own `exercises.check("03.objective", kd_loss)`; where
that line is gone, by the cell's id, which is still the one that was handed out.
"""

from __future__ import annotations

import ast
import json
import re
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from kdcourse.course.editions import EXERCISE, SOLUTION
from kdcourse.course.grading.peer import NAME
from kdcourse.course.lessons import course_lessons

LONGEST = 200_000
"""Characters of one cell."""
MAGIC = re.compile(r"^\s*[%!?].*$|^.*\?\s*$", re.MULTILINE)


class NotebookError(ValueError):
    """The file is no notebook; the message is the end of a sentence."""


@dataclass(frozen=True)
class Answer:
    """Code that defines `NAME`; or why there is none."""

    exercise: str
    code: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Cell:
    """A code cell, parsed; one that cannot be has no statements, and says what is wrong."""

    id: str
    tags: tuple[str, ...]
    statements: tuple[ast.stmt, ...] = ()
    problem: str = ""
    source: str = ""


def answers_in(data: bytes) -> list[Answer]:
    """An answer for every exercise of the lessons that the notebook is about, in their order.

    Raises:
        NotebookError: it is none.
    """
    cells = cells_of(data)
    asked = dict(_asked_in(cells))
    lessons = {name.partition(".")[0] for name in asked}
    handed = _handed_out()
    known = [name for name in handed if name.partition(".")[0] in lessons]
    return [_answer(name, cells, asked) for name in known]


def cells_of(data: bytes) -> list[Cell]:
    """The code cells of a notebook.

    Raises:
        NotebookError: it is none.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
        version = content["nbformat"]
        cells = content["cells"] if version == 4 else None  # noqa: PLR2004
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        page = data.lstrip()[:1] == b"<"
        said = "it holds a web page, as a download that needs a login gives it" if page else type(error).__name__
        raise NotebookError(f"it cannot be read as a notebook ({said})") from error
    if not isinstance(cells, list):
        raise NotebookError(f"it is a notebook of format {version!r}, and not 4" if version != 4 else "it has no cells")  # noqa: PLR2004
    return [_parsed(cell) for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"]


def _parsed(cell: dict[str, Any]) -> Cell:
    metadata, source = cell.get("metadata"), cell.get("source", "")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    words = tuple(str(tag) for tag in tags) if isinstance(tags, list) else ()
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    name = str(cell.get("id", ""))
    if len(text) > LONGEST:
        return Cell(name, words, problem=f"its cell has more than {LONGEST:,} characters")
    text = MAGIC.sub("", text)
    try:
        return Cell(name, words, tuple(ast.parse(text).body), source=text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else type(error).__name__
        return Cell(name, words, problem=f"its cell is not Python ({said})", source=text)


# ---------------------------------------------------------------------------------------------------------------------
# Which function is asked about


@dataclass(frozen=True)
class Asked:
    """Where an answer is checked: the place of its cell, and what is checked."""

    place: int
    expression: ast.expr | None


def _asked_in(cells: Sequence[Cell]) -> Iterator[tuple[str, Asked]]:
    """Exercises by id; what a learner has checked last comes last."""
    handed = _handed_out()
    found = [[] if SOLUTION in cell.tags else list(_checks_in(cell)) for cell in cells]
    lessons = {name.partition(".")[0] for checks in found for name, _ in checks}
    for place, (cell, checks) in enumerate(zip(cells, found, strict=True)):
        known = [(name, expression) for name, expression in checks if name in handed]
        lost = [(name, function) for name, (of, function, _) in handed.items() if of == cell.id and not known]
        if len(lost) > 1:  # two lessons have a cell of this name
            lost = [(name, function) for name, function in lost if name.partition(".")[0] in lessons]
        for name, function in lost:
            yield name, Asked(place, ast.Name(function, ast.Load()))
        for name, expression in known:
            yield name, Asked(place, expression)


def _checks_in(cell: Cell) -> Iterator[tuple[str, ast.expr | None]]:
    for statement in cell.statements:
        for node in ast.walk(statement):
            if not isinstance(node, ast.Call) or len(node.args) != 2:  # noqa: PLR2004
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "check" and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value), node.args[1]
    if cell.problem and (found := re.findall(r'exercises\.check\("([\w.]+)"', cell.source)):
        yield from ((name, None) for name in found)


@cache
def _handed_out() -> dict[str, tuple[str, str, str]]:
    """For each exercise of the course its cell's id, the name of the stub's function, and the stub."""
    found = {}
    for lesson in course_lessons():
        for cell in map(_parsed, (each for each in lesson.cells if each["cell_type"] == "code")):
            if EXERCISE in cell.tags:
                for name, expression in _checks_in(cell):
                    if isinstance(expression, ast.Name):
                        found[name] = (cell.id, expression.id, _definition(expression.id, [cell]))
    return found


@cache
def _of_the_lesson(number: str) -> tuple[Cell, ...]:
    """The code cells of a lesson as the course has it, without answers: a learner may have lost some."""
    cells = [cell for lesson in course_lessons() if lesson.number == number for cell in lesson.cells]
    parsed = (_parsed(cell) for cell in cells if cell["cell_type"] == "code")
    return tuple(cell for cell in parsed if not {EXERCISE, SOLUTION} & set(cell.tags))


# ---------------------------------------------------------------------------------------------------------------------
# What it needs


def _answer(name: str, cells: Sequence[Cell], asked: dict[str, Asked]) -> Answer:
    if name not in asked:
        return Answer(name)
    found = asked[name]
    if found.expression is None or cells[found.place].problem:
        return Answer(name, problem=cells[found.place].problem)
    own = [cell for cell in cells if SOLUTION not in cell.tags]
    place = own.index(cells[found.place])
    if _is_as_handed_out(name, found.expression, own[: place + 1]):
        return Answer(name)
    code = [*_needed(found.expression, own, place, _of_the_lesson(name.partition(".")[0])),
            ast.Assign([ast.Name(NAME, ast.Store())], found.expression)]  # fmt: skip
    module = ast.fix_missing_locations(ast.Module(code, []))
    try:
        return Answer(name, ast.unparse(module))
    except (RecursionError, ValueError) as error:
        return Answer(name, problem=f"its code is nested too deeply ({type(error).__name__})")


def _is_as_handed_out(name: str, expression: ast.expr, cells: Sequence[Cell]) -> bool:
    """Whether the stub is what it was; nothing has to be run to know that."""
    stub = _handed_out()[name][2]
    return isinstance(expression, ast.Name) and stub != "" and _definition(expression.id, cells) == stub


def _definition(name: str, cells: Sequence[Cell]) -> str:
    """The last statement in these cells that binds a name, as Python writes it; "" if there is none."""
    found = [each for cell in cells for each in cell.statements if name in binds(each)]
    return ast.unparse(found[-1]) if found else ""


def _needed(expression: ast.expr, cells: Sequence[Cell], place: int, lesson: Sequence[Cell]) -> list[ast.stmt]:
    """The statements that bind what an expression needs, and what those need, in their order.

    A name means what it meant when the answer was checked: the last statement before. Else, the first one after; or
    what the lesson says.
    """
    parts = [lesson, cells[: place + 1], cells[place + 1 :]]
    ours, before, after = ([each for cell in part for each in cell.statements] for part in parts)
    order = [*ours, *before, *after]
    places: dict[str, list[int]] = {}
    for at, statement in enumerate(order):
        for name in binds(statement):
            places.setdefault(name, []).append(at)
    last = len(ours) + len(before)

    def find(name: str, limit: int) -> int | None:
        there = places.get(name, [])
        own = [at for at in there if len(ours) <= at < limit]
        later = [at for at in there if at >= last]
        from_lesson = [at for at in there if at < min(len(ours), limit)]
        return own[-1] if own else later[0] if later and limit >= last else from_lesson[-1] if from_lesson else None

    kept = {at for at in places.get("*", []) if len(ours) <= at < last}
    wanted = [(name, last) for name in reads(expression)]
    while wanted:
        found = find(*wanted.pop())
        if found is not None and found not in kept:
            kept.add(found)
            is_later = isinstance(order[found], ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            wanted += [(name, last if is_later or found >= last else found) for name in reads(order[found])]
    return [order[at] for at in sorted(kept)]


def binds(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement gives a meaning."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name.partition(".")[0]) for alias in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        nodes = (node for target in targets for node in ast.walk(target))
        yield from (node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    elif isinstance(statement, ast.If | ast.Try):
        yield from (name for part in ast.iter_child_nodes(statement) if isinstance(part, ast.stmt)
                    for name in binds(part))  # fmt: skip


def reads(node: ast.AST) -> set[str]:
    """The names that it takes from around it: not its own arguments and variables, which may be called the same."""
    changed = {node.target.id} if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else set()
    try:
        return changed | set(_taken(symtable.symtable(ast.unparse(node), "<cell>", "exec")))
    except (SyntaxError, ValueError, RecursionError):
        return set()


def _taken(table: symtable.SymbolTable) -> Iterator[str]:
    is_top = table.get_type() == "module"
    yield from (
        each.get_name() for each in table.get_symbols() if each.is_referenced() and (is_top or each.is_global())
    )
    for inner in table.get_children():
        yield from _taken(inner)
