"""What was found out about a loss: answers, each with its words, its number and its lesson; and what was promised."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kdcourse.course.misuse import MisuseError

Level = Literal["ok", "note", "problem"]

QUESTIONS = {
    "inputs": "What goes in?",
    "direction": "Which divergence is it?",
    "softened": "What does T divide?",
    "divisor": "What is the teacher's term divided by?",
    "hard_divisor": "What is the labels' term divided by?",
    "t_squared": "Is there T²?",
    "weight": "Which end of the weight is the labels?",
    "ends": "Do the ends of the weight keep to the formula?",
    "hard": "What is the labels' term?",
    "hard_t_squared": "Is T² on the labels' term, too?",
    "smoothing": "Are the labels smoothed?",
    "scale": "Is anything multiplied in?",
    "gradient": "Is the gradient that of the value?",
    "in_place": "Does it change its inputs?",
    "prints": "Does it print?",
    "accumulation": "What do accumulated steps add up to?",
    "teacher_mode": "Is the teacher in eval mode when it answers?",
    "teacher_told": "What is the teacher told?",
    "student_asked": "Which student is asked?",
    "evaluation": "What does an evaluation get?",
    "teacher_gradient": "Does a gradient reach the teacher?",
    "identical": "What is it for identical models?",
    "shift": "Which logits does a label teach?",
    "mask": "What do rows without a label do?",
    "counted": "Which labels count?",
    "nothing_supervised": "What if nothing is supervised?",
    "tokens": "And if it is given (texts, tokens, vocabulary)?",
    "extreme_logits": "Does it survive extreme logits?",
    "ruled_out": "Does it survive classes that are ruled out?",
    "sixteen_bits": "Does it survive 16 bits?",
    "class_mask": "What does the mask of classes do?",
    "vocabulary": "What if the two models are not equally wide?",
    "beta_ends": "Does it jump at the ends of beta?",
}


@dataclass(frozen=True)
class Finding:
    """One answer."""

    question: str
    """A key of QUESTIONS."""
    answer: str
    """One word, for machines and promises."""
    words: str
    """A sentence, with the number that shows it."""
    lesson: str
    """The number of the lesson that explains it."""
    level: Level = "ok"
    number: float | None = None


@dataclass(frozen=True)
class Report:
    """All findings about a loss, in the order of QUESTIONS."""

    name: str
    arguments: dict[str, str]
    findings: Sequence[Finding]

    def __getitem__(self, question: str) -> Finding:
        for finding in self.findings:
            if finding.question == question:
                return finding
        raise KeyError(question)

    def get(self, question: str) -> str:
        """The answer to a question; empty if it does not arise."""
        return next((finding.answer for finding in self.findings if finding.question == question), "")

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "problem"]

    def broken(self, promises: Mapping[str, str]) -> list[str]:
        """A sentence for each promise, from question to answer, that the loss does not keep."""
        return [
            f"{question} was promised to be {promised}, and is {self.get(question) or 'not known'}."
            for question, promised in promises.items()
            if self.get(question) != promised
        ]

    def as_json(self) -> dict[str, Any]:
        findings = [asdict(each) for each in self.findings]
        for each in findings:  # JSON has no NaN
            each["number"] = None if each["number"] is None or not math.isfinite(each["number"]) else each["number"]
        return {"loss": self.name, "arguments": self.arguments, "findings": findings}

    def __str__(self) -> str:
        marks = {"ok": "✓", "note": "!", "problem": "✗"}
        rows = (
            f"{marks[each.level]} {QUESTIONS[each.question]} {each.words} (lesson {each.lesson})"
            for each in self.findings
        )
        return "\n".join([self.name, *rows])

    __repr__ = __str__


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    order = list(QUESTIONS)
    return sorted(findings, key=lambda finding: order.index(finding.question))


def pairs_of(pairs: Iterable[str], option: str, known: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE as a dictionary.

    Raises:
        MisuseError: a pair is none, or its name is not known.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and value and name in known):
            raise MisuseError(f"{option} is {pair!r}; it is NAME=VALUE, and the names are {', '.join(known)}.")
        found[name] = value
    return found


def to_text(report: Report) -> str:
    return json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n"
