"""What a learner has tried and solved, kept on this machine alone, and what comes next: for `kdcourse progress`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from kdcourse.course.lessons import Lesson, LessonExercise, path_in
from kdcourse.course.misuse import MisuseError
from kdcourse.course.own_record import DAMAGES, read_or_begin_anew, read_table, recorded
from kdcourse.files import write_whole

FILE_VARIABLE = "KDCOURSE_PROGRESS"

Record = dict[str, dict[str, int]]
"""For each exercise, how often each kind of diagnosis was given."""


class ProgressError(MisuseError):
    """The record cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Standing:
    """One exercise, and how often it was tried."""

    exercise: LessonExercise
    tries: int
    solved: bool


def standings(lessons: Iterable[Lesson]) -> list[Standing]:
    """Every exercise of these lessons, in the order in which a learner meets them.

    Raises:
        ProgressError: the record cannot be read.
    """
    counts = load()
    exercises = [exercise for lesson in lessons for exercise in lesson.exercises]
    tried = [counts.get(exercise.id, {}) for exercise in exercises]
    return [Standing(exercise, sum(of.values()), "passed" in of) for exercise, of in zip(exercises, tried, strict=True)]


def next_step(found: Sequence[Standing]) -> str:
    """How far a learner has come, and what to do next, in a sentence each."""
    if not found:
        return "These lessons have no exercises."
    left = [standing.exercise for standing in found if not standing.solved]
    if not left:
        return f"All {len(found)} solved."
    minutes = f" ({left[0].minutes} minutes)" if left[0].minutes else ""
    solved = len(found) - len(left)
    return f"{solved} of {len(found)} solved. Next: {left[0].id} in lesson {left[0].lesson}{minutes}."


def progress_file() -> Path:
    """`$KDCOURSE_PROGRESS`, or a file in the platform's folder for user data.

    Raises:
        ProgressError: there is no such folder, for a user who has no home.
    """
    try:
        return path_in(FILE_VARIABLE) or platformdirs.user_data_path("kdcourse") / "progress.json"
    except RuntimeError:
        raise ProgressError(
            f"There is no home folder to keep the record of exercises in (HOME is {os.environ.get('HOME')!r}); set "
            f"{FILE_VARIABLE} to a file that you may write to."
        ) from None


def load() -> Record:
    """The record so far; empty if there is none.

    Raises:
        ProgressError: it cannot be read.
    """
    path = progress_file()
    try:
        return _read(path)
    except (OSError, *DAMAGES) as error:
        raise ProgressError(
            f"{path} cannot be read as a record of exercises ({type(error).__name__}: {error}); rename or delete it, "
            "or check an answer, which sets it aside and begins a new one."
        ) from None


def _read(path: Path) -> Record:
    return read_table(path, _is_of_an_exercise, "exercises and counts")


def _is_of_an_exercise(counts: object) -> bool:
    return isinstance(counts, dict) and all(type(count) is int and count >= 0 for count in counts.values())


def record(exercise: str, kind: str) -> str:
    """Count one diagnosis; an exercise that was not attempted leaves no trace.

    Whatever is wrong with the record, an answer is worth more: nothing is raised, and nobody waits for long.

    Returns:
        What a learner should know of it, in a sentence; mostly nothing.
    """
    if kind == "not attempted":
        return ""
    return recorded(progress_file, lambda path: _count(path, exercise, kind), "answer")


def _count(path: Path, exercise: str, kind: str) -> str:
    counts, said = read_or_begin_anew(lambda: _read(path), path, "exercises")
    of_exercise = counts.setdefault(exercise, {})
    of_exercise[kind] = of_exercise.get(kind, 0) + 1
    write_whole(path, json.dumps(counts, indent=1, sort_keys=True))
    return said
