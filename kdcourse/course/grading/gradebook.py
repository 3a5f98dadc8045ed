"""A row for each learner, and not for each file: the best that was handed in, and who has handed in nothing.

Who is in the room may be said in a CSV file:

student_id       as the gradebook calls somebody
handed_in_as     the folder or archive, if it is called otherwise; several people may share one, as a team
anything else    is passed on to the gradebook
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kdcourse.course.lessons import LessonExercise
from kdcourse.course.misuse import MisuseError

if TYPE_CHECKING:
    from kdcourse.course.grading.room import Row

PASSED, NOT_ATTEMPTED = "passed", "not attempted"
STUDENT, HANDED_IN_AS, FILES, NOTES = "student_id", "handed_in_as", "files", "notes"
OWN = (HANDED_IN_AS, FILES, NOTES)
"""Columns of a gradebook beside those of the people and one for each lesson; docs/grading.md describes them."""
ENDINGS = re.compile(r"(\.(zip|ipynb|pdf|html?|py|docx?|txt|7z|rar|tar|t?gz|bz2|xz|zst))+$")
"""Of what people hand in."""
NOTHING, NOT_LISTED = "Nothing was handed in.", "Nobody in the list of people has this folder or archive."


class PeopleError(MisuseError):
    """A list of people cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Person:
    """Somebody who is to hand in something."""

    student_id: str
    handed_in_as: str
    more: Mapping[str, str] = field(default_factory=dict)
    """Other columns of the list."""


def read_people(path: Path) -> list[Person]:
    """The people of a CSV file, with commas, semicolons or tabs.

    Raises:
        PeopleError: it is no such file, or has somebody twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not in UTF-8"
        raise PeopleError(f"{path} cannot be read ({why}); save it as CSV in UTF-8.") from None
    heading = text.partition("\n")[0]
    separator = max(",;\t", key=heading.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    names = [name.strip() for name in rows.fieldnames or ()]
    if STUDENT not in names:
        raise PeopleError(
            f"{path} has no column {STUDENT}, but {', '.join(names) or 'nothing'}; its first line names the columns."
        )
    if taken := sorted({FILES, NOTES} & set(names)):
        raise PeopleError(f"{path} has a column {taken[0]}, which the gradebook has, too; call yours otherwise.")
    people: dict[str, Person] = {}
    for number, row in enumerate(rows, 2):
        cells = {name.strip(): (value or "").strip() for name, value in row.items() if isinstance(name, str)}
        name = cells.pop(STUDENT)
        if not name and not any(cells.values()):
            continue
        if not name or name in people:
            problem = f"{name!r} a second time" if name else f"nobody in its column {STUDENT}"
            raise PeopleError(f"{path} has {problem} in row {number}; each row is another person.")
        people[name] = Person(name, cells.pop(HANDED_IN_AS, "") or name, cells)
    if not people:
        raise PeopleError(f"{path} names nobody below its first line; write a row for each person.")
    return list(people.values())


@dataclass(frozen=True)
class Standing:
    """A learner, or one of a team, and the best verdict that was given for each exercise."""

    person: Person
    rows: Sequence[Row]
    note: str = ""

    @property
    def verdicts(self) -> dict[str, str]:
        """Of an exercise that was handed in more than once, the best one."""
        best: dict[str, str] = {}
        for row in self.rows:
            for name, found in row.exercises.items():
                if name not in best or (best[name] != PASSED and found["verdict"] != NOT_ATTEMPTED):
                    best[name] = found["verdict"]
        return best

    @property
    def solved(self) -> int:
        return list(self.verdicts.values()).count(PASSED)

    @property
    def tried(self) -> int:
        """How many exercises were answered with something that can be judged."""
        return sum(verdict not in (NOT_ATTEMPTED, "refused") for verdict in self.verdicts.values())

    def points(self, lesson: str) -> int | str:
        """How many exercises of a lesson are solved; an empty text if none of it was handed in."""
        of_it = [verdict for name, verdict in self.verdicts.items() if name.partition(".")[0] == lesson]
        return of_it.count(PASSED) if of_it else ""


def standings(rows: Iterable[Row], people: Sequence[Person] | None) -> list[Standing]:
    """Everybody in the list, and then whoever handed in something and is not in it; without a list, these alone."""
    by_learner: dict[str, list[Row]] = {}
    for row in rows:
        by_learner.setdefault(row.learner, []).append(row)
    keys = {each.student_id: _handed_in_as(each, by_learner) for each in people or ()}
    listed = [_standing(each, keys[each.student_id], by_learner) for each in people or ()]
    taken = {name for found in keys.values() if len(found) == 1 for name in found}
    others = [
        Standing(Person(name, name), found, "" if people is None else NOT_LISTED)
        for name, found in by_learner.items() if name not in taken
    ]  # fmt: skip
    return listed + others


def _standing(person: Person, names: Sequence[str], by_learner: Mapping[str, Sequence[Row]]) -> Standing:
    if len(names) == 1:
        return Standing(person, by_learner[names[0]])
    several = f"Handed in as {' and '.join(names)}; put one of them into the column {HANDED_IN_AS}."
    return Standing(person, [], several if names else NOTHING)


def _handed_in_as(person: Person, by_learner: Iterable[str]) -> list[str]:
    """The learners of the submissions that somebody may be listed with: of that name, in capitals or not and however
    its accents are coded, with or without the ending of a file.
    """
    for same in (str, _plain, lambda name: ENDINGS.sub("", _plain(name))):
        if found := [name for name in by_learner if same(name) == same(person.handed_in_as)]:
            return found
    return []


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def gradebook(found: Sequence[Standing], lessons: Mapping[str, Sequence[LessonExercise]]) -> list[list[object]]:
    """The table's first line, and one for each learner.

    Args:
        lessons: those that count, with their exercises.
    """
    more = list(dict.fromkeys(name for each in found for name in each.person.more))
    columns = [f"lesson {number} (of {len(exercises)})" for number, exercises in lessons.items()]
    table: list[list[object]] = [[STUDENT, *more, HANDED_IN_AS, *columns, FILES, NOTES]]
    for each in found:
        person, points = each.person, [each.points(number) for number in lessons]
        not_graded = [f"{row.file}: {row.message}" for row in each.rows if row.status == "refused"]
        notes = " ".join(filter(None, [each.note, *not_graded]))
        passed_on = [person.more.get(name, "") for name in more]
        table.append(
            [
                person.student_id,
                *passed_on,
                person.handed_in_as,
                *points,
                sum(bool(row.exercises) for row in each.rows),
                notes,
            ]
        )
    return table
