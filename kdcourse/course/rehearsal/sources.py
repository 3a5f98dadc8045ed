"""An exercise's own code as a learner would have to write it: one text that needs nothing of the exercises.

References and known mistakes are functions that lean on others, in their module and in those beside it. A learner's
process cannot import any of these. So a text is put together of all the statements that a function leans on.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from kdcourse.course import exercises
from kdcourse.course.exercises.exercise import Task
from kdcourse.course.grading.answers import binds, reads

FOLDER = Path(exercises.__file__).parent
EXERCISES, OURS = "kdcourse.course.exercises.", "kdcourse.course."
"""What a learner's process may not import."""


class NotOneTextError(ValueError):
    """The code cannot be put into one text; the message says why."""


def source_of_reference(task: Task, name: str) -> str:
    """Code that defines `name`, which does what the exercise's reference does.

    Raises:
        NotOneTextError: it leans on something that a text cannot bring.
    """
    return _text(_module_of(task), _keyword(_declaration(task), "reference"), name)


def source_of_mistake(task: Task, mistake: str, name: str) -> str:
    """Code that defines `name`, which makes this known mistake.

    Raises:
        NotOneTextError: it leans on something that a text cannot bring, or is declared by a function.
    """
    for node in ast.walk(_keyword(_declaration(task), "misconceptions")):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Misconception":
            said, wrong = node.args[:2]
            if isinstance(said, ast.Constant) and said.value == mistake:
                return _text(_module_of(task), wrong, name)
    raise NotOneTextError(f"{task.id} does not declare {mistake} in words of its own")


def _module_of(task: Task) -> str:
    return f"lesson{task.lesson}"


@cache
def _statements(module: str) -> tuple[ast.stmt, ...]:
    path = FOLDER / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        raise NotOneTextError(f"{module} is a package")
    return tuple(ast.parse(path.read_text(encoding="utf-8")).body)


def _declaration(task: Task) -> ast.Call:
    """`Exercise(id="03.objective", …)`, or that of another kind."""
    for statement in _statements(_module_of(task)):
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and any(
                each.arg == "id" and isinstance(each.value, ast.Constant) and each.value.value == task.id
                for each in node.keywords
            ):
                return node
    raise NotOneTextError(f"{task.id} is not declared in one piece")


def _keyword(call: ast.Call, name: str) -> ast.expr:
    found = [each.value for each in call.keywords if each.arg == name]
    if not found:
        raise NotOneTextError(f"it has no {name} of its own")
    return found[0]


def _text(module: str, expression: ast.expr, name: str) -> str:
    gathering = _Gathering()
    for read in sorted(reads(expression)):
        gathering.add(module, read)
    lines = [*map(ast.unparse, gathering.found.values()), f"{name} = {ast.unparse(expression)}"]
    return "\n\n\n".join(lines)


Place = tuple[str, int]
"""A module, and which of its statements; or what is imported."""


class _Gathering:
    """Statements, each after those that it leans on."""

    def __init__(self) -> None:
        self.found: dict[Place, ast.stmt] = {}
        self._meaning: dict[str, Place] = {}
        self._begun: set[Place] = set()

    def add(self, module: str, name: str) -> None:
        """Add the statement that binds a name in a module.

        Raises:
            NotOneTextError: a name would mean two things, or comes from where a learner's process cannot go.
        """
        places = [at for at, each in enumerate(_statements(module)) if name in binds(each)]
        if not places:
            return  # Python's own
        statement, place = _statements(module)[places[-1]], (module, places[-1])
        if isinstance(statement, ast.Import | ast.ImportFrom):
            alias = next(each for each in statement.names if (each.asname or each.name.partition(".")[0]) == name)
            source = (statement.module or "") if isinstance(statement, ast.ImportFrom) else alias.name
            if source.startswith(EXERCISES) and not alias.asname:
                self.add(source.removeprefix(EXERCISES), alias.name)
                return
            if f"{source}.".startswith(OURS):
                raise NotOneTextError(f"{name} comes from {source}, which a learner's process cannot import")
            statement, place = _import_of(statement, alias), (f"{source} {alias.name} {alias.asname}", 0)
        if self._meaning.setdefault(name, place) != place:
            raise NotOneTextError(f"{name} would mean two things")
        if place in self._begun:
            return
        self._begun.add(place)
        bare = _bare(statement)
        for read in sorted(reads(bare)):
            self.add(module, read)
        self.found[place] = bare


def _import_of(statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(statement, ast.Import):
        return ast.Import([alias])
    return ast.ImportFrom(statement.module, [alias], statement.level)


class _Bare(ast.NodeTransformer):
    """Functions without annotations and docstrings; a class keeps its own, which may be a dataclass's."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        if ast.get_docstring(node) and len(node.body) > 1:
            node.body = node.body[1:]
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node


def _bare(statement: ast.stmt) -> ast.stmt:
    return _Bare().visit(ast.parse(ast.unparse(statement)).body[0])
