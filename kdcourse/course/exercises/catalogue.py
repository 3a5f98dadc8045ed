"""All exercises, from the modules `lesson01`, `lesson02` … of this package.

Each of these has a block per exercise: inputs, reference, the wrong answers that need more than a line, each named
after the reference and its misconception, and the declaration. What several exercises of a lesson use comes first.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from kdcourse.course.exercises.exercise import Task


class UnknownExerciseError(ValueError):
    """There is no such exercise; the message says which there are."""


@cache
def all_exercises() -> dict[str, Task]:
    """Exercises by id, in the order of the lessons."""
    modules = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    lessons = [importlib.import_module(f"{__package__}.{name}") for name in modules if name.startswith("lesson")]
    return {exercise.id: exercise for lesson in lessons for exercise in lesson.EXERCISES}


def find_exercise(name: str) -> Task:
    """The exercise with this id.

    Raises:
        UnknownExerciseError: there is none.
    """
    if name not in all_exercises():
        raise UnknownExerciseError(f"There is no exercise {name!r}; there are {', '.join(all_exercises())}.")
    return all_exercises()[name]
