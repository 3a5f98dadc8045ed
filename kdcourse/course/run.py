"""Run lessons from top to bottom, and keep what came out.

An executed notebook is written whole or not at all. Its metadata says how the lesson went, and has a fingerprint of all
that the result depends on, and a digest of all that the notebook holds. So a folder of executed notebooks is the state
of a run: `resume` looks at nothing else, and believes none that somebody has changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import nbformat
from nbformat import NotebookNode
from papermill.translators import PythonTranslator

from kdcourse.course.claims import checked_claims, claims_of
from kdcourse.course.environment import COLLECT_CLAIMS, device_name, kernel_environment
from kdcourse.course.execute import OnCell, execute
from kdcourse.course.expectations import expectations_path, read_expectations
from kdcourse.course.fingerprint import circumstances, fingerprint
from kdcourse.course.lessons import INSTALLED, Lesson, LessonError, in_a_line, lessons_in, require_apart, source_of
from kdcourse.course.not_compared import reason_of
from kdcourse.course.outcome import Outcome, Record, is_of_a_run, read_record, write_executed
from kdcourse.course.own_files import PRIVATE, OwnFiles, own_files
from kdcourse.course.parameters import require_fitting
from kdcourse.course.settings import Settings
from kdcourse.files import OUT_OF_SPACE
from kdcourse.labs import assets

PARAMETERS = "parameters"
"""Tag of the cell whose names can be set; the one that papermill looks for."""


class Watcher:
    """Is told how a run goes; this one keeps it to itself."""

    def says(self, text: str) -> None:
        """Anything that is worth a line of its own."""

    def lesson_begins(self, lesson: Lesson, place: int, count: int) -> None:
        """`place` counts from 1."""

    def cell_begins(self, cell: str, place: int, count: int) -> None:
        """`cell` is an id; code cells are counted, from 1."""

    def lesson_ends(self, outcome: Outcome) -> None:
        """Also for a lesson that an earlier run has finished, which then never began."""


@dataclass(frozen=True)
class Planned:
    """A lesson, the parameters that it knows of those that were asked for, and why it cannot be run, if so."""

    lesson: Lesson
    parameters: Mapping[str, Any]
    problem: str = ""


def run_lessons(
    lessons: Sequence[Lesson],
    out: Path,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Iterator[Outcome]:
    """Execute each lesson into `out`, one after the other; one that fails, or cannot be read, does not stop the others.

    Files in `out` that this program did not write, or that somebody has changed since, are renamed and not replaced.

    Args:
        out: folder for the executed notebooks.
        resume: do not run again what went well in `out` with the same notebook, package, versions and parameters.

    Raises:
        LessonError: `out` holds lessons, no lesson knows a parameter, or the device is not there, all before anything
            is written; or `out` cannot be written, or another run is writing there.
    """
    settings, watcher = settings or Settings(), watcher or Watcher()
    try:
        _require_no_lessons(out, lessons)
    except OSError as error:
        raise cannot_write(out, error) from None
    return _run(_plan(lessons, settings), out, settings, device_name(settings.device), resume, watcher)


def _require_no_lessons(out: Path, lessons: Sequence[Lesson]) -> None:
    """Notebooks that are no run's are not written over, whether they are those that shall run or somebody else's."""
    require_apart(out, lessons, "choose another --out")
    own = OwnFiles(out).written()
    for found in lessons_in(out):
        if found.path.name not in own and not is_of_a_run(found.path):
            raise LessonError(
                f"{out} holds lessons: {found.path.name} is there, and no run has written it; choose another --out."
            )


def _run(
    plan: Sequence[Planned], out: Path, settings: Settings, device: str, resume: bool, watcher: Watcher
) -> Iterator[Outcome]:
    os.environ.update(kernel_environment(settings.device) | COLLECT_CLAIMS)
    try:
        with own_files(out) as own:  # found out before a lesson runs for minutes
            for place, planned in enumerate(plan, 1):
                lesson, executed = planned.lesson, out / planned.lesson.path.name
                mark = _mark(planned, device)
                earlier = read_record(executed) if resume and mark else None
                if earlier is not None and earlier.fingerprint == mark and not earlier.problem:
                    outcome = Outcome(lesson, executed, earlier, reused=True)
                else:
                    watcher.lesson_begins(lesson, place, len(plan))
                    begun = Record(mark, 0.0, circumstances=circumstances(device, planned.parameters))
                    outcome = _outcome(planned, own, begun, settings, watcher)
                yield outcome
    except filelock.Timeout:
        raise LessonError(
            f"Another run is writing to {out}; wait for it, or choose another folder with --out."
        ) from None
    except OSError as error:
        raise cannot_write(out, error) from None


def _mark(planned: Planned, device: str) -> str:
    """The fingerprint of what shall run; none for a lesson that cannot be read, which is therefore never finished."""
    try:
        return "" if planned.problem else fingerprint(planned.lesson, injected(planned.parameters), device)
    except (OSError, ValueError, AttributeError):  # it could be read when the run began
        return ""


def cannot_write(out: Path, error: OSError) -> LessonError:
    """What to say when the folder of a run, or a file in it, cannot be written."""
    if error.errno in OUT_OF_SPACE:
        return LessonError(
            f"The disk is full: {error.filename or out} could not be written; free some space, or choose another "
            f"--out than {out}."
        )
    return LessonError(
        f"{error.filename or out} cannot be written ({error.strerror}); choose another --out than {out}."
    )


def say_aside(kept: Path, watcher: Watcher) -> None:
    """Whose it was is not known, so somebody should know where it is."""
    watcher.says(f"A file that this run would have replaced is not as a run wrote it; it is now {kept}.")


def _plan(lessons: Iterable[Lesson], settings: Settings) -> list[Planned]:
    """Each lesson with the parameters that it knows.

    Raises:
        LessonError: none of the lessons knows a parameter that was asked for; papermill would only warn. Where one
            cannot be read, nobody can tell.
        ParameterError: it is not of the kind that a lesson has there.
    """
    read = [_looked_at(lesson) for lesson in lessons]
    known = list(dict.fromkeys(name for _, names, _ in read for name in names))
    all_read = not any(problem for _, _, problem in read)
    for name in settings.parameters:
        if name not in known and all_read:
            raise LessonError(
                f"None of the chosen lessons has a parameter {name}; they have {', '.join(known) or 'none at all'}."
            )
    asked = settings.all_parameters
    for lesson, defaults, _ in read:
        for name in asked.keys() & defaults.keys():
            require_fitting(name, asked[name], defaults[name], lesson.name)
    return [
        Planned(lesson, {name: asked[name] for name in asked if name in names}, problem)
        for lesson, names, problem in read
    ]


def _looked_at(lesson: Lesson) -> tuple[Lesson, dict[str, str], str]:
    """A lesson with its parameters, each with the source of its default, or what is wrong with it."""
    if lesson.problem:
        return lesson, {}, lesson.problem
    if len({cell["id"] for cell in lesson.cells}) < len(lesson.cells):
        return lesson, {}, "It cannot be run: two of its cells have the same id."
    notebook = nbformat.from_dict({"cells": lesson.cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return lesson, {}, f"It cannot be read as a notebook: {in_a_line(error)}."
    cell = next((cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", [])), None)
    found = [] if cell is None else PythonTranslator.inspect(NotebookNode(source=source_of(cell)))
    return lesson, {each.name: each.default for each in found}, ""


def injected(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What papermill has to add to the notebook.

    The defaults that every lesson has are not: the cell for them would shift the numbers of all others.
    """
    defaults = Settings().all_parameters
    return {name: value for name, value in parameters.items() if name not in defaults or value != defaults[name]}


