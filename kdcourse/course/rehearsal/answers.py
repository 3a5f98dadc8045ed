"""Answers to one exercise, as code of a learner's cell, each with the verdicts that are right for it."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from kdcourse.course.editions import EXERCISE, SOLUTION
from kdcourse.course.exercises.calling import all_same, run_all
from kdcourse.course.exercises.catalogue import find_exercise
from kdcourse.course.exercises.exercise import Exercise, Function, Misconception
from kdcourse.course.exercises.kinds.repairs import RepairARun
from kdcourse.course.grading.answers import answers_in, reads
from kdcourse.course.grading.peer import NAME
from kdcourse.course.grading.repairs import objection
from kdcourse.course.lessons import Lesson, source_of
from kdcourse.course.rehearsal.sources import NotOneTextError, source_of_mistake

WRONG = ("misconception", "different", "error")
"""Verdicts of a mistake that nobody has declared; it may happen to be a known one."""


@dataclass(frozen=True)
class Answer:
    """What stands in the cell of an exercise, and what grading it should say."""

    code: str
    verdicts: tuple[str, ...]
    misconception: str = ""


BLANK = Answer("", ("not attempted",))
"""The stub is left as it was handed out."""


@dataclass(frozen=True)
class Asked:
    """An exercise as its lesson asks for it."""

    id: str
    cell: str
    """Id of the stub's cell."""
    function: str
    """What the stub is called."""
    solution: str
    """Code of the lesson's own solution, up to its check."""
    solved: str
    """What the solution's function is called."""

    def leans_on(self, other: Asked) -> bool:
        """Whether its solution calls that of another exercise, and is wrong where that one is."""
        return other is not self and bool({other.function, other.solved} & reads(ast.parse(self.solution)))

    def filled(self, answer: Answer) -> str:
        """The source of the cell with this answer."""
        return f'{answer.code}\n\n\nexercises.check("{self.id}", {self.function})\n'


@cache
def asked_in(lesson: Lesson) -> tuple[Asked, ...]:
    """The exercises of a lesson, in its order."""
    stubs = [(cell["id"], *call) for cell in _tagged(lesson, EXERCISE) for call in _calls(source_of(cell), "check")]
    solutions = {
        name: (source_of(cell)[:start].rstrip(), function)
        for cell in _tagged(lesson, SOLUTION)
        for name, function, start in _calls(source_of(cell), "verify")
    }
    return tuple(Asked(name, cell, function, *solutions[name]) for cell, name, function, _ in stubs)


def _tagged(lesson: Lesson, tag: str) -> Iterator[dict[str, Any]]:
    yield from (cell for cell in lesson.cells if tag in cell["metadata"].get("tags", []))


def _calls(source: str, name: str) -> Iterator[tuple[str, str, int]]:
    """Exercise and function of each `exercises.check("03.loop", distill)`, and where the statement begins."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for statement in ast.parse(source).body:
        match statement:
            case ast.Expr(ast.Call(ast.Attribute(attr=called), [ast.Constant(exercise), ast.Name(function)])):
                if called == name:
                    yield str(exercise), function, starts[statement.lineno - 1]


def right(asked: Asked) -> Answer:
    """The lesson's own solution, under the name of the stub."""
    return Answer(f"{asked.solution}\n\n\n{_named(asked)}".rstrip(), ("passed",))


def _named(asked: Asked) -> str:
    return "" if asked.function == asked.solved else f"{asked.function} = {asked.solved}"


def known_mistakes(asked: Asked) -> list[Answer]:
    """Each mistake of the exercise that can be written as one text, and that a grader may run."""
    task = find_exercise(asked.id)
    found = []
    for mistake in task.misconceptions:
        try:
            code = source_of_mistake(task, mistake.name, asked.function)
        except NotOneTextError:
            continue
        if not isinstance(task, RepairARun) or not objection(code):
            found.append(_known(mistake, code))
    return found


def _known(mistake: Misconception, code: str) -> Answer:
    return Answer(code, ("misconception",), mistake.name)


def unknown_mistake(asked: Asked, lesson: Lesson, draw: random.Random) -> Answer | None:
    """The solution with one thing changed, so that its value is another one for an example of the exercise.

    Nothing for exercises of other kinds than a function, where a change may still do what is asked for.
    """
    task = find_exercise(asked.id)
    if not isinstance(task, Exercise):
        return None
    expected = run_all(task, task.reference, task.examples)
    changed = list(_changed(asked))
    draw.shuffle(changed)
    for code in changed:
        answer = Answer(f"{code}\n\n\n{_named(asked)}".rstrip(), WRONG)
        function = _compiled(asked, answer, lesson)
        if function is not None and not all_same(run_all(task, function, task.examples), expected, task.tolerance):
            return answer
    return None


SWAPPED: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip


def _changed(asked: Asked) -> Iterator[str]:
    """The solution's code with one operator or one number that is another; nothing where a loop might not end."""
    count = sum(1 for _ in _places(ast.parse(asked.solution)))
    for place in range(count):
        tree = ast.parse(asked.solution)
        node = list(_places(tree))[place]
        if isinstance(node, ast.BinOp):
            node.op = SWAPPED[type(node.op)]()
        else:
            node.value = node.value + 1
        yield ast.unparse(tree)


def _places(tree: ast.Module) -> Iterator[Any]:
    nodes = list(ast.walk(tree))
    if any(isinstance(node, ast.While) for node in nodes):
        return
    for node in nodes:
        if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
            yield node
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield node


def _compiled(asked: Asked, answer: Answer, lesson: Lesson) -> Function | None:
    """The function as a grader would take it out of the notebook, which brings the lesson's imports."""
    data = json.dumps(filled_in(lesson.cells, [(asked, answer)])).encode()
    [found] = [each for each in answers_in(data) if each.exercise == asked.id]
    scope: dict[str, Any] = {"__name__": "rehearsal"}
    try:
        exec(compile(found.code, "<answer>", "exec"), scope)  # noqa: S102  (a solution of this package, changed)
    except Exception:
        return None
    return scope.get(NAME)


def filled_in(cells: Sequence[dict[str, Any]], answers: Sequence[tuple[Asked, Answer]]) -> dict[str, Any]:
    """A notebook of these cells, without solutions and outputs, in which these answers stand."""
    of_cell = {asked.cell: asked.filled(answer) for asked, answer in answers if answer is not BLANK}
    filled = []
    for cell in cells:
        if SOLUTION in cell["metadata"].get("tags", []):
            continue
        bare: dict[str, Any] = {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
        filled.append(cell | bare | {"source": of_cell.get(cell["id"], source_of(cell))})
    return {"cells": filled, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
