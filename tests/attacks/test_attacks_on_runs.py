"""Runs among damaged files: one bad lesson is one line, and only what can be checked counts as finished."""

import json
import os
import re
import subprocess
import sys

import pytest
import toy_course
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import JUnitXml
from toy_course import CLAIM, run_course, write_lesson

from kdcourse.course import editions, lessons, run
from kdcourse.course.lessons import Lesson, LessonError
from kdcourse.course.outcome import read_record

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    with toy_course.course(tmp_path / "notebooks") as folder:
        yield folder


def content_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def of_content(change):
    """An attack that changes the JSON of a notebook."""

    def attack(path):
        content = content_of(path)
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return attack


def of_claim(**fields):
    """An attack that changes the claim that an executed notebook has recorded."""
    return of_content(lambda notebook: notebook["cells"][-1]["outputs"][0]["metadata"]["kdcourse_claim"].update(fields))


def of_record(**fields):
    return of_content(lambda notebook: notebook["metadata"]["kdcourse_run"].update(fields))


def strip(notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


NOT_FINISHED = {
    "outputs stripped": of_content(strip),
    "a claim that does not hold": of_claim(holds=False),
    "another value": of_claim(value=0.0),
    "another name": of_claim(name="it rests"),
    "a claim less": of_content(lambda notebook: notebook["cells"][-1].update(outputs=[])),
    "a cell less": of_content(lambda notebook: notebook["cells"].pop(0)),
    "other code": of_content(lambda notebook: notebook["cells"][-1].update(source="2 + 2")),
    "a key that nobody knows": of_record(weight=3),
    "another time": of_record(seconds=1e9),
    "a time that is none": of_record(seconds="soon"),
    "no record": of_content(lambda notebook: notebook["metadata"]["kdcourse_run"].clear()),
    "a record that is a list": of_content(lambda notebook: notebook["metadata"].update(kdcourse_run=[])),
    "no digest": of_content(lambda notebook: notebook["metadata"]["kdcourse_run"].pop("digest", None)),
    "cut in the middle": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "nested": lambda path: path.write_text("[" * 100_000, encoding="utf-8"),
    "a number": lambda path: path.write_text("3", encoding="utf-8"),
}


@pytest.mark.parametrize("attack", NOT_FINISHED.values(), ids=list(NOT_FINISHED))
def test_a_result_that_was_changed_is_not_finished(attack, folder, tmp_path):
    """`--resume` that passes a lesson whose results are gone, or were made by hand; or ends in a traceback."""
    write_lesson(folder, "00_toy")
    (first,) = run_course(tmp_path / "out")
    attack(first.executed)
    (again,) = run_course(tmp_path / "out", resume=True)
    assert not again.reused
    assert again.passed
    assert [claim["name"] for claim in again.claims] == ["it runs"]
    assert run_course(tmp_path / "out", resume=True)[0].reused


def test_a_result_that_is_only_laid_out_otherwise_is_finished(folder, tmp_path):
    """An hour of training again, because a tool has indented the JSON, or Windows its lines."""
    write_lesson(folder, "00_toy")
    (first,) = run_course(tmp_path / "out")
    first.executed.write_text(json.dumps(content_of(first.executed), indent=4), encoding="utf-8", newline="\r\n")
    assert run_course(tmp_path / "out", resume=True)[0].reused


def test_a_lesson_that_failed_is_not_finished_when_its_problem_is_taken_out(folder, tmp_path, monkeypatch):
    """A red lesson that somebody has made green."""
    write_lesson(folder, "00_toy")
    with monkeypatch.context() as patch:
        patch.setattr(run, "execute", lambda *given, **options: toy_course.play(*given, **options) or "It broke.")
        (broken,) = run_course(tmp_path / "out")
    assert broken.problem == "It broke."
    of_record(problem="")(broken.executed)
    assert not run_course(tmp_path / "out", resume=True)[0].reused


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    made = tmp_path_factory.mktemp("executed")
    with toy_course.course(made / "notebooks") as folder:
        write_lesson(folder, "00_toy")
        (outcome,) = run_course(made / "out")
    return outcome.executed


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_one_other_byte_is_seen(executed, place, byte):
    """A flipped bit in a number, in a notebook that is still one: the record is as it was, or there is none."""
    content = bytearray(executed.read_bytes())
    content[place % len(content)] = byte
    damaged = executed.with_name("damaged.ipynb")
    damaged.write_bytes(content)
    try:
        is_the_same = json.loads(content) == content_of(executed)
    except ValueError:
        is_the_same = False
    assert read_record(damaged) == (read_record(executed) if is_the_same else None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(st.sampled_from(["metadata", "kdcourse_run", "digest", "fingerprint", "seconds"]), part)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=40) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_file_holds_it_is_no_record_unless_a_run_wrote_it(tmp_path_factory, content):
    """A traceback of somebody's parser, in front of a report."""
    path = tmp_path_factory.getbasetemp() / "anything.ipynb"
    path.write_bytes(content)
    assert read_record(path) is None
    assert isinstance(Lesson(path).problem, str)
    assert Lesson(path).cells == [] or not Lesson(path).problem


def huge(path):
    with path.open("wb") as file:
        file.truncate(10**11)  # takes no room on the disk, and all of memory for who reads it


def unreadable(path):
    path.chmod(0)


BAD = {
    "a merge conflict": lambda path: path.write_text("<<<<<<< HEAD\n{}\n=======\n", encoding="utf-8"),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "cut in the middle": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "not in UTF-8": lambda path: path.write_bytes(path.read_bytes().replace("·".encode(), b"\xb7")),
    "format 3": lambda path: path.write_text('{"nbformat": 3, "worksheets": []}', encoding="utf-8"),
    "format 4.1": of_content(lambda notebook: [cell.pop("id") for cell in notebook["cells"]]
                             and notebook.update(nbformat_minor=1)),
    "format 5": of_content(lambda notebook: notebook.update(nbformat=5)),
    "a format that is a word": of_content(lambda notebook: notebook.update(nbformat="four")),
    "no format": of_content(lambda notebook: notebook.pop("nbformat")),
    "no ids": of_content(lambda notebook: [cell.pop("id") for cell in notebook["cells"]]),
    "two cells with one id": of_content(lambda notebook: notebook["cells"][2].update(id="head")),
    "cells that are none": of_content(lambda notebook: notebook.update(cells=[1])),
    "a cell without a source": of_content(lambda notebook: notebook["cells"][1].pop("source")),
    "a cell of another kind": of_content(lambda notebook: notebook["cells"][1].update(cell_type="heading")),
    "tags that are a number": of_content(lambda notebook: notebook["cells"][1]["metadata"].update(tags=5)),
    "outputs that are none": of_content(lambda notebook: notebook["cells"][1].update(outputs=[{"output_type": "?"}])),
    "half of a character": of_content(lambda notebook: notebook["cells"][0].update(source="# \ud800")),
    "nested": lambda path: path.write_text("[" * 100_000, encoding="utf-8"),
    "a number of ten thousand digits": lambda path: path.write_text("9" * 10_000, encoding="utf-8"),
    "huge": huge,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "unreadable": unreadable,
}  # fmt: skip
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
IMPOSSIBLE = {"unreadable"} if IS_ROOT or os.name == "nt" else set()
"""Whoever may read everything can read this, too."""
IMPOSSIBLE |= {"a pipe", "a link to nowhere", "a link to itself"} if os.name == "nt" else set()


@pytest.fixture
def bad(folder):
    """A lesson for each kind of damage, and a good one at the end."""
    kinds = [kind for kind in BAD if kind not in IMPOSSIBLE]
    for number, kind in enumerate(kinds):
        BAD[kind](write_lesson(folder, f"{number:02}_bad"))
    write_lesson(folder, "99_good")
    return kinds


def test_a_bad_lesson_is_one_line_of_the_report(bad, tmp_path):
    """One file that git could not merge, and nobody knows how the other lessons are."""
    *outcomes, good = run_course(tmp_path / "out")
    assert good.passed
    said = {kind: outcome.problem for kind, outcome in zip(bad, outcomes, strict=True)}
    for kind, problem in said.items():
        assert re.fullmatch(r"It cannot be (read|run)[^\n]*\.", problem), (kind, problem)
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"1 of {len(bad) + 1}" in report
    assert report.count("It cannot be ") == len(bad)
    suites = JUnitXml.fromfile(str(tmp_path / "out" / "junit.xml"))
    assert sum(suite.failures for suite in suites) == len(bad)
    assert content_of(tmp_path / "out" / "claims.json")["lessons"]["00_bad"] == []
    for outcome in outcomes:
        assert (tmp_path / "out" / f"{outcome.lesson.name}.html").exists()
    again = run_course(tmp_path / "out", resume=True)
    assert [outcome.reused for outcome in again] == [False] * len(bad) + [True]


def test_a_parameter_that_only_a_bad_lesson_may_know_stops_no_other(folder, tmp_path):
    """ "None of the chosen lessons has a parameter STEPS", because the one that has it was saved by half."""
    (folder / "00_bad.ipynb").write_text("{", encoding="utf-8")
    write_lesson(folder, "01_toy")
    outcomes = run.run_lessons(lessons.all_lessons(), tmp_path / "out", run.Settings(parameters={"STEPS": 3}))
    assert [outcome.passed for outcome in outcomes] == [False, True]


def test_bad_lessons_are_listed_beside_the_others(bad, folder):
    """`kdcourse list` and `progress` that end at the first of them."""
    found = lessons.find_lessons([])
    assert len(found) == len(bad) + 1
    assert found[-1].question == "Does it run?"
    for kind, lesson in zip(bad, found, strict=False):
        if kind not in ("two cells with one id", "a cell of another kind", "outputs that are none"):
            assert (lesson.title, lesson.exercises) == (lesson.name, [])
            assert lesson.question.startswith("It cannot be read as a notebook: ")


def test_editions_of_a_bad_lesson_are_refused_before_anything_is_written(bad, tmp_path):
    """Half of a workshop, and a traceback."""
    with pytest.raises(LessonError, match=r"There are no editions of \S+00_bad\.ipynb\. It cannot be read"):
        editions.write_editions(lessons.all_lessons(), tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def shown(data, **metadata):
    """An attack by an output that a lesson makes."""

    def played(source, executed, *arguments, **options):
        toy_course.play(source, executed, *arguments, **options)
        if source.name.startswith("00"):
            output = {"output_type": "display_data", "data": data, "metadata": metadata}
            of_content(lambda notebook: notebook["cells"][-1]["outputs"].append(output))(executed)
        return ""

    return played


def raises(error):
    def played(source, executed, *arguments, **options):
        if source.name.startswith("00"):
            raise error
        return toy_course.play(source, executed, *arguments, **options)

    return played


def with_widgets_that_are_none(source, executed, *arguments, **options):
    toy_course.play(source, executed, *arguments, **options)
    if source.name.startswith("00"):
        of_content(lambda notebook: notebook["metadata"].update(widgets=5))(executed)
    return ""


PLAYED = {
    "a claim that is a number": shown({"text/plain": "x"}, kdcourse_claim=5),
    "a claim without a value": shown({"text/plain": "x"}, kdcourse_claim={"name": "a"}),
    "a claim held against a word": shown({"text/plain": "x"}, kdcourse_claim=CLAIM | {"at_least": "b"}),
    "widgets that are none": with_widgets_that_are_none,
    "a library's own error": raises(KeyError("kernelspec")),
    "an error of many lines": raises(TypeError("first\nsecond\nthird")),
}


@pytest.mark.parametrize("played", PLAYED.values(), ids=list(PLAYED))
def test_what_a_lesson_leaves_stops_no_other(played, folder, tmp_path, monkeypatch):
    """A lesson that shows what no library can read, and the traceback of that library in place of a report."""
    write_lesson(folder, "00_toy")
    write_lesson(folder, "01_toy")
    monkeypatch.setattr(run, "execute", played)
    strange, good = run_course(tmp_path / "out")
    assert strange.problem
    assert "\n" not in strange.problem
    assert good.passed
    assert "1 of 2" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_the_command_runs_the_others_and_exits_with_1(folder, tmp_path):
    """Exit code 2, as if somebody had mistyped an option, and no lesson run."""
    (folder / "00_bad.ipynb").write_text("<<<<<<< HEAD", encoding="utf-8")
    notebook = toy_course.lesson("01_toy")
    notebook.cells[-1].source = "from kdcourse.course.claims import claim\nclaim('it runs', True)"
    toy_course.nbformat.write(notebook, folder / "01_toy.ipynb")
    environment = os.environ | {lessons.FOLDER_VARIABLE: str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "kdcourse", "run", "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "✗ 00_bad  0 s  It cannot be read as a notebook: Expecting value" in done.stdout
    assert "✓ 01_toy" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
