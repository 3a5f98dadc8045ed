"""Who sits in the class, what each of them hands in, and what grading it should say."""

from __future__ import annotations

import io
import itertools
import json
import random
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kdcourse.course.exercises.catalogue import find_exercise
from kdcourse.course.exercises.exercise import Exercise
from kdcourse.course.lessons import Lesson
from kdcourse.course.misuse import MisuseError
from kdcourse.course.rehearsal.answers import (
    BLANK,
    Answer,
    Asked,
    asked_in,
    filled_in,
    known_mistakes,
    right,
    unknown_mistake,
)
from kdcourse.course.rehearsal.hostile import ANOTHER_PLACE, ATTACKS, COPIED, FILES, NO_NOTEBOOK, Attack

SHARES = {"known": 0.3, "hostile": 0.3, "unknown": 0.15, "blank": 0.1}
"""Of a class, one of each kind at least; the others have everything right."""
RIGHT = "right"
SMALLEST = 6
EVERY_ZIP = 3
"""Of so many people one hands in an archive."""
NO_TEXT = "This is a report about a notebook, and no notebook.\n"


class ClassError(MisuseError):
    """There cannot be such a class; the message says why."""


@dataclass(frozen=True)
class Expected:
    """What grading a file should say."""

    status: str
    verdicts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each exercise those that are right."""
    mistakes: Mapping[str, str] = field(default_factory=dict)
    """For each exercise with a known mistake, its name."""
    same_as: str = ""
    """The file of which it is a copy."""


@dataclass(frozen=True)
class HandedIn:
    """One file of the class."""

    person: str
    kind: str
    lesson: str
    path: str
    """Below the folder of what was handed in."""
    data: bytes
    graded_as: str
    """What the grader calls it: its path, through its archive."""
    expected: Expected


@dataclass(frozen=True)
class Class:
    """All that is handed in, and which attacks are left out because nothing holds them here."""

    handed_in: Sequence[HandedIn]
    left_out: Sequence[str]


def make_class(
    people: int, seed: int, lessons: Sequence[Lesson], editions: Path, canary: Path, held: Mapping[str, bool]
) -> Class:
    """A class of so many people: the same for the same seed, lessons and canary.

    Args:
        editions: the folder with the learner's edition of each lesson, which people fill in.
        canary: a file that a hostile answer tries to change.
        held: which rules this system holds a process to.

    Raises:
        ClassError: there are too few people to have one of each kind, or no lesson with exercises.
    """
    if people < SMALLEST:
        raise ClassError(f"A class of {people} has not one of each kind of answer; take at least {SMALLEST}.")
    lessons = [lesson for lesson in lessons if lesson.exercises]
    if not lessons:
        raise ClassError("None of these lessons has an exercise, so there is nothing to hand in.")
    maker = _Maker(random.Random(seed), editions, str(canary))  # noqa: S311  (nobody is to be kept from guessing)
    names = [attack.name for attack in ATTACKS if not attack.needs or held[attack.needs]]
    hostile = itertools.cycle([*names[:4], *FILES, *names[4:]])
    count = Counter(kinds_of(people))
    turn = itertools.cycle(lessons)
    made: list[HandedIn] = []
    for kind in (RIGHT, "known", "unknown", "blank"):
        for _ in range(count[kind]):
            made.append(maker.person(len(made) + 1, kind, next(turn)))
    originals = itertools.cycle(each for each in made if each.kind == RIGHT)
    for _ in range(count["hostile"]):
        made.append(maker.hostile(len(made) + 1, next(hostile), next(turn), originals))
    return Class(made, [attack.name for attack in ATTACKS if attack.name not in names])


def kinds_of(people: int) -> Iterator[str]:
    """The kind of each of so many people."""
    left = people
    for kind, share in SHARES.items():
        count = max(1, int(share * people))
        left -= count
        yield from itertools.repeat(kind, count)
    yield from itertools.repeat(RIGHT, left)


class _Maker:
    """Makes people one after the other; no known mistake comes twice before each has come once."""

    def __init__(self, draw: random.Random, editions: Path, canary: str) -> None:
        self._draw, self._editions, self._canary = draw, editions, canary
        self._mistakes: dict[str, Iterator[Answer]] = {}

    def person(self, number: int, kind: str, lesson: Lesson) -> HandedIn:
        asked = asked_in(lesson)
        return self._written(number, kind, lesson, [(each, self._answer(kind, each, asked, lesson)) for each in asked])

    def hostile(self, number: int, name: str, lesson: Lesson, originals: Iterator[HandedIn]) -> HandedIn:
        person = f"{number:02}-{name}"
        if name == NO_NOTEBOOK:
            path = f"{person}/{lesson.name}.ipynb"
            return HandedIn(person, "hostile", lesson.number, path, NO_TEXT.encode(), path, Expected("refused"))
        if name == COPIED:
            return self._copied(person, next(originals))
        if name == ANOTHER_PLACE:
            inner = f"../../{lesson.name}.ipynb"
            data = _archive(inner, self._notebook(person, lesson, []))
            path = f"{person}.zip"
            return HandedIn(person, "hostile", lesson.number, path, data, f"{path}/{inner}", Expected("refused"))
        [attack] = [each for each in ATTACKS if each.name == name]
        return self._written(number, "hostile", lesson, self._attacked(attack, lesson), name)

    def _copied(self, person: str, original: HandedIn) -> HandedIn:
        path = f"{person}/mine.ipynb"
        data = original.data
        if original.path.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = archive.read(archive.namelist()[0])
        expected = Expected("graded", original.expected.verdicts, original.expected.mistakes, original.graded_as)
        return HandedIn(person, "hostile", original.lesson, path, data, path, expected)

    def _attacked(self, attack: Attack, lesson: Lesson) -> list[tuple[Asked, Answer]]:
        """The first function of the lesson attacks; all others are right, and should be found so."""
        asked = asked_in(lesson)
        first = next((each for each in asked if isinstance(find_exercise(each.id), Exercise)), asked[0])
        return [
            (
                each,
                attack.answer(each, self._canary) if each is first else BLANK if each.leans_on(first) else right(each),
            )
            for each in asked
        ]

    def _answer(self, kind: str, asked: Asked, beside: Sequence[Asked], lesson: Lesson) -> Answer:
        if kind == "blank" or (kind != RIGHT and any(asked.leans_on(each) for each in beside)):
            return BLANK
        if kind == "known":
            if asked.id not in self._mistakes:
                mistakes = list(_mistakes(asked))
                self._draw.shuffle(mistakes)
                self._mistakes[asked.id] = itertools.cycle(mistakes)
            return next(self._mistakes[asked.id], right(asked))
        if kind == "unknown":
            return unknown_mistake(asked, lesson, self._draw) or right(asked)
        return right(asked)

    def _written(
        self, number: int, kind: str, lesson: Lesson, answers: Sequence[tuple[Asked, Answer]], name: str = ""
    ) -> HandedIn:
        person = f"{number:02}-{name or kind}"
        expected = Expected(
            "graded",
            {asked.id: answer.verdicts for asked, answer in answers},
            {asked.id: answer.misconception for asked, answer in answers if answer.misconception},
        )
        data = self._notebook(person, lesson, answers)
        path = graded_as = f"{person}/{lesson.name}.ipynb"
        if number % EVERY_ZIP == 0:
            inner, path = f"handed in/{lesson.name}.ipynb", f"{person}.zip"
            data, graded_as = _archive(inner, data), f"{path}/{inner}"
        return HandedIn(person, kind, lesson.number, path, data, graded_as, expected)

    def _notebook(self, person: str, lesson: Lesson, answers: Sequence[tuple[Asked, Answer]]) -> bytes:
        handed_out = Lesson(self._editions / lesson.path.name)
        notebook = filled_in(handed_out.cells, answers)
        notebook["metadata"] = {"learner": person}
        return json.dumps(notebook, indent=1, ensure_ascii=False).encode()


@cache
def _mistakes(asked: Asked) -> tuple[Answer, ...]:
    return tuple(known_mistakes(asked))


def _archive(name: str, data: bytes) -> bytes:
    """A zip archive of one file, the same bytes each time."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), data)
    return made.getvalue()


def differences(
    expected: Expected, status: str, exercises: Mapping[str, Mapping[str, str]], notes: Collection[str]
) -> list[str]:
    """What is other than expected, in sentences."""
    if status != expected.status:
        return [f"it is {status}, and should be {expected.status}"]
    found = []
    if exercises.keys() != expected.verdicts.keys():
        found.append(f"it has verdicts for {sorted(exercises)}, and should have for {sorted(expected.verdicts)}")
        return found
    for name, verdicts in expected.verdicts.items():
        given = exercises[name]
        if given["verdict"] not in verdicts:
            found.append(f"{name} is {given['verdict']}, and should be {' or '.join(verdicts)}")
        elif name in expected.mistakes and given["misconception"] != expected.mistakes[name]:
            found.append(f"{name} is {given['misconception']}, and should be {expected.mistakes[name]}")
    if expected.same_as and not any(expected.same_as in note for note in notes):
        found.append(f"nobody says that it is {expected.same_as}")
    return found