def _outcome(planned: Planned, own: OwnFiles, begun: Record, settings: Settings, watcher: Watcher) -> Outcome:
    started = time.monotonic()
    name = planned.lesson.path.name
    try:
        notebook, problem, cell = _executed(planned, own, settings, watcher.cell_begins)
        record = replace(begun, seconds=time.monotonic() - started, problem=problem, cell=cell)
        write_executed(notebook, record, own.unfinished / name)
        if kept := own.publish(name):
            say_aside(kept, watcher)
    except OSError as error:
        record = replace(begun, seconds=time.monotonic() - started, problem=_words_for(error))
    return Outcome(planned.lesson, own.folder / name, record)


def _executed(planned: Planned, own: OwnFiles, settings: Settings, on_cell: OnCell) -> tuple[NotebookNode, str, str]:
    """A notebook, what is wrong with it, and in which cell.

    Raises:
        OSError: the notebook cannot be written; papermill does so after every cell.
    """
    if planned.problem:
        return _page_about(planned, planned.problem), planned.problem, ""
    source, parameters = planned.lesson.path, injected(planned.parameters)
    unfinished, folder = own.unfinished / source.name, _kernel_folder(source, own)
    try:
        stopped = execute(
            source, unfinished, parameters, folder=folder, cell_seconds=settings.cell_seconds, on_cell=on_cell
        )
        notebook = nbformat.read(unfinished if unfinished.exists() else source, as_version=4)
        unclaimed = [] if stopped else unclaimed_entries(planned.lesson, parameters, notebook)
        return notebook, *((stopped, _last_cell(notebook)) if stopped else look_over(notebook, unclaimed))
    except OSError:
        raise
    except Exception as error:  # five libraries have read this notebook: whatever it is, the others run
        problem = f"It could not be run ({type(error).__name__}: {in_a_line(error)})."
        return _page_about(planned, problem), problem, ""


