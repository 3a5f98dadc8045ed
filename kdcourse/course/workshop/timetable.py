"""A plan by the minute: sections, predictions, exercises, breaks, and what the computer takes.

Where the minutes come from:

a section      its share of the lesson's minutes (see `sections`), and `TALK` more for each prediction, which a room
               answers aloud
an opening     its share, and `TALK` more for the question, and for the sentence with which the lesson ends
an exercise    its own
a wait         where the cells of a section took `WAIT_FROM` seconds or more when they were measured, rounded up
a quiz         `QUIZ`
handing in     `HAND_IN`, at the end of the last day
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kdcourse.course.lessons import Lesson
from kdcourse.course.rehearsal.record import LessonTimes
from kdcourse.course.workshop.plans import Plan, PlanError, clock_of, reason_for
from kdcourse.course.workshop.quizzes import all_quizzes
from kdcourse.course.workshop.sections import OPENING, Asked, Section, sections_of

TALK, QUIZ, HAND_IN, WAIT_FROM = 1, 10, 5, 20.0
MIDNIGHT = 24 * 60
LONGEST_SITTING = 90
"""Minutes after which a room needs a break."""


@dataclass(frozen=True)
class Row:
    """A part of a plan."""

    kind: str
    """opening, section, exercise, wait, quiz, hand-in or break."""
    title: str
    minutes: int
    lesson: str = ""
    predictions: Sequence[Asked] = ()
    seconds: float = 0.0
    """What the computer took for its cells."""
    ends_lesson: bool = False
    """Whether the lesson's one sentence is said here: before, it would answer what the room is asked."""
    day: int = 1
    begin: int = 0
    """Minute of the day."""

    @property
    def clock(self) -> str:
        return clock_of(self.begin)


@dataclass(frozen=True)
class Cut:
    """What a plan leaves out, or could: the minutes that it saves, and why."""

    lesson: str
    title: str
    minutes: int
    reason: str

    @property
    def name(self) -> str:
        """As plans.toml has it."""
        return self.title if self.title.startswith(f"{self.lesson}.") else f"{self.lesson}: {self.title}"


@dataclass(frozen=True)
class Timetable:
    """A plan, laid out."""

    plan: Plan
    rows: Sequence[Row]
    cuts: Sequence[Cut]
    """What is left out."""
    next_cuts: Sequence[Cut]
    """What else may be, for a room that is late."""
    taken_for_granted: Mapping[str, Sequence[str]]
    """Lessons that are not in the plan, each with those in it that build on it."""

    def minutes(self, *kinds: str) -> int:
        """Of the rows of these kinds, or of all."""
        return sum(row.minutes for row in self.rows if not kinds or row.kind in kinds)

    def count(self, kind: str) -> int:
        return sum(row.kind == kind for row in self.rows)

    @property
    def predictions(self) -> int:
        return sum(len(row.predictions) for row in self.rows)

    @property
    def sittings(self) -> list[tuple[int, int]]:
        """What lies between two breaks, from minute to minute of its day."""
        found: list[tuple[int, int]] = []
        for before, row in zip([None, *self.rows], self.rows, strict=False):
            if row.kind == "break":
                continue
            goes_on = before is not None and before.kind != "break" and before.day == row.day
            begin = found.pop()[0] if goes_on else row.begin
            found.append((begin, row.begin + row.minutes))
        return found

    @property
    def ends(self) -> list[str]:
        """When each day ends."""
        days = {row.day: row.begin + row.minutes for row in self.rows}
        return [clock_of(end) for end in days.values()]


