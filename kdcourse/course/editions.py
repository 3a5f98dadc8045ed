"""Editions of the lessons, made from the one source in `notebooks/`: for learners, for instructors, for a projector.

learner/      no solutions and no outputs: who has seen a result can no longer predict it
solutions/    the solutions, each under the title of its exercise; learner + solutions is the source (`merge`)
instructor/   everything, solutions unfolded, with a timetable and what each known mistake looks like
slides/       one page per lesson that needs no network, without solutions and hints
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path, PurePosixPath

import nbconvert
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from kdcourse.course.exercises.catalogue import all_exercises
from kdcourse.course.exercises.exercise import Exercise
from kdcourse.course.html_pages import TEMPLATES
from kdcourse.course.lessons import Lesson, LessonError, all_lessons
from kdcourse.course.slides import HEADING, cut
from kdcourse.files import written_whole
from kdcourse.hashing import hash_bytes

SOLUTION, EXERCISE, PREDICTION = "solution", "exercise", "prediction"
ANSWERS = (EXERCISE, PREDICTION)
"""Tags of cells that a learner fills in."""
RECORD = ".kdcourse-editions.json"
"""Beside the editions: what was written, so that nothing else is ever deleted."""
FOLLOWS = "follows"
"""Metadata of a cell in a solutions notebook: the id of the cell that it follows in the source."""


def write_editions(lessons: Sequence[Lesson], out: Path) -> dict[Path, Path]:
    """Write all four editions of these lessons below `out`, each file whole.

    Files of an earlier run are replaced; one that somebody has changed since, such as a notebook with answers, is first
    renamed. Those of a lesson that is no longer in the course are deleted, unless somebody has changed them; files that
    no earlier run wrote are left alone.

    Returns:
        The files that were set aside, each with its new name.

    Raises:
        LessonError: `out` cannot be written.
    """
    try:
        written, set_aside = _written_before(out), {}
        for lesson in lessons:
            for name, text in _editions_of(lesson):
                path, content = out / name, (text.rstrip("\n") + "\n").encode()
                before, written[name] = written.get(name), hash_bytes(content)
                if _is_changed(path, {before, written[name]}):
                    set_aside[path] = path.rename(free_name(path))
                _write(path, content)
        for name in _of_lessons_that_are_gone(written):
            if not _is_changed(out / name, {written.pop(name)}):
                (out / name).unlink(missing_ok=True)
        _write(out / RECORD, json.dumps(written, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise LessonError(f"Editions cannot be written to {out} ({error.strerror}); choose another --out.") from None
    return set_aside


def _editions_of(lesson: Lesson) -> Iterator[tuple[str, str]]:
    """Each file of a lesson: its path below the folder of the editions, and its text."""
    source = nbformat.read(lesson.path, as_version=4)
    for folder, edition in NOTEBOOKS.items():
        yield f"{folder}/{lesson.path.name}", nbformat.writes(edition(source))
    yield f"slides/{lesson.name}.html", slides(source, lesson.title)


def without_outputs(source: NotebookNode) -> NotebookNode:
    """The whole lesson as nobody has run it yet."""
    notebook = copy.deepcopy(source)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def learner(source: NotebookNode) -> NotebookNode:
    """The lesson without solutions and outputs."""
    notebook = without_outputs(source)
    notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, SOLUTION)]
    return notebook


def solutions(source: NotebookNode) -> NotebookNode:
    """The solution cells alone, each behind the heading of its exercise."""
    notebook = copy.deepcopy(source)
    notebook.cells = []
    for place, cell in enumerate(source.cells):
        if has_tag(cell, SOLUTION):
            exercise = _exercise_of(cell)
            title = new_markdown_cell(
                f"### {exercise.id} · {exercise.title}", id=f"title-{exercise.id.replace('.', '-')}"
            )
            solution = _unfolded(cell)
            solution.outputs, solution.execution_count = [], None
            solution.metadata[FOLLOWS] = source.cells[place - 1].id
            notebook.cells += [title, solution]
    return notebook


def merge(learner_edition: NotebookNode, solutions_edition: NotebookNode) -> NotebookNode:
    """The source again, without its outputs."""
    notebook = copy.deepcopy(learner_edition)
    for solution in solutions_edition.cells:
        if not has_tag(solution, SOLUTION):
            continue
        cell = _folded(solution)
        place = [each.id for each in notebook.cells].index(cell.metadata.pop(FOLLOWS))
        notebook.cells.insert(place + 1, cell)
    return notebook


def instructor(source: NotebookNode) -> NotebookNode:
    """The lesson as it ran, with a timetable behind the header and a note behind each solution."""
    notebook = copy.deepcopy(source)
    found = [_exercise_of(cell) for cell in source.cells if has_tag(cell, SOLUTION)]
    header, *rest = notebook.cells
    notebook.cells = [header, new_markdown_cell(_timetable(header.source, found), id="timetable")]
    for cell in rest:
        if not has_tag(cell, SOLUTION):
            notebook.cells.append(cell)
            continue
        exercise = _exercise_of(cell)
        note = new_markdown_cell(_note(exercise), id=f"note-{exercise.id.replace('.', '-')}")
        notebook.cells += [_unfolded(cell), note]
    return notebook


def slides(source: NotebookNode, title: str) -> str:
    """One page for a projector, cut by `kdcourse.course.slides`."""
    notebook = copy.deepcopy(source)
    notebook.cells = list(cut(_shown_on_slides(source)))
    exporter = nbconvert.HTMLExporter(
        template_file=str(TEMPLATES / "slides.html.j2"), extra_template_paths=[str(TEMPLATES)]
    )
    html, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return html


NOTEBOOKS: dict[str, Callable[[NotebookNode], NotebookNode]] = {
    "learner": learner,
    "solutions": solutions,
    "instructor": instructor,
}
FOLDERS = (*NOTEBOOKS, "slides")


def has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _shown_on_slides(source: NotebookNode) -> Iterator[NotebookNode]:
    """No solutions, no hints, no set-up (the code before the first section), and exercises without a verdict."""
    in_a_section = False
    for cell in source.cells:
        is_code = cell.cell_type == "code"
        in_a_section |= not is_code and HEADING.search(cell.source) is not None
        if has_tag(cell, SOLUTION) or cell.source.startswith("<details>") or (is_code and not in_a_section):
            continue
        yield NotebookNode(cell | {"outputs": []}) if has_tag(cell, EXERCISE) else cell


def _exercise_of(cell: NotebookNode) -> Exercise:
    """The exercise that a solution cell verifies itself against."""
    (name,) = re.findall(r'exercises\.verify\("([\w.]+)"', cell.source)
    return all_exercises()[name]


def _folded(cell: NotebookNode) -> NotebookNode:
    cell = copy.deepcopy(cell)
    cell.metadata["jupyter"] = {"source_hidden": True}
    return cell


def _unfolded(cell: NotebookNode) -> NotebookNode:
    cell = copy.deepcopy(cell)
    del cell.metadata["jupyter"]
    return cell


def _timetable(header: str, exercises: Sequence[Exercise]) -> str:
    """The minutes of the lesson, as its header gives them, and of each exercise, which come on top."""
    minutes = re.search(r"(\d+) minutes", header)
    if minutes is None:
        raise LessonError(f"A lesson's first cell says how many minutes it takes; this one does not: {header[:60]}")
    lesson = int(minutes[1])
    rows = [
        f"| {each.id} · {each.title} | {'★' * each.difficulty} | {each.minutes} | {len(each.misconceptions)} |"
        for each in exercises
    ]
    return "\n".join(
        [
            "**For the instructor.** The minutes of this lesson:",
            "",
            "| part | difficulty | minutes | known mistakes |",
            "|---|---|---|---|",
            f"| the lesson without its exercises | | {lesson} | |",
            *rows,
            f"| **together** | | **{lesson + sum(each.minutes for each in exercises)}** | |",
        ]
    )


def _note(exercise: Exercise) -> str:
    mistakes = [f"- *{each.name}*: {each.signature} Read {each.read}." for each in exercise.misconceptions]
    return "\n".join(
        [f"**For the instructor.** What people write in {exercise.id}, and what the check tells them:", "", *mistakes]
    )


def _write(path: Path, content: bytes) -> None:
    """Bytes, so that they are the same on every platform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(content)


def _is_changed(path: Path, digests: Iterable[str | None]) -> bool:
    """Whether there is a file with a content that is not ours."""
    return path.is_file() and hash_bytes(path.read_bytes()) not in digests


def free_name(path: Path) -> Path:
    """`01_kl_derivation.yours-1.ipynb`, or the next number that is free."""
    names = (path.with_name(f"{path.stem}.yours-{number}{path.suffix}") for number in count(1))
    return next(name for name in names if not name.exists())


def _written_before(out: Path) -> dict[str, str]:
    """What earlier runs wrote below `out`: the SHA-256 of each file; nothing if their record is not readable."""
    try:
        return dict(json.loads((out / RECORD).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _of_lessons_that_are_gone(names: Iterable[str]) -> list[str]:
    there = {lesson.name for lesson in all_lessons()}
    paths = [PurePosixPath(name) for name in names]
    return [str(path) for path in paths if str(path.parent) in FOLDERS and path.stem not in there]
