"""Editions: one source, and nothing in an edition that its reader should not see."""

import copy
import functools
import html
import os
import re

import nbformat
import pytest
from cells import code_cells
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from kdcourse.course import cli, editions
from kdcourse.course.claims import BESIDE_A_BOUND
from kdcourse.course.environment import kernel_environment
from kdcourse.course.exercises import all_exercises
from kdcourse.course.lessons import FOLDER_VARIABLE, all_lessons, find_lessons
from kdcourse.course.not_compared import is_not_compared

EXECUTED = all_lessons() if os.environ.get("KDCOURSE_DEEP") else find_lessons(["02"])


@pytest.fixture
def source(lesson):
    return nbformat.read(lesson.path, as_version=4)


def as_written(notebook):
    """The cells without what a run leaves in them."""
    keys = ("id", "cell_type", "source", "metadata")
    return [{key: cell[key] for key in keys} for cell in notebook.cells]


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


@pytest.mark.slow
def test_nothing_of_a_solution_leaks(lesson, source):
    """A solution in an output, in a hidden cell's metadata, or on a slide."""
    learner = "\n".join(strings_in(editions.learner(source)))
    # The speaker's notes say what the check says of each mistake to whoever makes it.
    shown = text_of(re.sub(r'<aside class="notes">.*?</aside>', "", page_of(lesson), flags=re.DOTALL))
    lines = list(solution_lines(source))
    assert lines or lesson.number == "00"
    for line in lines:
        assert line not in learner
        assert line not in shown


def strings_in(node):
    """Every key and text of a notebook as it reads, not as JSON escapes it."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        yield from (text for pair in node.items() for part in pair for text in strings_in(part))
    elif isinstance(node, list):
        yield from (text for part in node for text in strings_in(part))


@functools.cache
def page_of(lesson):
    return editions.slides(nbformat.read(lesson.path, as_version=4), lesson)


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def test_a_leak_would_be_found():
    """Quotes that JSON and HTML escape, and a search for a line that never finds it because of them."""
    (lesson,) = find_lessons(["02"])
    source = nbformat.read(lesson.path, as_version=4)
    everything, shown = "\n".join(strings_in(source)), text_of(editions.slides(unmarked(source), lesson))
    for line in solution_lines(source):
        assert line in everything
        assert line in shown


def unmarked(source):
    """The lesson with its solutions as ordinary cells."""
    notebook = copy.deepcopy(source)
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)
    return notebook


def test_a_learner_sees_no_result_before_running(source):
    """A prediction whose answer appears beneath it."""
    for cell in code_cells(editions.learner(source)):
        assert not cell.outputs
        assert cell.execution_count is None


def test_colab_is_told_what_to_install_and_nothing_else(source):
    """A cell that is missing on Colab, or that hides what is to be done behind the course's own imports."""
    edition = editions.colab(source)
    (cell,) = (cell for cell in edition.cells if cell.id == "on-colab")
    assert code_cells(edition)[0] == cell
    edition.cells.remove(cell)
    assert edition == editions.learner(source)
    assert "kdcourse" not in cell.source.partition("%pip install")[0]


@pytest.mark.slow
@pytest.mark.parametrize("lesson", EXECUTED, ids=lambda lesson: lesson.name)
def test_the_learner_edition_runs_anywhere(lesson, monkeypatch, tmp_path):
    """A lesson that needs its solutions or the folder of the course; an exercise that is judged before it is tried."""
    for name, value in kernel_environment().items():
        monkeypatch.setenv(name, value)
    source = nbformat.read(lesson.path, as_version=4)
    editions.write_editions([lesson], tmp_path)
    notebook = nbformat.read(tmp_path / "learner" / lesson.path.name, as_version=4)
    client = NotebookClient(notebook, timeout=900, kernel_name="python3")
    client.execute(cwd=str(tmp_path / "learner"))
    stored = {cell.id: cell for cell in source.cells}
    for cell in code_cells(notebook):
        if editions.has_tag(cell, "exercise"):
            assert "not attempted yet" in str(cell.outputs)
        elif not is_not_compared(cell):
            assert said(cell) == said(stored[cell.id])