def lay_out(plan: Plan, lessons: Mapping[str, Lesson], times: Mapping[str, LessonTimes]) -> Timetable:
    """A plan by the minute.

    Args:
        lessons: by number.
        times: what the computer took, by number; a lesson without an entry has no waits.

    Raises:
        PlanError: it names a lesson, an exercise or a section that is not there, or does not fit into a day.
        LessonError: a lesson does not say its minutes.
    """
    if missing := [number for number in plan.lessons if number not in lessons]:
        raise PlanError(f"The plan {plan.name} has lessons {', '.join(missing)}, and there are {', '.join(lessons)}.")
    sections = {number: sections_of(lessons[number]) for number in plan.lessons}
    known = {cut.lesson + cut.title: cut for number in plan.lessons for cut in _possible_cuts(number, sections[number])}
    asked = {name: _key(name) for name in plan.cut}
    if unknown := [name for name, key in asked.items() if key not in known]:
        raise PlanError(f"The plan {plan.name} cuts {', '.join(unknown)}, which its lessons do not have.")
    rows: list[Row] = []
    for day, numbers in enumerate(plan.days, 1):
        parts: list[Row] = []
        for number in numbers:
            *before, last = _rows_of(number, sections[number], set(asked.values()), times)
            parts += [*before, replace(last, ends_lesson=True)]
        if day == 1:
            parts.insert(0, Row("quiz", "Entry quiz, while the laptops get going", QUIZ))
        if day == len(plan.days) and any(each.lesson in plan.lessons for each in all_quizzes()["exit"]):
            parts.append(Row("quiz", "Exit quiz", QUIZ))
        if day == len(plan.days):
            parts.append(Row("hand-in", "Hand in the notebooks; then the handout", HAND_IN))
        rows += [replace(row, day=day) for row in _timed(parts, plan)]
    cuts = [replace(known[key], reason=reason_for(name)) for name, key in asked.items()]
    next_cuts = [cut for cut in known.values() if cut.reason and cut not in cuts]
    return Timetable(plan, rows, cuts, next_cuts, _taken_for_granted(plan, lessons))


def _taken_for_granted(plan: Plan, lessons: Mapping[str, Lesson]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number in plan.lessons:
        for needed in lessons[number].prerequisites:
            if needed in lessons and needed not in plan.lessons:
                found.setdefault(needed, []).append(number)
    return {needed: found[needed] for needed in sorted(found)}


def _key(name: str) -> str:
    """Lesson and title, of an exercise "03.loop" or a section "03: 8 · Which T?"."""
    lesson, _, title = name.partition(": ")
    return lesson + title if title else name.partition(".")[0] + name


def _possible_cuts(number: str, sections: Sequence[Section]) -> Iterator[Cut]:
    """Every section, with its exercises, and every exercise."""
    for section in sections:
        own = section.minutes + TALK * len(section.predictions)
        minutes = own + sum(each.minutes or 0 for each in section.exercises)
        yield Cut(number, section.title, minutes, _reason(f"{number}: {section.title}"))
        for each in section.exercises:
            yield Cut(number, each.id, each.minutes or 0, _reason(each.id))


def _reason(name: str) -> str:
    try:
        return reason_for(name)
    except PlanError:
        return ""


def _rows_of(
    number: str, sections: Sequence[Section], cut: set[str], times: Mapping[str, LessonTimes]
) -> Iterator[Row]:
    cells = times[number].cells if number in times else {}
    for section in sections:
        if number + section.title in cut:
            continue
        is_opening = section.title == OPENING
        talk = TALK * (len(section.predictions) + is_opening)
        seconds = sum(cells.get(cell, 0.0) for cell in section.cells)
        minutes = section.minutes + talk
        if minutes:
            kind = "opening" if is_opening else "section"
            yield Row(kind, section.title, minutes, number, section.predictions, seconds)
        for each in section.exercises:
            if number + each.id not in cut:
                yield Row("exercise", f"{each.id} · {each.title}", each.minutes or 0, number)
        if seconds >= WAIT_FROM:
            yield Row("wait", "the computer works", math.ceil(seconds / 60), number, seconds=seconds)


def _timed(parts: Sequence[Row], plan: Plan) -> Iterator[Row]:
    """Each part at its time, with the breaks between.

    Raises:
        PlanError: a break comes when all is over, or the day ends tomorrow.
    """
    now, breaks = plan.start, list(plan.breaks)
    for part in parts:
        if breaks and now >= breaks[0].at and part.kind != "wait":
            pause = breaks.pop(0)
            yield Row("break", pause.title, pause.minutes, begin=now)
            now += pause.minutes
        yield replace(part, begin=now)
        now += part.minutes
    if breaks:
        late = clock_of(breaks[0].at)
        raise PlanError(f"There is a break at {late}, and the day is over at {clock_of(now % MIDNIGHT)}.")
    if now > MIDNIGHT:
        raise PlanError(f"The plan {plan.name} does not fit into a day that begins at {clock_of(plan.start)}.")
