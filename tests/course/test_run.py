"""Running lessons: what stops one is said as what it is, and does not stop the others."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from junitparser import JUnitXml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kdcourse.course import claims_json, execute, fingerprint, html_pages, junit_xml, lessons, run, store
from kdcourse.course.outcome import Outcome, Record, read_record
from kdcourse.course.run_and_report import run_and_report

pytestmark = pytest.mark.slow

CLAIM = "from kdcourse.course.claims import claim\nclaim('it runs', True)"


def write_lesson(folder, name, *sources, first=CLAIM):
    """A lesson with a heading, a parameters cell, one with a claim, and these code cells."""
    parameters = new_code_cell('PROFILE = "quick"', metadata={"tags": ["parameters"]})
    heading = new_markdown_cell(f"# {name[:2]} · A toy\n\n***Does it run?***")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [
        heading,
        parameters,
        *(new_code_cell(source, id=f"cell-{place}") for place, source in enumerate([first, *sources])),
    ]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setenv(lessons.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(run.os, "environ", run.os.environ | {})  # what a run sets is gone after the test
    return folder


def run_all(tmp_path, *, resume=False, **options):
    return list(run.run_lessons(lessons.all_lessons(), tmp_path / "out", run.Settings(**options), resume=resume))


def test_each_lesson_runs_with_its_profile_and_offline(folder, tmp_path):
    """A profile that is accepted and ignored; a kernel that looks for the hub."""
    write_lesson(folder, "00_toy", "import os", 'print(PROFILE, os.environ["HF_EVALUATE_OFFLINE"])')
    (outcome,) = run_all(tmp_path, profile="full")
    assert outcome.passed, outcome.problem
    cells = nbformat.read(outcome.executed, as_version=4).cells
    assert cells[-1].outputs[0].text == "full 1\n"


def test_nothing_is_written_into_an_installed_package(folder, tmp_path, monkeypatch):
    """A lesson that fails where the package belongs to somebody else, and litters it where it does not."""
    monkeypatch.setattr(run, "INSTALLED", folder)
    write_lesson(folder, "00_toy", "from pathlib import Path\nPath('../build').mkdir(parents=True)")
    (outcome,) = run_all(tmp_path)
    assert outcome.passed, outcome.problem
    assert not (tmp_path / "build").exists()
    assert (tmp_path / "out" / ".kdcourse" / "work" / "build").is_dir()


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
    monkeypatch.setattr(execute.papermill, "execute_notebook", wait_in_vain)
    (outcome,) = run_all(tmp_path)
    assert "did not start (Kernel didn't respond in 60 seconds)" in outcome.problem


def test_the_claims_of_a_run_are_collected(folder, tmp_path):
    """Claims that can be compared by reading notebooks only; a lesson that fails and takes its claims along."""
    write_lesson(folder, "00_toy", "claim('one', 1.0, 1, tolerance=0.1)")
    write_lesson(folder, "01_toy", "claim('two', True)", "1 / 0")
    path = claims_json.write_claims(run_all(tmp_path), tmp_path, "cpu")
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [claim["name"] for claim in written["lessons"]["00_toy"]] == ["it runs", "one"]
    assert [claim["name"] for claim in written["lessons"]["01_toy"]] == ["it runs", "two"]
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
    for outcome in outcomes:
        html_pages.write_lesson(outcome, tmp_path / "out")
    index = html_pages.write_index(outcomes, tmp_path / "out")
    html = index.read_text(encoding="utf-8")
    assert "1 of 2" in html
    assert "division by zero" in html
    assert 'href="01_whole.html"' in html
    lesson = (tmp_path / "out" / "01_whole.html").read_text(encoding="utf-8")
    assert "made it" in lesson
    assert "<h1" in lesson and "&lt;p&gt;" not in lesson  # nbconvert's sanitizer would show headings as markup
    assert "<title>01 · A toy</title>" in lesson
    assert 'href="index.html"' in lesson
    assert "<script" not in html
    assert lesson.count("<script>") == lesson.count("<script") == 1  # the page's own, which keeps guesses


def test_a_picture_keeps_its_words_on_the_page(folder, tmp_path):
    """nbconvert's "No description has been provided for this image", in front of a description."""
    write_lesson(
        folder,
        "00_toy",
        "from IPython.display import display\n"
        "display({'image/png': 'AAAA'}, metadata={'image/png': {'alt': 'It <rises>'}}, raw=True)",
    )
    (outcome,) = run_all(tmp_path)
    html_pages.write_lesson(outcome, tmp_path / "out")
    lesson = (tmp_path / "out" / "00_toy.html").read_text(encoding="utf-8")
    assert 'alt="It &lt;rises&gt;"' in lesson


