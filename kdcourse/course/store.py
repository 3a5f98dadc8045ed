"""Put the outputs of a run into the notebook itself, so that a code host shows the lesson and nbval can compare."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from kdcourse.course.claims import METADATA_KEY
from kdcourse.course.not_compared import reason_of
from kdcourse.files import written_whole


def store_outputs(source: Path, executed: Path) -> None:
    """Copy outputs from the executed notebook to the cells of `source` that have the same id.

    Of what else papermill writes (times, durations, its own cell) nothing is taken over: a second run that gives the
    same outputs gives the same file. Cells that show a time never give the same; the file is left alone if nothing
    else has changed.
    """
    notebook = nbformat.read(source, as_version=4)
    before = _without_times(notebook)
    # A kernel sends what a cell prints in pieces, which depend on how busy the machine is.
    whole, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(executed, as_version=4), {})
    outputs = {cell.id: cell.outputs for cell in whole.cells if cell.cell_type == "code"}
    counts = itertools.count(1)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = next(counts)
            cell.outputs = [_stored(output, cell.execution_count) for output in outputs[cell.id]]
    if _without_times(notebook) == before:
        return
    with written_whole(source) as unfinished:
        nbformat.write(notebook, unfinished)


def _without_times(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells, those that show a time without their outputs."""
    cells = copy.deepcopy(notebook.cells)
    for cell in cells:
        if reason_of(cell) == "timed":
            cell.outputs = []
    return cells


def _stored(output: NotebookNode, count: int) -> NotebookNode:
    """The output as it is stored; a claim without what was measured, whose last digits differ between machines."""
    if output.output_type == "execute_result":
        output.execution_count = count
    for measured in ("value", "spread"):
        output.get("metadata", {}).get(METADATA_KEY, {}).pop(measured, None)
    return output
