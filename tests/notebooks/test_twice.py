"""A learner who goes back to the top and runs everything again, in the kernel that is already there.

Two short lessons by default; with KDCOURSE_DEEP=1 all of them, which takes twice as long as the course.
"""

import copy
import os

import nbformat
import pytest
from cells import code_cells, said
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook
from traitlets.config import Config

from kdcourse.course.environment import kernel_environment
from kdcourse.course.execute import ENCRYPTION
from kdcourse.course.lessons import all_lessons, find_lessons
from kdcourse.course.not_compared import TAG, is_not_compared

pytestmark = pytest.mark.slow

LESSONS = all_lessons() if os.environ.get("KDCOURSE_DEEP") else find_lessons(["01", "02"])


def run_twice(notebook, folder):
    """Execute all cells, and all of them again in the same kernel; each round's cells.

    Raises:
        CellExecutionError: a cell fails in one of the rounds.
    """
    rounds = [copy.deepcopy(notebook.cells) for _ in range(2)]
    for cell in rounds[1]:
        cell.id = f"{cell.id}-again"
    both = new_notebook(cells=[*rounds[0], *rounds[1]], metadata=notebook.metadata)
    NotebookClient(
        both,
        timeout=900,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
        config=Config(KernelManager={"transport_encryption": ENCRYPTION}),
    ).execute()
    return rounds


def changed_cells(first, second):
    """The ids of cells whose compared outputs differ between two rounds."""
    return [
        before.id
        for before, after in zip(first, second, strict=True)
        if before.cell_type == "code" and not is_not_compared(before)
        if [said(output) for output in before.outputs] != [said(output) for output in after.outputs]
    ]


@pytest.fixture(autouse=True)
def course_environment(monkeypatch):
    for name, value in kernel_environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_says_the_same_the_second_time(lesson):
    """A cell that consumes what it needs, or a number that depends on what ran before."""
    first, second = run_twice(nbformat.read(lesson.path, as_version=4), lesson.path.parent)
    assert all(cell.execution_count for cell in code_cells(new_notebook(cells=second)))
    assert changed_cells(first, second) == []


def test_a_cell_that_depends_on_the_round_is_named(tmp_path):
    """A comparison that finds nothing because it compares nothing."""
    counted = "count = globals().get('count', 0) + 1\nprint(count)"
    cells = [
        new_code_cell(counted, id="counted"),
        new_code_cell(counted, id="volatile", metadata={"tags": [TAG]}),
        new_code_cell("print('the same')", id="steady"),
    ]
    assert changed_cells(*run_twice(new_notebook(cells=cells), tmp_path)) == ["counted"]


def test_a_cell_that_works_only_once_fails(tmp_path):
    """A name that is defined late and deleted at the end, or a file that may not be there yet."""
    once = new_notebook(cells=[new_code_cell("from pathlib import Path\nPath('new').mkdir()")])
    with pytest.raises(CellExecutionError, match="FileExistsError"):
        run_twice(once, tmp_path)