def _kernel_folder(source: Path, own: OwnFiles) -> Path:
    """Where a lesson's kernel starts: beside the lesson, since it writes to `../build`.

    Nothing is written into an installed package, which may belong to somebody else: its lessons start in the run's own
    folder.
    """
    if source.parent != INSTALLED:
        return source.parent
    folder = own.folder / PRIVATE / "work" / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _page_about(planned: Planned, problem: str) -> NotebookNode:
    """What is left of a lesson that cannot be run: a heading, and why, as text and not as markup."""
    lines = "\n".join(f"    {line}" for line in problem.splitlines())
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {planned.lesson.name}\n\n{lines}")])


def unclaimed_entries(lesson: Lesson, parameters: Mapping[str, Any], notebook: NotebookNode) -> list[str]:
    """What the lesson's file of expectations has, and no cell of the executed notebook has claimed or revealed."""
    path = expectations_path(lesson.number, lesson.path.parent)
    if not path.is_file():
        return []
    made = {str(claim.get("name")) for claim in claims_of(notebook)}
    return read_expectations(path).unclaimed(made, (str(parameters.get("PROFILE", "quick")), assets.source()))


def look_over(notebook: NotebookNode, unclaimed: Sequence[str] = ()) -> tuple[str, str]:
    """What is wrong with a notebook that ran to its end without an error, and in which cell.

    Args:
        unclaimed: `unclaimed_entries`.
    """
    for cell in [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]:
        if cell.execution_count is None and reason_of(cell) != "interactive":
            return "A cell was passed over: it has not run.", cell.id
    claims = checked_claims(notebook)
    if not claims:
        return "It states no claims, so nothing in it was checked.", ""
    broken = [claim for claim in claims if not claim["holds"]]
    if broken:
        names = "; ".join(f"'{claim['name']}'" for claim in broken)
        return f"{'A claim does' if len(broken) == 1 else f'{len(broken)} claims do'} not hold: {names}.", broken[0][
            "cell"
        ]
    if unclaimed:
        names = "; ".join(f"'{name}'" for name in unclaimed)
        return f"Nothing claims what its file of expectations has: {names}.", ""
    return "", ""


def _last_cell(notebook: NotebookNode) -> str:
    """The cell in which execution stopped, the last that has begun.

    The status does not tell: after a time-out, papermill calls the cells behind it completed.
    """
    begun = [
        cell.id
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    return begun[-1] if begun else ""


def _words_for(error: OSError) -> str:
    if error.errno in OUT_OF_SPACE:
        return "The disk is full: the executed notebook could not be written."
    return f"The executed notebook could not be written ({error.strerror})."
