"""Editions of the lessons, made from the one source in `notebooks/`: for learners, instructors, Colab, a projector.

learner/      no solutions and no outputs: who has seen a result can no longer predict it
solutions/    the solutions, each under the title of its exercise; learner + solutions is the source (`merge`)
instructor/   everything, solutions unfolded, with a timetable and what each known mistake looks like
colab/        learner, with a cell that makes a machine of Google Colab ready for the lesson
slides/       one page per lesson that needs no network, without solutions and hints, and index.html, which lists them
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import filelock
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from kdcourse.course.decks import deck_page, decks_page, listed
from kdcourse.course.exercises.catalogue import all_exercises
from kdcourse.course.exercises.exercise import Task
from kdcourse.course.expectations import expectations_path, read_expectations
from kdcourse.course.lessons import Lesson, LessonError, require_apart, source_lessons
from kdcourse.course.own_files import own_files
from kdcourse.course.printing import print_page
from kdcourse.course.slides import cut
from kdcourse.course.speaker_notes import Lecture

SOLUTION, EXERCISE, PREDICTION = "solution", "exercise", "prediction"
ANSWERS = (EXERCISE, PREDICTION)
"""Tags of cells that a learner fills in."""
FOLLOWS = "follows"
"""Metadata of a cell in a solutions notebook: the id of the cell that it follows in the source."""
ON_COLAB = """\
# Colab gives each session a new machine. This installs the course beside the torch
# that is there, and fetches models and data; `cat` keeps progress bars away.
# If Colab then asks for a restart, agree, and go on with the next cell.
from importlib.metadata import version

%pip install --quiet "kdcourse[course]" "torch=={version('torch')}"
!kdcourse assets | cat
"""
"""Torch is asked for as it is installed: Colab's fits the machine's drivers, and another takes minutes. Where it is too
old for the course, pip says so."""


def write_editions(lessons: Sequence[Lesson], out: Path, *, browser: str | None = None) -> dict[Path, Path]:
    """Write all five editions of these lessons below `out`, each file whole.

    Files of an earlier run are replaced; one that somebody has changed since, such as a notebook with answers, is first
    renamed. Those of a lesson that is no longer in the course are deleted, unless somebody has changed them; files that
    no earlier run wrote are left alone.

    Args:
        browser: a Chromium, which then prints each deck to a PDF beside it.

    Returns:
        The files that were set aside, each with its new name.

    Raises:
        LessonError: a lesson cannot be read, `out` holds the lessons themselves or cannot be written, or another
            process is writing there.
        PrintError: the browser makes no PDF.
    """
    for lesson in lessons:
        if lesson.problem:
            raise LessonError(f"There are no editions of {lesson.path}. {lesson.problem}")
    set_aside = {}
    try:
        for folder in FOLDERS:
            require_apart(out / folder, lessons, "choose another --out")
        with own_files(out) as own:

            def publish(name: str) -> None:
                if kept := own.publish(name):
                    set_aside[out / name] = kept

            for lesson in lessons:
                for name, text in _editions_of(lesson):
                    _write(own.unfinished / name, text)
                    publish(name)
                if browser:
                    deck = out / "slides" / f"{lesson.name}.html"
                    print_page(browser, deck, own.unfinished / "slides" / f"{lesson.name}.pdf")
                    publish(f"slides/{lesson.name}.pdf")
            for name in _of_lessons_that_are_gone(own.written()):
                own.delete(name)
            _write(own.unfinished / DECKS, _list_of_decks(out / "slides"))
            publish(DECKS)
    except filelock.Timeout:
        raise LessonError(f"Another process is writing to {out}; wait for it, or choose another --out.") from None
    except OSError as error:
        raise LessonError(f"Editions cannot be written to {out} ({error.strerror}); choose another --out.") from None
    return set_aside


def _editions_of(lesson: Lesson) -> Iterator[tuple[str, str]]:
    """Each file of a lesson: its path below the folder of the editions, and its text."""
    source = nbformat.read(lesson.path, as_version=4)
    for folder, edition in NOTEBOOKS.items():
        yield f"{folder}/{lesson.path.name}", nbformat.writes(edition(source))
    yield f"slides/{lesson.name}.html", slides(source, lesson)


def _list_of_decks(folder: Path) -> str:
    """The page that leads to the decks that are there, of this run or an earlier one."""
    decks = (listed(lesson, folder) for lesson in source_lessons())
    return decks_page([deck for deck in decks if deck])


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


def colab(source: NotebookNode) -> NotebookNode:
    """The learner's edition, with a first code cell for a machine on which nothing of the course is installed."""
    notebook = learner(source)
    notebook.cells.insert(1, new_code_cell(ON_COLAB.rstrip(), id="on-colab"))
    return notebook


