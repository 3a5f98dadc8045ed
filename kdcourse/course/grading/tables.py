"""What a room's grading leaves: `grades.json` for programs, `grades.csv` for gradebooks, `grades.html` for people."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcourse.course.html_pages import render
from kdcourse.course.lessons import LessonExercise, course_lessons
from kdcourse.course.text import in_one_line, writable
from kdcourse.files import write_whole

if TYPE_CHECKING:
    from kdcourse.course.grading.room import Row

PASSED, NOT_ATTEMPTED = "passed", "not attempted"
MARKS = {
    PASSED: "✓", NOT_ATTEMPTED: "·", "misconception": "✗", "different": "✗", "error": "!", "timed out": "∞",
    "refused": "–",
}  # fmt: skip
COLUMNS = ("assignment", "student_id", "file", "exercise", "title", "verdict", "score", "max_score", "misconception",
           "message", "notes")  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula when a cell begins with it."""


def write_tables(rows: Sequence[Row], out: Path) -> None:
    """Write all three into a folder."""
    write_whole(out / "grades.json", as_json(rows))
    write_whole(out / "grades.csv", as_csv(rows))
    render("grades.html", out, room=Room(rows), marks=MARKS)


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
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\r\n")
    table.writerow(COLUMNS)
    for row in rows:
        notes = " ".join(row.notes)
        if not row.exercises:
            table.writerow(map(_safe, ["", row.learner, row.file, "", "", row.status, "", "", "", row.message, notes]))
        for name, found in row.exercises.items():
            lesson, score = name.partition(".")[0], int(found["verdict"] == PASSED)
            fields = [lesson, row.learner, row.file, name, titles.get(name, ""), found["verdict"], score, 1]
            table.writerow(map(_safe, [*fields, found["misconception"], found["message"], notes]))
    return stream.getvalue()


def _safe(field: object) -> str:
    """In one line, and a text for every spreadsheet, whatever a learner has called a file."""
    text = in_one_line(str(field))
    return f"'{text}" if text.startswith(FORMULA) else text


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

    @property
    def graded(self) -> list[Row]:
        return [row for row in self.rows if row.exercises]

    @property
    def refused(self) -> list[Row]:
        return [row for row in self.rows if not row.exercises]

    @property
    def lessons(self) -> dict[str, list[LessonExercise]]:
        """The exercises that somebody was asked, by lesson."""
        asked = {name for row in self.rows for name in row.exercises}
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
    def need_help(self) -> list[tuple[Row, int, int]]:
        """Who tried and solved less than half of what they tried, or nothing at all: solved, and tried."""
        found = []
        for row in self.graded:
            verdicts = [each["verdict"] for each in row.exercises.values()]
            tried = sum(verdict not in (NOT_ATTEMPTED, "refused") for verdict in verdicts)
            solved = verdicts.count(PASSED)
            if 2 * solved < max(tried, 1):
                found.append((row, solved, tried))
        return sorted(found, key=lambda each: (each[1], -each[2], each[0].file))

    @property
    def noted(self) -> list[Row]:
        return [row for row in self.rows if row.notes]

    @property
    def passed(self) -> int:
        return sum(each["verdict"] == PASSED for row in self.graded for each in row.exercises.values())

    @property
    def answers(self) -> int:
        return sum(each["verdict"] != NOT_ATTEMPTED for row in self.graded for each in row.exercises.values())
