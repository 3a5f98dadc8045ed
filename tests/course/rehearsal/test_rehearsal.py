"""A class is played: every verdict as expected, nothing outside touched, and an exit code that says so."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from kdcourse.course import cli
from kdcourse.course.exercises.progress import FILE_VARIABLE
from kdcourse.course.grading.room import Granted
from kdcourse.course.lessons import LessonError, course_lessons, find_lessons
from kdcourse.course.rehearsal import rehearse as rehearsing
from kdcourse.course.rehearsal.people import ClassError
from kdcourse.course.rehearsal.record import LessonTimes, RecordError, Rehearsal, Submitted, read_rehearsal, to_text
from kdcourse.course.rehearsal.rehearse import Stopwatch, rehearse
from kdcourse.course.rehearsal.report import spoken, to_markdown

LESSONS = find_lessons(["00"], course_lessons())
RECORD = Rehearsal(
    6, 0, {"cores": "2", "system": "Linux", "python": "3.11.7", "torch": "2.13.0", "load": "9.8"},
    {"editions": 3.2, "answers": 1.0, "grading": 125.0},
    [
        Submitted("1.ipynb", "right", "00", 8.0, {"00.soft_label": "passed"}, {"00.soft_label": "passed"}, []),
        Submitted("2.ipynb", "known", "00", 9.0, {"00.soft_label": "misconception: counts"},
                  {"00.soft_label": "different"}, ["00.soft_label is different, and should be misconception"]),
    ],
    [], ["The canary file"], {"00": LessonTimes(14.0, {"setup": 5.0, "figure": 6.0})},
)  # fmt: skip


@pytest.mark.slow
def test_six_people_are_graded_as_expected(tmp_path, monkeypatch):
    """A class that is graded otherwise than it should be, and a second call that does it all again."""
    progress = tmp_path / "progress.json"
    progress.write_text("{}", encoding="utf-8")
    monkeypatch.setenv(FILE_VARIABLE, str(progress))
    found = rehearse(6, 0, LESSONS, tmp_path / "out", Granted(), 2)
    assert found.problems == []
    assert {each.kind for each in found.submissions} == {"right", "known", "unknown", "blank", "hostile"}
    assert found.seconds["grading"] > 1
    assert found.longest.seconds > 0.5
    assert read_rehearsal(tmp_path / "out" / "rehearsal.json") == found
    grades = json.loads((tmp_path / "out" / "grades" / "grades.json").read_text(encoding="utf-8"))
    assert {each["file"] for each in grades} == {each.file for each in found.submissions}
    again = rehearse(6, 0, LESSONS, tmp_path / "out", Granted(), 2)
    assert replace(again, seconds={}, machine={}) == replace(found, seconds={}, machine={})
    assert found.seconds["grading"] < again.seconds["grading"] < found.seconds["grading"] + 5


def test_a_canary_that_was_touched_is_a_problem(tmp_path, monkeypatch):
    """Harm that nobody reports."""

    def careless(folder, out, granted, workers, on_graded):
        (tmp_path / "canary.txt").write_text("mine", encoding="utf-8")
        return []

    monkeypatch.setattr(rehearsing, "grade_room", careless)
    found = rehearse(6, 0, LESSONS, tmp_path, Granted(), 1)
    assert found.harmed == ["The canary file"]
    assert sum("it is missing from the table" in each for each in found.problems) == 6


def test_what_people_really_handed_in_stays(tmp_path):
    """A room's work, replaced by that of people who are not there; the course's own notebooks, filled in by them."""
    (tmp_path / "handed-in").mkdir()
    with pytest.raises(ClassError, match="no rehearsal's"):
        rehearse(6, 0, LESSONS, tmp_path, Granted(), 1)
    with pytest.raises(LessonError, match="choose another"):
        rehearse(6, 0, LESSONS, LESSONS[0].path.parent, Granted(), 1)


def test_seconds_before_a_crash_count(tmp_path, monkeypatch):
    """Forty people in three minutes, of which somebody forgot the first hour."""
    now = [100.0]
    monkeypatch.setattr(rehearsing.time, "monotonic", lambda: now[0])

    def took(seconds, what, *, goes_on=True):
        watch = Stopwatch(tmp_path / "seconds.json", what)
        with pytest.raises(KeyboardInterrupt), watch.timing("grading", goes_on=goes_on):
            now[0] += seconds
            raise KeyboardInterrupt
        return watch.seconds["grading"]

    assert took(60, "forty people") == 60
    assert took(10, "forty people") == 70
    assert took(5, "forty people", goes_on=False) == 5
    assert took(3, "other people") == 3


def test_the_page_says_who_was_graded_how():
    """A report that leaves out what went wrong, or the longest."""
    page = to_markdown(RECORD)
    assert (
        "On 2 cores (Linux, Python 3.11.7, torch 2.13.0) with a load of 9.8 before, 6 people were graded in 2 min 5 s"
        in page
    )
    assert "known mistakes: 1, hostile notebooks: 0" in page
    assert "- 2.ipynb: 00.soft_label is different, and should be misconception." in page
    assert "- The canary file is not as it was before." in page
    assert "| 00 | 14 | `figure` | 6 |" in page
    assert [spoken(each) for each in (1.4, 99, 100, 185)] == ["1 s", "99 s", "1 min 40 s", "3 min 5 s"]


def test_a_record_is_read_as_it_was_written(tmp_path):
    """Numbers of the guide that come from half a file, or from something else."""
    path = tmp_path / "rehearsal.json"
    path.write_text(to_text(RECORD), encoding="utf-8")
    assert read_rehearsal(path) == RECORD
    for text in ("", "[]", '{"format": 2}', '{"format": 1, "people": 3}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RecordError, match="is no record of a rehearsal"):
            read_rehearsal(path)


@pytest.mark.parametrize(
    ("record", "code"), [(RECORD, 1), (replace(RECORD, submissions=RECORD.submissions[:1], harmed=[]), 0)]
)
def test_the_exit_code_says_whether_all_was_as_expected(record, code, tmp_path, monkeypatch):
    """A script that goes on with a grader that is wrong."""
    monkeypatch.setattr(rehearsing, "rehearse", lambda *given, **named: record)
    result = CliRunner().invoke(cli.app, ["rehearse", "--out", str(tmp_path / "out"), "--people", "6"])
    assert result.exit_code == code, result.output
    assert ("2.ipynb: 00.soft_label is different" in result.output) == bool(code)
