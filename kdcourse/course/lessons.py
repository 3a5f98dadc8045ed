"""The lessons of the course: numbered notebooks in one folder, and what their text says of them.

Notebooks are read as the JSON that they are, so `kdcourse list` and `kdcourse progress` need no nbformat.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdcourse.course.misuse import MisuseError

FOLDER_VARIABLE = "KDCOURSE_NOTEBOOKS"

INSTALLED = Path(__file__).parent / "notebooks"
"""The lessons inside an installed package; a clone has none there."""

COPY = "kd-course"
"""Where `kdcourse start` puts a working copy, if no other folder is named."""
COPY_RECORD = ".kdcourse.json"
"""The file of a working copy that says what was handed out."""


LARGEST = 100_000_000
"""Bytes of a lesson with all its pictures; what is larger is something else, and may not fit into memory."""

FORMAT = (4, 5)
"""The notebook format from which on each cell has an id."""

EXERCISE = re.compile(r"^### Exercise (\S+) · (.+)\n+(?:★+☆* · (\d+) minutes)?", re.MULTILINE)
TO_TOOLS = re.compile(r" *# (?:fmt: skip|noqa\b.*)$", re.MULTILINE)
MINUTES = re.compile(r"\*\*(\d+) minutes\*\*")
PREREQUISITES = re.compile(r"\*\*Prerequisites:\*\*(.*?)(?:\n\s*\n|\Z)", re.DOTALL)
NUMBERS = re.compile(r"\b(\d\d)(?:\s+to\s+(\d\d))?\b")


class LessonError(MisuseError):
    """Lessons cannot be found, run or written as asked; the message says why, and what to do."""


@dataclass(frozen=True)
class LessonExercise:
    """An exercise as its lesson announces it: `### Exercise 03.loop · Twenty lines`, and beneath `★★★ · 12 minutes`."""

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
    def problem(self) -> str:
        """Why the file cannot be read as a lesson, in a sentence; empty if it can. Such a lesson has no cells."""
        return "" if isinstance(self._content, dict) else self._content

    @cached_property
    def title(self) -> str:
        """The notebook's first heading."""
        return self._header[0].lstrip("# ").strip() if self._header else self.name

    @cached_property
    def question(self) -> str:
        """The one question that the lesson answers: the first line in bold italics. Or else, what is wrong with it."""
        return self.problem or next((line.strip("*_ ") for line in self._header if line.startswith("***")), "")

    @cached_property
    def minutes(self) -> int | None:
        """How long it takes, exercises included, if its header says so."""
        found = MINUTES.search("\n".join(self._header))
        return int(found[1]) if found else None

    @cached_property
    def prerequisites(self) -> list[str]:
        """The numbers of the lessons that it builds on, as its header says: "lessons 00 and 03 to 05"."""
        found = PREREQUISITES.search(source_of(self.cells[0])) if self.cells else None
        bounds = [(int(first), int(last or first)) for first, last in NUMBERS.findall(found[1] if found else "")]
        return sorted({f"{number:02}" for first, last in bounds for number in range(first, last + 1)})

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
        return list(self._content["cells"]) if isinstance(self._content, dict) else []

    @cached_property
    def _content(self) -> dict[str, Any] | str:
        """The file as it is, or what is wrong with it: one bad file must not stop what is done with the others."""
        try:
            return _read_notebook(self.path)
        except (OSError, ValueError, RecursionError) as error:
            return f"It cannot be read as a notebook: {in_a_line(error)}."

    @cached_property
    def _header(self) -> list[str]:
        return [line for line in source_of(self.cells[0]).splitlines() if line.strip()] if self.cells else []


def _read_notebook(path: Path) -> dict[str, Any]:
    """The JSON of a notebook, of which every cell has what a lesson's cells have.

    Raises:
        OSError, ValueError, RecursionError: it is something else.
    """
    if not path.is_file():
        raise ValueError("it is no file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size / 1e6:,.0f} MB, and a lesson at most {LARGEST / 1e6:,.0f}")
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "nbformat" not in content:
        raise ValueError("its JSON is not that of a notebook")
    version = (content["nbformat"], content.get("nbformat_minor", 0))
    if not all(isinstance(part, int) for part in version) or not FORMAT <= version < (FORMAT[0] + 1,):
        is_in, should_be = (".".join(map(str, each)) for each in (version, FORMAT))
        raise ValueError(f"it is in format {is_in}, and lessons are in {should_be}, where every cell has an id")
    cells, metadata = content.get("cells"), content.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise ValueError("its cells or its metadata are not those of a notebook")
    return content