def slides(source: NotebookNode, lesson: Lesson) -> str:
    """One page for a projector, cut by `kdcourse.course.slides`, with notes for the speaker."""
    answers = expectations_path(lesson.number, lesson.path.parent)
    predictions = read_expectations(answers).predictions if answers.is_file() else {}
    lecture = Lecture(source.cells, lesson.minutes, predictions, all_exercises())
    deck = cut(_shown_on_slides(source))
    return deck_page(lesson.title, deck, lecture.notes(deck))


NOTEBOOKS: dict[str, Callable[[NotebookNode], NotebookNode]] = {
    "learner": learner,
    "solutions": solutions,
    "instructor": instructor,
    "colab": colab,
}
FOLDERS = (*NOTEBOOKS, "slides")
DECKS = "slides/index.html"


def has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _shown_on_slides(source: NotebookNode) -> Iterator[NotebookNode]:
    """No solutions, no hints, no set-up (the code before the first section), and exercises without a verdict."""
    in_a_section = False
    for cell in source.cells:
        is_code = cell.cell_type == "code"
        in_a_section |= not is_code and re.search(r"^## ", cell.source, re.MULTILINE) is not None
        if has_tag(cell, SOLUTION) or cell.source.startswith("<details>") or (is_code and not in_a_section):
            continue
        yield NotebookNode(cell | {"outputs": []}) if has_tag(cell, EXERCISE) else cell


def _exercise_of(cell: NotebookNode) -> Task:
    """The exercise that a solution cell verifies itself against."""
    found = re.search(r'exercises\.verify\("([\w.]+)"', cell.source)
    if found is None or found[1] not in all_exercises():
        raise LessonError(f"A solution verifies an exercise that there is; the cell {cell.id} does not.")
    return all_exercises()[found[1]]


def _folded(cell: NotebookNode) -> NotebookNode:
    cell = copy.deepcopy(cell)
    cell.metadata["jupyter"] = {"source_hidden": True}
    return cell


def _unfolded(cell: NotebookNode) -> NotebookNode:
    cell = copy.deepcopy(cell)
    del cell.metadata["jupyter"]
    return cell


def _timetable(header: str, exercises: Sequence[Task]) -> str:
    """The minutes of the lesson, as its header gives them, and how many of them each exercise takes."""
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
            f"| reading and predicting | | {lesson - sum(each.minutes for each in exercises)} | |",
            *rows,
            f"| **together** | | **{lesson}** | |",
        ]
    )


def _note(exercise: Task) -> str:
    mistakes = [f"- *{each.name}*: {each.signature} Read {each.read}." for each in exercise.misconceptions]
    return "\n".join(
        [f"**For the instructor.** What people write in {exercise.id}, and what the check tells them:", "", *mistakes]
    )


def _write(path: Path, text: str) -> None:
    """Bytes, so that they are the same on every platform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((text.rstrip("\n") + "\n").encode())


def _of_lessons_that_are_gone(names: Iterable[str]) -> list[str]:
    there = {lesson.name for lesson in source_lessons()}
    paths = [PurePosixPath(name) for name in names]
    return [str(path) for path in paths if str(path.parent) in FOLDERS and path.stem not in {*there, "index"}]
