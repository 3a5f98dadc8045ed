"""Put the outputs of a run into the notebook itself, so that a code host shows the lesson and nbval can compare."""

from __future__ import annotations

import copy
import itertools
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from kdcourse.course.claims import BESIDE_A_BOUND, METADATA_KEY
from kdcourse.course.lessons import Lesson, LessonError
from kdcourse.course.not_compared import reason_of
from kdcourse.files import written_whole

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
"""What ipykernel says of itself, but for the version of Python."""

LARGEST_WHOLE = 2**53
"""Up to here every whole number has a float of its own."""


def require_storable(lessons: Iterable[Lesson], parameters: Mapping[str, Any]) -> None:
    """What is stored has to be what a lesson says by itself, in the lesson's own file.

    Raises:
        LessonError: these parameters make other outputs, or a lesson is a link to somebody else's file.
    """
    if parameters:
        given = ", ".join(f"{name}={value}" for name, value in parameters.items())
        raise LessonError(f"--store would store what {given} makes of the lessons; leave out the one or the other.")
    for lesson in lessons:
        if lesson.path.is_symlink():
            raise LessonError(
                f"{lesson.path} is a link to {lesson.path.resolve()}, into which --store does not write; run that one, "
                "or leave out --store."
            )


def store_outputs(source: Path, executed: Path) -> None:
    """Copy outputs from the executed notebook to the cells of `source` that have the same id.

    Of what else papermill writes (times, durations, its own cell) nothing is taken over: a second run that gives the
    same outputs gives the same file. Cells that show a time never give the same, and a value beside a bound may differ
    between machines; the file is left alone if nothing else has changed.

    Raises:
        LessonError: somebody has changed the lesson while it ran, or it cannot be written.
    """
    notebook = nbformat.read(source, as_version=4)
    before = _comparable(notebook)
    # A kernel sends what a cell prints in pieces, which depend on how busy the machine is.
    whole, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(executed, as_version=4), {})
    outputs = {cell.id: cell.outputs for cell in whole.cells if cell.cell_type == "code"}
    if _code_of(notebook) != _code_of(whole):
        raise LessonError(f"{source} was changed while it ran; what it gave is not stored: run it again.")
    counts = itertools.count(1)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = next(counts)
            cell.outputs = [_stored(output, cell.execution_count) for output in outputs[cell.id]]
    if _comparable(notebook) == before:
        return
    try:
        write_as_jupyterlab(notebook, source)
    except OSError as error:
        raise LessonError(f"The outputs cannot be stored in {source} ({error.strerror}); it is as it was.") from None


def _code_of(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.id, cell.source) for cell in notebook.cells if cell.cell_type == "code"]


def write_as_jupyterlab(notebook: NotebookNode, path: Path) -> None:
    """In the form in which JupyterLab saves a notebook, so that who opens one there and saves it changes no line.

    JupyterLab adds what the kernel says of its language, and JavaScript has one kind of number: 1.0 is written as 1.
    """
    known = notebook.metadata.get("language_info", {})
    notebook.metadata["kernelspec"] = KERNEL
    notebook.metadata["language_info"] = {**LANGUAGE, "version": known.get("version", platform.python_version())}
    with written_whole(path) as unfinished:
        nbformat.write(nbformat.from_dict(_with_one_kind_of_number(notebook)), unfinished)


def _with_one_kind_of_number(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _with_one_kind_of_number(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_with_one_kind_of_number(value) for value in part]
    return int(part) if isinstance(part, float) and part.is_integer() and abs(part) < LARGEST_WHOLE else part


def _comparable(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells without what another run may show: times, and values beside a bound."""
    cells = copy.deepcopy(notebook.cells)
    for cell in cells:
        if reason_of(cell) == "timed":
            cell.outputs = []
        for output in cell.get("outputs", []):
            if METADATA_KEY in output.get("metadata", {}):
                output.data = {kind: BESIDE_A_BOUND.sub(r"\1", text) for kind, text in output.data.items()}
    return cells


def _stored(output: NotebookNode, count: int) -> NotebookNode:
    """The output as it is stored; a claim without what was measured, whose last digits differ between machines."""
    if output.output_type == "execute_result":
        output.execution_count = count
    for measured in ("value", "spread"):
        output.get("metadata", {}).get(METADATA_KEY, {}).pop(measured, None)
    return output
