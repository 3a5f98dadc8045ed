"""What a room's grading leaves: `grades.json` for programs, `grades.csv` with a row for each exercise, `gradebook.csv`
with one for each learner, `grades.html` for people.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcourse.course.grading.gradebook import NOT_ATTEMPTED, PASSED, Person, Standing, gradebook, standings
from kdcourse.course.html_pages import render
from kdcourse.course.lessons import LessonExercise, course_lessons
from kdcourse.course.text import in_one_line, writable
from kdcourse.files import write_whole

if TYPE_CHECKING:
    from kdcourse.course.grading.room import Row

MARKS = {
    PASSED: "✓", NOT_ATTEMPTED: "·", "misconception": "✗", "different": "✗", "error": "!", "timed out": "∞",
    "refused": "–",
}  # fmt: skip
COLUMNS = ("assignment", "student_id", "file", "exercise", "title", "verdict", "score", "max_score", "misconception",
           "message", "notes")  # fmt: skip
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for a formula when a cell begins with it."""
BEHIND_SEMICOLON = re.compile(rf"(;\s*)(?=[{re.escape(''.join(FORMULA))}])")
"""Where another cell begins for a spreadsheet of a country that writes numbers with a comma."""


def write_tables(rows: Sequence[Row], out: Path, people: Sequence[Person] | None = None) -> None:
    """Write all four into a folder."""
    room = Room(rows, people)
    write_whole(out / "grades.json", as_json(rows))
    write_whole(out / "grades.csv", as_csv(rows))
    write_whole(out / "gradebook.csv", _csv(gradebook(room.standings, room.lessons)))
    render("grades.html", out, room=room, marks=MARKS)


def as_json(rows: Sequence[Row]) -> str:
    """A list with an entry for each file."""
    entries = [
        {"file": row.file, "status": row.status, "message": row.message, "notes": row.notes, "exercises": row.exercises}
        for row in rows
    ]
    return json.dumps(writable(entries), indent=1, ensure_ascii=False) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """A row for each file and exercise; for a file that was refused, one without an exercise."""
    titles = {each.id: each.title for each in _exercises()}
    table: list[Sequence[object]] = [COLUMNS]
    for row in rows:
        notes = " ".join(row.notes)
        if not row.exercises:
            table.append(["", row.learner, row.file, "", "", row.status, "", "", "", row.message, notes])
        for name, found in row.exercises.items():
            lesson, score = name.partition(".")[0], int(found["verdict"] == PASSED)
            fields = [lesson, row.learner, row.file, name, titles.get(name, ""), found["verdict"], score, 1]
            table.append([*fields, found["misconception"], found["message"], notes])
    return _csv(table)


def _csv(table: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\r\n").writerows(map(_safe, row) for row in table)
    return stream.getvalue()


def _safe(field: object) -> str:
    """In one line, and a text for every spreadsheet, whatever a learner has called a file."""
    text = BEHIND_SEMICOLON.sub(r"\1'", in_one_line(str(field)))
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text


def _exercises() -> list[LessonExercise]:
    return [each for lesson in course_lessons() for each in lesson.exercises]


@dataclass(frozen=True)
class Mistake:
    """A known mistake, and who made it."""

    exercise: str
    name: str
    message: str
    files: list[str]


@dataclass(frozen=True)
class Room:
    """The room at a glance."""

    rows: Sequence[Row]
    people: Sequence[Person] | None = None

    @cached_property
    def standings(self) -> list[Standing]:
        return standings(self.rows, self.people)

    @property
    def missing(self) -> list[Standing]:
        """Who is in the list of people, and has handed in nothing."""
        return [each for each in self.standings if not each.rows]

    @property
    def graded(self) -> list[Row]:
        return [row for row in self.rows if row.exercises]

    @property
    def tried(self) -> list[Row]:
        """The files in which something was answered."""
        return [row for row in self.graded if any(each["verdict"] != NOT_ATTEMPTED for each in row.exercises.values())]

    @property
    def refused(self) -> list[Row]:
        return [row for row in self.rows if not row.exercises]

    @property
    def lessons(self) -> dict[str, list[LessonExercise]]:
        """The exercises of each lesson that somebody has tried; of all that were handed in, if nobody has."""
        verdicts = [
            (name.partition(".")[0], each["verdict"]) for row in self.rows for name, each in row.exercises.items()
        ]
        tried = {lesson for lesson, verdict in verdicts if verdict != NOT_ATTEMPTED} or {
            lesson for lesson, _ in verdicts
        }
        asked = {name for row in self.rows for name in row.exercises if name.partition(".")[0] in tried}
        found: dict[str, list[LessonExercise]] = {}
        for each in _exercises():
            if each.id in asked:
                found.setdefault(each.lesson, []).append(each)
        return found

    def of(self, lesson: str) -> list[Row]:
        """The files in which an exercise of the lesson was asked."""
        return [row for row in self.graded if any(name.partition(".")[0] == lesson for name in row.exercises)]

    def counts(self, exercise: str) -> Counter[str]:
        """How often each verdict was given."""
        return Counter(row.exercises[exercise]["verdict"] for row in self.graded if exercise in row.exercises)

    @property
    def mistakes(self) -> list[Mistake]:
        """Known mistakes, the most frequent first: what to explain again."""
        found: dict[tuple[str, str], list[Any]] = {}
        for row in self.graded:
            for name, each in row.exercises.items():
                if each["misconception"]:
                    found.setdefault((name, each["misconception"]), [each["message"]]).append(row.file)
        mistakes = [Mistake(*key, message, files) for key, (message, *files) in found.items()]
        return sorted(mistakes, key=lambda each: (-len(each.files), each.exercise, each.name))

    @property
    def untouched(self) -> list[str]:
        """Lessons that were handed in, and in which nobody has tried anything."""
        asked = {name.partition(".")[0] for row in self.rows for name in row.exercises}
        return sorted(asked - set(self.lessons))

    @property
    def need_help(self) -> list[Standing]:
        """Who tried and solved less than half of what they tried, or nothing at all."""
        found = [each for each in self.standings if each.verdicts and 2 * each.solved < max(each.tried, 1)]
        return sorted(found, key=lambda each: (each.solved, -each.tried, each.person.student_id))

    @property
    def noted(self) -> list[Row]:
        return [row for row in self.rows if row.notes]

    @property
    def passed(self) -> int:
        return sum(each["verdict"] == PASSED for row in self.graded for each in row.exercises.values())

    @property
    def answers(self) -> int:
        return sum(each["verdict"] != NOT_ATTEMPTED for row in self.graded for each in row.exercises.values())
