"""A row for each learner: nobody counts twice, nobody is forgotten, and a team is graded as one."""

import csv
import io

import pytest
from handed_in import handed_in, lesson
from typer.testing import CliRunner

from kdcourse.course import cli
from kdcourse.course.grading.alike import notes
from kdcourse.course.grading.gradebook import PeopleError, Person, read_people, standings
from kdcourse.course.grading.room import Row
from kdcourse.course.grading.tables import Room, write_tables


def row(file, learner, **verdicts):
    exercises = {
        name.replace("_", ".", 1).removeprefix("e"): {"verdict": verdict, "misconception": "", "message": ""}
        for name, verdict in verdicts.items()
    }
    refused = {} if exercises else {"message": "It is something else."}
    return Row(file, learner, "graded" if exercises else "refused", exercises=exercises, **refused)


ROWS = [
    row("anna/03.ipynb", "anna", e03_objective="not attempted", e03_loop="passed"),
    row("anna/03.yours-1.ipynb", "anna", e03_objective="passed", e03_loop="different"),
    row("anna/08.ipynb", "anna", e08_curve="not attempted"),
    row("ben.ipynb", "ben", e03_objective="error", e03_loop="not attempted"),
    row("carol/report.pdf", "carol"),
    row("dora.ipynb", "dora", e00_soft_label="passed"),
]
PEOPLE = [
    Person("u1", "anna", {"team": "A"}), Person("u2", "anna.zip", {"team": "A"}), Person("u3", "ben", {"team": "="}),
    Person("u4", "zoe", {"team": ""}), Person("u5", "carol", {"team": ""}),
]  # fmt: skip


