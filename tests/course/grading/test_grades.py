"""A room is graded: right, blank and wrong answers each as what they are; killed in the middle, the same table."""

import csv
import html.parser
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from handed_in import FAULTS, RIGHT, answered, function, handed_in, lesson, one, solved

from kdcourse.course.grading import room as rooms
from kdcourse.course.grading.gradebook import OWN, STUDENT
from kdcourse.course.grading.room import GradingError, Granted, Row, grade_room
from kdcourse.course.grading.submissions import FolderError
from kdcourse.course.grading.tables import COLUMNS, Room, as_csv, as_json, write_tables
from kdcourse.course.lessons import course_notebooks

EVIL = "<script>alert(1)</script>"
ROWS = [
    Row("anna/03.ipynb", "anna", "graded", "", {
        "03.objective": {
            "verdict": "misconception", "misconception": "t-squared-missing", "message": f"{EVIL} at T = 4"},
        "03.loop": {"verdict": "not attempted", "misconception": "", "message": "not attempted yet."}}),
    Row(f"=HYPERLINK(1){EVIL}.ipynb", "=HYPERLINK(1)", "graded", "", {
        "03.objective": {"verdict": "passed", "misconception": "", "message": "right\nindeed"}}, ["A note."]),
    Row("ben.ipynb", "ben", "refused", "It is a link to another place, and links are not followed."),
    Row("half \udc80.ipynb", "half", "graded", "", {
        "03.objective": {"verdict": "timed out", "misconception": "", "message": "\x1b[31m"}}),
]  # fmt: skip


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = defaultdict(list)

    def handle_starttag(self, tag, attributes):
        self.found[tag].append(dict(attributes))