def test_the_default_profile_adds_no_cell(folder, tmp_path):
    """An error in "cell 12" that a reader of the notebook finds in cell 11."""
    write_lesson(folder, "00_toy", "print(PROFILE)")
    (outcome,) = run_all(tmp_path)
    cells = nbformat.read(outcome.executed, as_version=4).cells
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2, 3]
    assert cells[-1].outputs[0].text == "quick\n"


def test_a_title_is_text_and_not_markup(folder, tmp_path):
    """A heading with an angle bracket that breaks the page."""
    write_lesson(folder, "00_toy", "1 + 1")
    broken = Outcome(lessons.all_lessons()[0], tmp_path / "none.ipynb", Record("", 1.0, "<script>alert(1)</script>"))
    html = html_pages.write_index([broken], tmp_path).read_text(encoding="utf-8")
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
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2, 3, 4]
    assert cells[3].outputs == [new_output("stream", name="stdout", text="hello\n")]
    assert cells[4].outputs[0].data["text/plain"] == "2"


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


def test_a_folder_without_lessons_is_no_success(folder):
    """ "0 of 0 in order", and an exit code of 0."""
    with pytest.raises(lessons.LessonError, match=f"no lessons in {folder}"):
        lessons.find_lessons([])


def test_a_lesson_that_is_no_notebook_is_a_sentence(folder, tmp_path):
    """The traceback of a JSON parser for a file that was saved by half, and nothing of the lessons behind it."""
    (folder / "00_half.ipynb").write_text('{"cells": [', encoding="utf-8")
    write_lesson(folder, "01_toy", "1 + 1")
    half, whole = run_all(tmp_path)
    assert half.problem.startswith("It cannot be read as a notebook: Expecting value")
    assert whole.passed