def _is_cell(cell: Any) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("metadata"), dict):
        return False
    source, tags = cell.get("source"), cell["metadata"].get("tags", [])
    words = [cell.get("id"), cell.get("cell_type"), *(source if isinstance(source, list) else [source])]
    if not isinstance(tags, list) or not all(isinstance(word, str) for word in words + tags):
        return False
    "".join(words + tags).encode()  # JSON can hold halves of characters, which no file can
    return True


def in_a_line(error: Exception) -> str:
    """What an error says, without the pages that some libraries add."""
    if isinstance(error, RecursionError):
        return "its JSON is nested too deeply"
    return str(getattr(error, "strerror", None) or error).partition("\n")[0]


def source_of(cell: dict[str, Any]) -> str:
    """A cell's text; a notebook file holds it whole or line by line."""
    return "".join(cell["source"])


def for_readers(code: str) -> str:
    """The code without the comments that only a formatter or a linter obeys."""
    return TO_TOOLS.sub("", code)


def path_in(variable: str) -> Path | None:
    """The path that an environment variable names, seen from here; nothing if it is not set, or empty.

    Raises:
        LessonError: it begins with the ~ of a user who has no folder here.
    """
    chosen = os.environ.get(variable)
    try:
        return Path(chosen).expanduser().absolute() if chosen else None
    except RuntimeError:
        raise LessonError(
            f"{variable} is {chosen}, and that user has no folder here; write the path in full."
        ) from None


def notebooks_folder() -> Path:
    """The lessons to list and run: `$KDCOURSE_NOTEBOOKS`; or those here, in `./notebooks` or a working copy; or ours.

    Raises:
        LessonError: `$KDCOURSE_NOTEBOOKS` is no folder.
    """
    if chosen := path_in(FOLDER_VARIABLE):
        if not os.path.isdir(chosen):  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
            raise LessonError(
                f"{FOLDER_VARIABLE} is {os.environ[FOLDER_VARIABLE]}, which is no folder; name the one that holds the "
                "lessons."
            )
        return chosen
    here = Path.cwd()
    candidates = (here, here / "notebooks", here / COPY / "notebooks")
    return next((folder for folder in candidates if lessons_in(folder)), course_notebooks())


def course_notebooks() -> Path:
    """The course's own lessons: those inside the installed package, or beside it in a clone.

    Raises:
        LessonError: the package came without them.
    """
    for folder in (INSTALLED, Path(__file__).parents[2] / "notebooks"):
        if folder.is_dir():
            return folder
    raise LessonError('This kdcourse has no lessons; `pip install "kdcourse[course]"` brings them.')


def lessons_in(folder: Path) -> list[Lesson]:
    """In the order of their numbers; not what was set aside, such as `03_….yours-1.ipynb`."""
    return [Lesson(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if "." not in path.stem]


def require_apart(folder: Path, lessons: Iterable[Lesson], advice: str) -> None:
    """Whatever is written into `folder`, it is not written over these lessons.

    Raises:
        LessonError: it is their folder, under whichever name.
        OSError: that cannot be found out.
    """
    for place in {lesson.path.parent for lesson in lessons}:
        if folder.exists() and folder.samefile(place):
            raise LessonError(f"{folder} is the folder of the lessons themselves; {advice}.")


def course_lessons() -> list[Lesson]:
    """The lessons as the course has them, whatever somebody has made of a copy."""
    return lessons_in(course_notebooks())


def all_lessons() -> list[Lesson]:
    """Every lesson of `notebooks_folder`."""
    return lessons_in(notebooks_folder())


def source_lessons() -> list[Lesson]:
    """Every lesson of `notebooks_folder`, or of the course where that is a working copy, which has no solutions."""
    folder = notebooks_folder()
    return course_lessons() if is_copy(folder.parent) else lessons_in(folder)


def is_copy(folder: Path) -> bool:
    """Whether `kdcourse start` has made this folder."""
    return (folder / COPY_RECORD).is_file()


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
