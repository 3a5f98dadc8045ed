"""The lessons of the course: numbered notebooks in one folder, and what their text says of them.

Notebooks are read as the JSON that they are, so `kdcourse list` and `kdcourse progress` need no nbformat.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdcourse.course.misuse import MisuseError

FOLDER_VARIABLE = "KDCOURSE_NOTEBOOKS"

COPY = "kd-course"
"""Where `kdcourse start` puts a working copy, if no other folder is named."""


EXERCISE = re.compile(r"^### Exercise (\S+) · (.+)\n+(?:★+☆* · (\d+) minutes)?", re.MULTILINE)
MINUTES = re.compile(r"\*\*(\d+) minutes\*\*")


class LessonError(MisuseError):
    """Lessons cannot be found, run or written as asked; the message says why, and what to do."""


@dataclass(frozen=True)
class LessonExercise:
    """An exercise as its lesson announces it: `### Exercise 03.soften · Soften`, and beneath `★☆☆ · 3 minutes`."""

    id: str
    title: str
    minutes: int | None

    @property
    def lesson(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True)
class Lesson:
    """One notebook, such as `notebooks/00_start_here.ipynb`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.name.partition("_")[0]

    @cached_property
    def title(self) -> str:
        """The notebook's first heading."""
        return self._header[0].lstrip("# ").strip() if self._header else self.name

    @cached_property
    def question(self) -> str:
        """The one question that the lesson answers: the first line that is set in bold italics."""
        return next((line.strip("*_ ") for line in self._header if line.startswith("***")), "")

    @cached_property
    def minutes(self) -> int | None:
        """How long it takes without the exercises, if its header says so."""
        found = MINUTES.search("\n".join(self._header))
        return int(found[1]) if found else None

    @cached_property
    def exercises(self) -> list[LessonExercise]:
        """In the order in which a learner meets them."""
        prose = (source_of(cell) for cell in self.cells if cell["cell_type"] == "markdown")
        found = [match for text in prose for match in EXERCISE.finditer(text)]
        return [
            LessonExercise(name, title, int(minutes) if minutes else None)
            for name, title, minutes in (match.groups() for match in found)
        ]

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The cells as the file has them."""
        return list(self._content["cells"])

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(self._content["metadata"])

    @cached_property
    def _content(self) -> dict[str, Any]:
        """The file as it is.

        Raises:
            LessonError: it is no notebook.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return {"cells": content["cells"], "metadata": content["metadata"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LessonError(f"{self.path} cannot be read as a notebook ({type(error).__name__}: {error}).") from None

    @cached_property
    def _header(self) -> list[str]:
        return [line for line in source_of(self.cells[0]).splitlines() if line.strip()] if self.cells else []


def source_of(cell: dict[str, Any]) -> str:
    """A cell's text; a notebook file holds it whole or line by line."""
    return "".join(cell["source"])


def notebooks_folder() -> Path:
    """The lessons to list and run: `$KDCOURSE_NOTEBOOKS`; or those here, in `./notebooks` or a working copy; or ours.

    Raises:
        LessonError: `$KDCOURSE_NOTEBOOKS` is no folder.
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        if not Path(chosen).is_dir():
            raise LessonError(
                f"{FOLDER_VARIABLE} is {chosen}, which is no folder; name the one that holds the lessons."
            )
        return Path(chosen)
    here = Path.cwd()
    candidates = (here, here / "notebooks", here / COPY / "notebooks")
    return next((folder for folder in candidates if lessons_in(folder)), course_notebooks())


def course_notebooks() -> Path:
    """The course's own lessons: those inside the installed package, or beside it in a clone.

    Raises:
        LessonError: the package came without them.
    """
    inside, beside = Path(__file__).parent / "notebooks", Path(__file__).parents[2] / "notebooks"
    for folder in (inside, beside):
        if folder.is_dir():
            return folder
    raise LessonError('This kdcourse has no lessons; `pip install "kdcourse[course]"` brings them.')


def lessons_in(folder: Path) -> list[Lesson]:
    """In the order of their numbers; not what was set aside, such as `03_….yours-1.ipynb`."""
    return [Lesson(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if "." not in path.stem]


def course_lessons() -> list[Lesson]:
    """The lessons as the course has them, whatever somebody has made of a copy."""
    return lessons_in(course_notebooks())


def all_lessons() -> list[Lesson]:
    """Every lesson of `notebooks_folder`."""
    return lessons_in(notebooks_folder())


def find_lessons(wanted: Sequence[str], among: Sequence[Lesson] | None = None) -> list[Lesson]:
    """The lessons with these numbers or names, in the course's order; all of them if none is named.

    Args:
        among: where to look, if not in `all_lessons`.

    Raises:
        LessonError: there is no such lesson, or none at all.
    """
    lessons = all_lessons() if among is None else among
    if not lessons:
        raise LessonError(f"There are no lessons in {notebooks_folder()}; set {FOLDER_VARIABLE} to a folder with some.")
    known = {key for lesson in lessons for key in (lesson.number, lesson.name)}
    for name in wanted:
        if name not in known:
            listed = ", ".join(lesson.name for lesson in lessons)
            raise LessonError(f"There is no lesson {name!r}; the course has {listed}.")
    return [lesson for lesson in lessons if not wanted or {lesson.number, lesson.name} & set(wanted)]
