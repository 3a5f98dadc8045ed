"""What a rehearsal has measured, as JSON: the class, verdicts, seconds. The guide's numbers come from such a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdcourse.course.misuse import MisuseError

FORMAT = 1
STORED = Path(__file__).parent / "rehearsal.json"
"""The one that the course brings."""


class RecordError(MisuseError):
    """The file is no record of a rehearsal; the message says how to make one."""


@dataclass(frozen=True)
class LessonTimes:
    """What a lesson took the computer, in seconds."""

    seconds: float
    """Start of the kernel included."""
    cells: Mapping[str, float]
    """By the id of the code cell; those that took a tenth of a second or more."""
    problem: str = ""
    """Why it did not run to its end."""

    @property
    def longest(self) -> tuple[str, float]:
        """The cell that took longest, and its seconds."""
        return max(self.cells.items(), key=lambda pair: pair[1], default=("", 0.0))


@dataclass(frozen=True)
class Submitted:
    """A file that was handed in, and how its grading went."""

    file: str
    kind: str
    lesson: str
    seconds: float
    """From the start of its check to its end; 0 for a file that is not even read."""
    expected: Mapping[str, str]
    """By exercise, in words; by "file" for what is no notebook."""
    given: Mapping[str, str]
    problems: Sequence[str]
    """What is other than expected."""


@dataclass(frozen=True)
class Rehearsal:
    """A class that was handed lessons, graded and compared with what was expected."""

    people: int
    seed: int
    machine: Mapping[str, str]
    """cores, system, python, torch, and load: how many processes wanted a core when it began, if that is counted."""
    seconds: Mapping[str, float]
    """For each stage: editions, answers, grading."""
    submissions: Sequence[Submitted]
    left_out: Sequence[str]
    """Attacks that this system does not hold off, so nobody made them."""
    harmed: Sequence[str]
    """What is not as it was before."""
    lessons: Mapping[str, LessonTimes]
    """By number; those that were run."""

    @property
    def problems(self) -> list[str]:
        """All that is other than expected, in sentences."""
        said = [f"{each.file}: {problem}." for each in self.submissions for problem in each.problems]
        said += [f"{each} is not as it was before." for each in self.harmed]
        return said + [f"Lesson {number}: {each.problem}" for number, each in self.lessons.items() if each.problem]

    @property
    def longest(self) -> Submitted:
        return max(self.submissions, key=lambda each: each.seconds)

    def count(self, kind: str) -> int:
        return sum(each.kind == kind for each in self.submissions)

    @property
    def known_mistakes(self) -> int:
        """Answers that make a mistake of the catalogue."""
        return sum(words.startswith("misconception: ") for each in self.submissions for words in each.expected.values())


def to_text(rehearsal: Rehearsal) -> str:
    return json.dumps({"format": FORMAT} | asdict(rehearsal), indent=1, ensure_ascii=False) + "\n"


def read_rehearsal(path: Path = STORED) -> Rehearsal:
    """
    Raises:
        RecordError: the file is none.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.pop("format") != FORMAT:
            raise ValueError("it is of another version")
        return _rehearsal(told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path} is no record of a rehearsal ({error}); `kdcourse rehearse --out OUT` writes OUT/rehearsal.json."
        ) from None


def _rehearsal(told: dict[str, Any]) -> Rehearsal:
    lessons = {number: LessonTimes(**each) for number, each in told.pop("lessons").items()}
    submissions = [Submitted(**each) for each in told.pop("submissions")]
    return Rehearsal(**told, lessons=lessons, submissions=submissions)
