"""Rules that only show when a lesson runs."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kdcourse.course.rules import slow_cells


def cell_that_took(name, seconds):
    return new_code_cell(id=name, metadata={"papermill": {"duration": seconds}})


def test_a_cell_that_keeps_its_reader_waiting_is_named():
    """A cell that trains for minutes, while its reader wonders whether it hangs."""
    executed = new_notebook(cells=[cell_that_took("load", 29.9), cell_that_took("train", 73.4)])
    assert slow_cells(executed) == ["`train` took 73 s"]
    assert slow_cells(executed, seconds=10) == ["`load` took 30 s", "`train` took 73 s"]


def test_a_cell_without_a_duration_is_not_slow():
    """A report that breaks on prose, or on the cell at which a lesson stopped."""
    executed = new_notebook(cells=[new_markdown_cell("# Title"), new_code_cell(), cell_that_took("stopped", None)])
    assert slow_cells(executed, seconds=0) == []
