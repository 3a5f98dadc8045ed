"""Rules that every notebook of the course keeps; each prevents a way in which notebooks go wrong unseen."""

import re

import nbformat
import pytest

from kdcourse.course.lessons import all_lessons

VOLATILE = "nbval-ignore-output"
"""The tag of a cell whose output depends on the machine or on training, and is not compared."""


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


@pytest.fixture(params=all_lessons(), ids=lambda lesson: lesson.name)
def lesson(request):
    return request.param


@pytest.fixture
def notebook(lesson):
    return nbformat.read(lesson.path, as_version=4)


def test_there_are_lessons():
    """A folder that was not found, and rules that hold for none."""
    assert all_lessons()


def test_it_is_a_valid_notebook_for_any_kernel_named_python3(notebook):
    """A kernelspec of one machine."""
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids))


def test_one_cell_holds_the_parameters(notebook):
    """papermill only warns about a parameter that the notebook does not know."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    assert 'PROFILE = "quick"' in cell.source


def test_the_header_tells_what_to_expect(lesson, notebook):
    """A lesson that does not say what it is for and how long it takes."""
    header = notebook.cells[0].source
    assert lesson.title.startswith(f"{lesson.number} · ")
    assert lesson.question.endswith("?")
    assert re.search(r"\d+ minutes", header)
    assert "Prerequisites" in header


def test_every_cell_is_stored_as_it_ran(notebook):
    """A stripped cell: nbval passes it without comparing anything."""
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    for cell in code_cells(notebook):
        assert not any(output.output_type == "error" for output in cell.outputs), cell.source


def test_most_outputs_are_compared(notebook):
    """A notebook that is exempt from its own test; below 60% it checks too little."""
    with_output = [cell for cell in code_cells(notebook) if cell.outputs]
    compared = [cell for cell in with_output if VOLATILE not in tags(cell)]
    assert len(compared) / len(with_output) >= 0.6


def test_no_tag_of_one_tool_means_the_opposite_to_another(notebook):
    """papermill fails on raises-exception; skip-execution is unknown to nbval."""
    for cell in notebook.cells:
        assert "raises-exception" not in tags(cell)
        assert ("skip-execution" in tags(cell)) == ("nbval-skip" in tags(cell))


def test_every_picture_has_an_alt_text(notebook):
    """A reader who cannot see the plot, and a plot that nobody described."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.metadata.get("image/png", {}).get("alt", "")) > 40, cell.source


def test_outputs_hold_no_warning_and_no_path(notebook):
    """Somebody's home folder, or a warning that readers learn to skip."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.get("name") != "stderr", output.text
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"(/home/|/root/|/Users/|/tmp/|[A-Z]:\\)", text), text


def test_no_semicolon_hides_a_value(notebook):
    """nbval shows what a trailing semicolon hides, and then they differ."""
    for cell in code_cells(notebook):
        assert not cell.source.rstrip().endswith(";"), cell.source


def test_the_prose_loads_nothing_from_elsewhere(notebook):
    """A picture that is missing in a room without network."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"!\[[^\]]*\]\(http|<(img|script|iframe)[^>]+http", cell.source), cell.source
