"""Run a learner's function beside the reference and beside every known mistake, and say which of them it is."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch

from kdcourse.course.exercises import progress
from kdcourse.course.exercises.calling import Result, run_all
from kdcourse.course.exercises.catalogue import find_exercise
from kdcourse.course.exercises.comparing import close, is_nan, same_values
from kdcourse.course.exercises.exercise import Exercise, Function, Inputs, Misconception, Task
from kdcourse.course.exercises.showing import shown, shown_beside

RANDOM_INPUTS = 5


MARKS = {"passed": "✓", "not attempted": "…", "error": "!", "misconception": "✗", "different": "✗"}
COLOURS = {
    "passed": "#009E73", "not attempted": "#6B6B6B", "error": "#D55E00", "misconception": "#D55E00",
    "different": "#D55E00",
}  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What became of an answer."""

    kind: str
    """"passed", "not attempted", "error", "misconception" or "different"."""
    message: str
    misconception: str = ""
    beside: tuple[tuple[str, str], ...] = ()
    """What was given, what came out and what should have, each with its name."""

    @property
    def passed(self) -> bool:
        return self.kind == "passed"

    def __repr__(self) -> str:
        width = max((len(name) for name, _ in self.beside), default=0)
        lines = [f"    {name + ':':{width + 1}} {text}" for name, text in self.beside]
        return "\n".join([f"{MARKS[self.kind]} {self.message}", *lines])

    def _repr_html_(self) -> str:
        """A box for Jupyter; the mark says the same as the colour."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align: left">{html.escape(name)}</th>'
            f'<td style="text-align: left"><code>{html.escape(text)}</code></td></tr>'
            for name, text in self.beside
        )
        return (
            f'<div style="border-left: 4px solid {COLOURS[self.kind]}; padding: 0.3em 0.8em">'
            f"{MARKS[self.kind]} {html.escape(self.message)}{f'<table>{rows}</table>' if rows else ''}</div>"
        )


def check(name: str, function: Function) -> Diagnosis:
    """Check a learner's answer to the exercise `name`, and remember how it went (see `kdcourse progress`)."""
    exercise = find_exercise(name)
    diagnosis = diagnose(exercise, function)
    if said := progress.record(exercise.id, diagnosis.kind):
        print(said)
    return diagnosis


def material(name: str) -> Any:
    """What an exercise gives to work with: runs to look at, worlds to try a design in, implementations.

    Raises:
        UnknownExerciseError: there is no such exercise.
    """
    return getattr(find_exercise(name), "material", None)


def verify(name: str, solution: Function) -> None:
    """Assert that a solution passes; nothing is remembered.

    Raises:
        AssertionError: it does not, and why.
    """
    diagnosis = diagnose(find_exercise(name), solution)
    if not diagnosis.passed:
        raise AssertionError(f"The solution of {name} is not one: {diagnosis!r}")


@singledispatch
def diagnose(exercise: Task, answer: Function) -> Diagnosis:
    """Passed, not attempted, an error, a known mistake, or an unknown one; each kind of exercise has its own way."""
    raise TypeError(f"{exercise.id} is {type(exercise).__name__}, and no module says how such an answer is checked.")


@diagnose.register
def diagnose_function(exercise: Exercise, function: Function) -> Diagnosis:
    """The results of a function, beside those of the reference and of each known mistake."""
    inputs = inputs_of(exercise)
    answers = run_all(exercise, function, inputs)
    if all(answer.is_the_stub for answer in answers):
        return Diagnosis("not attempted", f"{exercise.title}: not attempted yet.")
    expected = run_all(exercise, exercise.reference, inputs)
    if all_same(answers, expected, exercise.tolerance):
        return Diagnosis("passed", f"{exercise.title}: right, on {len(inputs)} inputs.")
    if mistake := _mistake_like(answers, exercise, inputs):
        return Diagnosis("misconception", f"{mistake.signature} Read {mistake.read}.", mistake.name)
    return _describe_difference(inputs, answers, expected, exercise)


def inputs_of(exercise: Exercise) -> list[Inputs]:
    """The fixed inputs, and a few random ones that are the same in every run."""
    return [
        *exercise.examples,
        *(exercise.random_inputs(torch.Generator().manual_seed(seed)) for seed in range(RANDOM_INPUTS)),
    ]


def same(answer: Result, expected: Result, tolerance: float) -> bool:
    """Equal values, or an error of the type that is expected."""
    if answer.error is not None or expected.error is not None:
        return expected.error is not None and isinstance(answer.error, type(expected.error))
    return answer.changed_inputs == expected.changed_inputs and same_values(answer.values, expected.values, tolerance)


def all_same(answers: Sequence[Result], expected: Sequence[Result], tolerance: float) -> bool:
    return all(same(ours, theirs, tolerance) for ours, theirs in zip(answers, expected, strict=True))


def _mistake_like(answers: Sequence[Result], exercise: Exercise, inputs: Sequence[Inputs]) -> Misconception | None:
    """The mistake that gives the same as an answer; where all is NaN, only if no other mistake looks like it, too."""
    mistakes = [
        mistake
        for mistake in exercise.misconceptions
        if all_same(answers, run_all(exercise, mistake.wrong, inputs), exercise.tolerance)
    ]
    is_all_nan = all(answer.values and is_nan(answer.values[0]) for answer in answers)
    return mistakes[0] if mistakes and not (is_all_nan and len(mistakes) > 1) else None


def _describe_difference(
    inputs: Sequence[Inputs], answers: Sequence[Result], expected: Sequence[Result], exercise: Exercise
) -> Diagnosis:
    """The smallest input on which the answer differs."""
    cases = zip(inputs, answers, expected, strict=True)
    given, answer, right = next(case for case in cases if not same(case[1], case[2], exercise.tolerance))
    before = ("input", shown(given))
    if answer.error is not None:
        where = (("line", answer.line),) if answer.line else ()
        said = f"Your function stopped with {type(answer.error).__name__}: {answer.error}."
        return Diagnosis("error", said, beside=(before, *where))
    if answer.changed_inputs:
        return Diagnosis(
            "error", "Your function changes its inputs; work on a copy, or avoid the methods that end in an underscore."
        )
    if answer.is_nothing:
        return Diagnosis("error", "Your function gives nothing back; a `return` is missing.", beside=(before,))
    if right.error is not None:
        beside = (before, ("yours", shown(answer.values[:1])), ("ours", f"raises {type(right.error).__name__}"))
        return Diagnosis("different", "Here an error is asked for.", beside=beside)
    said, place = "Different from all the mistakes that we know.", 0
    if close(answer.values[0], right.values[0], exercise.tolerance):
        if len(answer.values) < len(right.values):
            said = f"{said} The value is right, but it has no gradient: nothing can be learned from it."
            return Diagnosis("different", said, beside=(before,))
        said, place = f"{said} The value is right; the gradient is not.", 1
    yours, ours = shown_beside(answer.values[place], right.values[place], exercise.tolerance)
    return Diagnosis("different", said, beside=(before, ("yours", yours), ("ours", ours)))