def written(tmp_path, people=None):
    write_tables(ROWS, tmp_path, people)
    text = (tmp_path / "gradebook.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_best_of_what_somebody_handed_in_counts_once(tmp_path):
    """Two copies of a lesson that are four points of three; a reset copy that takes away what was solved."""
    found = {each["student_id"]: each for each in written(tmp_path)}
    assert found["anna"]["lesson 03 (of 2)"] == "2"
    assert found["anna"]["lesson 00 (of 1)"] == ""
    assert found["ben"]["lesson 03 (of 2)"] == "0"
    assert found["carol"]["notes"] == "carol/report.pdf: It is something else."
    assert (found["anna"]["files"], found["carol"]["files"]) == ("3", "0")
    assert not any(name.startswith("lesson 08") for name in found["anna"])


def test_a_team_is_graded_as_one_and_nobody_is_forgotten(tmp_path):
    """A member of a team without a grade; somebody absent who is in no table; a folder that belongs to nobody."""
    found = {each["student_id"]: each for each in written(tmp_path, PEOPLE)}
    assert list(found) == ["u1", "u2", "u3", "u4", "u5", "dora"]
    assert [found[name]["lesson 03 (of 2)"] for name in ("u1", "u2", "u3", "u4")] == ["2", "2", "0", ""]
    assert found["u4"]["notes"] == "Nothing was handed in."
    assert "Nobody in the list" in found["dora"]["notes"]
    assert (found["u1"]["team"], found["u3"]["team"]) == ("A", "'=")
    page = (tmp_path / "grades.html").read_text(encoding="utf-8")
    assert "Who has handed in nothing" in page
    assert "u4: no zoe" in page


@pytest.mark.parametrize(
    ("listed", "learner"),
    [("anna", "anna.pdf"), ("anna", "anna.tar.gz"), ("Anna", "anna"), ("Jos\u00e9", "Jose\u0301"), ("u.m", "u.m.7z")],
)
def test_a_name_is_found_however_it_is_written(listed, learner):
    """Two rows for one person, who is said to have handed in nothing."""
    (found,) = standings([row(f"{learner}/03.ipynb", learner, e03_loop="passed")], [Person("u1", listed)])
    assert (found.solved, found.note) == (1, "")


def test_two_files_of_one_name_are_asked_about():
    """Somebody who is said to have handed in nothing, since nobody knows which of two files is meant."""
    rows = [row(name, name, e03_loop="passed") for name in ("anna.ipynb", "anna.zip", "anton.ipynb")]
    found = standings(rows, [Person("u1", "anna"), Person("u2", "an")])
    assert "Handed in as anna.ipynb and anna.zip" in found[0].note
    assert "Nothing was handed in" in found[1].note
    assert len(found) == 2 + 3


def test_who_needs_help_is_a_person():
    """Ten lines for somebody who handed in the whole folder; one for a copy whose twin is solved."""
    assert [each.person.student_id for each in Room(ROWS).need_help] == ["ben"]
    assert list(Room(ROWS).lessons) == ["00", "03"]
    assert Room(ROWS).untouched == ["08"]
    assert [each.file for each in Room(ROWS).tried if each.learner == "anna"] == [
        "anna/03.ipynb",
        "anna/03.yours-1.ipynb",
    ]
    blank = [row("emil.ipynb", "emil", e08_curve="not attempted")]
    assert [each.person.student_id for each in Room(blank).need_help] == ["emil"]
    assert list(Room(blank).lessons) == ["08"]


def test_lessons_that_nobody_touched_are_not_called_alike():
    """Forty people, each of whom is told to have the same lesson 08 as thirty-nine others."""
    assert notes({"a": "1", "b": "1"}, {"a": {}, "b": {}}) == {}
    answer = {"03.objective": {"digest": "x", "size": 90}}
    assert "byte for byte" in notes({"a": "1", "b": "1"}, {"a": answer, "b": answer})["a"][0]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_list_of_people_is_read_as_spreadsheets_write_it(tmp_path, separator):
    """A list with a byte order mark or with semicolons that has nobody in it."""
    lines = [["student_id", "handed_in_as", "name"], ["u1", "team 1", "Ann Ä"], ["", "", ""], ["u2", "", "Ben"]]
    path = tmp_path / "people.csv"
    path.write_text("\r\n".join(map(separator.join, lines)), encoding="utf-8-sig")
    assert read_people(path) == [Person("u1", "team 1", {"name": "Ann Ä"}), Person("u2", "u2", {"name": "Ben"})]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\nAnn", "no column student_id, but name"),
        ("", "no column student_id, but nothing"),
        ("student_id\nu1\nu1", "'u1' a second time in row 3"),
        ("student_id,name\n,Ann", "nobody in its column student_id in row 2"),
        ("student_id,notes\nu1,x", "a column notes, which the gradebook has"),
        ("student_id", "names nobody"),
        ("student_id\nÄ", "not in UTF-8"),
    ],
)
def test_a_list_that_is_none_is_said(tmp_path, text, words):
    """Somebody who is overwritten by another of the same name; a traceback for a file of Excel's."""
    (tmp_path / "people.csv").write_text(text, encoding="latin-1")
    with pytest.raises(PeopleError, match=words):
        read_people(tmp_path / "people.csv")


@pytest.mark.slow
def test_a_gradebook_that_somebody_has_filled_in_is_kept_and_named(tmp_path):
    """An evening of looking at refused answers, written over by a late notebook without a word."""
    handed_in(tmp_path / "in", {"anna.ipynb": lesson("01")})
    command = ["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert CliRunner().invoke(cli.app, command).exit_code == 0
    mine = (tmp_path / "out" / "gradebook.csv").read_text(encoding="utf-8") + "ben,,3\n"
    (tmp_path / "out" / "gradebook.csv").write_text(mine, encoding="utf-8")
    again = CliRunner().invoke(cli.app, command)
    assert "that version is now gradebook.yours-1.csv" in again.output
    assert (tmp_path / "out" / "gradebook.yours-1.csv").read_text(encoding="utf-8") == mine
    (tmp_path / "people.csv").write_text("student_id\nanna\nzoe\n", encoding="utf-8")
    listed = CliRunner().invoke(cli.app, [*command, "--people", str(tmp_path / "people.csv")])
    assert listed.exit_code == 0
    assert "zoe,zoe," in (tmp_path / "out" / "gradebook.csv").read_text(encoding="utf-8")
