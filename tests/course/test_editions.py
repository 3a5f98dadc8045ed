"""Editions: one source, and nothing in an edition that its reader should not see."""

import os
import re

import nbformat
import pytest
from nbclient import NotebookClient
from typer.testing import CliRunner

from kdcourse import cli
from kdcourse.course import editions
from kdcourse.course.environment import kernel_environment
from kdcourse.course.exempt import is_exempt
from kdcourse.course.lessons import all_lessons, find_lessons

EXECUTED = all_lessons() if os.environ.get("KDCOURSE_DEEP") else find_lessons(["02"])


@pytest.fixture(params=all_lessons(), ids=lambda lesson: lesson.name)
def lesson(request):
    return request.param


@pytest.fixture
def source(lesson):
    return nbformat.read(lesson.path, as_version=4)


def as_written(notebook):
    """The cells without what a run leaves in them."""
    keys = ("id", "cell_type", "source", "metadata")
    return [{key: cell[key] for key in keys} for cell in notebook.cells]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def solution_lines(source):
    """What only a solution says: its lines of substance that occur nowhere else in the lesson, and its names."""
    elsewhere = "\n".join(cell.source for cell in source.cells if not editions.has_tag(cell, "solution"))
    for cell in source.cells:
        if editions.has_tag(cell, "solution"):
            lines = (line.strip() for line in cell.source.splitlines())
            yield from (line for line in lines if len(line) > 12 and line not in elsewhere)
            yield from (name for name in re.findall(r"def (\w+)", cell.source) if name not in elsewhere)


def test_learner_and_solutions_are_the_source(source):
    """A cell that is in no edition, or a learner's notebook that an instructor cannot complete."""
    assert as_written(editions.merge(editions.learner(source), editions.solutions(source))) == as_written(source)


def test_nothing_of_a_solution_leaks(lesson, source):
    """A solution in an output, in a hidden cell's metadata, or on a slide."""
    learner = nbformat.writes(editions.learner(source))
    shown = editions.slides(source, lesson.title)
    lines = list(solution_lines(source))
    assert lines or lesson.number == "00"
    for line in lines:
        assert line not in learner
        assert line not in re.sub(r"<[^>]+>", "", shown)


def test_a_learner_sees_no_result_before_running(source):
    """A prediction whose answer stands beneath it."""
    for cell in code_cells(editions.learner(source)):
        assert not cell.outputs
        assert cell.execution_count is None


@pytest.mark.notebooks
@pytest.mark.parametrize("lesson", EXECUTED, ids=lambda lesson: lesson.name)
def test_the_learner_edition_runs(lesson, monkeypatch):
    """A lesson that works only with its solutions; an exercise that is judged before it is tried."""
    for name, value in kernel_environment().items():
        monkeypatch.setenv(name, value)
    source = nbformat.read(lesson.path, as_version=4)
    notebook = editions.learner(source)
    client = NotebookClient(notebook, timeout=900, kernel_name="python3")
    client.execute(cwd=str(lesson.path.parent))
    stored = {cell.id: cell for cell in source.cells}
    for cell in code_cells(notebook):
        if editions.has_tag(cell, "exercise"):
            assert "not attempted yet" in str(cell.outputs)
        elif not is_exempt(cell):
            assert said(cell) == said(stored[cell.id])


def said(cell):
    """All text of a cell; a kernel may send it in any pieces."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def test_an_instructor_finds_all_known_mistakes(source):
    """A room full of the same wrong answer, and an instructor who has never seen it."""
    edition = editions.instructor(source)
    ids = [cell.id for cell in edition.cells]
    assert [cell.id for cell in source.cells] == [each for each in ids if not re.match(r"note-|timetable", each)]
    for cell in edition.cells:
        if editions.has_tag(cell, "solution"):
            assert "source_hidden" not in str(cell.metadata)
            exercise = editions._exercise_of(cell)
            note = edition.cells[ids.index(cell.id) + 1].source
            assert all(mistake.signature in note for mistake in exercise.misconceptions)


def test_slides_need_no_network_and_keep_their_pictures(lesson, source):
    """Blank slides in a room with bad Wi-Fi; a picture without its description."""
    html = editions.slides(source, lesson.title)
    assert not re.search(r'(src|href)="(https?:)?//(?!\S*#)[^"]*\.(js|css)', html)
    assert html.count('<section class="slide">') > 10
    pictures = re.findall(r"<img[^>]*>", html)
    assert pictures
    assert all(re.search(r'alt="[^"]{40,}', picture) for picture in pictures)


def test_the_same_source_gives_the_same_files(tmp_path):
    """A diff of every file at each release."""
    (lesson,) = find_lessons(["02"])
    for folder in ("one", "two"):
        editions.write_editions([lesson], tmp_path / folder)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert [str(path.parent) for path in files] == ["instructor", "learner", "slides", "solutions"]
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_the_command_writes_what_it_says(tmp_path):
    """A folder that is announced and not there; a traceback for a folder that cannot be written."""
    result = CliRunner().invoke(cli.app, ["editions", "02", "--out", str(tmp_path / "dist")])
    assert result.exit_code == 0
    assert {path.name for path in (tmp_path / "dist").iterdir()} == {"learner", "solutions", "instructor", "slides"}
    (tmp_path / "file").touch()
    result = CliRunner().invoke(cli.app, ["editions", "02", "--out", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "choose another --out" in result.output.replace("\n", " ")
