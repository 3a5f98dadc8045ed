"""A learner's own copy of the lessons: made, brought up to date without losing an answer, reset lesson by lesson.

    kd-course/notebooks/    the lessons, without outputs: who has seen a result can no longer predict it
    kd-course/build/        what lessons and runs write
    kd-course/.kdcourse.json    what was handed out, so that what is the learner's can be told from it

An update merges cell by cell. What the learner has not changed becomes what the course says now; what only the learner
has changed stays; where both have, an answer stays, and anything else is kept beneath the new cell. Cells of one's own
keep their place.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from kdcourse import __version__
from kdcourse.course.editions import ANSWERS, colab, has_tag, learner, without_outputs
from kdcourse.course.lessons import COPY, COPY_RECORD, Lesson, LessonError, course_lessons, is_copy, require_apart
from kdcourse.files import set_aside, write_whole, written_whole
from kdcourse.hashing import hash_text

RECORD = COPY_RECORD
EDITIONS = {"learner": learner, "solutions": without_outputs, "colab": colab}

Handed = Mapping[str, str]
"""SHA-256 of each cell's source as it was handed out, by the cell's id."""


@dataclass(frozen=True)
class Record:
    """What a copy was made of; where it is lost, every cell that differs from the course's counts as the learner's."""

    edition: str = "learner"
    lessons: dict[str, Handed] = field(default_factory=dict)
    version: str = __version__

    @classmethod
    def read(cls, folder: Path) -> Record:
        try:
            record = cls(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
            return record if record._is_sound else cls()
        except (OSError, ValueError, TypeError, RecursionError):
            return cls()

    @property
    def _is_sound(self) -> bool:
        is_known, lessons = self.edition in EDITIONS, self.lessons
        return is_known and isinstance(lessons, dict) and all(isinstance(cells, dict) for cells in lessons.values())

    def write(self, folder: Path) -> None:
        write_whole(folder / RECORD, json.dumps(asdict(self), indent=1, sort_keys=True))


@dataclass(frozen=True)
class Copied:
    """What `start` has done: the lessons that were new, those that changed, and the files that were set aside."""

    new: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    set_aside: dict[Path, Path] = field(default_factory=dict)
    """What was no notebook of ours any more, with its new name."""


def start(folder: Path = Path(COPY), *, solutions: bool | None = None, on_colab: bool = False) -> Copied:
    """Make a working copy of all lessons in `folder`, or bring one up to date.

    Args:
        solutions: with the solutions, folded; if it is not said, as the copy was made, and at first without.
        on_colab: without them, and with a cell for Google Colab in each lesson.

    Raises:
        LessonError: the folder holds notebooks of the same names that are no working copy, or cannot be written.
    """
    record, copied = Record.read(folder), Copied()
    said = {None: record.edition, True: "solutions", False: "learner"}
    edition = "colab" if on_colab else said[solutions]
    with _explained(folder):
        _require_a_copy_or_room(folder)
        handed = dict(record.lessons)
        for lesson in course_lessons():
            fresh = _edition(lesson, edition)
            path = notebooks_of(folder) / lesson.path.name
            if handed and lesson.name not in handed and _is_there(path):  # somebody's own, of a name that is now ours
                copied.set_aside[path] = set_aside(path)
            _hand_out(fresh, path, handed.get(lesson.name, {}), copied)
            handed[lesson.name] = _sources(fresh)
        Record(edition, handed).write(folder)
    return copied


def reset(lesson: Lesson, folder: Path = Path(COPY)) -> Path | None:
    """Give one lesson of a copy back as new; the old file survives under the name that is returned.

    Raises:
        LessonError: there is no working copy, or it cannot be written.
    """
    if not is_copy(folder):
        raise LessonError(f"{folder} is no working copy of the lessons; `kdcourse start {folder}` makes one.")
    record, path = Record.read(folder), notebooks_of(folder) / lesson.path.name
    fresh = _edition(lesson, record.edition)
    with _explained(folder):
        kept = _write(fresh, path, keep=True)
        replace(record, lessons={**record.lessons, lesson.name: _sources(fresh)}).write(folder)
    return kept


def notebooks_of(folder: Path) -> Path:
    """Where a copy's lessons are. They write to `../build`, which is then inside the copy."""
    return folder / "notebooks"


