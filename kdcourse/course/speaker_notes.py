"""What the speaker's window says beside each slide: the minute, what to ask, what many answer, the known mistakes.

All of it comes from the lesson, from what stands beside it in `claims/`, and from the exercises' known mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nbformat import NotebookNode

from kdcourse.course.exercises.exercise import Task
from kdcourse.course.expectations import ExpectedAnswer
from kdcourse.course.not_compared import REASONS, reason_of
from kdcourse.course.slide_pieces import picture_of
from kdcourse.course.slides import Slide

PREDICT = re.compile(r'predict\(\s*"([\w.]+)"')
QUESTION = re.compile(r"(?<![\w|])[A-Z][^.?!:|*]{15,160}\?")
EXERCISE = re.compile(r"### Exercise (\S+)")


@dataclass(frozen=True)
class Lecture:
    """What there is to say about one lesson."""

    cells: Sequence[NotebookNode]
    minutes: int | None
    answers: Mapping[str, ExpectedAnswer]
    exercises: Mapping[str, Task]

    def notes(self, slides: Sequence[Slide]) -> list[list[str]]:
        """For each slide, paragraphs of Markdown."""
        minutes = self._minutes(slides)
        by_id = {cell.id: cell for cell in self.cells}
        return [
            [
                *([f"Minute {round(minute)} of {self.minutes}."] if self.minutes else []),
                *self._of_code(slide, number, slides),
                *self._of_pieces(slide, by_id),
            ]
            for number, (slide, minute) in enumerate(zip(slides, minutes, strict=True), start=1)
        ]

    def _minutes(self, slides: Sequence[Slide]) -> list[float]:
        """When each slide begins: exercises take theirs, and what is left goes by the words."""
        own = [sum(exercise.minutes for exercise in self._exercises(slide)) for slide in slides]
        words = [slide.words for slide in slides]
        pace = max(0, (self.minutes or 0) - sum(own)) / max(1, sum(words))
        spent = [0.0]
        for exercise, said in zip(own, words, strict=True):
            spent.append(spent[-1] + exercise + pace * said)
        return spent[:-1]

    def _exercises(self, slide: Slide) -> list[Task]:
        names = (EXERCISE.match(piece.source) for piece in slide.pieces if piece.kind == "prose")
        return [self.exercises[name[1]] for name in names if name and name[1] in self.exercises]

    def _of_code(self, slide: Slide, number: int, slides: Sequence[Slide]) -> list[str]:
        """Where the code of a cell goes on, and where its result is."""
        if not slide.continues:
            return []
        cell = slide.pieces[-1].cell
        here, result = (
            [
                place
                for place, each in enumerate(slides, start=1)
                if any(piece.cell == cell and piece.kind == kind for piece in each.pieces)
            ]
            for kind in ("code", "result")
        )
        shown = f"; its result is on slide {result[0]}" if result and result[0] != number else ""
        return [f"This cell's code goes on to slide {here[-1]}{shown}."]

    def _of_pieces(self, slide: Slide, by_id: Mapping[str, NotebookNode]) -> list[str]:
        said: list[str] = []
        for piece in slide.pieces:
            if piece.kind == "question":
                said += self._of_question(by_id[piece.cell].source)
            elif piece.kind == "prose" and not piece.tells:
                asked = [" ".join(found.split()) for found in QUESTION.findall(piece.source)]
                said += [f"Ask the room, and wait: *{question}*" for question in asked]
            elif piece.output and picture_of(piece.output):
                alt = piece.output.get("metadata", {}).get("image/png", {}).get("alt", "")
                said += [f"The picture: {alt}"] if alt else []
        results = {piece.cell for piece in slide.pieces if piece.kind == "result" and piece.cell in by_id}
        reasons = {reason_of(by_id[cell]) for cell in results}
        said += [f"A number here {REASONS[reason]}." for reason in sorted(reasons & REASONS.keys())]
        for exercise in self._exercises(slide):
            said += self._of_exercise(exercise)
        return said

    def _of_question(self, source: str) -> list[str]:
        name = PREDICT.search(source)
        said = ["Everybody answers, by a show of hands, before you go on; ask two of them for their reasons."]
        if name and (answer := self.answers.get(name[1])):
            said += [f"Many say **{answer.usual}**: {answer.why}", f"Not yet to be said: it is **{answer.answer}**."]
        return said

    def _of_exercise(self, exercise: Task) -> list[str]:
        mistakes = [f"- *{each.name}*: {each.signature} Read {each.read}." for each in exercise.misconceptions]
        known = [f"What people write, and what the check tells them:\n\n{chr(10).join(mistakes)}"] if mistakes else []
        return [f"**{exercise.minutes} minutes.** Everybody in their own notebook.", *known]
