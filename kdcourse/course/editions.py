"""Editions of the lessons, made from the one source in `notebooks/`: for learners, for instructors, for a projector.

learner/      no solutions and no outputs: who has seen a result can no longer predict it
solutions/    the solutions, each under the title of its exercise; learner + solutions is the source (`merge`)
instructor/   everything, solutions unfolded, with a timetable and what each known mistake looks like
slides/       one page per lesson that needs no network, without solutions and hints
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nbconvert
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from kdcourse.course.lessons import Lesson, LessonError
from kdcourse.course.page import TEMPLATES
from kdcourse.exercises.catalogue import all_exercises
from kdcourse.exercises.exercise import Exercise
from kdcourse.files import written_whole

SOLUTION, EXERCISE = "solution", "exercise"
BEGINS_SLIDE = r"##+ |\*\*(?:Predict|Break)"
FOLLOWS = "follows"
"""Metadata of a cell in a solutions notebook: the id of the cell that it stands behind in the source."""


def write_editions(lessons: Sequence[Lesson], out: Path) -> list[Path]:
    """Write all four editions of these lessons below `out`, each file whole; returns their folders.

    Raises:
        LessonError: `out` cannot be written.
    """
    for lesson in lessons:
        source = nbformat.read(lesson.path, as_version=4)
        try:
            for folder, edition in NOTEBOOKS.items():
                _write(out / folder / lesson.path.name, nbformat.writes(edition(source)))
            _write(out / "slides" / f"{lesson.name}.html", slides(source, lesson.title))
        except OSError as error:
            raise LessonError(
                f"Editions cannot be written to {out} ({error.strerror}); choose another --out."
            ) from None
    return [out / folder for folder in (*NOTEBOOKS, "slides")]


def learner(source: NotebookNode) -> NotebookNode:
    """The lesson without solutions and outputs."""
    notebook = copy.deepcopy(source)
    notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, SOLUTION)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
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
    notebook.cells = [header, *([new_markdown_cell(_timetable(found), id="timetable")] if found else [])]
    for cell in rest:
        if not has_tag(cell, SOLUTION):
            notebook.cells.append(cell)
            continue
        exercise = _exercise_of(cell)
        note = new_markdown_cell(_note(exercise), id=f"note-{exercise.id.replace('.', '-')}")
        notebook.cells += [_unfolded(cell), note]
    return notebook


def slides(source: NotebookNode, title: str) -> str:
    """One page; a slide begins with a heading, a prediction or a mistake, and holds all that follows from it."""
    notebook = copy.deepcopy(source)
    notebook.cells = list(_slide_cells(notebook))
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


def has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _slide_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """No solutions, hints or parameters; prose cut where a slide begins. What explains a result stays beside it."""
    for cell in notebook.cells:
        if has_tag(cell, SOLUTION) or has_tag(cell, "parameters") or cell.source.startswith("<details>"):
            continue
        if cell.cell_type != "markdown":
            yield cell
            continue
        for number, part in enumerate(re.split(rf"\n(?={BEGINS_SLIDE})", cell.source)):
            if part.strip():
                begins = re.match(BEGINS_SLIDE, part) is not None
                yield new_markdown_cell(part, id=f"{cell.id}-{number}", metadata={"begins_slide": begins})


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


def _timetable(exercises: Sequence[Exercise]) -> str:
    rows = [
        f"| {each.id} | {each.title} | {'★' * each.difficulty} | {each.minutes} | {len(each.misconceptions)} |"
        for each in exercises
    ]
    total = sum(each.minutes for each in exercises)
    return "\n".join(
        [
            f"**For the instructor.** {len(exercises)} exercises, {total} minutes of the lesson's time.",
            "",
            "| exercise | title | difficulty | minutes | known mistakes |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _note(exercise: Exercise) -> str:
    mistakes = [f"- *{each.name}*: {each.signature} Read {each.read}." for each in exercise.misconceptions]
    return "\n".join(
        [f"**For the instructor.** What people write in {exercise.id}, and what the check tells them:", "", *mistakes]
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
