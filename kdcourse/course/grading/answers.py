"""A learner's functions in a notebook, each with what it needs: imports, helpers, constants. Nothing is run here.

Which function answers which exercise is said by the learner's own `exercises.check("03.objective", kd_loss)`; where
that line is gone, by the cell's id, which is still the one that was handed out, or by the name of its function.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import symtable
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from kdcourse.course.editions import EXERCISE, SOLUTION
from kdcourse.course.grading.peer import NAME
from kdcourse.course.lessons import course_lessons

LONGEST = 200_000
"""Characters of one cell."""
MOST = 1_000_000
"""Characters of all code cells."""
LAST_CHECKS = 20
"""So many checks of one exercise are looked at."""
CELL_MAGIC = re.compile(r"\A\s*%%(\w*).*")
"""The first line of a cell that IPython hands to somebody else."""
RUN_AS_PYTHON = {"time", "timeit", "capture", "prun"}
"""Those that run the cell, timed or with its output caught; the others write it to a file, or give it to a shell."""
MAGIC = re.compile(r"^[^\S\n]*[%!?]|=[^\S\n]*[%!](?!=)|\?[^\S\n]*$", re.MULTILINE)
"""A line that may be no Python."""
MOST_READ = 200_000
"""Number of such lines times the characters of the cell: IPython reads the whole cell once more for each."""
FUTURE = ast.ImportFrom("__future__", [ast.alias("annotations")], 0)
"""So that a type which nobody imported, as Python 3.14 allows, stops nothing."""


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
    own = [cell for cell in cells_of(data) if SOLUTION not in cell.tags]
    bound = _bound_in(own)
    asked: dict[str, list[Asked]] = {}
    for name, each in _asked_in(own, bound):
        asked.setdefault(name, []).append(each)
    lessons = {name.partition(".")[0] for name in asked}
    known = [name for name in _handed_out() if name.partition(".")[0] in lessons]
    return [_answer(name, own, bound, asked.get(name, [])[-LAST_CHECKS:]) for name in known]


def cells_of(data: bytes) -> list[Cell]:
    """The code cells of a notebook, in UTF-8 or, as an editor may have saved it, in UTF-16.

    Raises:
        NotebookError: it is none.
    """
    try:
        content = json.loads(data)
        version = content["nbformat"]
        cells = content["cells"] if version == 4 else None  # noqa: PLR2004
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        page = data.lstrip()[:1] == b"<"
        said = "it holds a web page, as a download that needs a login gives it" if page else type(error).__name__
        raise NotebookError(f"it cannot be read as a notebook ({said})") from error
    if not isinstance(cells, list):
        raise NotebookError(f"it is a notebook of format {version!r}, and not 4" if version != 4 else "it has no cells")  # noqa: PLR2004
    left = MOST
    found = []
    for cell in cells:
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            found.append(_parsed(cell, left))
            left -= len(found[-1].source) if found[-1].statements else 0
    return found


def _parsed(cell: dict[str, Any], left: int = MOST) -> Cell:
    metadata, source = cell.get("metadata"), cell.get("source", "")
    metadata = metadata if isinstance(metadata, dict) else {}
    tags = metadata.get("tags")
    words = tuple(str(tag) for tag in tags) if isinstance(tags, list) else ()
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    name = str(cell.get("id") or metadata.get("id") or "")  # Colab keeps it in the metadata
    if (magic := CELL_MAGIC.match(text)) and magic[1] not in RUN_AS_PYTHON:
        return Cell(name, words)
    if len(text) > LONGEST:
        return Cell(name, words, problem=f"its cell has more than {LONGEST:,} characters", source=text)
    if len(text) > left:
        return Cell(name, words, problem=f"its notebook has more than {MOST:,} characters of code", source=text)
    try:
        return Cell(name, words, tuple(_module(text).body), source=text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else type(error).__name__
        return Cell(name, words, problem=f"its cell is not Python ({said})", source=text)


def _module(text: str) -> ast.Module:
    """A cell as Python; what IPython alone understands becomes calls of IPython, which nothing needs."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        if not 0 < len(MAGIC.findall(text)) * len(text) <= MOST_READ:
            raise
        try:
            plain = TransformerManager().transform_cell(CELL_MAGIC.sub("", text, count=1).lstrip("\n"))
        except Exception:  # it was made for what people type, and not for what they hand in
            raise error from None
        return ast.parse(plain)


# ---------------------------------------------------------------------------------------------------------------------
# Which function is asked about


@dataclass(frozen=True)
class Asked:
    """Where an answer is checked: the place of its cell, and what is checked."""

    place: int
    expression: ast.expr | None


Bound = dict[str, list[tuple[int, ast.stmt]]]
"""For each name the statements that give it a meaning, each with the place of its cell."""


def _bound_in(cells: Sequence[Cell]) -> Bound:
    bound: Bound = {}
    for place, cell in enumerate(cells):
        for statement in cell.statements:
            for name in binds(statement):
                bound.setdefault(name, []).append((place, statement))
    return bound


