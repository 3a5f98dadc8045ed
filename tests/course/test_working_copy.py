"""A learner's copy: made, brought up to date, reset, and nothing of the learner's is ever lost."""

import json
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from typer.testing import CliRunner

from kdcourse.course import cli, jupyterlab, lessons
from kdcourse.course.lessons import Lesson, LessonError, all_lessons, course_lessons
from kdcourse.course.working_copy import RECORD, merged, reset, start
from kdcourse.hashing import hash_text
from kdcourse.labs import assets


def lesson_notebook(code="print(1)", intro="Read this."):
    """Prose, code that has run, an exercise and its folded solution."""
    return new_notebook(
        cells=[
            new_markdown_cell(intro, id="intro"),
            new_code_cell(code, id="code", outputs=[new_output("stream", text="1\n")], execution_count=1),
            new_code_cell("def mine():\n    raise NotImplementedError", id="answer", metadata={"tags": ["exercise"]}),
            new_markdown_cell("A hint.", id="hints"),
            new_code_cell("def solution(): ...", id="solution", metadata={"tags": ["solution"]}),
        ]
    )


@pytest.fixture
def course(tmp_path, monkeypatch):
    """The course's own folder, with two lessons."""
    folder = tmp_path / "course"
    folder.mkdir()
    for name in ("01_first", "02_second"):
        nbformat.write(lesson_notebook(), folder / f"{name}.ipynb")
    monkeypatch.setattr(lessons, "course_notebooks", lambda: folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mine"


def release(course, **changes):
    """The next version of lesson 01."""
    nbformat.write(lesson_notebook(**changes), course / "01_first.ipynb")


def edit(folder, cell_id, source, name="01_first"):
    path = folder / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.id == cell_id).source = source
    nbformat.write(notebook, path)


def sources(folder, name="01_first"):
    cells = nbformat.read(folder / "notebooks" / f"{name}.ipynb", as_version=4).cells
    return {cell.id: cell.source for cell in cells}


def test_a_copy_has_no_outputs_and_no_solutions(course, folder):
    """A prediction that is spoilt before it is read."""
    copied = start(folder)
    assert copied.new == ["01_first", "02_second"]
    cells = nbformat.read(folder / "notebooks" / "01_first.ipynb", as_version=4).cells
    assert [cell.id for cell in cells] == ["intro", "code", "answer", "hints"]
    assert not any(cell.get("outputs") for cell in cells)


def test_editions_are_made_of_the_course_and_not_of_a_copy(course, folder, monkeypatch):
    """An instructor's editions without solutions, since a copy of the lessons lay in the same folder."""
    monkeypatch.delenv(lessons.FOLDER_VARIABLE, raising=False)
    start(folder)
    monkeypatch.chdir(folder)
    assert {lesson.path.parent for lesson in all_lessons()} == {folder / "notebooks"}
    assert {lesson.path.parent for lesson in lessons.source_lessons()} == {course}


def test_a_copy_for_colab_stays_one(course, folder):
    """An update that takes the cell away which installs the course."""
    start(folder, on_colab=True)
    edit(folder, "answer", "def mine():\n    return 3")
    release(course, intro="New.")
    start(folder)
    assert list(sources(folder)) == ["intro", "on-colab", "code", "answer", "hints"]
    assert sources(folder)["answer"] == "def mine():\n    return 3"
    start(folder, solutions=False)
    assert list(sources(folder)) == ["intro", "code", "answer", "hints"]


def test_a_copy_for_colab_has_no_solutions(folder):
    """One of two wishes that is forgotten in silence."""
    result = CliRunner().invoke(cli.app, ["start", str(folder), "--colab", "--solutions"])
    assert result.exit_code == 2
    assert not folder.exists()


def test_a_copy_may_have_the_solutions(course, folder):
    """An instructor who has to look for them; and a later `start` that takes them away."""
    start(folder, solutions=True)
    assert "solution" in sources(folder)
    release(course, intro="New.")
    start(folder)
    assert "solution" in sources(folder)
    start(folder, solutions=False)
    assert "solution" not in sources(folder)


