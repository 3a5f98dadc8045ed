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
from kdcourse.files import set_aside, write_whole

FILE_VARIABLE = "KDCOURSE_PROGRESS"

LOCK_SECONDS = 5
DAMAGES = (ValueError, RecursionError)
"""What is raised for a file that is no record."""

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
    """What a file holds; nothing if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if not isinstance(content, dict) or not all(map(_is_of_an_exercise, content.values())):
        raise ValueError("it is no table of exercises and counts")
    return content


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
    from filelock import FileLock, Timeout  # `kdcourse progress` only reads

    try:
        path = progress_file().resolve()  # what a link leads to is brought up to date, and stays where it is
    except MisuseError as error:
        return f"This answer is not recorded: {error}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS):
            return _count(path, exercise, kind)
    except Timeout:
        return f"This answer is not recorded: another program has been using {path} for {LOCK_SECONDS} s."
    except OSError as error:
        return f"This answer is not recorded: {path} cannot be written ({error.strerror})."


def _count(path: Path, exercise: str, kind: str) -> str:
    said = ""
    try:
        counts = _read(path)
    except DAMAGES:
        counts, said = (
            {},
            f"The record of your exercises was damaged, and is begun anew; the old one is {set_aside(path)}.",
        )
    of_exercise = counts.setdefault(exercise, {})
    of_exercise[kind] = of_exercise.get(kind, 0) + 1
    write_whole(path, json.dumps(counts, indent=1, sort_keys=True))
    return said