def test_the_page_shows_what_learners_wrote_and_does_nothing_of_it(tmp_path):
    """A file name that runs in the instructor's browser; a page that asks the network."""
    write_tables(ROWS, tmp_path)
    page = (tmp_path / "grades.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert not tags.found["script"]
    assert not {"img", "iframe", "link", "object", "form"} & set(tags.found)
    assert {each["href"] for each in tags.found["a"]} == {"gradebook.csv", "grades.csv", "grades.json"}
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert "\x1b" not in page
    assert "1 of 3 answers are right" in page


def test_the_room_is_summed_up():
    """A frequent mistake that nobody explains, and a learner whom nobody asks."""
    found = Room(ROWS)
    assert [(each.exercise, each.name, each.files) for each in found.mistakes] == [
        ("03.objective", "t-squared-missing", ["anna/03.ipynb"])
    ]
    assert [(each.person.student_id, each.solved, each.tried) for each in found.need_help] == [
        ("anna", 0, 1), ("half", 0, 1),
    ]  # fmt: skip
    assert found.counts("03.objective") == {"misconception": 1, "passed": 1, "timed out": 1}


def test_a_gradebook_can_read_the_table():
    """A row that is two lines; a cell that a spreadsheet computes; a column that is not documented."""
    text = as_csv(ROWS)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert len(text.splitlines()) == 1 + 5
    assert [(row["exercise"], row["verdict"], row["score"], row["max_score"]) for row in rows] == [
        ("03.objective", "misconception", "0", "1"), ("03.loop", "not attempted", "0", "1"),
        ("03.objective", "passed", "1", "1"), ("", "refused", "", ""), ("03.objective", "timed out", "0", "1"),
    ]  # fmt: skip
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert rows[0]["title"] == "Labels and teacher in one loss"


def test_programs_read_a_list_of_files():
    """A key that is missing, or a file name that is no text."""
    entries = json.loads(as_json(ROWS))
    assert [entry["status"] for entry in entries] == ["graded", "graded", "refused", "graded"]
    assert set(entries[0]["exercises"]["03.objective"]) == {"verdict", "misconception", "message"}


def test_nothing_to_grade_is_said(tmp_path):
    """An empty table that looks like a room without anybody; results among what was handed in."""
    (tmp_path / "empty").mkdir()
    for holds in ("nothing", "a text"):
        with pytest.raises(FolderError, match="no notebook"):
            grade_room(tmp_path / "empty", tmp_path / "out", Granted(), 1)
        (tmp_path / "empty" / f"{holds}.txt").write_text("none", encoding="utf-8")
    with pytest.raises(GradingError, match="choose another"):
        grade_room(tmp_path / "empty", tmp_path / "empty", Granted(), 1)


def test_what_was_checked_with_something_else_is_checked_again(tmp_path, monkeypatch):
    """A verdict of last week's lessons; one that is kept although the machine was to blame."""
    handed_in(tmp_path / "in", {"a.ipynb": lesson("00")})
    told = {"status": "graded", "message": "", "exercises": {}, "answers": {}}
    given = [told | {"status": "refused", "message": rooms.ENDED}, told, told]
    asked = []
    monkeypatch.setattr(rooms.Checker, "grade", lambda self, path: given[asked.append(path) or len(asked) - 1])

    def status():
        (row,) = grade_room(tmp_path / "in", tmp_path / "out", Granted(), 1)
        return row.status, len(asked)

    assert [status(), status(), status()] == [("refused", 1), ("graded", 2), ("graded", 2)]
    shutil.copytree(course_notebooks(), tmp_path / "lessons", ignore=shutil.ignore_patterns("claims", "*checkpoints"))
    monkeypatch.setattr(rooms, "course_notebooks", lambda: tmp_path / "lessons")
    assert status() == ("graded", 2)
    path = next((tmp_path / "lessons").glob("00*.ipynb"))
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert status() == ("graded", 3)


def test_no_cell_of_the_table_is_a_formula():
    """A file that is called by the wide signs that some spreadsheets compute."""
    for sign in "=+-@＝＋－＠":
        text = as_csv([Row(f"{sign}1+1.ipynb", f"{sign}1+1", "refused", "It is a link.")])
        assert f",'{sign}1+1," in text
        text = as_csv([Row(f"x; {sign}1+1;.ipynb", "x", "refused", "It is a link.")])  # a cell where ; is the comma
        assert f"x; '{sign}1+1;" in text


def faulty_notebooks():
    """One for each lesson and place in the list, so that each fault is in some."""
    rounds = defaultdict(list)
    for exercise, mistake, body in FAULTS:
        number = exercise.partition(".")[0]
        place = next(i for i in range(9) if all(known != exercise for known, *_ in rounds[number, i]))
        rounds[number, place].append((exercise, mistake, function(exercise, body)))
    return {f"wrong/{number}-{place}.ipynb": answered(number, {name: code for name, _, code in found})
            for (number, place), found in rounds.items() if found}, {
            (f"wrong/{number}-{place}.ipynb", name): mistake
            for (number, place), found in rounds.items() for name, mistake, _ in found}  # fmt: skip


@pytest.mark.slow
def test_right_blank_and_wrong_answers_are_told_apart(tmp_path):
    """A room in which somebody gets another's verdict."""
    files, mistakes = faulty_notebooks()
    right = {f"right/{name}.ipynb": one(name, body) for name, body in RIGHT.items()}
    others = {f"solved/{number}.ipynb": solved(number) for number in ("00", "03", "06", "12")}
    handed_in(tmp_path / "in", files | right | others | {"blank.ipynb": lesson("01")})
    rows = {row.file: row for row in grade_room(tmp_path / "in", tmp_path / "out", Granted(), 2)}
    found = {pair: rows[pair[0]].exercises[pair[1]]["misconception"] for pair in mistakes}
    assert found == mistakes
    assert {rows[f"right/{name}.ipynb"].exercises[name]["verdict"] for name in RIGHT} == {"passed"}
    for name in others:
        assert {each["verdict"] for each in rows[name].exercises.values()} == {"passed"}, rows[name].exercises
    assert {each["verdict"] for each in rows["blank.ipynb"].exercises.values()} == {"not attempted"}
    written = json.loads((tmp_path / "out" / "grades.json").read_text(encoding="utf-8"))
    assert {entry["file"]: entry["exercises"] for entry in written} == {
        name: row.exercises for name, row in rows.items()
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no process groups to kill there")
def test_killed_in_the_middle_and_called_again_gives_the_same_table(tmp_path, monkeypatch):
    """An evening's grading that begins anew, or a table that tells who was graded before the lights went out."""
    bodies = [RIGHT["00.soft_label"], "return sum(votes[5:]) / sum(votes)", "return 1 / 0"]
    handed_in(tmp_path / "in", {f"{i}.ipynb": one("00.soft_label", body) for i, body in enumerate(bodies)})
    command = [sys.executable, "-m", "kdcourse", "grade", str(tmp_path / "in"), "--workers", "1", "--out"]
    kept = tmp_path / "killed" / ".kdcourse" / "graded"
    with subprocess.Popen(
        [*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL, start_new_session=True
    ) as run:
        end = time.monotonic() + 600
        while len(list(kept.glob("[0-9a-f]*.json"))) < 1 and time.monotonic() < end and run.poll() is None:
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGKILL)
    assert 1 <= len(list(kept.glob("[0-9a-f]*.json"))) < 3
    assert not (tmp_path / "killed" / "grades.json").exists()
    whole = grade_room(tmp_path / "in", tmp_path / "whole", Granted(), 2)
    graded = []
    monkeypatch.setattr(rooms.Checker, "grade", counted(rooms.Checker.grade, graded))
    assert grade_room(tmp_path / "in", tmp_path / "killed", Granted(), 1) == whole
    assert 0 < len(graded) < 3
    for name in ("grades.json", "grades.csv", "gradebook.csv", "grades.html"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def counted(method, calls):
    def grade(self, path):
        calls.append(path)
        return method(self, path)

    return grade


def test_documented_columns_are_those_that_are_written():
    """A column that a gradebook is told of and does not find."""
    page = (Path(__file__).parents[3] / "docs" / "grading.md").read_text(encoding="utf-8")
    of_exercises, of_learners = re.split("^## A row for each learner$", page, flags=re.MULTILINE)
    assert tuple(re.findall(r"^\| `(\w+)` \|", of_exercises, re.MULTILINE)) == COLUMNS
    assert {STUDENT, *OWN} <= set(re.findall(r"^\| `(\w+)` \|", of_learners, re.MULTILINE))