def said(cell):
    """All text of a cell, which a kernel may send in any pieces, without values that may differ between machines."""
    texts = (output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
    return "".join(BESIDE_A_BOUND.sub(r"\1", text) for text in texts)


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


def test_an_instructor_knows_how_long_it_takes(lesson, source):
    """An afternoon that is planned without the exercises."""
    (timetable,) = [cell.source for cell in editions.instructor(source).cells if cell.id == "timetable"]
    exercises = [exercise for exercise in all_exercises().values() if exercise.lesson == lesson.number]
    whole = int(re.search(r"\*\*(\d+) minutes", source.cells[0].source)[1])
    assert f"| reading and predicting | | {whole - sum(exercise.minutes for exercise in exercises)} | |" in timetable
    assert f"| **{whole}** |" in timetable
    assert all(f"{exercise.id} · {exercise.title}" in timetable for exercise in exercises)


def test_slides_need_no_network_and_keep_their_pictures(lesson):
    """Blank slides in a room with bad Wi-Fi; a picture without its description."""
    page = page_of(lesson)
    assert not re.search(r"<link|@import|url\(['\"]?(https?:)?//|src=['\"](?!data:)", page)
    assert page.count('<section class="slide"') > 10
    pictures = re.findall(r"<img[^>]*>", page)
    assert pictures
    assert all(re.search(r'alt="[^"]{40,}', picture) for picture in pictures)


def test_the_same_source_gives_the_same_files(tmp_path):
    """A diff of every file at each release."""
    (lesson,) = find_lessons(["02"])
    for folder in ("one", "two"):
        editions.write_editions([lesson], tmp_path / folder)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*") if path.is_file())
    assert [str(path.parent) for path in files] == [".kdcourse", *sorted([*editions.FOLDERS, "slides"])]
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A course of two lessons that are quickly made into editions."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    for name in ("01_stays", "02_goes"):
        nbformat.write(toy_lesson(name), folder / f"{name}.ipynb")
    return folder


def test_what_is_deleted_was_written_and_not_touched_since(notebooks, tmp_path):
    """The slides of a lesson that was renamed; a learner's answers, or somebody's own file, gone with them."""
    out = tmp_path / "dist"
    editions.write_editions(all_lessons(), out)
    answered, own = out / "learner" / "02_goes.ipynb", out / "learner" / "02_mine.ipynb"
    answered.write_text("answers", encoding="utf-8")
    own.write_text("mine", encoding="utf-8")
    (notebooks / "02_goes.ipynb").unlink()
    editions.write_editions(find_lessons(["01"]), out)
    names = {path.relative_to(out).as_posix() for path in out.glob("[!.]*/*")}
    stays = {f"{folder}/01_stays.ipynb" for folder in editions.NOTEBOOKS} | {
        "slides/01_stays.html",
        "slides/index.html",
    }
    assert names == stays | {"learner/02_goes.ipynb", "learner/02_mine.ipynb"}


@pytest.mark.usefixtures("notebooks")
def test_one_lesson_does_not_take_the_others_away(tmp_path):
    """`kdcourse editions 02` in a folder that held all of them."""
    for name in ("01", "02"):
        editions.write_editions(find_lessons([name]), tmp_path)
    assert len(list((tmp_path / "learner").iterdir())) == 2
    decks = (tmp_path / "slides" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'href="([^"]+)"', decks) == ["01_stays.html", "02_goes.html"]
    assert decks.count("5 minutes · 2 slides") == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"learner/own.ipynb": 0}', '{"../own.ipynb": ["0"]}', '{"learner/own.ipynb": ["0"]}']
)
def test_a_record_that_is_not_one_deletes_nothing(tmp_path, text):
    """A traceback about a hidden file, or a file outside that it names."""
    out = tmp_path / "dist"
    (out / "learner").mkdir(parents=True)
    kept = [tmp_path / "own.ipynb", out / "learner" / "own.ipynb"]
    for path in kept:
        path.touch()
    (out / ".kdcourse").mkdir()
    (out / ".kdcourse" / "written.json").write_text(text, encoding="utf-8")
    editions.write_editions(find_lessons(["00"]), out)
    assert all(path.exists() for path in kept)
    assert (out / "learner" / "00_start_here.ipynb").exists()


@pytest.mark.usefixtures("notebooks")
def test_answers_are_set_aside_and_not_overwritten(tmp_path):
    """An afternoon of answers in dist/learner, gone with the next release of the course."""
    lessons = find_lessons(["01"])
    assert editions.write_editions(lessons, tmp_path) == {}
    answered = tmp_path / "learner" / "01_stays.ipynb"
    fresh = answered.read_bytes()
    for number, answers in enumerate(("one", "two"), start=1):
        answered.write_text(answers, encoding="utf-8")
        kept = answered.with_name(f"{answered.stem}.yours-{number}.ipynb")
        assert editions.write_editions(lessons, tmp_path) == {answered: kept}
        assert kept.read_text(encoding="utf-8") == answers
        assert answered.read_bytes() == fresh
    assert editions.write_editions(lessons, tmp_path) == {}


def test_a_new_release_replaces_what_nobody_changed(notebooks, tmp_path):
    """Four copies of every lesson after four releases."""
    editions.write_editions(all_lessons(), tmp_path / "dist")
    newer = toy_lesson("01_stays")
    newer.cells.append(new_markdown_cell("Twice."))
    nbformat.write(newer, notebooks / "01_stays.ipynb")
    assert editions.write_editions(all_lessons(), tmp_path / "dist") == {}
    learner = tmp_path / "dist" / "learner"
    assert sorted(path.name for path in learner.iterdir()) == ["01_stays.ipynb", "02_goes.ipynb"]
    assert "Twice." in (learner / "01_stays.ipynb").read_text(encoding="utf-8")


def toy_lesson(name):
    heading = new_markdown_cell(f"# {name[:2]} · A toy\n\n**5 minutes**\n\n## 1 · One\n\nA sentence.")
    return new_notebook(cells=[heading, new_code_cell("1 + 1")])


@pytest.mark.usefixtures("notebooks")
def test_the_command_writes_what_it_says(tmp_path):
    """A folder that is announced and not there; a traceback for a folder that cannot be written."""
    result = CliRunner().invoke(cli.app, ["editions", "02", "--out", str(tmp_path / "dist")])
    assert result.exit_code == 0
    folders = {path.name for path in (tmp_path / "dist").glob("[!.]*")}
    assert folders == {"learner", "solutions", "instructor", "colab", "slides"}
    answered = tmp_path / "dist" / "learner" / "02_goes.ipynb"
    answered.write_text("answers", encoding="utf-8")
    result = CliRunner().invoke(cli.app, ["editions", "02", "--out", str(tmp_path / "dist")])
    assert "had been changed; that version is now 02_goes.yours-1.ipynb" in result.output
    (tmp_path / "file").touch()
    result = CliRunner().invoke(cli.app, ["editions", "02", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "choose another --out" in result.output.replace("\n", " ")