def test_a_missing_folder_says_where_it_looked(monkeypatch, tmp_path):
    """An installed package without notebooks that reports success on none of them."""
    monkeypatch.setenv(lessons.FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(lessons.LessonError, match="nowhere"):
        lessons.all_lessons()


def test_what_is_finished_is_not_repeated(folder, tmp_path):
    """Minutes of training again, after a Ctrl-C in the last lesson."""
    write_lesson(folder, "00_whole", "import os\nprint(os.getpid())")
    write_lesson(folder, "01_broken", "1 / 0")
    first = run_all(tmp_path)
    again = run_all(tmp_path, resume=True)
    assert [outcome.reused for outcome in again] == [True, False]
    assert again[0].executed.read_bytes() == first[0].executed.read_bytes()
    assert again[1].problem == first[1].problem


@pytest.mark.parametrize("change", ["notebook", "parameters", "package", "versions"])
def test_what_has_changed_runs_again(folder, tmp_path, monkeypatch, change):
    """The result of yesterday's notebook, package or versions, reported as today's."""
    write_lesson(folder, "00_toy", "1 + 1")
    run_all(tmp_path)
    options = {}
    if change == "notebook":
        write_lesson(folder, "00_toy", "1 + 2")
    elif change == "parameters":
        options = {"profile": "full"}
    elif change == "package":
        monkeypatch.setattr(fingerprint, "package_digest", lambda: "another")
    else:
        monkeypatch.setattr(fingerprint, "versions", lambda: {"torch": "9.9"})
    (outcome,) = run_all(tmp_path, resume=True, **options)
    assert not outcome.reused


def test_a_cell_is_named_by_its_id(folder, tmp_path):
    """ "Cell 7", which is the sixth in an editor that starts at 0 and does not count prose."""
    write_lesson(folder, "00_broken", "1 + 1", "1 / 0", "1 + 1")
    write_lesson(folder, "01_dies", "1 + 1", "import os\nos._exit(9)", "1 + 1")
    write_lesson(folder, "02_endless", "while True: pass", "1 + 1")
    assert [outcome.record.cell for outcome in run_all(tmp_path, cell_seconds=5)] == ["cell-2", "cell-2", "cell-1"]


def test_every_broken_claim_is_reported(folder, tmp_path):
    """A run that stops at the first number that moved, so that nobody knows of the other nine."""
    write_lesson(folder, "00_toy", "claim('one', 2.0, at_most=1)", "claim('two', float('nan'), 1, tolerance=1)")
    (outcome,) = run_all(tmp_path)
    assert outcome.problem == "2 claims do not hold: 'one'; 'two'."
    assert outcome.record.cell == "cell-1"
    assert [(claim["name"], claim["holds"], claim["cell"]) for claim in outcome.claims] == [
        ("it runs", True, "cell-0"),
        ("one", False, "cell-1"),
        ("two", False, "cell-2"),
    ]


def test_a_lesson_that_states_nothing_fails(folder, tmp_path):
    """A notebook that runs through, because it holds nothing against anything."""
    write_lesson(folder, "00_toy", "1 + 1", first="0")
    (outcome,) = run_all(tmp_path)
    assert "states no claims" in outcome.problem


def test_a_lesson_that_ran_in_no_time_fails(folder, tmp_path):
    """A cell that a tool's tag skips, in a notebook that reports success."""
    write_lesson(folder, "00_toy", "1 + 1")
    path = folder / "00_toy.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].metadata["tags"] = ["skip-execution"]
    nbformat.write(notebook, path)
    (outcome,) = run_all(tmp_path)
    assert (outcome.problem, outcome.record.cell) == ("A cell was passed over: it has not run.", "cell-1")


def add_parameter(folder, name, line):
    """One more parameter for a lesson that is there."""
    path = folder / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source += f"\n{line}"
    nbformat.write(notebook, path)


def test_a_parameter_that_no_lesson_knows_is_refused_first(folder, tmp_path):
    """papermill warns, and runs the default; or each lesson fails, after the folder was made."""
    write_lesson(folder, "00_toy", "1 + 1")
    with pytest.raises(lessons.LessonError, match=r"None .* has a parameter STEPZ; they have PROFILE"):
        run_all(tmp_path, parameters={"STEPZ": 5})
    done = subprocess.run(
        [*run_command(tmp_path / "out"), "-p", "STEPZ=1"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert "STEPZ" in done.stderr and "PROFILE" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_parameter_goes_to_the_lessons_that_know_it(folder, tmp_path):
    """Seven lessons that fail, because the eighth has a knob of its own."""
    write_lesson(folder, "00_plain", "1 + 1")
    write_lesson(folder, "01_steps", "print(STEPS)")
    add_parameter(folder, "01_steps", "STEPS = 3")
    plain, steps = run_all(tmp_path, parameters={"STEPS": 5})
    assert plain.passed and steps.passed
    assert "STEPS" not in plain.record.circumstances
    assert nbformat.read(steps.executed, as_version=4).cells[-1].outputs[0].text == "5\n"


def test_a_seed_goes_to_the_lessons_that_have_one(folder, tmp_path):
    """A seed that is accepted and ignored."""
    write_lesson(folder, "00_toy", "1 + 1")
    write_lesson(folder, "01_trains", "print(SEED)")
    add_parameter(folder, "01_trains", "SEED = 0")
    plain, seeded = run_all(tmp_path, seed=7)
    assert plain.passed
    assert nbformat.read(seeded.executed, as_version=4).cells[-1].outputs[0].text == "7\n"


def test_a_gpu_that_is_not_there_is_a_sentence(folder, tmp_path, monkeypatch):
    """A "GPU run" on a CPU."""
    write_lesson(folder, "00_toy", "1 + 1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(lessons.LessonError, match="no GPU"):
        run_all(tmp_path, device="cuda")
    with pytest.raises(lessons.LessonError, match="device is 'gpu'; it can be auto, cpu, cuda"):
        run_all(tmp_path, device="gpu")


def test_a_run_on_the_cpu_hides_the_gpu(folder, tmp_path, monkeypatch):
    """A "CPU run" on a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    write_lesson(folder, "00_toy", "import os\nprint(repr(os.environ['CUDA_VISIBLE_DEVICES']))")
    (outcome,) = run_all(tmp_path, device="cpu")
    assert nbformat.read(outcome.executed, as_version=4).cells[-1].outputs[0].text == "''\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_said_as_what_it_is(folder, tmp_path):
    """A traceback of papermill's, or a dead kernel, where somebody should delete files."""
    write_lesson(folder, "00_cell", "with open('/dev/full', 'w') as file:\n    file.write('x')")
    (outcome,) = run_all(tmp_path)
    assert (outcome.problem, outcome.record.cell) == ("The disk is full: a cell could not write.", "cell-1")


def test_two_runs_do_not_write_into_one_folder(folder, tmp_path):
    """The half of one run and the half of another, in one report."""
    write_lesson(folder, "00_toy", "1 + 1")
    (tmp_path / "out" / ".kdcourse").mkdir(parents=True)
    with FileLock(tmp_path / "out" / ".kdcourse" / "lock"), pytest.raises(lessons.LessonError, match="Another run"):
        run_all(tmp_path)


def test_junit_has_a_case_for_each_claim(folder, tmp_path):
    """One red lesson, where one of fifty numbers moved."""
    write_lesson(folder, "00_toy", "claim('one', 2.0, at_most=1)")
    path = junit_xml.write_junit(run_all(tmp_path), tmp_path)
    cases = {case.name: case.result for suite in JUnitXml.fromfile(str(path)) for case in suite}
    assert list(cases) == ["runs to its end", "it runs", "one"]
    assert cases["it runs"] == []
    assert "It is 2.0. (cell cell-1)" in cases["one"][0].message


def test_the_report_leads_to_the_cell(folder, tmp_path):
    """A red lesson, and a hundred cells to look for the reason."""
    write_lesson(folder, "00_toy", "claim('one <or two>', 2.0, at_most=1)")
    outcomes = run_all(tmp_path)
    html_pages.write_lesson(outcomes[0], tmp_path)
    html_pages.write_reports(outcomes, tmp_path, "cpu")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "1 of 2" in html
    assert "one &lt;or two&gt;" in html
    assert "at most 1" in html
    assert 'href="00_toy.html#cell-id=cell-1"' in html
    assert 'id="cell-id=cell-1"' in (tmp_path / "00_toy.html").read_text(encoding="utf-8")
    assert "<script" not in html


def test_only_times_have_changed_and_the_file_stays(folder, tmp_path):
    """A diff after every `make notebooks`, because a cell shows how long something took."""
    write_lesson(folder, "00_toy", "import time\nprint(time.time())", "import os\nprint(os.environ['SAID'])")
    path = folder / "00_toy.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[3].metadata["not_compared"] = "timed"
    nbformat.write(notebook, path)
    contents = []
    for said in ("one", "one", "two"):
        os.environ["SAID"] = said
        (outcome,) = run_all(tmp_path)
        store.store_outputs(path, outcome.executed)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] != contents[2]


class Told(run.Watcher):
    """Keeps what it is told."""

    def __init__(self):
        self.events = []

    def lesson_begins(self, lesson, place, count):
        self.events.append((lesson.name, place, count))

    def cell_begins(self, cell, place, count):
        self.events.append((cell, place, count))

    def lesson_ends(self, outcome):
        self.events.append((outcome.lesson.name, outcome.passed))


def test_a_run_says_where_it_is(folder, tmp_path):
    """Ten silent minutes, of which nobody knows whether they are the first ten of twelve."""
    write_lesson(folder, "00_toy", "1 + 1")
    write_lesson(folder, "01_toy", "1 / 0", "1 + 1")
    told = Told()
    run_and_report(lessons.all_lessons(), tmp_path / "out", run.Settings(), watcher=told)
    parameters = told.events[1]
    assert parameters[1:] == (1, 3)
    assert told.events == [
        ("00_toy", 1, 2), parameters, ("cell-0", 2, 3), ("cell-1", 3, 3), ("00_toy", True),
        ("01_toy", 2, 2), told.events[6], ("cell-0", 2, 4), ("cell-1", 3, 4), ("01_toy", False),
    ]  # fmt: skip


def test_a_log_has_plain_lines(folder, tmp_path):
    """A log of continuous integration, full of spinners and escape codes."""
    write_lesson(folder, "00_toy", "1 + 1")
    write_lesson(folder, "01_toy", "raise ValueError('[/b]')")
    done = subprocess.run(
        run_command(tmp_path / "out"),
        capture_output=True, text=True, check=False, timeout=120, env=os.environ | {"FORCE_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == ""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()  # colours are what FORCE_COLOR asks for
    assert [re.sub(r"\d+ s\b", "1 s", line) for line in lines[:-1]] == [
        "  00_toy · lesson 1 of 2 begins",
        "✓ 00_toy  1 s",
        "  01_toy · lesson 2 of 2 begins",
        "✗ 01_toy  1 s  It raised ValueError: [/b] [cell cell-1]",
    ]
    assert lines[-1].startswith("1 of 2 in order.")
    assert "\x1b[?" not in done.stdout and "\r" not in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_has_one_line_that_names_the_cell(folder, tmp_path):
    """A bar that counts cells, and does not say which of them takes so long."""
    write_lesson(folder, "00_toy", "import time\ntime.sleep(1)")
    shown = on_a_terminal(run_command(tmp_path / "out"), columns=80)
    assert "00_toy · lesson 1 of 1 · cell 3 of 3 · cell-1" in shown
    assert "✓ 00_toy" in shown


def on_a_terminal(command, columns):
    """What a command shows where it believes to be on a terminal."""
    import pty

    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    assert process.wait(60) == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing on Windows")
def test_control_c_in_a_cell_is_a_sentence(folder, tmp_path):
    """A traceback through four libraries, a kernel that goes on training, and half a notebook."""
    write_lesson(folder, "00_toy", "1 + 1")
    write_lesson(folder, "01_long", f"import os, pathlib, time\npathlib.Path({str(tmp_path)!r}, 'pid').write_text"
                 "(str(os.getpid()))\nfor _ in range(600): time.sleep(0.1)")  # fmt: skip
    out = tmp_path / "out"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(run_command(out), **pipes, text=True, preexec_fn=heed_control_c)  # noqa: PLW1509
    kernel = wait_for_number(tmp_path / "pid")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "✗ Stopped after 1 of 2 lessons; the same command with --resume continues.\n"
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)
    assert sorted(path.name for path in out.glob("[!.]*")) == [
        "00_toy.html", "00_toy.ipynb", "claims.json", "index.html", "junit.xml", "report.html",
    ]  # fmt: skip
    assert nothing_unfinished(out)


def nothing_unfinished(out):
    """Beside the results there is only what a next run goes by."""
    assert [path.name for path in out.glob(".*")] == [".kdcourse"]
    return sorted(path.name for path in (out / ".kdcourse").iterdir()) == ["lock", "written.json"]


def heed_control_c():
    """A shell tells what it starts in the background to ignore Ctrl-C, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_number(path):
    for _ in range(600):
        if path.exists() and (text := path.read_text(encoding="utf-8")):
            return int(text)
        time.sleep(0.1)
    raise AssertionError(f"{path} was not written")


@pytest.mark.parametrize("moment", ["write_text", "replace"])
def test_control_c_in_a_report_leaves_no_half_of_one(folder, tmp_path, monkeypatch, moment):
    """A claims.json that ends in the middle of a number."""
    write_lesson(folder, "00_toy", "1 + 1")
    run_and_report(lessons.all_lessons(), tmp_path / "out", run.Settings())
    before = (tmp_path / "out" / "claims.json").read_bytes()
    usual = getattr(Path, moment)

    def interrupted(path, *arguments, **options):
        if "claims.json" in path.name:
            raise KeyboardInterrupt
        return usual(path, *arguments, **options)

    monkeypatch.setattr(Path, moment, interrupted)
    with pytest.raises(KeyboardInterrupt, match="Stopped after 0 of 1 lessons"):
        run_and_report(lessons.all_lessons(), tmp_path / "out", run.Settings())
    assert (tmp_path / "out" / "claims.json").read_bytes() == before
    assert nothing_unfinished(tmp_path / "out")


def test_a_report_that_cannot_be_written_is_a_sentence(folder, tmp_path):
    """A traceback at the end of an hour, where somebody should delete files."""
    write_lesson(folder, "00_toy", "1 + 1")
    (tmp_path / "out" / "claims.json").mkdir(parents=True)
    with pytest.raises(lessons.LessonError, match=r"claims\.json\S* cannot be written \(Is a directory\)"):
        run_and_report(lessons.all_lessons(), tmp_path / "out", run.Settings())


def test_the_reports_keep_the_lessons_of_earlier_runs(folder, tmp_path):
    """`kdcourse run 00` into the folder of the course, and a report of one lesson."""
    for name in ("00_toy", "01_toy", "02_gone"):
        write_lesson(folder, name, "1 + 1")
    out = tmp_path / "out"
    run_and_report(lessons.all_lessons(), out, run.Settings(profile="full"))
    (folder / "02_gone.ipynb").unlink()
    (out / "01_toy.html").unlink()
    write_lesson(folder, "00_toy", "1 / 0")
    outcomes = run_and_report(lessons.find_lessons(["00"]), out, run.Settings())
    assert [(outcome.lesson.name, outcome.passed) for outcome in outcomes] == [("00_toy", False)]
    claims = json.loads((out / "claims.json").read_text(encoding="utf-8"))
    assert list(claims["lessons"]) == ["00_toy", "01_toy"]
    assert claims["earlier_runs"] == {"01_toy": {"PROFILE": "full"}}
    assert [suite.name for suite in JUnitXml.fromfile(str(out / "junit.xml"))] == ["00_toy", "01_toy"]
    assert "01_toy.html" in (out / "index.html").read_text(encoding="utf-8")
    assert (out / "01_toy.html").exists()
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "earlier run, with PROFILE full" in report
    assert report.count("earlier run") == 1
    assert "02_gone" not in report


def test_the_exit_code_is_that_of_this_run(folder, tmp_path):
    """A red build for a lesson that nobody ran."""
    write_lesson(folder, "00_whole", "1 + 1")
    write_lesson(folder, "01_broken", "1 / 0")
    for words, code in (([], 1), (["00"], 0), (["01"], 1)):
        done = subprocess.run([*run_command(tmp_path / "out"), *words], capture_output=True, check=False, timeout=120)
        assert done.returncode == code
    assert "1 of 2" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["", "[]", '{"cells": [], "metadata": {"kdcourse_run": {"weight": 3}}}'])
def test_a_file_of_somebody_elses_is_no_earlier_run(folder, tmp_path, content):
    """A notebook that was copied into the folder, and a traceback of its reader."""
    write_lesson(folder, "00_toy", "1 + 1")
    path = tmp_path / "00_toy.ipynb"
    path.write_text(content, encoding="utf-8")
    assert read_record(path) is None


def test_killed_at_any_moment_a_run_can_be_resumed(folder, tmp_path):
    """Half a notebook, or a report of it, after a crash; a lesson that runs twice, or never."""
    for number in range(3):
        write_lesson(folder, f"0{number}_toy", "import time\ntime.sleep(0.5)", f"claim('number', {number}, at_least=0)")
    require_the_same_after_kills(tmp_path, 2, 8)


@pytest.mark.skipif("KDCOURSE_DEEP" not in os.environ, reason="the whole course, twice: make test-deep")
def test_the_course_killed_at_any_moment_can_be_resumed(tmp_path):
    """Lessons that leave something behind, or whose numbers depend on what ran before."""
    require_the_same_after_kills(tmp_path, 20, 120)


def require_the_same_after_kills(tmp_path, soonest, latest):
    """A run that is killed three times, at random moments, and resumed ends as one that was left alone."""
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    subprocess.run(run_command(undisturbed), check=True, capture_output=True, timeout=1800)
    moments = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            [*run_command(disturbed), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(soonest, latest))
        process.kill()
        process.wait()
        for path in disturbed.glob("[!.]*"):
            assert_whole(path)
    subprocess.run([*run_command(disturbed), "--resume"], check=True, capture_output=True, timeout=1800)
    assert (disturbed / "claims.json").read_bytes() == (undisturbed / "claims.json").read_bytes()
    assert {path.name for path in disturbed.iterdir()} == {path.name for path in undisturbed.iterdir()}


def run_command(out):
    return [sys.executable, "-m", "kdcourse", "run", "--out", str(out)]


def assert_whole(path):
    """A file that can be read to its end."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        nbformat.validate(nbformat.reads(text, as_version=4))
    elif path.suffix == ".json":
        json.loads(text)
    elif path.suffix == ".xml":
        JUnitXml.fromstring(text.encode())
    else:
        assert text.rstrip().endswith("</html>")