def merged(mine: NotebookNode, new: NotebookNode, handed: Handed) -> NotebookNode:
    """The new lesson with everything in it that is the learner's; see the module's first lines for the rules."""
    own = {cell.id: cell for cell in mine.cells}
    notebook = copy.deepcopy(new)
    notebook.metadata = copy.deepcopy(mine.metadata)
    notebook.cells = []
    for cell in new.cells:
        notebook.cells += _merged_cell(own.get(cell.id), cell, handed.get(cell.id))
    places = {cell.id for cell in notebook.cells}
    before = None
    for cell in mine.cells:  # what has no place in the new lesson stays behind what came before it
        if cell.id not in places and _is_changed(cell, handed.get(cell.id)):
            notebook.cells.insert(_index_behind(before, notebook.cells), cell)
            places.add(cell.id)
        before = cell.id if cell.id in places else before
    return notebook


def _merged_cell(mine: NotebookNode | None, new: NotebookNode, handed: str | None) -> list[NotebookNode]:
    if mine is None:
        return [new]
    if mine.source == new.source:
        return [mine]  # with the outputs of the learner's own runs
    if not _is_changed(mine, handed):
        return [new]
    if hash_text(new.source) == handed or any(has_tag(new, tag) for tag in ANSWERS):
        return [mine]
    return [new, _kept_beneath(mine)]


def _kept_beneath(mine: NotebookNode) -> NotebookNode:
    """A cell that both have changed: shown, not run, since the cells around it are those of the new lesson."""
    shown = f"```python\n{mine.source}\n```" if mine.cell_type == "code" else mine.source
    name = f"yours-{hash_text(mine.id + mine.source)[:8]}"
    kept = new_markdown_cell(f"**Yours, before the update of the cell above.**\n\n{shown}", id=name)
    return NotebookNode(kept | {"attachments": mine.attachments} if "attachments" in mine else kept)


def _is_changed(cell: NotebookNode, handed: str | None) -> bool:
    return hash_text(cell.source) != handed


def _index_behind(cell_id: str | None, cells: list[NotebookNode]) -> int:
    return next((place + 1 for place, cell in enumerate(cells) if cell.id == cell_id), 0)


def _hand_out(fresh: NotebookNode, path: Path, handed: Handed, copied: Copied) -> None:
    """Write one lesson into the copy, merged with what is there."""
    if not _is_there(path):
        _write(fresh, path)
        copied.new.append(path.stem)
        return
    mine = _read_of_a_learner(path)
    if mine is None:
        copied.set_aside[path] = cast(Path, _write(fresh, path, keep=True))
        return
    result = merged(mine, fresh, handed)
    if result != mine:
        _write(result, path, keep=path.is_symlink())  # what a link leads to is not ours to change
        copied.updated.append(path.stem)


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _read_of_a_learner(path: Path) -> NotebookNode | None:
    """A notebook with an id for each cell; nothing if the file is something else, such as one that Colab has saved."""
    return None if Lesson(path).problem else _read(path)


def _require_a_copy_or_room(folder: Path) -> None:
    """Nothing is written over notebooks that were not handed out, such as the course's own."""
    require_apart(notebooks_of(folder), course_lessons(), "name another folder")
    there = [path for lesson in course_lessons() if _is_there(path := notebooks_of(folder) / lesson.path.name)]
    if there and not is_copy(folder):
        raise LessonError(f"{there[0]} is there already, and `kdcourse start` did not write it; name another folder.")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LessonError(
            f"The lessons cannot be written to {folder} ({error.strerror}); name another folder."
        ) from None


def _edition(lesson: Lesson, name: str) -> NotebookNode:
    if lesson.problem:
        raise LessonError(f"{lesson.path} cannot be handed out. {lesson.problem}")
    return EDITIONS[name](_read(lesson.path))


def _sources(notebook: NotebookNode) -> dict[str, str]:
    return {cell.id: hash_text(cell.source) for cell in notebook.cells}


def _read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def _write(notebook: NotebookNode, path: Path, *, keep: bool = False) -> Path | None:
    """Write a notebook; with `keep`, what stood there is renamed in the last moment, and its new name returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        nbformat.write(notebook, unfinished)
        return set_aside(path) if keep and _is_there(path) else None
