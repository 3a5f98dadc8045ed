"""The lessons of the course: numbered notebooks in one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat

FOLDER_VARIABLE = "KDCOURSE_NOTEBOOKS"


class LessonError(ValueError):
    """A lesson that was asked for is not there; the message says which are."""


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
        return self._header[0].lstrip("# ").strip()

    @cached_property
    def question(self) -> str:
        """The one question that the lesson answers: the first line that is set in bold italics."""
        return next((line.strip("*_ ") for line in self._header if line.startswith("***")), "")

    @cached_property
    def _header(self) -> list[str]:
        cells = nbformat.read(self.path, as_version=4).cells
        return [line for line in cells[0].source.splitlines() if line.strip()]


def notebooks_folder() -> Path:
    """Where the lessons are: `$KDCOURSE_NOTEBOOKS`, or `notebooks/` beside the package or in the current folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    candidates = [Path(chosen)] if chosen else [Path(__file__).parents[2] / "notebooks", Path.cwd() / "notebooks"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise LessonError(
        f"There are no notebooks in {' or '.join(map(str, candidates))}; start from a clone of the course, or set "
        f"{FOLDER_VARIABLE} to the folder that holds them."
    )


def all_lessons() -> list[Lesson]:
    """Every lesson, in the order of their numbers."""
    return [Lesson(path) for path in sorted(notebooks_folder().glob("[0-9][0-9]_*.ipynb"))]


def find_lessons(wanted: Sequence[str]) -> list[Lesson]:
    """The lessons with these numbers or names, in the course's order; all of them if none is named.

    Raises:
        LessonError: there is no such lesson.
    """
    lessons = all_lessons()
    known = {key for lesson in lessons for key in (lesson.number, lesson.name)}
    for name in wanted:
        if name not in known:
            listed = ", ".join(lesson.name for lesson in lessons)
            raise LessonError(f"There is no lesson {name!r}; the course has {listed}.")
    return [lesson for lesson in lessons if not wanted or {lesson.number, lesson.name} & set(wanted)]