def _asked_in(cells: Sequence[Cell], bound: Bound) -> Iterator[tuple[str, Asked]]:
    """Exercises by id; what a learner has checked last comes last."""
    handed = _handed_out()
    found = [list(_checks_in(cell)) for cell in cells]
    named = {name for checks in found for name, _ in checks}
    lessons = set(map(_lesson_of, named))
    for place, (cell, checks) in enumerate(zip(cells, found, strict=True)):
        known = [(name, expression) for name, expression in checks if name in handed]
        lost = [(name, function) for name, (of, function, _) in handed.items() if of == cell.id and not known]
        if len(lost) > 1:  # two lessons have a cell of this name
            lost = [(name, function) for name, function in lost if _lesson_of(name) in lessons]
        named |= {name for name, _ in lost}
        for name, function in lost:
            yield name, Asked(place, ast.Name(function, ast.Load()))
        for name, expression in known:
            yield name, Asked(place, expression)
    yield from (each for each in _defined_in(bound, set(map(_lesson_of, named))) if each[0] not in named)


def _lesson_of(exercise: str) -> str:
    return exercise.partition(".")[0]


def _defined_in(bound: Bound, lessons: set[str]) -> Iterator[tuple[str, Asked]]:
    """Exercises of these lessons whose functions are there, by their names, as far as one name is one exercise's."""
    handed = {name: each for name, each in _handed_out().items() if name.partition(".")[0] in lessons}
    count = Counter(function for _, function, _ in handed.values())
    for name, (_, function, _) in handed.items():
        if function in bound and count[function] == 1:
            yield name, Asked(bound[function][-1][0], ast.Name(function, ast.Load()))


def _checks_in(cell: Cell) -> Iterator[tuple[str, ast.expr | None]]:
    for statement in cell.statements:
        for node in ast.walk(statement):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = dict(zip(("name", "function"), node.args, strict=False))
            given |= {each.arg: each.value for each in node.keywords if each.arg}
            if called == "check" and set(given) == {"name", "function"} and isinstance(given["name"], ast.Constant):
                yield str(given["name"].value), given["function"]
    if cell.problem and (found := re.findall(r"""exercises\.check\(["']([\w.]+)["']""", cell.source)):
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
                        found[name] = (cell.id, expression.id, _definition(expression.id, _bound_in([cell])))
    return found


@cache
def _of_the_lesson(number: str) -> tuple[Cell, ...]:
    """The code cells of a lesson as the course has it, without answers: a learner may have lost some."""
    cells = [cell for lesson in course_lessons() if lesson.number == number for cell in lesson.cells]
    parsed = (_parsed(cell) for cell in cells if cell["cell_type"] == "code")
    return tuple(cell for cell in parsed if not {EXERCISE, SOLUTION} & set(cell.tags))


# ---------------------------------------------------------------------------------------------------------------------
# What it needs


def _answer(name: str, cells: Sequence[Cell], bound: Bound, asked: Sequence[Asked]) -> Answer:
    """Of what was checked last. What is as it was handed out, or never ran since it is no Python, has no say where
    something else was checked, too.
    """
    own = [each for each in asked if cells[each.place].problem or not _is_as_handed_out(name, each, bound)]
    if not own:
        return Answer(name)
    ran = [each for each in own if each.expression is not None and not cells[each.place].problem]
    place, expression = (ran or own)[-1].place, (ran or own)[-1].expression
    if expression is None or cells[place].problem:
        return Answer(name, problem=cells[place].problem)
    needed = _needed(expression, cells, place, _of_the_lesson(name.partition(".")[0]))
    code = [FUTURE, *needed, ast.Assign([ast.Name(NAME, ast.Store())], expression)]
    try:
        return Answer(name, ast.unparse(ast.fix_missing_locations(ast.Module(code, []))))
    except (RecursionError, ValueError) as error:
        return Answer(name, problem=f"its code is nested too deeply ({type(error).__name__})")


def _is_as_handed_out(name: str, asked: Asked, bound: Bound) -> bool:
    """Whether the stub is what it was, or gone; nothing has to be run to know that."""
    if not isinstance(asked.expression, ast.Name):
        return False
    if not {asked.expression.id, "*"} & bound.keys():
        return True
    stub = _handed_out()[name][2]
    return stub != "" and _definition(asked.expression.id, bound, asked.place) == stub


def _definition(name: str, bound: Bound, place: int = 0) -> str:
    """The last statement up to a cell that binds a name, as Python writes it; "" if there is none that it can."""
    found = [statement for at, statement in bound.get(name, []) if at <= place]
    with contextlib.suppress(RecursionError, ValueError):
        return ast.unparse(found[-1]) if found else ""
    return ""


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
        until, after = bisect_left(there, limit), bisect_left(there, last)
        from_lesson = bisect_left(there, min(len(ours), limit))
        if until > from_lesson:
            return there[until - 1]
        if after < len(there) and limit >= last:
            return there[after]
        return there[from_lesson - 1] if from_lesson else None

    kept = {at for at in places.get("*", []) if len(ours) <= at < last}
    wanted = [(name, last) for name in reads(expression)]
    while wanted:
        name, limit = wanted.pop()
        found = find(name, limit)
        if found is not None and found not in kept:
            kept.add(found)
            if isinstance(order[found], ast.Import):  # scipy.stats and scipy.special are both scipy
                kept |= {at for at in places[name] if at < found and isinstance(order[at], ast.Import)}
            is_later = isinstance(order[found], ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            wanted += [(name, last if is_later or found >= last else found) for name in reads(order[found])]
    return [each for each in map(order.__getitem__, sorted(kept)) if getattr(each, "module", "") != FUTURE.module]


def binds(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement gives a meaning, and the statements in it: the variable of a loop, too."""
    left: list[ast.AST] = [statement]
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif not isinstance(node, SCOPES) and not (isinstance(node, ast.AnnAssign) and node.value is None):
            left.extend(ast.iter_child_nodes(node))


SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
"""What has names of its own."""


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