def test_a_second_start_changes_nothing(course, folder):
    """Files that are new to every backup, and a list of updates that are none."""
    start(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    copied = start(folder)
    assert (copied.new, copied.updated, copied.set_aside) == ([], [], {})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_update_brings_new_text_and_keeps_answers(course, folder):
    """An evening's answers, replaced by the stub."""
    start(folder)
    edit(folder, "answer", "def mine():\n    return 3")
    release(course, code="print(2)", intro="Read this first.")
    assert start(folder).updated == ["01_first"]
    assert sources(folder) == {
        "intro": "Read this first.", "code": "print(2)", "answer": "def mine():\n    return 3", "hints": "A hint.",
    }  # fmt: skip


def test_an_answer_survives_a_new_stub(course, folder):
    """Both have changed the cell: what the learner wrote is worth more."""
    start(folder)
    edit(folder, "answer", "def mine():\n    return 3")
    changed = lesson_notebook()
    changed.cells[2].source = "def mine(x):\n    raise NotImplementedError"
    nbformat.write(changed, course / "01_first.ipynb")
    start(folder)
    assert sources(folder)["answer"] == "def mine():\n    return 3"


def test_where_both_changed_the_code_it_runs_as_the_course_says(course, folder):
    """An old experiment in the middle of a new lesson, which then fails; or an experiment that is gone."""
    start(folder)
    edit(folder, "code", "print('my experiment')")
    release(course, code="print(2)")
    start(folder)
    assert sources(folder)["code"] == "print(2)"
    (kept,) = [text for cell_id, text in sources(folder).items() if cell_id.startswith("yours-")]
    assert "print('my experiment')" in kept


def test_a_file_that_is_no_notebook_any_more_is_set_aside(course, folder):
    """A traceback of nbformat, or a file that somebody wanted to repair."""
    start(folder)
    path = folder / "notebooks" / "01_first.ipynb"
    path.write_text("<<<<<<< HEAD", encoding="utf-8")
    (kept,) = start(folder).set_aside.values()
    assert kept.read_text(encoding="utf-8") == "<<<<<<< HEAD"
    assert "intro" in sources(folder)


def test_a_lost_record_loses_no_answer(course, folder):
    """Without it nobody can tell whose a cell is, so each that differs counts as the learner's."""
    start(folder)
    edit(folder, "answer", "def mine():\n    return 3")
    edit(folder, "code", "print('my experiment')")
    (folder / RECORD).write_text("{", encoding="utf-8")
    start(folder)
    texts = sources(folder)
    assert texts["answer"] == "def mine():\n    return 3"
    assert any("my experiment" in text for text in texts.values())


def test_the_courses_own_notebooks_are_not_written_over(course, tmp_path, monkeypatch):
    """`kdcourse start .` in a clone, which strips every lesson."""
    (tmp_path / "clone").mkdir()
    course.rename(tmp_path / "clone" / "notebooks")
    monkeypatch.setattr(lessons, "course_notebooks", lambda: tmp_path / "clone" / "notebooks")
    before = (tmp_path / "clone" / "notebooks" / "01_first.ipynb").read_bytes()
    with pytest.raises(LessonError, match="name another folder"):
        start(tmp_path / "clone")
    assert (tmp_path / "clone" / "notebooks" / "01_first.ipynb").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_a_sentence(course, tmp_path):
    """A traceback for a file where a folder was meant."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(LessonError, match="cannot be written to"):
        start(tmp_path / "file")


def test_reset_gives_a_lesson_back_and_keeps_the_old_one(course, folder):
    """A learner who wants to begin again, and later wants back what was there."""
    start(folder)
    edit(folder, "answer", "def mine():\n    return 3")
    kept = reset(Lesson(course / "01_first.ipynb"), folder)
    assert "return 3" in kept.read_text(encoding="utf-8")
    assert sources(folder)["answer"].endswith("raise NotImplementedError")
    assert [lesson.name for lesson in lessons.lessons_in(folder / "notebooks")] == ["01_first", "02_second"]
    assert reset(Lesson(course / "01_first.ipynb"), folder).name == "01_first.yours-2.ipynb"


def test_reset_needs_a_copy(course, folder):
    """A new folder that nobody asked for."""
    with pytest.raises(LessonError, match="kdcourse start"):
        reset(Lesson(course / "01_first.ipynb"), folder)
    assert not folder.exists()


def test_the_lessons_are_those_of_the_copy_where_there_is_one(course, tmp_path, monkeypatch):
    """`kdcourse run` beside a copy that runs the originals; inside the copy; and where there is none."""
    monkeypatch.delenv(lessons.FOLDER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert all_lessons()[0].path.parent == course
    start(tmp_path / lessons.COPY)
    for place in (tmp_path, tmp_path / lessons.COPY, tmp_path / lessons.COPY / "notebooks"):
        monkeypatch.chdir(place)
        assert all_lessons()[0].path.parent == tmp_path / lessons.COPY / "notebooks"
    assert course_lessons()[0].path.parent == course


TEXTS = st.sampled_from(["a", "b", "c", "d"])
CELLS = st.lists(st.tuples(st.sampled_from([f"cell-{number}" for number in range(6)]), TEXTS, st.booleans()),
                 unique_by=lambda cell: cell[0], max_size=6)  # fmt: skip


def as_notebook(cells):
    """(id, text, whether it is an exercise) for each cell."""
    return new_notebook(
        cells=[
            new_code_cell(text, id=cell_id, metadata={"tags": ["exercise"]} if is_exercise else {})
            for cell_id, text, is_exercise in cells
        ]
    )


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(handed_out=CELLS, edits=CELLS, own=st.lists(TEXTS, max_size=2), new=CELLS)
def test_whatever_both_have_done_nothing_of_the_learners_is_lost(handed_out, edits, own, new):
    """Cells changed, deleted and added by either side, in any order: what the learner wrote is in the result, what the
    learner did not write is what the course says, and a second update changes nothing."""
    old = as_notebook(handed_out)
    handed = {cell.id: hash_text(cell.source) for cell in old.cells}
    mine = as_notebook(edits)
    mine.cells += [new_code_cell(f"mine: {text}") for text in own]
    theirs = as_notebook(new)
    result = merged(mine, theirs, handed)
    nbformat.validate(result)
    ids = [cell.id for cell in result.cells]
    assert len(ids) == len(set(ids))
    everything = "\n".join(cell.source for cell in result.cells)
    for cell in mine.cells:
        if handed.get(cell.id) != hash_text(cell.source):
            assert cell.source in everything
    kept = {cell.id: cell.source for cell in result.cells}
    written = {cell.id for cell in mine.cells if handed.get(cell.id) != hash_text(cell.source)}
    for cell in theirs.cells:
        if cell.id not in written:
            assert kept[cell.id] == cell.source
    assert [cell_id for cell_id in ids if cell_id in {cell.id for cell in theirs.cells}] == [
        cell.id for cell in theirs.cells
    ]
    now = {cell.id: hash_text(cell.source) for cell in theirs.cells}
    assert merged(result, theirs, now) == result


def test_the_record_is_readable(course, folder):
    """A format that only this version knows."""
    start(folder)
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    assert record["edition"] == "learner"
    assert set(record["lessons"]) == {"01_first", "02_second"}
    assert lessons.is_copy(folder)


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_start_says_what_it_did_and_what_comes_next(course, folder):
    """A command that is done, and somebody who does not know where."""
    assert f"`kdcourse lab {folder}`" in call("start", folder).output
    assert "Nothing has changed." in call("start", folder).output
    release(course, intro="New.")
    assert "01_first was updated; your answers are kept" in call("start", folder).output
    assert call("start", course.parent / "course" / "01_first.ipynb").exit_code == 2


def test_reset_names_the_file_that_was_kept(course, folder):
    """An old notebook that nobody finds again; a lesson that there is not."""
    call("start", folder)
    result = call("reset", "01", folder)
    assert result.exit_code == 0
    assert "01_first.yours-1.ipynb" in result.output
    assert call("reset", "99", folder).exit_code == 2
    assert call("reset", "01", folder / "elsewhere").exit_code == 2


@pytest.mark.parametrize(
    ("words", "folder_name", "options"),
    [
        (["lab"], "kd-course", []),
        (["lab", "mine"], "mine", []),
        (["lab", "--", "--no-browser", "--port=0"], "kd-course", ["--no-browser", "--port=0"]),
        (["lab", "mine", "--", "--no-browser"], "mine", ["--no-browser"]),
        (["lab", "mine", "--no-browser"], "mine", ["--no-browser"]),
    ],
)
def test_lab_makes_a_copy_and_hands_on_what_is_jupyterlabs(course, tmp_path, monkeypatch, words, folder_name, options):
    """`lab -- --no-browser` that looks for a folder of that name; a learner who has to know of `start`."""
    opened = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jupyterlab, "open_lab", lambda folder, given: opened.append((folder, given)) or 0)
    monkeypatch.setattr(assets, "fetch", lambda *_, **__: None)
    assert call(*words).exit_code == 0
    assert opened == [(Path(folder_name), options)]
    assert lessons.is_copy(tmp_path / folder_name)


def test_lab_opens_without_a_network(course, tmp_path, monkeypatch):
    """A room without a network, and lessons that need none."""

    def fail(*_, **__):
        raise assets.AssetError("There is no network.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jupyterlab, "open_lab", lambda *_: 0)
    monkeypatch.setattr(assets, "fetch", fail)
    result = call("lab")
    assert result.exit_code == 0
    assert "There is no network." in result.output
