"""Run lessons from top to bottom, and keep what came out.

An executed notebook is written whole or not at all. Its metadata says how the lesson went, and has a fingerprint of all
that the result depends on. So a folder of executed notebooks is the state of a run: `resume` looks at nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import filelock
import nbformat
import papermill
from nbformat import NotebookNode

from kdcourse.course.claims import claims_of
from kdcourse.course.environment import COLLECT_CLAIMS, device_name, kernel_environment
from kdcourse.course.execute import OUT_OF_SPACE, OnCell, execute
from kdcourse.course.fingerprint import circumstances, fingerprint
from kdcourse.course.lessons import Lesson, LessonError
from kdcourse.course.not_compared import reason_of
from kdcourse.course.outcome import METADATA_KEY, Outcome, Record, read_record
from kdcourse.course.settings import Settings
from kdcourse.files import written_whole


class Watcher:
    """Is told how a run goes; this one keeps it to itself."""

    def says(self, text: str) -> None:
        """Anything that takes its time before the first lesson."""

    def lesson_begins(self, lesson: Lesson, place: int, count: int) -> None:
        """`place` counts from 1."""

    def cell_begins(self, cell: str, place: int, count: int) -> None:
        """`cell` is an id; code cells are counted, from 1."""

    def lesson_ends(self, outcome: Outcome) -> None:
        """Also for a lesson that an earlier run has finished, which then never began."""


def run_lessons(
    lessons: Sequence[Lesson],
    out: Path,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Iterator[Outcome]:
    """Execute each lesson into `out`, one after the other; one that fails does not stop the others.

    Args:
        out: folder for the executed notebooks.
        resume: do not run again what went well in `out` with the same notebook, package, versions and parameters.

    Raises:
        LessonError: no lesson knows a parameter, or the device is not there, both before anything is written; or `out`
            cannot be written, or another run is writing there.
    """
    settings = settings or Settings()
    plan = _plan(lessons, settings)
    device = device_name(settings.device)
    return _run(plan, out, settings, device, resume, watcher or Watcher())


def _run(
    plan: Mapping[Lesson, Mapping[str, Any]], out: Path, settings: Settings, device: str, resume: bool, watcher: Watcher
) -> Iterator[Outcome]:
    os.environ.update(kernel_environment(settings.device) | COLLECT_CLAIMS)
    try:
        out.mkdir(parents=True, exist_ok=True)  # found out before a lesson runs for minutes
        with filelock.FileLock(out / ".lock", timeout=0):
            _remove_leftovers(out)
            for place, (lesson, known) in enumerate(plan.items(), 1):
                executed, mark = out / lesson.path.name, fingerprint(lesson, injected(known), device)
                earlier = read_record(executed) if resume else None
                if earlier is not None and earlier.fingerprint == mark and not earlier.problem:
                    outcome = Outcome(lesson, executed, earlier, reused=True)
                else:
                    watcher.lesson_begins(lesson, place, len(plan))
                    begun = Record(mark, 0.0, circumstances=circumstances(device, known))
                    outcome = _outcome(lesson, executed, begun, injected(known), settings, watcher.cell_begins)
                yield outcome
    except filelock.Timeout:
        raise LessonError(
            f"Another run is writing to {out}; wait for it, or choose another folder with --out."
        ) from None
    except OSError as error:
        raise cannot_write(out, error) from None


def cannot_write(out: Path, error: OSError) -> LessonError:
    """What to say when the folder of a run, or a file in it, cannot be written."""
    return LessonError(
        f"{error.filename or out} cannot be written ({error.strerror}); choose another --out than {out}."
    )


def _plan(lessons: Iterable[Lesson], settings: Settings) -> dict[Lesson, dict[str, Any]]:
    """Each lesson with the parameters that it knows.

    Raises:
        LessonError: none of the lessons knows a parameter that was asked for; papermill would only warn.
    """
    known = {lesson: _parameters_of(lesson) for lesson in lessons}
    names = list(dict.fromkeys(name for of_lesson in known.values() for name in of_lesson))
    for name in settings.parameters:
        if name not in names:
            raise LessonError(
                f"None of the chosen lessons has a parameter {name}; they have {', '.join(names) or 'none at all'}."
            )
    asked = settings.all_parameters
    return {lesson: {name: asked[name] for name in asked if name in of_lesson} for lesson, of_lesson in known.items()}


def _parameters_of(lesson: Lesson) -> list[str]:
    """Their names; a lesson without a cell for them has none.

    Raises:
        LessonError: the file is no notebook.
    """
    return list(papermill.inspect_notebook(str(lesson.path))) if lesson.cells else []


def injected(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What papermill has to add to the notebook.

    The defaults that every lesson has are not: the cell for them would shift the numbers of all others.
    """
    defaults = Settings().all_parameters
    return {name: value for name, value in parameters.items() if name not in defaults or value != defaults[name]}


def _remove_leftovers(out: Path) -> None:
    """What `written_whole` was writing when an earlier run was killed."""
    for path in out.glob(".*.[0-9]*"):
        path.unlink()


def _outcome(
    lesson: Lesson, executed: Path, begun: Record, parameters: Mapping[str, Any], settings: Settings, on_cell: OnCell
) -> Outcome:
    started = time.monotonic()
    unfinished = executed.with_name(f".{executed.name}")  # papermill writes it anew after every cell
    try:
        stopped = execute(lesson.path, unfinished, parameters, cell_seconds=settings.cell_seconds, on_cell=on_cell)
        notebook = nbformat.read(unfinished if unfinished.exists() else lesson.path, as_version=4)
        problem, cell = (stopped, _last_cell(notebook)) if stopped else look_over(notebook)
        record = replace(begun, seconds=time.monotonic() - started, problem=problem, cell=cell)
        notebook.metadata[METADATA_KEY] = asdict(record)
        with written_whole(executed) as path:
            nbformat.write(notebook, path)
    except OSError as error:
        executed.unlink(missing_ok=True)  # of an earlier run, which this outcome is not about
        record = replace(begun, seconds=time.monotonic() - started, problem=_words_for(error))
    finally:
        unfinished.unlink(missing_ok=True)
    return Outcome(lesson, executed, record)


def look_over(notebook: NotebookNode) -> tuple[str, str]:
    """What is wrong with a notebook that ran to its end without an error, and in which cell."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for cell in code:
        if cell.execution_count is None and reason_of(cell) != "interactive":
            return "A cell was passed over: it has not run.", cell.id
    claims = claims_of(notebook)
    if not claims:
        return "It states no claims, so nothing in it was checked.", ""
    broken = [claim for claim in claims if not claim["holds"]]
    if broken:
        names = "; ".join(f"'{claim['name']}'" for claim in broken)
        return f"{'A claim does' if len(broken) == 1 else f'{len(broken)} claims do'} not hold: {names}.", broken[0][
            "cell"
        ]
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
