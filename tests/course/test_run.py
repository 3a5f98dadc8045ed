"""Running lessons: what stops one is said as what it is, and does not stop the others."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kdcourse.course import claims_report, lessons, page, run, store


def write_lesson(folder, name, *sources):
    """A lesson with a heading, a parameters cell and these code cells."""
    parameters = new_code_cell('PROFILE = "quick"', metadata={"tags": ["parameters"]})
    heading = new_markdown_cell(f"# {name[:2]} · A toy\n\n***Does it run?***")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [heading, parameters, *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setenv(lessons.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(run.os, "environ", run.os.environ | {})  # what a run sets is gone after the test
    return folder


def run_all(tmp_path, **options):
    return list(run.run_lessons(lessons.all_lessons(), tmp_path / "out", **options))


def test_each_lesson_runs_with_its_profile_and_offline(folder, tmp_path):
    """A profile that is accepted and ignored; a kernel that looks for the hub."""
    write_lesson(folder, "00_toy", "import os", 'print(PROFILE, os.environ["HF_EVALUATE_OFFLINE"])')
    (outcome,) = run_all(tmp_path, profile="full")
    assert outcome.passed, outcome.problem
    cells = nbformat.read(outcome.executed, as_version=4).cells
    assert cells[-1].outputs[0].text == "full 1\n"


def test_a_lesson_that_fails_is_named_and_the_next_one_runs(folder, tmp_path):
    """One broken notebook that hides the state of all after it."""
    write_lesson(folder, "00_broken", "1 / 0")
    write_lesson(folder, "01_whole", "1 + 1")
    broken, whole = run_all(tmp_path)
    assert "ZeroDivisionError: division by zero" in broken.problem
    assert whole.passed


def test_a_cell_that_never_ends_is_stopped(folder, tmp_path):
    """A run that hangs until somebody looks."""
    write_lesson(folder, "00_endless", "while True: pass")
    (outcome,) = run_all(tmp_path, cell_seconds=5)
    assert "longer than 5 s" in outcome.problem


def test_a_dead_kernel_is_no_success(folder, tmp_path):
    """papermill marks a notebook whose kernel died as completed."""
    write_lesson(folder, "00_dies", "import os\nos._exit(9)")
    (outcome,) = run_all(tmp_path)
    assert "kernel died" in outcome.problem


def test_a_kernel_that_does_not_start_is_a_sentence(folder, tmp_path, monkeypatch):
    """The traceback of five libraries on a machine that is too busy, or whose firewall closes local ports."""

    def wait_in_vain(*_, **__):
        raise RuntimeError("Kernel didn't respond in 60 seconds")

    write_lesson(folder, "00_toy", "1 + 1")
    monkeypatch.setattr(run.papermill, "execute_notebook", wait_in_vain)
    (outcome,) = run_all(tmp_path)
    assert "did not start (Kernel didn't respond in 60 seconds)" in outcome.problem


def test_the_claims_of_a_run_are_collected(folder, tmp_path):
    """Claims that can be compared by reading notebooks only; a lesson that fails and takes its claims along."""
    write_lesson(folder, "00_toy", "from kdcourse.claims import claim\nclaim('one', 1.0, 1, tolerance=0.1)")
    write_lesson(
        folder, "01_toy", "from kdcourse.claims import claim\nclaim('two', True)\nclaim('three', 1.0, at_most=0)"
    )
    written = json.loads(claims_report.write_claims(run_all(tmp_path), tmp_path).read_text(encoding="utf-8"))
    assert [claim["name"] for claim in written["lessons"]["00_toy"]] == ["one"]
    assert [claim["name"] for claim in written["lessons"]["01_toy"]] == ["two"]
    assert written["versions"]["torch"].startswith("2.")


def test_a_folder_that_cannot_be_written_is_found_out_first(folder, tmp_path):
    """Minutes of training, and then a traceback."""
    write_lesson(folder, "00_toy", "1 + 1")
    (tmp_path / "out").touch()
    with pytest.raises(lessons.LessonError, match="--out"):
        run_all(tmp_path)


def test_a_run_that_goes_well_warns_of_nothing(folder, tmp_path, capfd):
    """A warning about eavesdroppers before the first lesson of a beginner."""
    write_lesson(folder, "00_toy", "import sys", "print('said', file=sys.__stderr__, flush=True)")
    (outcome,) = run_all(tmp_path)
    assert outcome.passed, outcome.problem
    said = capfd.readouterr().err
    assert "WARNING" not in said
    assert "said" in said  # what a kernel itself has to say is not hidden


def test_the_index_leads_to_every_notebook_and_needs_no_network(folder, tmp_path):
    """A page that is empty without the scripts of somebody else's server."""
    write_lesson(folder, "00_broken", "1 / 0")
    write_lesson(folder, "01_whole", "print('made it')")
    outcomes = run_all(tmp_path)
    index = page.write_index(outcomes, tmp_path / "out")
    html = index.read_text(encoding="utf-8")
    assert "1 of 2" in html
    assert "division by zero" in html
    assert 'href="01_whole.html"' in html
    lesson = (tmp_path / "out" / "01_whole.html").read_text(encoding="utf-8")
    assert "made it" in lesson
    assert "<h1" in lesson and "&lt;p&gt;" not in lesson  # nbconvert's sanitizer would show headings as markup
    assert "<title>01 · A toy</title>" in lesson
    assert 'href="index.html"' in lesson
    assert "<script" not in html + lesson


