"""A lesson in pieces: its sections, what is predicted in each, its exercises, and how many minutes each takes.

A lesson's header says its minutes, and each exercise its own. What is left is shared out among the sections by what is
done in them: `WORDS_A_MINUTE` are read, and a prediction takes a minute.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdcourse.course.editions import PREDICTION
from kdcourse.course.lessons import EXERCISE, Lesson, LessonError, LessonExercise, source_of

WORDS_A_MINUTE = 200
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
NOT_READ = re.compile(r"```.*?```|<details>.*?</details>", re.DOTALL)
OPENING = "The question"
"""What stands before the first section: the lesson's title, question and prerequisites."""


@dataclass(frozen=True)
class Asked:
    """A prediction, as its lesson asks for it."""

    name: str
    question: str
    choices: Sequence[str]


@dataclass(frozen=True)
class Section:
    """What stands between two headings of the second order."""

    title: str
    minutes: int
    """For reading and predicting."""
    predictions: Sequence[Asked]
    exercises: Sequence[LessonExercise]
    cells: Sequence[str]
    """Ids of the code cells, which the computer works through meanwhile."""


@dataclass
class _Piece:
    """A section that is being read."""

    title: str
    words: int = 0
    predictions: list[Asked] = field(default_factory=list)
    exercises: list[LessonExercise] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)

    @property
    def weight(self) -> float:
        return self.words / WORDS_A_MINUTE + len(self.predictions)


def sections_of(lesson: Lesson) -> list[Section]:
    """The sections of a lesson; their minutes and those of their exercises add up to the lesson's.

    Raises:
        LessonError: the lesson or one of its exercises does not say how many minutes it takes.
    """
    if lesson.minutes is None or any(each.minutes is None for each in lesson.exercises):
        raise LessonError(f"{lesson.name} or one of its exercises does not say how many minutes it takes.")
    pieces = _pieces(lesson)
    left = lesson.minutes - sum(each.minutes or 0 for each in lesson.exercises)
    shares = shared_out(left, [piece.weight for piece in pieces])
    return [
        Section(piece.title, share, piece.predictions, piece.exercises, piece.cells)
        for piece, share in zip(pieces, shares, strict=True)
    ]


def shared_out(minutes: int, weights: Sequence[float]) -> list[int]:
    """Whole minutes in proportion to these weights, as many in all as there are: the largest rests are rounded up."""
    exact = [minutes * weight / sum(weights) for weight in weights]
    whole = [int(each) for each in exact]
    by_rest = sorted(range(len(exact)), key=lambda place: whole[place] - exact[place])
    for place in by_rest[: minutes - sum(whole)]:
        whole[place] += 1
    return whole


def _pieces(lesson: Lesson) -> list[_Piece]:
    pieces = [_Piece(OPENING)]
    known = {each.id: each for each in lesson.exercises}
    for cell in lesson.cells:
        if cell["cell_type"] == "code":
            pieces[-1].cells.append(cell["id"])
            pieces[-1].predictions += predictions_in(cell)
            continue
        before, *rest = HEADING.split(source_of(cell))
        for text, title in [(before, ""), *zip(rest[1::2], rest[::2], strict=True)]:
            if title:
                pieces.append(_Piece(title.strip(), len(title.split())))
            pieces[-1].words += len(NOT_READ.sub(" ", text).split())
            pieces[-1].exercises += [known[found[1]] for found in EXERCISE.finditer(text)]
    return pieces


def predictions_in(cell: dict[str, Any]) -> Iterator[Asked]:
    """Each `predict("01.price", "How many …?", "0.3", …)` of a cell; all of its words are written there."""
    if PREDICTION not in cell["metadata"].get("tags", []):
        return
    for node in ast.walk(ast.parse(source_of(cell))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "predict":
            name, question, *choices = [ast.literal_eval(each) for each in node.args]
            yield Asked(name, question, choices)
