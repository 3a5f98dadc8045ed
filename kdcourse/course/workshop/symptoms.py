"""What one sees, and which mistake it may be: the table of lesson 13, for a page that learners print."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdcourse.course.lessons import Lesson, LessonError, source_of

CASES, SYMPTOMS = "13", "symptoms"
"""The lesson and the cell of it that have the table."""
ROW = re.compile(r"^\| (?P<seen>[^|]+) \| (?P<cause>[^|]+) \| (?P<decides>[^|]+) \| (?P<cell>[^|]+) \|$", re.MULTILINE)
CASE = re.compile(r", case (\d+)$")
LINK = re.compile(r"\[lesson (\d+)\]\([^)]*\)")


@dataclass(frozen=True)
class Symptom:
    """A row of the table."""

    seen: str
    cause: str
    decides: str
    """What tells it from other causes; "" where a whole lesson does."""
    lesson: str
    """ "13, case 2" or "02"."""


def symptoms_in(lesson: Lesson) -> list[Symptom]:
    """The rows of lesson 13's table.

    Raises:
        LessonError: it has none.
    """
    source = next((source_of(cell) for cell in lesson.cells if cell["id"] == SYMPTOMS), "")
    found = [_symptom(row) for row in ROW.finditer(source) if row["seen"] != "you see"]
    if not found:
        raise LessonError(f"{lesson.name} has no table of symptoms in its cell {SYMPTOMS}, which the handout prints.")
    return found


def _symptom(row: re.Match[str]) -> Symptom:
    if link := LINK.fullmatch(row["decides"]):
        return Symptom(row["seen"], row["cause"], "", link[1])
    case = CASE.search(row["cause"])
    where = f"{CASES}, case {case[1]}" if case else CASES
    return Symptom(row["seen"], CASE.sub("", row["cause"]), row["decides"], where)
