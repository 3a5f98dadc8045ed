"""Run a learner's function beside the reference and beside every known mistake, and say which of them it is."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import torch

from kdcourse.course.exercises import progress
from kdcourse.course.exercises.calling import Result, all_same, run_all, same
from kdcourse.course.exercises.catalogue import find_exercise
from kdcourse.course.exercises.comparing import close
from kdcourse.course.exercises.exercise import Exercise, Function, Inputs, Task
from kdcourse.course.exercises.naming import known_mistake
from kdcourse.course.exercises.origins import borrowed, replaced
from kdcourse.course.exercises.showing import shown, shown_beside

RANDOM_INPUTS = 5
UNKNOWN = "Different from all the mistakes that we know."
GRADIENT_LOST = (
    "The value is right, but it has no gradient: it is not connected to the student any more, and nothing can be "
    "learned from it. Look for `detach`, `no_grad`, `item`, `numpy`, or a tensor that was made anew."
)


MARKS = {"passed": "✓", "not attempted": "…", "borrowed": "↺", "error": "!", "misconception": "✗", "different": "✗"}
COLOURS = {
    "passed": "#009E73", "not attempted": "#6B6B6B", "borrowed": "#0072B2", "error": "#D55E00",
    "misconception": "#D55E00", "different": "#D55E00",
}  # fmt: skip
SPOKEN = {
    "passed": "right", "not attempted": "not attempted", "borrowed": "borrowed", "error": "stopped",
    "misconception": "wrong", "different": "wrong",
}  # fmt: skip
IN_CODE = {"input", "yours", "ours", "your gradient", "our gradient", "right", "line"}
"""Rows whose text is a value or a line of code; the others are words."""


@dataclass(frozen=True)
class Diagnosis:
    """What became of an answer."""

    kind: str
    """"passed", "not attempted", "borrowed", "error", "misconception" or "different"."""
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
        """A box for Jupyter; the mark says the same as the colour, and a screen reader says it in a word."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align: left">{html.escape(name)}</th>'
            f'<td style="text-align: left">{_as_html(name, text)}</td></tr>'
            for name, text in self.beside
        )
        mark = f'<span role="img" aria-label="{SPOKEN[self.kind]}">{MARKS[self.kind]}</span>'
        return (
            f'<div style="border-left: 4px solid {COLOURS[self.kind]}; padding: 0.3em 0.8em">'
            f"{mark} {html.escape(self.message)}{f'<table>{rows}</table>' if rows else ''}</div>"
        )


def _as_html(name: str, text: str) -> str:
    escaped = html.escape(text)
    return f"<code>{escaped}</code>" if name in IN_CODE else escaped


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
    if name := replaced():
        said = f"In this kernel {name} is another function than its package has, so nothing can be checked. Restart it."
        return Diagnosis("error", said)
    inputs = inputs_of(exercise)
    answers = run_all(exercise, function, inputs)
    if all(answer.is_the_stub for answer in answers):
        return Diagnosis("not attempted", f"{exercise.title}: not attempted yet.")
    expected = run_all(exercise, exercise.reference, inputs)
    if all_same(answers, expected, exercise.tolerance):
        return _diagnose_on_edges(exercise, function, len(inputs))
    if known := known_mistake(exercise, inputs, answers):
        return Diagnosis("misconception", known.words, known.name)
    return _describe_difference(inputs, answers, expected, exercise)


def _diagnose_on_edges(exercise: Exercise, function: Function, tried: int) -> Diagnosis:
    """Of an answer that is right on ordinary inputs."""
    inputs = edges_of(exercise)
    answers, expected = (run_all(exercise, each, inputs) for each in (function, exercise.reference))
    if all_same(answers, expected, exercise.tolerance):
        if name := borrowed(exercise, function, exercise.examples):
            return Diagnosis("borrowed", thanks_but(name, exercise))
        return Diagnosis("passed", f"{exercise.title}: right, on {tried + len(inputs)} inputs.")
    wrong = [not same(*pair, exercise.tolerance) for pair in zip(answers, expected, strict=True)].index(True)
    found = _describe_difference(inputs, answers, expected, exercise)
    said = f"Right on ordinary inputs, but not {exercise.edges[wrong].words}."
    return replace(found, message=f"{said} {found.message.removeprefix(UNKNOWN).lstrip()}".rstrip())


def thanks_but(name: str, exercise: Task) -> str:
    """What to say of a right answer that calls what is ours, or what the text excludes."""
    if name.startswith("kdcourse."):
        return f"That is right, and it is ours: your answer calls {name}. Now write it yourself; the hints are there."
    return (
        f"That is right, and calls {name}; here the point is to do without. Read the task of {exercise.id} once more."
    )


def inputs_of(exercise: Exercise) -> list[Inputs]:
    """The fixed inputs, and a few random ones that are the same in every run."""
    return [
        *exercise.examples,
        *(exercise.random_inputs(torch.Generator().manual_seed(seed)) for seed in range(RANDOM_INPUTS)),
    ]


def edges_of(exercise: Exercise) -> list[Inputs]:
    """An input on each edge, made of a random one."""
    return [
        edge.change(*exercise.random_inputs(torch.Generator().manual_seed(RANDOM_INPUTS + place)))
        for place, edge in enumerate(exercise.edges)
    ]


def difference(exercise: Exercise, function: Function, inputs: Sequence[Inputs]) -> Diagnosis | None:
    """What an answer does otherwise than the reference on these inputs; nothing if it does the same."""
    answers, expected = (run_all(exercise, each, inputs) for each in (function, exercise.reference))
    if all_same(answers, expected, exercise.tolerance):
        return None
    return _describe_difference(inputs, answers, expected, exercise)


def _describe_difference(
    inputs: Sequence[Inputs], answers: Sequence[Result], expected: Sequence[Result], exercise: Exercise
) -> Diagnosis:
    """The smallest input on which the answer differs."""
    cases = zip(inputs, answers, expected, strict=True)
    given, answer, right = next(case for case in cases if not same(case[1], case[2], exercise.tolerance))
    before = ("input", shown(given))
    if answer.error is not None:
        where = (("line", answer.line),) if answer.line else ()
        said = f"Your function stopped with {type(answer.error).__name__}: {str(answer.error).rstrip('.')}."
        return Diagnosis("error", said, beside=(before, *where))
    if answer.changed_inputs:
        return Diagnosis(
            "error",
            "Your function changes its inputs: `x += ...`, `x[...] = ...`, `list.remove` and methods that end in an "
            "underscore do. Work on a copy (`x.clone()`, `list(x)`).",
        )
    if answer.is_nothing:
        return Diagnosis("error", "Your function gives nothing back; a `return` is missing.", beside=(before,))
    if right.error is not None:
        beside = (before, ("yours", shown(answer.values[:1])), ("ours", f"raises {type(right.error).__name__}"))
        return Diagnosis("different", "Here an error is asked for.", beside=beside)
    pairs = list(zip(answer.values, right.values, strict=True))
    yours, ours = next(pair for pair in pairs if not close(*pair, exercise.tolerance))
    if yours is answer.values[0]:
        said, names = UNKNOWN, ("yours", "ours")
    elif not yours.any():
        return Diagnosis("different", f"{UNKNOWN} {GRADIENT_LOST}", beside=(before,))
    else:
        said, names = f"{UNKNOWN} The value is right; the gradient is not.", ("your gradient", "our gradient")
    both = shown_beside(yours, ours, exercise.tolerance)
    return Diagnosis("different", said, beside=(before, *zip(names, both, strict=True)))