def test_a_picture_keeps_its_words_on_the_page(folder, tmp_path):
    """nbconvert's "No description has been provided for this image", in front of a description."""
    write_lesson(
        folder,
        "00_toy",
        "from matplotlib.figure import Figure\nfrom kdcourse import plots\nplots.show(Figure(), 'It <rises>')",
    )
    outcomes = run_all(tmp_path)
    page.write_index(outcomes, tmp_path / "out")
    lesson = (tmp_path / "out" / "00_toy.html").read_text(encoding="utf-8")
    assert 'alt="It &lt;rises&gt;"' in lesson


def test_the_default_profile_adds_no_cell(folder, tmp_path):
    """An error in "cell 12" that a reader of the notebook finds in cell 11."""
    write_lesson(folder, "00_toy", "print(PROFILE)")
    (outcome,) = run_all(tmp_path)
    cells = nbformat.read(outcome.executed, as_version=4).cells
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2]
    assert cells[-1].outputs[0].text == "quick\n"


def test_a_title_is_text_and_not_markup(folder, tmp_path):
    """A heading with an angle bracket that breaks the page."""
    write_lesson(folder, "00_toy", "1 + 1")
    outcome = run.Outcome(lessons.all_lessons()[0], tmp_path / "none.ipynb", 1.0, "<script>alert(1)</script>")
    html = page.write_index([outcome], tmp_path).read_text(encoding="utf-8")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_stored_outputs_are_the_same_after_a_second_run(folder, tmp_path):
    """Times and durations in the notebook, and a diff after every run."""
    write_lesson(folder, "00_toy", "import time\nprint('hel', flush=True, end='')\ntime.sleep(1)\nprint('lo')", "1 + 1")
    path = lessons.all_lessons()[0].path
    contents = []
    for _ in range(2):
        (outcome,) = run_all(tmp_path)
        store.store_outputs(path, outcome.executed)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2, 3]
    assert cells[2].outputs == [new_output("stream", name="stdout", text="hello\n")]
    assert cells[3].outputs[0].data["text/plain"] == "2"


def test_lessons_are_found_by_number_and_by_name(folder):
    """`kdcourse run 1` that runs nothing and succeeds."""
    for name in ("01_second", "00_first"):
        write_lesson(folder, name)
    (folder / "notes.ipynb").touch()
    assert [lesson.name for lesson in lessons.find_lessons([])] == ["00_first", "01_second"]
    assert [lesson.name for lesson in lessons.find_lessons(["01_second", "00"])] == ["00_first", "01_second"]
    assert lessons.find_lessons(["00"])[0].title == "00 · A toy"
    assert lessons.find_lessons(["00"])[0].question == "Does it run?"
    with pytest.raises(lessons.LessonError, match="no lesson '02'; the course has 00_first, 01_second"):
        lessons.find_lessons(["02"])


def test_a_missing_folder_says_where_it_looked(monkeypatch, tmp_path):
    """An installed package without notebooks that reports success on none of them."""
    monkeypatch.setenv(lessons.FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(lessons.LessonError, match="nowhere"):
        lessons.all_lessons()
