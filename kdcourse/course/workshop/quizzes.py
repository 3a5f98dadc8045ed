"""Five questions before and five after, as `quizzes.toml` has them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

QUIZZES = Path(__file__).parent / "quizzes.toml"
TITLES = {"entry": "Before", "exit": "After"}
LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """One question, its choices, the right one, and what in the course holds it: a claim, a prediction or a cell."""

    id: str
    question: str
    choices: Sequence[str]
    answer: str
    why: str
    lesson: str
    claim: str = ""
    prediction: str = ""
    cell: str = ""

    @property
    def letter(self) -> str:
        return LETTERS[list(self.choices).index(self.answer)]

    @property
    def source(self) -> str:
        """Where the course shows it, in words."""
        if self.claim:
            return f"lesson {self.lesson}, “{self.claim}”"
        return f"lesson {self.lesson}, " + (
            f"prediction `{self.prediction}`" if self.prediction else f"cell `{self.cell}`"
        )


@cache
def all_quizzes() -> dict[str, list[Question]]:
    """The questions of "entry" and "exit"."""
    told = tomllib.loads(QUIZZES.read_text(encoding="utf-8"))
    return {name: [Question(**each) for each in told[name]] for name in TITLES}
