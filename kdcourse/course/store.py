"""Put the outputs of a run into the notebook itself, so that a code host shows the lesson and nbval can compare."""

from __future__ import annotations

import itertools
from pathlib import Path

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from kdcourse.files import written_whole


def store_outputs(source: Path, executed: Path) -> None:
    """Copy outputs from the executed notebook to the cells of `source` that have the same id.

    Of what else papermill writes (times, durations, its own cell) nothing is taken over: a second run that gives the
    same outputs gives the same file.
    """
    notebook = nbformat.read(source, as_version=4)
    # A kernel sends what a cell prints in pieces, which depend on how busy the machine is.
    whole, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(executed, as_version=4), {})
    outputs = {cell.id: cell.outputs for cell in whole.cells if cell.cell_type == "code"}
    counts = itertools.count(1)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = next(counts)
            cell.outputs = [_numbered(output, cell.execution_count) for output in outputs[cell.id]]
    with written_whole(source) as unfinished:
        nbformat.write(notebook, unfinished)


def _numbered(output: NotebookNode, count: int) -> NotebookNode:
    if output.output_type == "execute_result":
        output.execution_count = count
    return output
